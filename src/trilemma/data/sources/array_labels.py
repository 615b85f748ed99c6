"""Which arrays of a file are images, labels and names of classes, and what the labels say."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trilemma.data.decoding.decoded import NO_CLASS
from trilemma.data.decoding.limits import check_count
from trilemma.data.sources.labels import UNLABELLED, labelled_splits, marks_unlabelled, read_labels
from trilemma.errors import UserError
from trilemma.words import names_counted

IMAGES = ("images", "image", "x", "data", "arr_0")
LABELS = ("labels", "label", "y", "targets", "arr_1")
CLASSES = ("classes", "class_names")
NAMES = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}


class Pair(NamedTuple):
    """The images of a split and their labels, each with its key."""

    key: str
    images: np.ndarray
    labels_key: str | None
    labels: np.ndarray | None


def pairs_of(arrays: dict[str, np.ndarray], path: str | Path) -> dict[str, Pair]:
    """The arrays of each split that the file has."""
    pairs = {split: pair for split in NAMES if (pair := _pick(arrays, split))}
    if "train" not in pairs:
        keys = ", ".join(arrays) or "none"
        raise UserError(
            f"{path} has no array of training images; its keys are {keys}; one must be images, x or x_train"
        )
    check_count(sum(len(pair.images) for pair in pairs.values() if pair.images.ndim))
    return pairs


def _pick(arrays: dict[str, np.ndarray], split: str) -> Pair | None:
    """The arrays of a split, or None if there are no images for it."""

    def first(words: tuple[str, ...]) -> str | None:
        keys = [key for name in NAMES[split] for word in words for key in (f"{word}_{name}", f"{name}_{word}")]
        return next((key for key in (*keys, *(words if split == "train" else ())) if key in arrays), None)

    images, labels = first(IMAGES), first(LABELS)
    return None if images is None else Pair(images, arrays[images], labels, arrays[labels] if labels else None)


def labels_of(
    counts: dict[str, int], pairs: dict[str, Pair], arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Tensor], tuple[str, ...], list[str]]:
    """Class numbers by split where it has them, the class names, and what was used and what not, in words."""
    columns, notes = {}, _unused(pairs, arrays)
    for split, pair in pairs.items():
        column = column_of(pair.labels, counts[split])
        if isinstance(column, str):
            notes.append(f"{pair.labels_key}: {column}: not used")
        elif column is not None:
            columns[split] = column
    if not columns:
        return {}, (), notes
    numbers, classes, words = _numbers(columns, _class_names(arrays))
    without = {split: int((numbers[split] < 0).sum()) if split in numbers else n for split, n in counts.items()}
    used, missing = labelled_splits(counts, without)
    notes += [*words, missing]
    return {split: numbers[split] for split in used}, classes if used else (), notes


def column_of(labels: np.ndarray | None, n: int) -> np.ndarray | str | None:
    """The labels as one per image, or what is wrong with them."""
    if labels is None:
        return None
    if labels.dtype.kind not in "biufUS":
        return f"labels of type {labels.dtype}; save them as plain numbers or text"
    column = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    return column if column.shape == (n,) else f"labels of shape {labels.shape} for {n} images; one each is needed"


def _numbers(
    columns: dict[str, np.ndarray], names: Sequence[str] | None
) -> tuple[dict[str, Tensor], tuple[str, ...], list[str]]:
    """Class numbers by split, -1 for no class; the class names; and what is wrong with labels, in words."""
    values, rows = np.unique(np.concatenate(list(columns.values())), return_inverse=True)
    names = None if values.dtype.kind in "US" else names
    column = read_labels(values.tolist(), names)
    if isinstance(column, str):
        return {}, (), [f"labels: {column}: not used"]
    words, faults = column
    words = [None if word == UNLABELLED and marks_unlabelled(words) else word for word in words]
    classes = tuple(names or dict.fromkeys(word for word in words if word is not None))
    place = torch.tensor([NO_CLASS if word is None else classes.index(word) for word in words])
    numbers = place[torch.from_numpy(rows.reshape(-1))].split([len(column) for column in columns.values()])
    owners = [(split, row) for split, column in columns.items() for row in range(len(column))] if faults else []
    wrong = [f"{split} image {row}: {why}" for k, why in faults for split, row in np.array(owners)[rows == k].tolist()]
    return dict(zip(columns, numbers, strict=True)), classes, [names_counted("labels that are not a class", wrong)]


def _class_names(arrays: dict[str, np.ndarray]) -> tuple[str, ...] | None:
    """The names of the classes, where the file has them."""
    names = next((arrays[key] for key in CLASSES if key in arrays), None)
    return tuple(names.tolist()) if names is not None and names.dtype.kind == "U" and names.ndim == 1 else None


def _unused(pairs: dict[str, Pair], arrays: dict[str, np.ndarray]) -> list[str]:
    """The arrays that are neither images nor labels nor class names, in words."""
    used = {key for pair in pairs.values() for key in (pair.key, pair.labels_key)}
    return [names_counted("arrays not used", [key for key in arrays if key not in used and key not in CLASSES])]
