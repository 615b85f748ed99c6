"""Arrays in .npz and .npy files: which one holds the images, which the labels, and in which order the axes are.

A file of more bytes than memory is given is never read as a whole: it is mapped (.npz: its members, unpacked in the
cache) and converted some images at a time into the file in which decoded sources are kept.
"""

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trilemma.data.cache import read_cached
from trilemma.data.decode import Room
from trilemma.data.download import cache_dir
from trilemma.data.labels import UNLABELLED, labelled_splits, marks_unlabelled, read_labels
from trilemma.data.levels import few_levels
from trilemma.data.pixels import outside
from trilemma.data.raw import NO_CLASS, Raw, finish
from trilemma.data.size import choose_size, fit
from trilemma.data.split import RULES, Data, Split, complete, counted, make_data
from trilemma.data.storage import BLOCK, memory_limit, room_for, temporary
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
    rule: str = RULES[0],
) -> Data:
    """Images of a .npz file (keys as in IMAGES and LABELS, alone or with _train, _valid, _test) or a .npy file.

    Raises:
        UserError: the file is broken or holds Python objects; no such key; shapes, types or values that do not fit.
    """
    if _bytes(path) > memory_limit():
        raw = read_cached([path], size, channels, lambda room: _read_raw(path, size, channels, room))
        return finish(raw, name, str(path), valid, seed, rule)
    arrays = _read(path)
    pairs = _pairs(arrays, path)
    images, notes = {}, []
    for split, (key, array, *_) in pairs.items():
        images[split], done = to_images(array, f"{path}, {key}")
        notes += [f"{key}: {word}" for word in done]
    labels, classes, words = _labels({split: len(image) for split, image in images.items()}, pairs, arrays)
    target, resized = choose_size([image.shape[2:] for image in images.values()], size)
    depth = channels or max(image.shape[1] for image in images.values())
    splits = {split: Split(fit(image, target, depth), labels.get(split)) for split, image in images.items()}
    dark = few_levels(splits["train"].images)
    splits, held = complete(splits, splits, str(path), [], valid, seed, classes=classes, rule=rule)
    return make_data(name, str(path), splits, classes=classes, notes=[*notes, *words, resized, dark, held])


def _read_raw(path: Path, size: tuple[int, int] | None, channels: int | None, room: Room) -> Raw:
    """The images of a large file, put where decoded images go."""
    with _mapped(path) as arrays:
        pairs = _pairs(arrays, path)
        first, notes = {}, []
        for split, (key, array, *_) in pairs.items():
            first[split], done = to_images(array[:1], f"{path}, {key}", len(array) if array.ndim else 0)
            notes += [f"{key}: {word}" for word in done]
        counts = {split: len(pair.images) for split, pair in pairs.items()}
        labels, classes, words = _labels(counts, pairs, arrays)
        target, rule = choose_size([image.shape[2:] for image in first.values()], size)
        depth, at = channels or max(image.shape[1] for image in first.values()), 0
        images = room.empty((sum(counts.values()), depth, *target))
        for key, array, *_ in pairs.values():
            step = max(1, BLOCK // max(1, array[:1].nbytes))
            for k in range(0, len(array), step):
                rows = fit(to_images(array[k : k + step], f"{path}, {key}")[0], target, depth)
                images[at : at + len(rows)] = rows
                at += len(rows)
        parts = tuple(split for split, count in counts.items() for _ in range(count))
        none = {split: torch.full((count,), NO_CLASS) for split, count in counts.items()}
        numbers = tuple(torch.cat([labels.get(split, none[split]) for split in pairs]).tolist()) if labels else None
        return Raw(
            images,
            (),
            parts,
            numbers,
            None,
            classes,
            tuple(pairs),
            tuple(filter(None, (*notes, *words, rule, few_levels(images)))),
            (),
        )


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
        raise UserError(f"{where}: {why}; scale them to lie between 0 and 1")
    return np.rint(array.astype(np.float32) * 255).clip(0, 255).astype(np.uint8)


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file by key; never unpickles."""
    with _whole(path), open(path, "rb") as file:
        found = np.load(file, allow_pickle=False)
        return _by_key(found, found.__getitem__) if isinstance(found, Mapping) else {"images": found}


def _bytes(path: Path) -> int:
    """Bytes of all arrays of the file."""
    with _whole(path):
        if not zipfile.is_zipfile(path):
            return path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            return sum(info.file_size for info in archive.infolist())


@contextmanager
def _mapped(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """As `_read`, with arrays that lie in files as long as they may be used."""
    folder = cache_dir() / "decoded"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory("", temporary(folder).name, folder, ignore_cleanup_errors=True) as room:
        with _whole(path):
            found = {"images": path} if not zipfile.is_zipfile(path) else _unpacked(path, Path(room))
            arrays = _by_key(found, lambda key: np.load(found[key], mmap_mode="r", allow_pickle=False))
        yield arrays


def _unpacked(path: Path, folder: Path) -> dict[str, Path]:
    """The members of a .npz, each in a file in that folder."""
    with zipfile.ZipFile(path) as archive:
        if not room_for(folder, sum(info.file_size for info in archive.infolist())):
            raise UserError(f"{folder.parent} has no room to unpack {path}; make room, or set TRILEMMA_CACHE")
        files = {}
        for k, info in enumerate(archive.infolist()):
            files[info.filename.removesuffix(".npy")] = folder / f"{k}.npy"
            with archive.open(info) as member, open(folder / f"{k}.npy", "wb") as file:
                shutil.copyfileobj(member, file, BLOCK)
    return files


def _by_key(keys: Iterable[str], read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by key; those of Python objects, which are not unpickled, are empty."""
    arrays = {}
    for key in keys:
        try:
            arrays[key.lower()] = read(key)
        except ValueError as error:
            if "pickle" not in str(error):
                raise
            arrays[key.lower()] = np.empty(0, object)
    return arrays


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Inside, what is wrong with the file becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, EOFError, OSError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}; it must hold plain arrays (np.savez, np.save)") from error


class Pair(NamedTuple):
    """The images of a split and their labels, each with its key."""

    key: str
    images: np.ndarray
    labels_key: str | None
    labels: np.ndarray | None


def _pairs(arrays: dict[str, np.ndarray], path: Path) -> dict[str, Pair]:
    """The arrays of each split that the file has."""
    pairs = {split: pair for split in NAMES if (pair := _pick(arrays, split))}
    if "train" not in pairs:
        keys = ", ".join(arrays) or "none"
        raise UserError(
            f"{path} has no array of training images; its keys are {keys}; one must be images, x or x_train"
        )
    return pairs


def _pick(arrays: dict[str, np.ndarray], split: str) -> Pair | None:
    """The arrays of a split, or None where there are no images for it."""

    def first(words: tuple[str, ...]) -> str | None:
        keys = [key for name in NAMES[split] for word in words for key in (f"{word}_{name}", f"{name}_{word}")]
        return next((key for key in (*keys, *(words if split == "train" else ())) if key in arrays), None)

    images, labels = first(IMAGES), first(LABELS)
    return None if images is None else Pair(images, arrays[images], labels, arrays[labels] if labels else None)


def _labels(
    counts: dict[str, int], pairs: dict[str, Pair], arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Tensor], tuple[str, ...], list[str]]:
    """Class numbers by split where it has them, the class names, and what was used and what not, in words."""
    columns, notes = {}, _unused(pairs, arrays)
    for split, pair in pairs.items():
        column = _column(pair.labels, counts[split])
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


def _column(labels: np.ndarray | None, n: int) -> np.ndarray | str | None:
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
    found = read_labels(values.tolist(), names)
    if isinstance(found, str):
        return {}, (), [f"labels: {found}: not used"]
    words = [None if word == UNLABELLED and marks_unlabelled(found[0]) else word for word in found[0]]
    classes = tuple(names or dict.fromkeys(word for word in words if word is not None))
    place = torch.tensor([NO_CLASS if word is None else classes.index(word) for word in words])
    numbers = place[torch.from_numpy(rows.reshape(-1))].split([len(column) for column in columns.values()])
    owners = [(split, row) for split, column in columns.items() for row in range(len(column))] if found[1] else []
    wrong = [
        f"{split} image {row}: {why}" for k, why in found[1] for split, row in np.array(owners)[rows == k].tolist()
    ]
    return dict(zip(columns, numbers, strict=True)), classes, [counted("labels that are not a class", wrong)]


def _class_names(arrays: dict[str, np.ndarray]) -> tuple[str, ...] | None:
    """The names of the classes, where the file has them."""
    names = next((arrays[key] for key in CLASSES if key in arrays), None)
    return tuple(names.tolist()) if names is not None and names.dtype.kind == "U" and names.ndim == 1 else None


def _unused(pairs: dict[str, Pair], arrays: dict[str, np.ndarray]) -> list[str]:
    """The arrays that are neither images nor labels nor class names, in words."""
    used = {key for pair in pairs.values() for key in (pair.key, pair.labels_key)}
    return [counted("arrays not used", [key for key in arrays if key not in used and key not in CLASSES])]
