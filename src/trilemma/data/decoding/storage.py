"""Where decoded images lie: in memory, or in a file of plain bytes that is mapped and read as it is needed.

A mapped file costs no memory of the process: its pages belong to the system, which drops them when others need room.
"""

import ctypes
import mmap
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from trilemma.data.decoding.drafts import Draft, remove_left_over, sampled, seal
from trilemma.errors import UserError
from trilemma.files import disk_errors, remove

BLOCK = 2**22  # bytes handled at a time
SPARE = 2**28  # bytes of the disk that are left free


def create(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A new file for a uint8 tensor of that shape, with its room on the disk reserved; what is written goes into it.

    Raises:
        UserError: the disk has too little room.
    """
    count = int(np.prod(shape))
    with disk_errors(path, count):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(path)
        with open(path, "x+b") as file:
            return _reserved(file, shape)


def nameless(shape: tuple[int, ...]) -> Tensor:
    """As `create`, in a file without a name among the system's temporary ones, which goes with the tensor.

    Raises:
        UserError: that disk has too little room too.
    """
    count, folder = int(np.prod(shape)), Path(tempfile.gettempdir())
    if not room_for(folder, count):
        raise UserError(f"neither the cache nor {folder} has room for {count:,} bytes")
    with disk_errors(folder, count), tempfile.TemporaryFile() as file:
        return _reserved(file, shape)


def _reserved(file: IO[bytes], shape: tuple[int, ...]) -> Tensor:
    """An empty file as a tensor, with its room on the disk reserved."""
    count = int(np.prod(shape))
    if not count:
        return torch.empty(shape, dtype=torch.uint8)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, count)  # else a full disk would end the process in mid-writing
    else:
        file.truncate(count)
    return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=shape))  # pyright: ignore


def room_for(folder: Path, count: int) -> bool:
    """Whether the disk that would hold `folder` has room for that many bytes."""
    existing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("/"))
    try:
        return shutil.disk_usage(existing).free >= count + SPARE
    except OSError:
        return False


def mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A file of bytes as a uint8 tensor that must not be written to."""
    if not np.prod(shape):
        return torch.empty(shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has no tensors that refuse writing
        return torch.from_numpy(np.memmap(path, np.uint8, "r", shape=shape))


def let_go(images: Tensor) -> None:
    """Take the pages of a mapped file out of the memory of this process; the system may keep them for the next reader.

    Only for what `mapped` made: any other memory would lose its content.
    """
    with suppress(AttributeError, OSError, TypeError):  # where the system has no such call
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(images.data_ptr()), ctypes.c_size_t(images.numel()), mmap.MADV_DONTNEED
        )


def load_rows(images: Tensor, index: Tensor) -> Tensor:
    """Rows `index` of what `mapped` made, in memory; at no time are both there as a whole."""
    out = torch.empty((len(index), *images.shape[1:]), dtype=images.dtype)
    for part, numbers in zip(out.split(step := _step(images)), index.split(step), strict=True):
        torch.index_select(images, 0, numbers, out=part)
        let_go(images)
    return out


def gather(images: Tensor, index: Tensor, path: Path | None) -> Tensor:
    """Rows `index` of the images as a mapped file at `path`, which is taken as it is where it holds them.

    Where None is given or that file cannot be written, it has no name and goes with the tensor.
    """
    first, count = int(index[0]) if len(index) else 0, len(index)
    if torch.equal(index, torch.arange(first, first + count)):
        return images[first : first + count]
    if path is not None:
        with suppress(OSError, UserError):
            if not _holds(path, images, index):
                _write_rows(path, images, index)
            return mapped(path, (count, *images.shape[1:]))
    return _fill(nameless((count, *images.shape[1:])), images, index)


def _holds(path: Path, images: Tensor, index: Tensor) -> bool:
    """Whether a file holds rows `index` of the images."""
    shape = (len(index), *images.shape[1:])
    if not path.exists() or path.stat().st_size != int(np.prod(shape)):
        return False
    rows, places = mapped(path, shape), torch.tensor(sampled(path, len(index), images[0].numel()))
    same = all(torch.equal(rows[k], images[index[k]]) for k in places.split(_step(images)))
    if same and len(places) == len(index):
        with suppress(OSError):
            seal(path)
    return same


def _write_rows(path: Path, images: Tensor, index: Tensor) -> None:
    """Write rows `index` of the images, whole or not at all."""
    count = len(index) * images[0].numel()
    remove_left_over(path.parent)
    if not room_for(path.parent, count):
        raise UserError(f"{path.parent} has no room for another {count:,} bytes of decoded images")
    with Draft(path.parent) as draft, disk_errors(path, count):
        _fill(create(draft.path / path.name, (len(index), *images.shape[1:])), images, index)
        seal(draft.path / path.name)
        os.replace(draft.path / path.name, path)


def _fill(out: Tensor, images: Tensor, index: Tensor) -> Tensor:
    """Copy rows `index` of the images."""
    at = 0
    for rows in blocks(images, index):
        out[at : at + len(rows)] = rows
        at += len(rows)
    return out


def blocks(images: Tensor, index: Tensor | None = None) -> Iterator[Tensor]:
    """The images (those numbered `index`, where given) in order, some megabytes at a time."""
    step = _step(images)
    for at in range(0, len(images) if index is None else len(index), step):
        yield images[at : at + step] if index is None else images[index[at : at + step]]


def _step(images: Tensor) -> int:
    """Images of BLOCK bytes."""
    return max(1, BLOCK // max(1, images[0].numel() if len(images) else 1))
