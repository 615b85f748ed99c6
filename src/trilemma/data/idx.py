"""The idx files of MNIST and its relatives, given by the path of the images; labels and test images lie beside them.

The format: a big-endian header (0, 0, type 8 = uint8, number of axes, then each axis as 32 bits), then the bytes.
"""

import gzip
import hashlib
import math
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trilemma.data.labels import labelled_splits
from trilemma.data.levels import few_levels
from trilemma.data.size import choose_size, fit
from trilemma.data.split import RULES, Data, Split, complete, make_data
from trilemma.errors import UserError

NAME = re.compile(r"(idx\d?[-.]?ubyte|\.idx\d?)(\.gz)?$", re.IGNORECASE)
LIMIT = 2**32  # bytes, decompressed
BLOCK = 2**22  # bytes read at a time: room for as many as asked for is taken at once
TRAIN, TESTS = "train", ("t10k", "test")


def load_idx(
    path: Path,
    name: str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    valid: float | None = None,
    seed: int = 0,
    rule: str = RULES[0],
) -> Data:
    """Images of an idx file (N, H, W), with their labels and the test images where those lie beside it.

    Raises:
        UserError: a file is broken or does not fit the others.
    """
    tests = [path.with_name(path.name.replace(TRAIN, word, 1)) for word in TESTS if TRAIN in path.name]
    test = next((file for file in tests if file.is_file()), None)
    files = {"train": path} | ({"test": test} if test else {})
    images = {split: _images(file) for split, file in files.items()}
    counts, labels, notes = {split: len(part) for split, part in images.items()}, {}, []
    for split, file in files.items():
        column = _labels(file, counts[split])
        if isinstance(column, str):
            notes.append(column)
        elif column is not None:
            labels[split] = column
    used, missing = labelled_splits(counts, {split: 0 if split in labels else n for split, n in counts.items()})
    values = torch.cat([labels[split] for split in used]).unique() if used else torch.empty(0)
    classes = tuple(map(str, values.tolist()))
    target, resized = choose_size([part.shape[2:] for part in images.values()], size)
    splits = {
        split: Split(
            fit(part, target, channels or 1), torch.searchsorted(values, labels[split]) if split in used else None
        )
        for split, part in images.items()
    }
    dark = few_levels(images["train"])
    splits, held = complete(splits, splits, str(path), [], valid, seed, classes=classes, rule=rule)
    notes = ["read from " + ", ".join(file.name for file in files.values()), *notes, missing, resized, dark, held]
    return make_data(name, str(path), splits, classes=classes, notes=notes)


def read_idx(path: Path, sha256: str | None = None, advice: str = "make or fetch it again") -> Tensor:
    """An idx file of bytes, plain or .gz, as a uint8 tensor of the axes that its header names.

    Raises:
        UserError: it is truncated, has another header, or another SHA-256 of the decompressed bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = bytearray()
            while len(data) < LIMIT and (block := file.read(BLOCK)):
                data += block
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}; {advice}") from error
    if sha256 and (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise UserError(f"{path} is not the published file: SHA-256 {found} instead of {sha256}; {advice}")
    axes = data[3] if len(data) > 3 else 0
    shape = np.frombuffer(data, ">u4", axes, 4).tolist() if len(data) >= 4 + 4 * axes else []
    if data[:3] != b"\0\0\x08" or len(data) != 4 + 4 * axes + math.prod(shape):
        raise UserError(f"{path} is not a whole idx file of bytes ({len(data):,} bytes, axes {shape}); {advice}")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy())


def _images(path: Path) -> Tensor:
    """uint8 (N, 1, H, W)."""
    images = read_idx(path)
    if images.ndim != 3 or not images.numel():
        raise UserError(f"{path} holds axes {tuple(images.shape)}; images have three: number, height, width")
    return images[:, None]


def _labels(path: Path, n: int) -> Tensor | str | None:
    """int64 (N,), from the file whose name has "labels" and "idx1" for "images" and "idx3", where it is there; or why
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
