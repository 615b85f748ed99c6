"""Folders, zip and tar files of images: flat, one folder per class, or train / valid / test folders of either.

Labels and captions come from metadata and from files beside the images too (metadata.py); where every image has a
label there, the folders do not count as classes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from trilemma.data.decoding.cache import read_cached
from trilemma.data.decoding.decode import SUFFIXES, Item, Room
from trilemma.data.decoding.listing import STEM, Listing, listed
from trilemma.data.decoding.pixels import name_of
from trilemma.data.sources.dataset_json import add_dataset_json
from trilemma.data.sources.decoded import DecodedSource, Entry, read_entries
from trilemma.data.sources.folder_layout import BESIDE, OUTSIDE, Layout, arrange
from trilemma.data.sources.idx import NAME as IDX
from trilemma.data.sources.metadata import Known, find_metadata, key_of
from trilemma.data.split import SHOWN, counted
from trilemma.errors import UserError

# Images by their names, in formats that are not read.
FOREIGN = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".eps", ".pdf", ".psd", ".xcf", ".ico", ".fits"),
    *(".exr", ".hdr", ".ppm", ".pgm", ".tga", ".raw", ".dng", ".nef", ".cr2"),
)

ARRAYS = (".npz", ".npy")
OTHER = "not an image extension"  # why a file is left out
IMAGES = (OUTSIDE, BESIDE)  # why an image is
ALIASES = "links to folders that were read already, skipped"
SYSTEM = "hidden or system folders, skipped"


def read_folder(
    path: Path, size: tuple[int, int] | None = None, channels: int | None = None, frames: str = "first"
) -> DecodedSource:
    """Images of a folder, a zip or a tar file, before anything is set aside."""
    return read_listing([path], lambda: listed(path), str(path), size, channels, frames)


def read_listing(
    paths: list[Path],
    listing: Callable[[], AbstractContextManager[Listing]],
    source: str,
    size: tuple[int, int] | None,
    channels: int | None,
    frames: str = "first",
) -> DecodedSource:
    """Images among files whose names tell split and class; `paths` are where they lie, for the cache."""

    def read(room: Room) -> DecodedSource:
        with listing() as found:
            return _read(found, source, size, channels, room, frames)

    return read_cached(paths, size, channels, read, frames)


def _read(
    found: Listing, source: str, size: tuple[int, int] | None, channels: int | None, room: Room, frames: str
) -> DecodedSource:
    images = [item for item in found.files if item.name.lower().endswith(SUFFIXES)]
    if not images:
        raise _no_images(found, source)
    known = find_metadata(found.files, images)
    add_dataset_json(found.files, {key_of(item) for item in images}, known)
    layout, labels = _places(images, known)
    entries = [
        Entry(item, place[0], label, known.captions.get(key_of(item)) if known.captions else None)
        for item, place, label in zip(images, layout.places, labels, strict=True)
        if place
    ]
    rest = [item for item in found.files if not item.name.lower().endswith(SUFFIXES)]
    rest = [item for item in rest if key_of(item) not in known.used]
    foreign = [item for item in rest if item.name.lower().endswith(FOREIGN)]
    other = [name_of(item) for item in rest if not item.name.lower().endswith(FOREIGN)]
    left_out = {
        why: [name_of(images[k]) for k in sorted(layout.left_out) if layout.left_out[k] == why] for why in IMAGES
    }
    left_out = {**left_out, **found.left_out, OTHER: other}
    aside = (counted(ALIASES, found.links), counted(SYSTEM, found.hidden))
    notes = [*layout.notes, *known.sources, *aside]
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


def _no_images(found: Listing, source: str) -> UserError:
    """What to say of a source without images: what was broken, and other sources that lie in it."""
    because = f"; {counted('broken', found.skipped)}" if found.skipped else ""
    others = [name_of(item) for item in found.files if item.name.lower().endswith(ARRAYS) or IDX.search(item.name)]
    there = f"; it holds {', '.join(others[:SHOWN])}: give the path of one of them" if others else ""
    return UserError(
        f"{source} holds no images; files ending in {', '.join(SUFFIXES)} are read, in any case{because}{there}"
    )


def _places(images: Sequence[Item], known: Known) -> tuple[Layout, list[str | None]]:
    """Where the images belong by their names, and the class of each: of the metadata where all have one there, or where
    the folders give none."""
    names = [item.name for item in images]
    shards = [STEM.sub("", item.shard) for item in images]
    layout = arrange(names, shards)
    if not known.labels:
        return layout, [place[1] if place else None for place in layout.places]
    labels = [known.labels.get(key_of(item)) for item in images]
    if not layout.classes or None not in labels:
        return arrange(names, shards, classes="classes from the metadata"), labels
    given = f"classes of the metadata are not used: {labels.count(None):,} of {len(images):,} images have none there"
    return replace(layout, notes=[*layout.notes, given]), [place[1] if place else None for place in layout.places]
