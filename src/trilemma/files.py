"""Files that are either whole or absent: written beside their place, flushed, then put there in one move.

What is being written is locked by its process, and the system drops the lock when the process ends, however it ends: so
a leftover differs from a file in the making. Whether a file may be written over at all is decided in `results`.

Files of others are read within bounds: only plain files are opened (a pipe would wait for ever, a device never ends),
at most a stated number of bytes is read, and JSON has bounded depth and numbers.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, BinaryIO

from trilemma.errors import UserError

LARGEST_JSON = 16 << 20  # bytes; a config.json with the names of 100,000 classes has 2 MB
DEEPEST_JSON = 64  # lists and objects inside each other; our own files have 6

LEFTOVER = re.compile(r"\.tmp-[0-9a-f]{32}")  # the whole name of a file that is being written
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "writing is not permitted here",
    errno.EIO: "the disk failed to write (input/output error)",
}


def cache_dir() -> Path:
    """Where fetched and decoded files are kept: $TRILEMMA_CACHE, or the user's cache."""
    import pooch

    return Path(os.environ.get("TRILEMMA_CACHE") or pooch.os_cache("trilemma"))


def user_path(text: str | Path) -> Path:
    """A path as a user types it, ~ and ~NAME being home folders; where there is no such user, it stays as it is, and
    `Path.expanduser` would raise RuntimeError.

    >>> user_path("~nobody-of-that-name/a.png").as_posix()
    '~nobody-of-that-name/a.png'
    """
    return Path(os.path.expanduser(text))


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
            with _locked(temporary) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                if os.name == "nt":
                    file.close()  # an open file cannot be renamed there, nor be removed by another process
                os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    return path


def write_json(path: str | Path, obj: Any) -> Path:
    """`write_atomic` of plain values as indented JSON."""
    return write_atomic(path, json_text(obj))


def json_text(obj: Any) -> str:
    """Plain values as indented JSON; NaN and infinity, which JSON does not have, become null."""
    try:
        text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_without_nan(obj), indent=2, ensure_ascii=False, allow_nan=False)
    return text + "\n"


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
        raise UserError(f"{path} is not a plain file; delete it or replace it by a copy of the file")
    return os.fdopen(handle, "rb")


def read_plain(path: str | Path, largest: int) -> bytes:
    """The bytes of a plain file that has at most `largest` of them.

    Raises:
        UserError: it is not a plain file, or is larger.
        OSError: as `open`.
    """
    with open_plain(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise UserError(f"{path} has more than {largest:,} bytes, the most that is read of such a file")
    return content


def read_json(path: str | Path, largest: int = LARGEST_JSON, *, bits: int = 64) -> Any:
    """The content of a JSON file, with the bounds of `read_plain` and `parse_json`.

    Args:
        bits: of an integer, at most.
    Raises:
        UserError: it is not a plain file, too large, or not JSON within the bounds; the message names the file.
        OSError: as `open`.
    """
    return parse_json(read_plain(path, largest), path, bits=bits)


def parse_json(content: bytes | str, name: object = "the text", *, bits: int = 64) -> Any:
    """JSON, at most `DEEPEST_JSON` levels deep, its integers within `bits`. NaN and infinity are read as such.

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
    _check_bounds(value, name, bits)
    return value


def _check_bounds(value: Any, name: object, bits: int) -> None:
    """Refuse a value that is nested too deeply or has an integer of more than `bits`."""
    layer, depth = [value], 0
    while layer:
        depth += 1
        if depth > DEEPEST_JSON:
            raise UserError(f"{name} is not valid: it is nested more than {DEEPEST_JSON} levels deep")
        if any(type(v) is int and not -(2 ** (bits - 1)) <= v < 2**bits for v in layer):
            raise UserError(f"{name} is not valid: it has an integer of more than {bits} bits")
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
    """Remove a file if it exists and can be removed; it tidies up after errors, and raises none."""
    with suppress(OSError):
        os.unlink(path)


def lock(file: IO[Any], *, wait: bool = False, shared: bool = False) -> None:
    """Lock a file for this process until it is closed, or the process ends.

    Args:
        wait: until no other process has it locked; shared: keep out those alone that lock it for themselves, where the
            system knows the difference.
    Raises:
        OSError: another process has it locked, or the disk knows no locks.
    """
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file, by a look that takes no lock from another that looks, and that needs
    no right to write: the run may be of another user."""
    try:
        with path.open("rb") as file:
            lock(file, shared=True)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def refuse_links(*paths: Path) -> None:
    """Refuse to write where a link would lead elsewhere, or would be lost.

    Raises:
        UserError: one of the paths is a link, whether or not it leads anywhere.
    """
    for path in filter(os.path.islink, paths):
        raise UserError(f"{path} is a link, and results are not written over or through one; choose another out=")


def refuse_foreign(path: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuse to write over what exists, unless it is empty or ours.

    Raises:
        UserError: it is a link, a folder, or a file of others.
    """
    refuse_links(path)
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise UserError(f"{path} is not a plain file; choose another out=")
    if path.stat().st_size and not is_ours(path):
        what = "exists and was not written by trilemma, or was changed since"
        raise UserError(f"{path} {what}; choose another out=, or delete it")


def is_leftover(path: Path) -> bool:
    """Whether a path is a plain file with the name of a file in the making."""
    return LEFTOVER.fullmatch(path.name) is not None and path.is_file() and not path.is_symlink()


def remove_leftovers(folder: str | Path) -> None:
    """Remove the files that killed processes were writing in a folder; a living process keeps its own."""
    for path in filter(is_leftover, Path(folder).glob(".tmp-*")):
        with suppress(OSError), os.fdopen(os.open(path, os.O_RDWR | NO_LINK), "r+b") as file:
            lock(file)
            if os.name == "nt":
                file.close()  # an open file cannot be removed there
            os.unlink(path)


def scratch_of(path: Path) -> Path:
    """Where a process writes or removes something, in a folder that it has locked, before or after it has its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_scratch(folder: Path, names: str) -> None:
    """Remove what killed processes left of `scratch_of`; only for a folder that this process has locked.

    Args:
        names: a regular expression of the final names.
    """
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(rf"\.(?:{names})\.[0-9]+\.tmp", path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else remove(path)


def _locked(path: Path) -> BinaryIO:
    """A new file, locked."""
    while True:
        file = path.open("xb")
        with suppress(OSError):  # the disk knows no locks: then nobody takes it for a leftover
            lock(file, wait=True)
        if path.exists():  # else another process took it for a leftover before it was locked
            return file
        file.close()


def _free(path: str | Path) -> str:
    """Free bytes of the disk that would hold `path`, in words."""
    path = Path(path).absolute()
    existing = next((p for p in path.parents if p.exists()), path)
    try:
        return f"{shutil.disk_usage(existing).free:,} bytes free"
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
