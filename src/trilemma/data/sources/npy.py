"""The arrays of .npz and .npy files; nothing is ever unpickled.

The shape that a header states is compared with the bytes of the file before room is made for it. `mapped_arrays` reads
no array as a whole: those of a .npz are unpacked in the cache.
"""

import io
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from trilemma.data.decoding.drafts import Draft
from trilemma.data.decoding.storage import BLOCK, room_for
from trilemma.data.decoding.unpack import ERRORS, check_unpacked
from trilemma.errors import UserError
from trilemma.files import cache_dir, open_plain

HEAD_LIMIT = 2**13  # bytes of an .npy file in which its header ends; the header of images has 128
MAGIC = b"\x93NUMPY"
HEADERS: dict[tuple[int, ...], Callable[[IO[bytes]], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_array(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped: it may be larger than memory.

    Raises:
        UserError: the file is broken, or holds something other than an array of plain numbers or text.
    """
    with _whole(path, "a plain array (np.save)"), open_plain(path) as file:
        return _load(file, path, os.fstat(file.fileno()).st_size)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file by key; never unpickles."""
    with _whole(path), open_plain(path) as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return {"images": _load(file, file, path.stat().st_size)}
        arrays = {}
        with zipfile.ZipFile(file) as archive:
            for key, info in _members(archive).items():
                with archive.open(info) as member:
                    arrays[key] = _load_member(member, member, info.file_size)
        return arrays


def bytes_of(path: Path) -> int:
    """Bytes of all arrays of the file."""
    with _whole(path), open_plain(path) as file:
        if not zipfile.is_zipfile(file):
            return path.stat().st_size
        with zipfile.ZipFile(file) as archive:
            count = sum(info.file_size for info in archive.infolist())
        check_unpacked(path, count)
        return count


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members of a .npz by key; what is packed in another way than by numpy would be unpacked without a bound."""
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise ValueError(f"{info.filename} is encrypted, or not packed as np.savez_compressed packs")
    return {info.filename.removesuffix(".npy").lower(): info for info in archive.infolist()}


class NotPlain(ValueError):
    """Not an array of plain numbers or text."""


def _load_member(file: IO[bytes], source: IO[bytes] | Path, length: int) -> np.ndarray:
    """As `_load`, with an empty array of objects for what is not plain: it may stand beside the images."""
    try:
        return _load(file, source, length)
    except NotPlain:
        return np.empty(0, object)


def _load(file: IO[bytes], source: IO[bytes] | Path, length: int) -> np.ndarray:
    """An array; it is never unpickled.

    Args:
        file: of `length` bytes, from which the header is read; source: what is loaded, mapped if it is a path.
    Raises:
        NotPlain: it is not an array, or one of Python objects.
        ValueError: the header is too long, or states more than the file has.
    """
    head = io.BytesIO(file.read(HEAD_LIMIT))
    file.seek(0)
    version = tuple(head.getvalue()[len(MAGIC) : len(MAGIC) + 2])
    if not head.getvalue().startswith(MAGIC) or version not in HEADERS:
        raise NotPlain("it is not an array")
    head.seek(len(MAGIC) + 2)
    shape, _, kind = HEADERS[version](head)
    if kind.hasobject:
        raise NotPlain("it holds Python objects")
    stated, present = math.prod(shape) * max(1, kind.itemsize), length - head.tell()
    if stated > present:
        raise ValueError(f"its header states {stated:,} bytes, shape {shape} of {kind}, but it has {present:,}")
    return np.load(source, mmap_mode="r" if isinstance(source, Path) else None, allow_pickle=False)


@contextmanager
def mapped_arrays(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """As `read_arrays`, with arrays that lie in files while they are used."""
    with ExitStack() as stack:
        with _whole(path):
            packed = zipfile.is_zipfile(path)
            arrays = {}
            for key, place in (_unpacked(path, _folder(stack)) if packed else {"images": path}).items():
                with open_plain(place) as file:
                    arrays[key] = (_load_member if packed else _load)(file, place, place.stat().st_size)
        yield arrays


def _folder(stack: ExitStack) -> Path:
    """A folder until the stack ends: in the cache, or among the system's temporary ones."""
    try:
        return stack.enter_context(Draft(cache_dir() / "decoded")).path
    except OSError:
        return Path(stack.enter_context(tempfile.TemporaryDirectory()))


def _unpacked(path: Path, folder: Path) -> dict[str, Path]:
    """The members of a .npz, each in a file in that folder."""
    with zipfile.ZipFile(path) as archive:
        if not room_for(folder, sum(info.file_size for info in archive.infolist())):
            raise UserError(f"{folder.parent} has no room to unpack {path}; make room, or set TRILEMMA_CACHE")
        files = {}
        for k, (key, info) in enumerate(_members(archive).items()):
            files[key] = folder / f"{k}.npy"
            with archive.open(info) as member, open(folder / f"{k}.npy", "wb") as file:
                shutil.copyfileobj(member, file, BLOCK)
    return files


@contextmanager
def _whole(path: Path, content: str = "plain arrays (np.savez, np.save)") -> Iterator[None]:
    """Inside, what is wrong with the file becomes a UserError, which says what its content must be."""
    try:
        yield
    except UserError:
        raise
    except (*ERRORS, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}; it must hold {content}") from error
