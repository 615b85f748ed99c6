"""Files that are either whole or absent: written beside their place, flushed, then put there in one move."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trilemma.errors import UserError

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
    """`write_atomic` of plain values as indented JSON."""
    return write_atomic(path, json.dumps(obj, indent=2, ensure_ascii=False) + "\n")


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
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
