"""Images in .npz and .npy files and in memory: uint8 or floats in [0, 1], in any order of the axes.

Where two orders are possible, an array of NumPy has its channels last and a tensor of torch has them first.

A file of more bytes than memory allows is never read as a whole: it is mapped, and converted some images at a time into
the file in which decoded sources are cached.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trilemma.data.decoding.cache import read_cached
from trilemma.data.decoding.convert import outside
from trilemma.data.decoding.decode import Room
from trilemma.data.decoding.decoded import NO_CLASS, DecodedSource
from trilemma.data.decoding.levels import few_levels
from trilemma.data.decoding.limits import memory_limit
from trilemma.data.decoding.size import choose_size, fit
from trilemma.data.decoding.storage import BLOCK
from trilemma.data.hold_out import check_enough, hold_out
from trilemma.data.options import Options
from trilemma.data.sources.array_labels import Pair, column_of, labels_of, pairs_of
from trilemma.data.sources.divide import divide
from trilemma.data.sources.npy import bytes_of, mapped_arrays, read_arrays
from trilemma.data.split import Data, Split, equal_images, make_data
from trilemma.errors import UserError

LAYOUTS = "(N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1, 3 or 4"
GIVEN = "array"  # the name of images that are given in memory; their source is GIVEN:DIGEST
DEPTHS = (1, 3, 4)  # channels


def load_arrays(path: Path, name: str, source: str, options: Options) -> Data:
    """Images of a .npz file (keys as in IMAGES and LABELS, alone or with _train, _valid, _test) or a .npy file.

    Raises:
        UserError: the file is broken or holds Python objects; no such key; shapes, types or values that do not fit.
    """
    if bytes_of(path) > memory_limit():
        return divide(read_cached([path], options, lambda room: _decode(path, options, room)), name, source, options)
    return data_of(read_arrays(path), name, source, options)


def load_given(images: Any, options: Options) -> Data:
    """Images in memory: an array or a tensor, or a pair of one and the labels, a number or a text for each image.

    Raises:
        UserError: it is something else; shapes, types or values do not fit; the labels cannot be used.
    """
    pair = images
    images, labels = pair if isinstance(pair, tuple) else (pair, None)
    levels, notes = to_images(as_numpy(images), GIVEN)
    arrays = {"images": levels.permute(0, 2, 3, 1).numpy()}  # in the one order that is read in one way
    if labels is not None:
        arrays["labels"] = _labels_array(labels, len(levels))
    data = data_of(arrays, GIVEN, _source_of(arrays), options, notes[:-1], pair)
    if labels is not None and not data.classes:
        raise UserError(next((note for note in data.notes if "not used" in note), "labels: they hold no class"))
    return data


def is_given(source: object) -> bool:
    """Whether a source is images in memory: an array, a tensor or a pair of one with labels."""
    first = source[0] if isinstance(source, tuple) and len(source) == 2 else source
    return isinstance(first, np.ndarray | Tensor)


def as_numpy(images: np.ndarray | Tensor) -> np.ndarray:
    """An array of images; of a tensor the channels are first where they may be, and then they are last here."""
    if not isinstance(images, Tensor):
        return images
    images = images.detach().cpu()
    array = (images.float() if images.dtype == torch.bfloat16 else images).numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 and array.shape[1] in DEPTHS else array


def _labels_array(labels: Any, n: int) -> np.ndarray:
    """Labels (n,)."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype == object and all(isinstance(label, str) for label in array.ravel()):
        array = array.astype(str)
    if isinstance(why := column_of(array, n), str):
        raise UserError(why)
    return array


def _source_of(arrays: Mapping[str, np.ndarray]) -> str:
    """A word for images in memory that tells them from others by their content, in whatever type they are given."""
    digest = hashlib.sha256(str([array.shape for array in arrays.values()]).encode())
    for key, array in arrays.items():
        if key == "images":
            digest.update(array.tobytes())
        else:
            digest.update("\n".join(map(str, array.ravel().tolist())).encode(errors="surrogatepass"))
    return f"{GIVEN}:{digest.hexdigest()[:16]}"


def data_of(
    arrays: dict[str, np.ndarray],
    name: str,
    source: str,
    options: Options,
    notes: Sequence[str] = (),
    given: Any = None,
) -> Data:
    """Images and labels by key as splits.

    Args:
        notes: what was done before.
    """
    pairs = pairs_of(arrays, source)
    images, notes = {}, [*notes]
    for split, (key, array, *_) in pairs.items():
        images[split], changes = to_images(array, f"{source}, {key}")
        notes += [f"{key}: {word}" for word in changes]
    labels, classes, words = labels_of({split: len(image) for split, image in images.items()}, pairs, arrays)
    target, resized = choose_size([image.shape[2:] for image in images.values()], options.size, options.most_px)
    depth = options.channels or max(image.shape[1] for image in images.values())
    splits = {split: Split(fit(image, target, depth), labels.get(split)) for split, image in images.items()}
    dark = few_levels(splits["train"].images)
    check_enough(splits, source)
    splits, note = hold_out(splits, options, equal_images, classes=classes)
    notes += [*words, resized, dark, note]
    return make_data(name, source, splits, options, classes=classes, notes=notes, given=given)


def _decode(path: Path, options: Options, room: Room) -> DecodedSource:
    """The images of a large file, put where decoded images go."""
    with mapped_arrays(path) as arrays:
        pairs = pairs_of(arrays, path)
        first, notes = {}, []
        for split, (key, array, *_) in pairs.items():
            first[split], changes = to_images(array[:1], f"{path}, {key}", len(array) if array.ndim else 0)
            notes += [f"{key}: {word}" for word in changes]
        counts = {split: len(pair.images) for split, pair in pairs.items()}
        labels, classes, words = labels_of(counts, pairs, arrays)
        target, rule = choose_size([image.shape[2:] for image in first.values()], options.size, options.most_px)
        depth = options.channels or max(image.shape[1] for image in first.values())
        images = room.empty((sum(counts.values()), depth, *target))
        _fill(images, pairs, path)
        none = {split: torch.full((count,), NO_CLASS) for split, count in counts.items()}
        numbers = tuple(torch.cat([labels.get(split, none[split]) for split in pairs]).tolist()) if labels else None
        return DecodedSource(
            images,
            (),
            tuple(split for split, count in counts.items() for _ in range(count)),
            numbers,
            None,
            classes,
            tuple(pairs),
            tuple(filter(None, (*notes, *words, rule, few_levels(images)))),
            (),
        )


def _fill(images: Tensor, pairs: Mapping[str, Pair], path: Path) -> None:
    """Convert the arrays of all splits, some images at a time."""
    at = 0
    for key, array, *_ in pairs.values():
        step = max(1, BLOCK // max(1, array[:1].nbytes))
        for k in range(0, len(array), step):
            levels = to_images(array[k : k + step], f"{path}, {key}")[0]
            rows = fit(levels, (images.shape[2], images.shape[3]), images.shape[1])
            images[at : at + len(rows)] = rows
            at += len(rows)


def to_images(array: np.ndarray, where: str, count: int | None = None) -> tuple[Tensor, list[str]]:
    """An array of images as uint8 (N, 1 or 3, H, W), with what was done in words.

    uint8 is taken as it is, floats in [0, 1] as 255 times their value, rounded; a fourth channel is transparency.

    Args:
        count: images in the whole array, for the words, where this is a part of it.
    """
    levels, notes = _levels(array, where), []
    if array.dtype != np.uint8:
        notes.append(f"{array.dtype} values scaled to 0 to 255")
    if levels.ndim == 3:
        levels = levels[:, None]  # (N, 1, H, W)
    elif levels.ndim == 4 and levels.shape[3] in DEPTHS:
        levels = levels.transpose(0, 3, 1, 2)  # (N, C, H, W)
    elif levels.ndim != 4 or levels.shape[1] not in DEPTHS:
        raise UserError(f"{where}: shape {array.shape}; images are {LAYOUTS}; reshape the array")
    if min(levels.shape[2:]) < 1:
        raise UserError(f"{where}: shape {array.shape} holds no pixels; images are {LAYOUTS}")
    if levels.shape[1] == 4:
        notes.append("transparency, composed over white")
        alpha = levels[:, 3:].astype(np.float32) / 255
        levels = np.rint(levels[:, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    n = len(levels) if count is None else count
    notes.append(f"{n:,} images, taken as (channels, height, width) = {levels.shape[1:]}")
    return torch.from_numpy(np.require(levels, requirements=("C", "W"))), notes


def _levels(array: np.ndarray, where: str) -> np.ndarray:
    """Values as uint8."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if not np.issubdtype(array.dtype, np.floating):
        kind = "Python objects" if array.dtype == object else f"type {array.dtype}"
        raise UserError(f"{where}: {kind}; images are uint8, or floats between 0 and 1")
    if array.size and (why := outside(array.min(), array.max(), 1)):
        advice = "scale them to lie" if np.isfinite([array.min(), array.max()]).all() else "give finite values"
        raise UserError(f"{where}: {why}; {advice} between 0 and 1")
    return np.rint(array.astype(np.float32) * 255).clip(0, 255).astype(np.uint8)
