"""The idx files of MNIST and its relatives, given by the path of the images; labels and test images lie beside them.

The format: a big-endian header (0, 0, type 8 = uint8, number of axes, then each axis as 32 bits), then the bytes.
They are held in memory; a file that states more of them than memory allows is refused before they are read.
"""

import gzip
import hashlib
import math
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from trilemma.data.decoding.limits import memory_limit
from trilemma.data.decoding.unpack import ERRORS, check_unpacked
from trilemma.data.options import Options
from trilemma.data.sources.arrays import data_of
from trilemma.data.split import Data
from trilemma.errors import UserError
from trilemma.files import open_plain

NAME = re.compile(r"(idx\d?[-.]?ubyte|\.idx\d?)(\.gz)?$", re.IGNORECASE)
HELD = 2**28  # bytes that are held in memory in any case
BLOCK = 2**22  # bytes read at a time: room for as many as asked for is taken at once
TRAIN, TESTS = "train", ("t10k", "test")


def load_idx(path: Path, name: str, source: str, options: Options) -> Data:
    """Images of an idx file (N, H, W), with their labels and the test images if those lie beside it.

    Raises:
        UserError: a file is broken or does not fit the others.
    """
    tests = [path.with_name(path.name.replace(TRAIN, word, 1)) for word in TESTS if TRAIN in path.name]
    test = next((file for file in tests if file.is_file()), None)
    files = {"train": path} | ({"test": test} if test else {})
    arrays, notes = {}, ["read from " + ", ".join(file.name for file in files.values())]
    for split, file in files.items():
        images = _images(file)
        labels = _labels(file, len(images))
        arrays[f"images_{split}"] = images.numpy()
        if isinstance(labels, str):
            notes.append(labels)
        elif labels is not None:
            arrays[f"labels_{split}"] = labels.numpy()
    return data_of(arrays, name, source, options, notes)


def read_idx(path: Path, sha256: str | None = None, advice: str = "make or fetch it again") -> Tensor:
    """An idx file of bytes, plain or .gz, as a uint8 tensor of the axes that its header names.

    Raises:
        UserError: it is truncated, has another header, or another SHA-256 of the decompressed bytes.
    """
    try:
        with open_plain(path) as packed, gzip.GzipFile(fileobj=packed) if path.suffix == ".gz" else packed as file:
            head, shape = _header(file)
            _check_size(path, math.prod(shape))
            values = _read(file, math.prod(shape) + 1)
    except UserError:
        raise
    except ERRORS as error:
        raise UserError(f"{path} cannot be read: {error}; {advice}") from error
    if sha256 and (actual := _sha256(head, values)) != sha256:
        raise UserError(f"{path} is not the published file: SHA-256 {actual} instead of {sha256}; {advice}")
    if not head or len(values) != math.prod(shape):
        raise UserError(
            f"{path} is not a whole idx file of bytes (axes {shape}, {len(values):,} bytes after them); {advice}"
        )
    return torch.from_numpy(np.frombuffer(values, np.uint8).reshape(shape))


def _header(file: BinaryIO | gzip.GzipFile) -> tuple[bytes, list[int]]:
    """The header of an idx file of bytes and the axes it names; nothing of another file."""
    head = file.read(4)
    if len(head) < 4 or head[:3] != b"\0\0\x08":
        return b"", []
    sizes = file.read(4 * head[3])
    return (head + sizes, np.frombuffer(sizes, ">u4").tolist()) if len(sizes) == 4 * head[3] else (b"", [])


def _check_size(path: Path, count: int) -> None:
    """Raises UserError if an idx file states more bytes than are held in memory."""
    check_unpacked(path, count)
    if count > (most := max(HELD, memory_limit())):
        raise UserError(
            f"{path} holds {count:,} bytes, more than the {most:,} that memory allows; save the images as .npy, "
            "which is read in pieces, or set TRILEMMA_MEMORY to more bytes"
        )


def _read(file: BinaryIO | gzip.GzipFile, most: int) -> bytearray:
    """What follows in a file, at most so many bytes."""
    content = bytearray()
    while len(content) < most and (block := file.read(min(BLOCK, most - len(content)))):
        content += block
    return content


def _sha256(*parts: bytes | bytearray) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _images(path: Path) -> Tensor:
    """uint8 (N, H, W)."""
    images = read_idx(path)
    if images.ndim != 3 or not images.numel():
        raise UserError(f"{path} holds axes {tuple(images.shape)}; images have three: number, height, width")
    return images


def _labels(path: Path, n: int) -> Tensor | str | None:
    """int64 (N,), from the file whose name has "labels" and "idx1" for "images" and "idx3", if it exists; or why
    it cannot be used."""
    name = path.name.replace("images", "labels", 1).replace("idx3", "idx1", 1)
    beside = [path.with_name(word) for word in (name, name.removesuffix(".gz"), f"{name}.gz") if word != path.name]
    file = next((file for file in beside if file.is_file()), None)
    if file is None:
        return None
    try:
        labels = read_idx(file)
    except UserError as error:
        return f"labels not used: {error}"
    if labels.shape != (n,):
        return f"labels not used: {file} holds axes {tuple(labels.shape)} for {n:,} images; one each is needed"
    return labels.long()
