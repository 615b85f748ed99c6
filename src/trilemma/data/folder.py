"""Folders and zip files of images: flat, one folder per class, or train / valid / test folders of either.

A zip is read in place: nothing is extracted to the disk, so the names of its members can do no harm.
"""

import io
import os
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO

import torch

from trilemma.data.decode import SUFFIXES, Item, decode
from trilemma.data.split import Data, Split, make_data, split_off
from trilemma.errors import UserError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
MEMBER_LIMIT = 2**28  # bytes; a larger member of a zip is not opened
SHOWN = 5  # names in a note
HIDDEN = re.compile(r"(^|/)(\.(?!\./)[^/]+|__MACOSX|Thumbs\.db|desktop\.ini)(/|$)", re.IGNORECASE)

Place = tuple[str, str | None]  # split, class


def load_folder(
    path: Path,
    name: str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    valid: float | None = None,
    seed: int = 0,
) -> Data:
    """Images of a folder or a zip file.

    Raises:
        UserError: fewer than two images can be read, or the zip file is broken.
    """
    with listed(path) as files:
        return load_items(files, name, str(path), size=size, channels=channels, valid=valid, seed=seed)


def load_items(
    files: list[Item],
    name: str,
    source: str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    valid: float | None = None,
    seed: int = 0,
) -> Data:
    """Images among `files`, whose names tell split and class."""
    images = [item for item in files if item.name.lower().endswith(SUFFIXES)]
    if not images:
        raise UserError(f"{source} holds no images; files ending in {', '.join(SUFFIXES)} are read, in any case")
    places, classes, layout = arrange([item.name for item in images])
    inside = [(item, place) for item, place in zip(images, places, strict=True) if place]
    decoded = decode([item for item, _ in inside], size, channels)
    kept = [inside[i] for i in decoded.kept]
    splits = _splits(decoded.images, [item.name for item, _ in kept], [place for _, place in kept], classes)
    expected = {split for _, (split, _) in inside}
    splits, rule = complete(splits, expected, source, decoded.skipped, valid, seed)
    outside = [item.name for item, place in zip(images, places, strict=True) if not place]
    other = [item.name for item in files if not item.name.lower().endswith(SUFFIXES)]
    notes = [
        layout,
        *decoded.notes,
        rule,
        counted("unreadable and skipped", decoded.skipped),
        counted("in none of the split folders and left out", outside),
        counted("not images by their names and left out", other),
    ]
    return make_data(name, source, splits, classes=classes, notes=notes, skipped=decoded.skipped)


def complete(
    splits: dict[str, Split], expected: Iterable[str], source: str, skipped: list[str], valid: float | None, seed: int
) -> tuple[dict[str, Split], str]:
    """Add a validation split where the source has none; returns what was done, in words.

    Raises:
        UserError: an expected split is empty, or there are too few images to set one aside.
    """
    counts = {key: len(splits.get(key, ())) for key in ("train", *expected)}
    if not all(counts.values()) or sum(counts.values()) < 2 or ("valid" not in counts and counts["train"] < 2):
        found = ", ".join(f"{count} {key}" for key, count in counts.items())
        because = f"; {counted('unreadable and skipped', skipped)}" if skipped else ""
        raise UserError(
            f"{source} has too few readable images ({found}); training and validation need one each{because}"
        )
    if "valid" in splits:
        return splits, "" if valid is None else f"valid={valid} is not used: the source has its own validation images"
    train, held = split_off(splits["train"], valid, seed)
    rule = f"{len(held):,} of the training images are set aside for validation, chosen by the seed"
    return {"train": train, "valid": held} | {key: split for key, split in splits.items() if key != "train"}, rule


def arrange(names: list[str]) -> tuple[list[Place | None], tuple[str, ...], str]:
    """Splits and classes from relative names with "/" between the folders.

    Returns:
        (split, class) per name, or None for one outside the split folders; the classes; the layout in words.

    >>> arrange(["cat/1.png", "dog/2.png"])
    ([('train', 'cat'), ('train', 'dog')], ('cat', 'dog'), 'layout: one folder per class')
    """
    parts = _without_common([[p for p in _nfc(name).split("/") if p not in ("", ".", "..")] for name in names])
    splits = [SPLITS.get(part[0].lower()) if len(part) > 1 else None for part in parts]
    if split_folders := "train" in splits and ("valid" in splits or "test" in splits):
        parts = [part[1:] for part in parts]
    else:
        splits = ["train"] * len(parts)
    inside = [k for k, split in enumerate(splits) if split]
    parts = dict(zip(inside, _without_common([parts[k] for k in inside]), strict=True))
    classed = all(len(part) > 1 for part in parts.values())
    places: list[Place | None] = [
        (split, parts[k][0] if classed else None) if split else None for k, split in enumerate(splits)
    ]
    classes = tuple(sorted({part[0] for part in parts.values()})) if classed else ()
    folders = "split folders, " if split_folders else ""
    return places, classes, f"layout: {folders}{'one folder per class' if classed else 'no class folders'}"


def _splits(images: torch.Tensor, names: list[str], places: list[Place], classes: tuple[str, ...]) -> dict[str, Split]:
    """The images by split."""
    number = {name: k for k, name in enumerate(classes)}
    labels = torch.tensor([number[str(label)] for _, label in places], dtype=torch.int64) if classes else None
    whole = Split(images, labels, names=tuple(names))
    rows = {key: [k for k, (split, _) in enumerate(places) if split == key] for key in ("train", "valid", "test")}
    if not rows["valid"] and not rows["test"]:
        return {"train": whole}
    return {key: whole.take(torch.tensor(at)) for key, at in rows.items() if at}


def _without_common(parts: list[list[str]]) -> list[list[str]]:
    """Without the folders that all the names begin with."""
    while parts and all(len(part) > 1 and part[0] == parts[0][0] for part in parts):
        parts = [part[1:] for part in parts]
    return parts


@contextmanager
def listed(path: Path) -> Iterator[list[Item]]:
    """The files of a folder or a zip, sorted by name; hidden ones are passed over."""
    try:
        with nullcontext() if path.is_dir() else zipfile.ZipFile(path) as archive:
            items = _members(archive) if archive else _walk(path)
            yield sorted((item for item in items if not HIDDEN.search(item.name)), key=lambda item: _nfc(item.name))
    except (zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise UserError(f"{path} is not a whole zip file: {error}; make or fetch it again") from error


def _walk(root: Path) -> Iterator[Item]:
    """All files below a folder; links to folders are followed, once each."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(f for f in folders if os.path.realpath(os.path.join(folder, f)) not in seen)
        for file in files:
            path = os.path.join(folder, file)
            name = Path(os.path.relpath(path, root)).as_posix()
            yield Item(os.fsencode(name).decode(errors="replace"), partial(open, path, "rb"))


def _members(archive: zipfile.ZipFile) -> Iterator[Item]:
    """All files of a zip."""
    for info in archive.infolist():
        if not info.is_dir():
            yield Item(info.filename.replace("\\", "/"), partial(_member, archive, info))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.file_size > MEMBER_LIMIT:
        raise ValueError(f"{info.file_size:,} bytes; more than {MEMBER_LIMIT:,} are not opened")
    return io.BytesIO(archive.read(info))


def counted(what: str, names: list[str]) -> str:
    """How many, with the first few; "" for none."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{len(names):,} {what}: {', '.join(names[:SHOWN])}{more}" if names else ""


def _nfc(name: str) -> str:
    """One spelling for letters that can be composed in several ways."""
    return unicodedata.normalize("NFC", name)
