"""Where decoded images lie: in memory, or in a file of plain bytes that is mapped and read as it is needed.

A mapped file costs no memory of the process: its pages belong to the system, which drops them when others need room.
"""

import ctypes
import mmap
import os
import shutil
import socket
import uuid
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.files import disk_errors, remove
from trilemma.hardware import memory_bytes

BLOCK = 2**22  # bytes handled at a time
SPARE = 2**28  # bytes of the disk that are left free


def memory_limit() -> int:
    """Bytes of decoded images that are kept in memory: $TRILEMMA_MEMORY, else half of what is free."""
    own = os.environ.get("TRILEMMA_MEMORY")
    if own is not None:
        if not own.isdecimal():
            raise UserError(f"TRILEMMA_MEMORY={own}: give a number of bytes, for instance 1000000000")
        return int(own)
    return min(_available(), _group_limit()) // 2


def create(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A new file for a uint8 tensor of that shape, with its room on the disk reserved; what is written goes into it.

    Raises:
        UserError: the disk has too little room.
    """
    count = int(np.prod(shape))
    with disk_errors(path, count):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(path)
        with open(path, "xb") as file:
            if hasattr(os, "posix_fallocate") and count:
                os.posix_fallocate(file.fileno(), 0, count)  # else a full disk would end the process in mid-writing
            else:
                file.truncate(count)
        return torch.from_numpy(np.memmap(path, np.uint8, "r+", shape=shape))


def room_for(folder: Path, count: int) -> bool:
    """Whether the disk that would hold `folder` has room for that many bytes."""
    here = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("/"))
    try:
        return shutil.disk_usage(here).free >= count + SPARE
    except OSError:
        return False


def mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A file of bytes as a uint8 tensor that must not be written to."""
    if not np.prod(shape):
        return torch.empty(shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has no tensors that refuse writing
        return torch.from_numpy(np.memmap(path, np.uint8, "r", shape=shape))


def temporary(folder: Path) -> Path:
    """A name in a folder for what is being written, which tells whose it is: .tmp-HOST-PROCESS-..."""
    return folder / f"{_host()}{os.getpid()}-{uuid.uuid4().hex}"


def left_over(path: Path) -> bool:
    """Whether this was being written by a process of this machine that is no more."""
    owner = path.name.removeprefix(_host()).partition("-")[0]
    if path.name.startswith(_host()) and owner.isdecimal():
        try:
            os.kill(int(owner), 0)  # asks only
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):  # it is another user's
            return False
    return False


def _host() -> str:
    return f".tmp-{socket.gethostname()}-"


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


def gather(images: Tensor, index: Tensor, path: Path) -> Tensor:
    """Rows `index` of the images as a mapped file at `path`; a file that is there is taken as it is."""
    first, count = int(index[0]) if len(index) else 0, len(index)
    if torch.equal(index, torch.arange(first, first + count)):
        return images[first : first + count]
    shape = (count, *images.shape[1:])
    if not path.exists() or path.stat().st_size != int(np.prod(shape)):
        for old in filter(left_over, path.parent.glob(".tmp-*")):
            remove(old)
        new = temporary(path.parent)
        try:
            if not room_for(path.parent, int(np.prod(shape))):
                raise UserError(
                    f"{path.parent} has no room for another {int(np.prod(shape)):,} bytes of decoded images; "
                    "make room, or set TRILEMMA_CACHE to a folder on another disk"
                )
            out, at = create(new, shape), 0
            for rows in blocks(images, index):
                out[at : at + len(rows)] = rows
                at += len(rows)
            with disk_errors(path, out.numel()), open(new, "r+b") as file:
                os.fsync(file.fileno())  # of what is mapped too: else a crash could leave a file of the right length
            os.replace(new, path)
        except BaseException:
            remove(new)
            raise
    return mapped(path, shape)


def blocks(images: Tensor, index: Tensor | None = None) -> Iterator[Tensor]:
    """The images (those numbered `index`, where given) in order, some megabytes at a time."""
    step = _step(images)
    for at in range(0, len(images) if index is None else len(index), step):
        yield images[at : at + step] if index is None else images[index[at : at + step]]


def _step(images: Tensor) -> int:
    """Images of BLOCK bytes."""
    return max(1, BLOCK // max(1, images[0].numel() if len(images) else 1))


def _available() -> int:
    """Free main memory of the machine."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return memory_bytes() or 2**32


def _group_limit() -> int:
    """What a container's limit leaves, where there is one."""
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{word}").read_text().strip() for word in ("max", "current"))
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return 2**63
