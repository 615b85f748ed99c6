"""Where decoded images lie: in memory, or in a file of plain bytes that is mapped and read as it is needed.

A mapped file costs no memory of the process: its pages belong to the system, which drops them when others need room.

What is being made lies in a draft, a folder .tmp-... whose file `lock` its process holds (flock): the system lets go of
it when the process ends, however it ends and wherever it runs, so that others may remove what is left. What is finished
is sealed: its time of change is set to SEAL, and any later change sets another.
"""

import ctypes
import mmap
import os
import random
import shutil
import tempfile
import time
import uuid
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.files import disk_errors, read_plain, remove, write_atomic
from trilemma.hardware import memory_bytes

BLOCK = 2**22  # bytes handled at a time
SPARE = 2**28  # bytes of the disk that are left free
PER_ITEM = 2**11  # bytes of memory that an image takes beside its pixels: its name, place, class and caption
FEWEST = 2**17  # images that a source may have in any case
PREFIX, LOCK = ".tmp-", "lock"
DAY_S = 86_400
SEAL = 10**18  # ns, in 2001
SAMPLED = 2**22  # bytes of a sealed file that are looked at when it is opened
LONGEST = 2**32  # bytes of a text in the cache


def memory_limit() -> int:
    """Bytes of decoded images that are kept in memory: $TRILEMMA_MEMORY, else half of what is free."""
    own = os.environ.get("TRILEMMA_MEMORY")
    if own is not None:
        if not own.isdecimal():
            raise UserError(f"TRILEMMA_MEMORY={own}: give a number of bytes, for instance 1000000000")
        return int(own)
    return min(_available(), _group_limit()) // 2


def most_items() -> int:
    """How many images, or files, a source may have."""
    return max(FEWEST, memory_limit() // PER_ITEM)


def check_count(count: int, most: int | None = None) -> None:
    """Raises UserError where a source has more images, or files, than it may."""
    if count > (most := most_items() if most is None else most):
        raise UserError(
            f"the source has more than {most:,} images or files, the most that memory is given for; give a part of it, "
            "or set TRILEMMA_MEMORY to more bytes"
        )


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


class Draft:
    """A new folder for what is being made; it goes when it is closed, and no other process removes it before.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.path = parent / f"{PREFIX}{uuid.uuid4().hex}"
            self.path.mkdir()
            with suppress(FileNotFoundError):
                self._lock = open(self.path / LOCK, "ab")  # noqa: SIM115
                if _locked(self._lock) is not False and (self.path / LOCK).exists():
                    return
                self._lock.close()  # another process took it for left over before it was locked

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove it, with what still lies in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _locked(file: IO[bytes]) -> bool | None:
    """Whether this process holds the lock of a file from now until it is closed; None where there are no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def remove_left_over(folder: Path) -> None:
    """Remove the drafts in a folder that no process works on any more; where there are no locks, after a day."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError), open(path / LOCK, "ab") as file:
            ours = _locked(file)
            if ours or (ours is None and time.time() - path.stat().st_mtime > DAY_S):
                shutil.rmtree(path, ignore_errors=True)


def write_checked(path: Path, text: str) -> None:
    """Write a text after a line with its checksum, whole or not at all."""
    content = text.encode()
    with Draft(path.parent) as draft:
        write_atomic(draft.path / path.name, b"%08x\n" % zlib.crc32(content) + content)
        os.replace(draft.path / path.name, path)


def read_checked(path: Path) -> str:
    """What `write_checked` wrote.

    Raises:
        ValueError: it is damaged.
        OSError: it is not there.
    """
    head, _, content = read_plain(path, LONGEST).partition(b"\n")
    if head != b"%08x" % zlib.crc32(content):
        raise ValueError(f"{path} is damaged")
    return content.decode()


def seal(path: Path) -> None:
    """Flush a finished file to the disk and set its time of change to SEAL."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())  # of what is mapped too: else a crash could leave a file of the right length
    os.utime(path, ns=(SEAL, SEAL))


def sampled(path: Path, count: int, row: int) -> list[int]:
    """Which of the rows of a file to look at before it is used: some of a sealed one, else all.

    Args:
        count: of the rows; row: bytes of each.
    """
    few = max(1, SAMPLED // max(1, row))
    if path.stat().st_mtime_ns != SEAL or count <= few:
        return list(range(count))
    return sorted(random.Random().sample(range(count), few))  # others each time


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
