"""Fetching a published file once: with progress, resumed where it broke, checked, and put in its place in one move.

The bytes gather in NAME.part beside the target. A broken connection is taken up again with "Range: bytes=N-" (RFC 9110,
section 14); what could not be finished stays for the next call. A file that fails its check is removed.
"""

import gzip
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trilemma.errors import UserError
from trilemma.files import disk_errors, remove
from trilemma.text import note

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known
BLOCK = 2**18  # bytes
TIMEOUT_S = 30.0  # without a single byte
LIMIT_S = 3600.0  # for the whole file
TRIES = 3  # connections in a row that may bring nothing
PAUSE_S = 0.5  # before the next connection, times the failures so far


def download(
    url: str,
    path: Path,
    *,
    check: Callable[[Path], None] | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
    timeout_s: float = TIMEOUT_S,
    limit_s: float = LIMIT_S,
    tries: int = TRIES,
    progress: Progress | None = None,
) -> Path:
    """Fetch `url` to `path`, unless that exists.

    Args:
        check: raises if the file is not the right one; it is then removed.
        headers: of the request; to another host, to which it is redirected, they are not sent.
        timeout_s: the longest silence; limit_s: the longest time altogether.
        tries: connections in a row that may fail without bringing anything.
        progress: is given the bytes so far and in all (default: a line on the screen).
    Raises:
        UserError: the host can't be reached, is too slow, or sends something else; the disk is full.
    """
    if path.exists():
        return path
    part, end, failed = part_of(path), time.monotonic() + limit_s, 0
    progress = progress or _Line(url, path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            before = _length(part)
            try:
                if _fetch(url, headers, part, timeout_s, end, progress):
                    break
                reason = "the connection broke"
            except urllib.error.HTTPError as error:
                reason = f"the host answers {error.code} {error.reason}"
                failed = tries if error.code < 500 else failed  # asking again will not help
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                reason = str(getattr(error, "reason", None) or error or type(error).__name__)
            failed = 0 if _length(part) > before else failed + 1
            if failed >= tries or time.monotonic() > end:
                late = f"not done within {limit_s:g} s; " if time.monotonic() > end else ""
                raise UserError(
                    f"cannot fetch {url}: {late}{reason}; check the connection and try again "
                    f"(it resumes at {_length(part):,} bytes), or put the file at {path}"
                )
            time.sleep(PAUSE_S * failed)
        _accept(url, part, path, check)
    return path


def part_of(path: Path) -> Path:
    """Where the bytes of a file gather that is not complete."""
    return path.with_name(f"{path.name}.part")


def check_hash(expected: str, algorithm: str = "sha256", *, decompress: bool = True) -> Callable[[Path], None]:
    """A check of the decompressed bytes of a .gz file, or of the bytes of a file as it is."""

    def check(path: Path) -> None:
        try:
            with gzip.open(path) if decompress else open(path, "rb") as file:
                actual = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"not a whole compressed file ({error})") from error
        except OSError as error:
            raise UserError(f"it cannot be read ({error})") from error
        if actual != expected:
            raise UserError(f"{algorithm} {actual} instead of {expected}")

    return check


def _fetch(url: str, headers: Mapping[str, str], part: Path, timeout_s: float, end: float, progress: Progress) -> bool:
    """One connection: adds to `part` what is received; True if the file is complete."""
    have = _length(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    try:
        answer = urllib.request.build_opener(_KeepsHeadersOnHost).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing lies beyond what we have
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return True
        remove(part)
        raise ConnectionError("the part here belongs to another file") from error
    with answer:
        have = have if answer.status == 206 else 0  # 200: the whole file from its first byte
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with open(part, "r+b" if have else "wb") as file:
            file.seek(have)
            while (total is None or have < total) and (block := answer.read1(BLOCK)):  # without waiting for more
                file.write(block)
                have += len(block)
                progress(have, total)
                if time.monotonic() > end:
                    raise TimeoutError("too slow")
            file.flush()
            os.fsync(file.fileno())
    return total is None or have == total


class _KeepsHeadersOnHost(urllib.request.HTTPRedirectHandler):
    """A redirection within a host keeps all headers of the request, also those that no other host may see."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request that follows."""
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and (following.type, following.host) == (req.type, req.host):
            for name, value in req.unredirected_hdrs.items():
                following.add_unredirected_header(name, value)
        return following


def _accept(url: str, part: Path, path: Path, check: Callable[[Path], None] | None) -> None:
    """Check the whole file and put it in its place; a wrong one is removed."""
    try:
        if check:
            check(part)
    except UserError as error:
        remove(part)
        raise UserError(f"{url} is not the file it should be: {error}; nothing was kept; try again later") from error
    os.replace(part, path)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _Line:
    """Progress on stderr: a line that is rewritten on a terminal, else a line a minute."""

    def __init__(self, url: str, path: Path) -> None:
        self.live = sys.stderr.isatty()
        self.pause_s, self.last = (0.2 if self.live else 60.0), time.monotonic()
        note(f"downloading {url} to {path}")

    def __call__(self, received: int, total: int | None) -> None:
        if received != total and time.monotonic() - self.last < self.pause_s:
            return
        self.last = time.monotonic()
        text = f"{received / 1e6:.1f} MB" + (f" of {total / 1e6:.1f} MB" if total else "")
        print(f"\r{text}" if self.live else text, end="" if self.live and received != total else "\n", file=sys.stderr)
