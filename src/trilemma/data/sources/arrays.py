"""Arrays in .npz and .npy files and in memory: where the images are, where the labels, and the order of the axes.

Where two orders are possible, an array of NumPy has its channels last and a tensor of torch has them first.

A file of more bytes than memory is given is never read as a whole: it is mapped (.npz: its members, unpacked in the
cache) and converted some images at a time into the file in which decoded sources are kept. The shape that a header
states is compared with the bytes that are there before room is made for it.
"""

import hashlib
import io
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trilemma.data.decoding.cache import read_cached
from trilemma.data.decoding.decode import Room
from trilemma.data.decoding.levels import few_levels
from trilemma.data.decoding.pixels import outside
from trilemma.data.decoding.size import choose_size, fit
from trilemma.data.decoding.storage import BLOCK, Draft, check_count, memory_limit, room_for
from trilemma.data.decoding.unpack import ERRORS, check_unpacked
from trilemma.data.sources.decoded import NO_CLASS, DecodedSource, finish
from trilemma.data.sources.download import cache_dir
from trilemma.data.sources.labels import UNLABELLED, labelled_splits, marks_unlabelled, read_labels
from trilemma.data.split import RULES, Data, Split, complete, counted, make_data
from trilemma.errors import UserError
from trilemma.files import open_plain

IMAGES = ("images", "image", "x", "data", "arr_0")
LABELS = ("labels", "label", "y", "targets", "arr_1")
CLASSES = ("classes", "class_names")
NAMES = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
HEAD_LIMIT = 2**13  # bytes of an .npy file in which its header ends; that of images has 128
MAGIC = b"\x93NUMPY"
HEADERS: dict[tuple[int, ...], Callable[[IO[bytes]], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
LAYOUTS = "(N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1, 3 or 4"
GIVEN = "array"  # the name of images that are given in memory; their source is GIVEN:DIGEST
DEPTHS = (1, 3, 4)  # channels


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
    return _data_of(_read(path), name, str(path), size, channels, valid, seed, rule)


def load_given(
    given: Any,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    valid: float | None = None,
    seed: int = 0,
    rule: str = RULES[0],
) -> Data:
    """Images in memory: an array or a tensor, or a pair of one and the labels, a number or a text for each image.

    Raises:
        UserError: it is something else; shapes, types or values do not fit; the labels cannot be used.
    """
    images, labels = given if isinstance(given, tuple) else (given, None)
    levels, notes = to_images(as_numpy(images), GIVEN)
    arrays = {"images": levels.permute(0, 2, 3, 1).numpy()}  # in the one order that is read in one way
    if labels is not None:
        arrays["labels"] = _labels_array(labels, len(levels))
    data = _data_of(arrays, GIVEN, _source_of(arrays), size, channels, valid, seed, rule)
    if labels is not None and not data.classes:
        raise UserError(next((note for note in data.notes if "not used" in note), "labels: there is no class in them"))
    summary, *more = data.notes
    return replace(data, notes=(summary, *notes[:-1], *more))


def read_array(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped: it may be larger than memory.

    Raises:
        UserError: the file is broken, or holds something other than an array of plain numbers or text.
    """
    with _whole(path, "a plain array (np.save)"), open_plain(path) as file:
        return _load(file, path, os.fstat(file.fileno()).st_size)


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
    if isinstance(why := _column(array, n), str):
        raise UserError(why)
    return array


def _source_of(arrays: Mapping[str, np.ndarray]) -> str:
    """A word for images in memory that tells them from others by their content, in whatever type they are given."""
    digest = hashlib.sha256(str([array.shape for array in arrays.values()]).encode())
    for key, array in arrays.items():
        digest.update(array.tobytes() if key == "images" else "\n".join(map(str, array.ravel().tolist())).encode())
    return f"{GIVEN}:{digest.hexdigest()[:16]}"


def _data_of(
    arrays: dict[str, np.ndarray],
    name: str,
    source: str,
    size: tuple[int, int] | None,
    channels: int | None,
    valid: float | None,
    seed: int,
    rule: str,
) -> Data:
    """Images and labels by key as splits."""
    pairs = _pairs(arrays, source)
    images, notes = {}, []
    for split, (key, array, *_) in pairs.items():
        images[split], done = to_images(array, f"{source}, {key}")
        notes += [f"{key}: {word}" for word in done]
    labels, classes, words = _labels({split: len(image) for split, image in images.items()}, pairs, arrays)
    target, resized = choose_size([image.shape[2:] for image in images.values()], size)
    depth = channels or max(image.shape[1] for image in images.values())
    splits = {split: Split(fit(image, target, depth), labels.get(split)) for split, image in images.items()}
    dark = few_levels(splits["train"].images)
    splits, held = complete(splits, splits, source, [], valid, seed, classes=classes, rule=rule)
    return make_data(name, source, splits, classes=classes, notes=[*notes, *words, resized, dark, held])


def _read_raw(path: Path, size: tuple[int, int] | None, channels: int | None, room: Room) -> DecodedSource:
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
        return DecodedSource(
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


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file by key; never unpickles."""
    with _whole(path), open_plain(path) as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return {"images": _load(file, file, path.stat().st_size)}
        arrays = {}
        with zipfile.ZipFile(file) as archive:
            for key, info in _members(archive).items():
                with archive.open(info) as member:
                    arrays[key] = _load_member(member, member, info.file_size)
        return arrays


def _bytes(path: Path) -> int:
    """Bytes of all arrays of the file."""
    with _whole(path), open_plain(path) as file:
        if not zipfile.is_zipfile(file):
            return path.stat().st_size
        with zipfile.ZipFile(file) as archive:
            count = sum(info.file_size for info in archive.infolist())
        check_unpacked(path, count)
        return count


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members of a .npz by key; what is packed in another way than numpy's would be unpacked without a bound."""
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise ValueError(f"{info.filename} is encrypted, or packed in another way than np.savez_compressed packs")
    return {info.filename.removesuffix(".npy").lower(): info for info in archive.infolist()}


class NotPlain(ValueError):
    """What is no array of plain numbers or text."""


def _load_member(file: IO[bytes], source: IO[bytes] | Path, length: int) -> np.ndarray:
    """As `_load`, with an empty array of objects for what is not plain: it may stand beside the images."""
    try:
        return _load(file, source, length)
    except NotPlain:
        return np.empty(0, object)


def _load(file: IO[bytes], source: IO[bytes] | Path, length: int) -> np.ndarray:
    """An array; it is never unpickled.

    Args:
        file: of `length` bytes, in which the header is looked at; source: what is read, mapped where it is a path.
    Raises:
        NotPlain: it is not an array, or one of Python objects.
        ValueError: the header is too long, or states more than is there.
    """
    head = io.BytesIO(file.read(HEAD_LIMIT))
    file.seek(0)
    version = tuple(head.getvalue()[len(MAGIC) : len(MAGIC) + 2])
    if not head.getvalue().startswith(MAGIC) or version not in HEADERS:
        raise NotPlain("it is not an array")
    head.seek(len(MAGIC) + 2)
    shape, _, kind = HEADERS[version](head)
    if kind.hasobject:
        raise NotPlain("it holds Python objects")
    stated, there = math.prod(shape) * max(1, kind.itemsize), length - head.tell()
    if stated > there:
        raise ValueError(f"its header states {stated:,} bytes, shape {shape} of {kind}, and {there:,} are there")
    return np.load(source, mmap_mode="r" if isinstance(source, Path) else None, allow_pickle=False)


@contextmanager
def _mapped(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """As `_read`, with arrays that lie in files as long as they may be used."""
    with ExitStack() as stack:
        with _whole(path):
            packed = zipfile.is_zipfile(path)
            arrays = {}
            for key, place in (_unpacked(path, _room(stack)) if packed else {"images": path}).items():
                with open_plain(place) as file:
                    arrays[key] = (_load_member if packed else _load)(file, place, place.stat().st_size)
        yield arrays


def _room(stack: ExitStack) -> Path:
    """A folder for as long as the stack is there: in the cache, or among the system's temporary ones."""
    try:
        return stack.enter_context(Draft(cache_dir() / "decoded")).path
    except OSError:
        return Path(stack.enter_context(tempfile.TemporaryDirectory()))


def _unpacked(path: Path, folder: Path) -> dict[str, Path]:
    """The members of a .npz, each in a file in that folder."""
    with zipfile.ZipFile(path) as archive:
        if not room_for(folder, sum(info.file_size for info in archive.infolist())):
            raise UserError(f"{folder.parent} has no room to unpack {path}; make room, or set TRILEMMA_CACHE")
        files = {}
        for k, (key, info) in enumerate(_members(archive).items()):
            files[key] = folder / f"{k}.npy"
            with archive.open(info) as member, open(folder / f"{k}.npy", "wb") as file:
                shutil.copyfileobj(member, file, BLOCK)
    return files


@contextmanager
def _whole(path: Path, content: str = "plain arrays (np.savez, np.save)") -> Iterator[None]:
    """Inside, what is wrong with the file becomes a UserError, which says what its content must be."""
    try:
        yield
    except UserError:
        raise
    except (*ERRORS, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}; it must hold {content}") from error


class Pair(NamedTuple):
    """The images of a split and their labels, each with its key."""

    key: str
    images: np.ndarray
    labels_key: str | None
    labels: np.ndarray | None


def _pairs(arrays: dict[str, np.ndarray], path: str | Path) -> dict[str, Pair]:
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
