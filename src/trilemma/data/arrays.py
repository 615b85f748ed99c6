"""Arrays in .npz and .npy files: which one holds the images, which the labels, and in which order the axes are."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trilemma.data.size import choose_size, fit
from trilemma.data.split import Data, Split, complete, make_data
from trilemma.errors import UserError

IMAGES = ("images", "image", "x", "data", "arr_0")
LABELS = ("labels", "label", "y", "targets", "arr_1")
CLASSES = ("classes", "class_names")
NAMES = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
LAYOUTS = "(N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1, 3 or 4"


def load_arrays(
    path: Path,
    name: str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    valid: float | None = None,
    seed: int = 0,
) -> Data:
    """Images of a .npz file (keys as in IMAGES and LABELS, alone or with _train, _valid, _test) or a .npy file.

    Raises:
        UserError: the file is broken or holds Python objects; no such key; shapes, types or values that do not fit.
    """
    arrays = {key.lower(): array for key, array in _read(path).items()}
    found = {split: _pick(arrays, split) for split in NAMES}
    pairs = {split: pair for split, pair in found.items() if pair}
    if "train" not in pairs:
        keys = ", ".join(arrays) or "none"
        raise UserError(
            f"{path} has no array of training images; its keys are {keys}; one must be images, x or x_train"
        )
    images, notes = {}, []
    for split, (key, array, _) in pairs.items():
        images[split], done = to_images(array, f"{path}, {key}")
        notes += [f"{key}: {word}" for word in done]
    labels, classes = _labels({split: (len(images[split]), pair[2]) for split, pair in pairs.items()}, arrays, path)
    target, rule = choose_size([image.shape[2:] for image in images.values()], size)
    depth = channels or max(image.shape[1] for image in images.values())
    splits = {split: Split(fit(image, target, depth), labels.get(split)) for split, image in images.items()}
    splits, held = complete(splits, splits, str(path), [], valid, seed)
    return make_data(name, str(path), splits, classes=classes, notes=[*notes, rule, held])


def to_images(array: np.ndarray, where: str) -> tuple[Tensor, list[str]]:
    """An array of images as uint8 (N, 1 or 3, H, W), with what was done in words.

    uint8 is taken as it is, floats in [0, 1] as 255 times their value, rounded; a fourth channel is transparency.
    """
    levels, notes = _levels(array, where), []
    if array.dtype != np.uint8:
        notes.append(f"{array.dtype} values scaled to 0 to 255")
    if levels.ndim == 3:
        levels = levels[:, None]  # (N, 1, H, W)
    elif levels.ndim == 4 and levels.shape[3] in (1, 3, 4):
        levels = levels.transpose(0, 3, 1, 2)  # (N, C, H, W)
    elif levels.ndim != 4 or levels.shape[1] not in (1, 3, 4):
        raise UserError(f"{where}: shape {array.shape}; images are {LAYOUTS}; reshape the array")
    if min(levels.shape[2:]) < 1:
        raise UserError(f"{where}: shape {array.shape} holds no pixels; images are {LAYOUTS}")
    if levels.shape[1] == 4:
        notes.append("transparency, composed over white")
        alpha = levels[:, 3:].astype(np.float32) / 255
        levels = np.rint(levels[:, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    notes.append(f"{len(levels):,} images, taken as (channels, height, width) = {levels.shape[1:]}")
    return torch.from_numpy(np.ascontiguousarray(levels)), notes


def _levels(array: np.ndarray, where: str) -> np.ndarray:
    """Values as uint8."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{where}: type {array.dtype}; images are uint8, or floats between 0 and 1")
    if array.size and not (array.min() >= 0 and array.max() <= 1):  # False for NaN
        raise UserError(f"{where}: floats from {array.min():g} to {array.max():g}; scale them to lie between 0 and 1")
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file by key; never unpickles."""
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            return dict(found.items()) if isinstance(found, Mapping) else {"images": found}
    except (ValueError, EOFError, OSError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}; it must hold plain arrays (np.savez, np.save)") from error


def _pick(arrays: dict[str, np.ndarray], split: str) -> tuple[str, np.ndarray, np.ndarray | None] | None:
    """(key, images, labels or None) of a split, or None where there are no images for it."""

    def first(words: tuple[str, ...]) -> str | None:
        keys = [key for name in NAMES[split] for word in words for key in (f"{word}_{name}", f"{name}_{word}")]
        return next((key for key in (*keys, *(words if split == "train" else ())) if key in arrays), None)

    images, labels = first(IMAGES), first(LABELS)
    return None if images is None else (images, arrays[images], None if labels is None else arrays[labels])


def _labels(
    given: dict[str, tuple[int, np.ndarray | None]], arrays: dict[str, np.ndarray], path: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Class numbers by split, and the class names; nothing where a split has no labels."""
    if any(labels is None for _, labels in given.values()):
        return {}, ()
    columns = {}
    for split, (n, labels) in given.items():
        assert labels is not None
        column = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if column.shape != (n,) or column.dtype.kind not in "iuU":
            raise UserError(
                f"{path}: labels of shape {labels.shape} and type {labels.dtype} for {n} images; "
                "one whole number or text per image is needed"
            )
        columns[split] = column
    values = np.unique(np.concatenate(list(columns.values())))
    names = next((arrays[key] for key in CLASSES if key in arrays), None)
    if values.dtype.kind == "U" or names is None or names.dtype.kind != "U":
        names = values
    else:
        if names.ndim != 1 or values[0] < 0 or values[-1] >= len(names):
            raise UserError(f"{path}: labels from {values[0]} to {values[-1]} do not fit the {names.size} class names")
        values = np.arange(len(names))
    labels = {split: torch.from_numpy(np.searchsorted(values, column)) for split, column in columns.items()}
    return labels, tuple(str(name) for name in names)
