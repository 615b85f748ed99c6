"""Files that are either whole or absent: written beside their place, flushed, then put there in one move.

Files of others are read within bounds: only plain files are opened (a pipe would wait for ever, a device never ends),
at most a stated number of bytes is read, and JSON has bounded depth and numbers.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from trilemma.errors import UserError

LARGEST_JSON = 64 << 20  # bytes; a log of 100,000 rows has about 30 MB
DEEPEST_JSON = 64  # lists and objects inside each other; our own files have 6

DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "writing is not permitted here",
    errno.EIO: "the disk failed to write (input/output error)",
}


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write a whole file, or leave what was there before untouched; missing folders are made.

    Raises:
        UserError: the disk is full or read-only, with the path and the needed and the free bytes.
    """
    path, content = Path(path), data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        with disk_errors(path, len(content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    return path


def write_json(path: str | Path, obj: Any) -> Path:
    """`write_atomic` of plain values as indented JSON; NaN and infinity, which JSON does not have, become null."""
    try:
        text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_without_nan(obj), indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomic(path, text + "\n")


def _without_nan(value: Any) -> Any:
    """Plain values with None for each number that is not finite."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def open_plain(path: str | Path) -> BufferedReader:
    """Open a plain file to read its bytes, never a pipe, a device or a folder, also behind a link.

    Raises:
        UserError: it is something else.
        OSError: as `open`.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"{path} is not a plain file; remove it or replace it by a copy of the file")
    return os.fdopen(handle, "rb")


def read_plain(path: str | Path, largest: int) -> bytes:
    """The bytes of a plain file that has at most `largest` of them.

    Raises:
        UserError: it is no plain file, or is larger.
        OSError: as `open`.
    """
    with open_plain(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise UserError(f"{path} has more than {largest:,} bytes, the most that is read of such a file")
    return content


def read_json(path: str | Path, largest: int = LARGEST_JSON) -> Any:
    """The content of a JSON file, with the bounds of `read_plain` and `parse_json`.

    Raises:
        UserError: it is no plain file, too large, or not JSON within the bounds; the message names the file.
        OSError: as `open`.
    """
    return parse_json(read_plain(path, largest), path)


def parse_json(content: bytes | str, name: object = "the text") -> Any:
    """JSON, at most `DEEPEST_JSON` levels deep, its integers within 64 bits. NaN and infinity are read as such.

    Args:
        name: what the text is called in the message.
    Raises:
        UserError: it is not UTF-8, not JSON, or beyond the bounds.

    >>> parse_json('{"n": [1, 2.5]}')
    {'n': [1, 2.5]}
    """
    try:
        value = json.loads(content.decode("utf-8-sig") if isinstance(content, bytes) else content)
    except RecursionError:
        raise UserError(f"{name} is not valid: it is nested more than {DEEPEST_JSON} levels deep") from None
    except ValueError as error:
        raise UserError(f"{name} is not valid JSON: {error}") from None
    _check_bounds(value, name)
    return value


def _check_bounds(value: Any, name: object) -> None:
    """Refuse a value that is nested too deeply or has an integer of more than 64 bits."""
    layer, depth = [value], 0
    while layer:
        depth += 1
        if depth > DEEPEST_JSON:
            raise UserError(f"{name} is not valid: it is nested more than {DEEPEST_JSON} levels deep")
        if any(type(v) is int and not -(2**63) <= v < 2**64 for v in layer):
            raise UserError(f"{name} is not valid: it has an integer of more than 64 bits")
        layer = [
            inner for v in layer if isinstance(v, dict | list) for inner in (v.values() if isinstance(v, dict) else v)
        ]


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a plain file's bytes, in hex; errors as `open_plain`."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def disk_errors(path: str | Path, needed: int | None = None) -> Iterator[None]:
    """Inside, an error of the disk becomes a UserError with the path, the needed and the free bytes."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        need = "" if needed is None else f" {needed:,} bytes needed,"
        what = "look after the disk" if error.errno == errno.EIO else "make room"
        raise UserError(
            f"cannot write {path}: {DISK[error.errno]};{need} {_free(path)}; {what} or choose another folder"
        ) from error


def remove(path: str | Path) -> None:
    """Remove a file if it is there and can be removed; used to tidy up after an error, so it raises none."""
    with suppress(OSError):
        os.unlink(path)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what a killed process was writing here, or removing; only for a folder that nobody else writes to."""
    for leftover in (*Path(folder).glob(".tmp-*"), *Path(folder).glob(".*.tmp")):
        shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else remove(leftover)


def _free(path: str | Path) -> str:
    """Free bytes of the disk that would hold `path`, in words."""
    path = Path(path).absolute()
    here = next((p for p in path.parents if p.exists()), path)
    try:
        return f"{shutil.disk_usage(here).free:,} bytes free"
    except OSError:
        return "free space unknown"


def sync_folder(path: str | Path) -> None:
    """Flush a folder's entries (a rename in it) to the disk, where the system can do that."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
