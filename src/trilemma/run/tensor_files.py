"""Named tensors written to safetensors files, flushed to the disk."""

import errno
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from trilemma.files import disk_errors, remove, scratch_of
from trilemma.run.state import Tensors


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Tensors to one safetensors file, beside its final name first, flushed and renamed."""
    scratch = scratch_of(path)
    with disk_errors(path, size_bytes(tensors)), removed_on_error(scratch):
        save_tensors(tensors, scratch)
        scratch.replace(path)


def save_tensors(tensors: Tensors, path: Path) -> None:
    """A safetensors file, flushed to the disk.

    Raises:
        MemoryError: also where the system says so in its own way.
    """
    try:
        _write(tensors, path)
        path.chmod(0o644)  # safetensors leaves it to the owner alone
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(str(error)) from error
        raise


def _write(tensors: Tensors, path: Path) -> None:
    try:
        save_file(_apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}), path)
    except SafetensorError as error:  # it hides the system's error in its text
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error)) from error


def _apart(tensors: Tensors) -> dict[str, Tensor]:
    """The same tensors, each in memory of its own, as the format asks: tied weights become copies of each other."""
    places = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    return {
        name: tensor if places[tensor.untyped_storage().data_ptr()] == 1 else tensor.clone()
        for name, tensor in tensors.items()
    }


@contextmanager
def removed_on_error(scratch: Path) -> Iterator[None]:
    """Inside, an error removes what was written so far, before the free space is measured."""
    try:
        yield
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True) if scratch.is_dir() else remove(scratch)
        raise


def size_bytes(tensors: Tensors) -> int:
    """Of the numbers of all tensors."""
    return sum(tensor.nbytes for tensor in tensors.values())
