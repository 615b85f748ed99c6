"""Folders, zip and tar files of images: flat, one folder per class, or train / valid / test folders of either.

Labels and captions come from metadata and from files beside the images too (metadata.py); where every image has a
label there, the folders do not count as classes.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from trilemma.data.cache import read_cached
from trilemma.data.decode import SUFFIXES, Item, Room
from trilemma.data.listing import Listing, listed, nfc
from trilemma.data.metadata import find_metadata, key_of
from trilemma.data.raw import Entry, Raw, finish, name_of, read_entries
from trilemma.data.split import Data, counted
from trilemma.errors import UserError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Images by their names, in formats that are not read.
FOREIGN = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".eps", ".pdf", ".psd", ".xcf", ".ico", ".fits"),
    *(".exr", ".hdr", ".ppm", ".pgm", ".tga", ".raw", ".dng", ".nef", ".cr2"),
)

OUTSIDE, OTHER = "in none of the split folders", "not images by their names"  # why a file is left out
ALIASES = "links to folders that are read already, passed over"

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
    """Images of a folder, a zip or a tar file.

    Raises:
        UserError: fewer than two images can be read, or the archive is broken.
    """
    return finish(read_folder(path, size, channels), name, str(path), valid, seed)


def read_folder(
    path: Path, size: tuple[int, int] | None = None, channels: int | None = None, frames: str = "first"
) -> Raw:
    """Images of a folder, a zip or a tar file, before anything is set aside."""
    return read_listing([path], lambda: listed(path), str(path), size, channels, frames)


def read_listing(
    paths: list[Path],
    listing: Callable[[], AbstractContextManager[Listing]],
    source: str,
    size: tuple[int, int] | None,
    channels: int | None,
    frames: str = "first",
) -> Raw:
    """Images among files whose names tell split and class; `paths` are where they lie, for the cache."""

    def read(room: Room) -> Raw:
        with listing() as found:
            return _read(found, source, size, channels, room, frames)

    return read_cached(paths, size, channels, read, frames)


def _read(
    found: Listing, source: str, size: tuple[int, int] | None, channels: int | None, room: Room, frames: str
) -> Raw:
    images = [item for item in found.files if item.name.lower().endswith(SUFFIXES)]
    if not images:
        because = f"; {counted('broken', found.skipped)}" if found.skipped else ""
        raise UserError(
            f"{source} holds no images; files ending in {', '.join(SUFFIXES)} are read, in any case{because}"
        )
    known = find_metadata(found.files, images)
    places, classes, layout = arrange([_placed(item) for item in images])
    keys = [key_of(item) if known.used else ("", "") for item in images]
    use = bool(known.labels) and (not classes or all(key in known.labels for key in keys))
    entries = [
        Entry(item, place[0], known.labels.get(key) if use else place[1], known.captions.get(key))
        for item, place, key in zip(images, places, keys, strict=True)
        if place
    ]
    rest = [item for item in found.files if not item.name.lower().endswith(SUFFIXES)]
    rest = [item for item in rest if key_of(item) not in known.used]
    foreign = [item for item in rest if item.name.lower().endswith(FOREIGN)]
    other = [name_of(item) for item in rest if not item.name.lower().endswith(FOREIGN)]
    outside = [name_of(item) for item, place in zip(images, places, strict=True) if not place]
    left_out = {OUTSIDE: outside, OTHER: other}
    notes = ["layout: classes from the metadata" if use else layout]
    notes += known.sources
    notes += [counted(ALIASES, found.links)] if found.links else []
    kind = "{}: files ending in {} are not read; save it as PNG or JPEG"
    skipped = [kind.format(name_of(item), Path(item.name).suffix.lower()) for item in foreign]
    skipped = [*found.skipped, *skipped]
    return read_entries(
        entries,
        size,
        channels,
        room,
        frames,
        notes=notes,
        counts=known.notes,
        skipped=skipped,
        left_out=left_out,
        unmatched=known.unmatched,
    )


def split_of(name: str) -> str | None:
    """The split that the first word of a name tells.

    >>> split_of("validation-00001.tar"), split_of("0001.tar")
    ('valid', None)
    """
    word = re.match(r"[a-z]*", name.lower())
    return SPLITS.get(word[0]) if word else None


def _placed(item: Item) -> str:
    """The name that tells split and class; the files of train-0001.tar count as those of a folder train."""
    split = split_of(Path(item.shard).name) if item.shard else None
    return f"{split}/{item.name}" if split else item.name


def arrange(names: list[str]) -> tuple[list[Place | None], tuple[str, ...], str]:
    """Splits and classes from relative names with "/" between the folders.

    Returns:
        (split, class) per name, or None for one outside the split folders; the classes; the layout in words.

    >>> arrange(["cat/1.png", "dog/2.png"])
    ([('train', 'cat'), ('train', 'dog')], ('cat', 'dog'), 'layout: one folder per class')
    """
    parts = _without_common([[p for p in nfc(name).split("/") if p not in ("", ".", "..")] for name in names])
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


def _without_common(parts: list[list[str]]) -> list[list[str]]:
    """Without the folders that all the names begin with."""
    while parts and all(len(part) > 1 and part[0] == parts[0][0] for part in parts):
        parts = [part[1:] for part in parts]
    return parts
