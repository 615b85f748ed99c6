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
from trilemma.data.decoding.decoded import DecodedSource
from trilemma.data.decoding.listing import STEM, Listing, listed
from trilemma.data.decoding.pixels import name_of
from trilemma.data.options import Options
from trilemma.data.sources.dataset_json import add_dataset_json
from trilemma.data.sources.entries import Entry, Remarks, read_entries
from trilemma.data.sources.folder_layout import BESIDE, OUTSIDE, Layout, arrange
from trilemma.data.sources.idx import NAME as IDX
from trilemma.data.sources.metadata import Metadata, find_metadata, key_of
from trilemma.errors import UserError
from trilemma.words import SHOWN, names_counted

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


def read_folder(path: Path, options: Options) -> DecodedSource:
    """Images of a folder, a zip or a tar file, before anything is held out."""
    return read_listing([path], lambda: listed(path), str(path), options)


def read_listing(
    paths: list[Path], listing: Callable[[], AbstractContextManager[Listing]], source: str, options: Options
) -> DecodedSource:
    """Images among files whose names tell split and class; `paths` are where they lie, for the cache."""

    def read(room: Room) -> DecodedSource:
        with listing() as files:
            return _read(files, source, options, room)

    return read_cached(paths, options, read, options.frames)


def _read(listing: Listing, source: str, options: Options, room: Room) -> DecodedSource:
    images = [item for item in listing.files if item.name.lower().endswith(SUFFIXES)]
    if not images:
        raise _no_images(listing, source)
    metadata = find_metadata(listing.files, images)
    add_dataset_json(listing.files, {key_of(item) for item in images}, metadata)
    layout, labels = _places(images, metadata)
    entries = [
        Entry(item, place[0], label, metadata.captions.get(key_of(item)) if metadata.captions else None)
        for item, place, label in zip(images, layout.places, labels, strict=True)
        if place
    ]
    foreign, others = _not_images(listing, metadata)
    left_out = {
        why: [name_of(images[k]) for k in sorted(layout.left_out) if layout.left_out[k] == why] for why in IMAGES
    }
    remarks = Remarks(
        notes=(
            *layout.notes,
            *metadata.sources,
            names_counted(ALIASES, listing.links),
            names_counted(SYSTEM, listing.hidden),
        ),
        counts=tuple(metadata.notes),
        skipped=(*listing.skipped, *foreign),
        left_out={**left_out, **listing.left_out, OTHER: others},
        unmatched=tuple(metadata.unmatched),
    )
    return read_entries(entries, options, room, remarks)


def _not_images(listing: Listing, metadata: Metadata) -> tuple[list[str], list[str]]:
    """ "name: reason" of the images in formats that are not read, and the names of other files that nothing used."""
    rest = [item for item in listing.files if not item.name.lower().endswith(SUFFIXES)]
    rest = [item for item in rest if key_of(item) not in metadata.used]
    foreign = [item for item in rest if item.name.lower().endswith(FOREIGN)]
    reason = "{}: files ending in {} are not read; save it as PNG or JPEG"
    return (
        [reason.format(name_of(item), Path(item.name).suffix.lower()) for item in foreign],
        [name_of(item) for item in rest if not item.name.lower().endswith(FOREIGN)],
    )


def _no_images(listing: Listing, source: str) -> UserError:
    """What to say of a source without images: what was broken, and other sources that lie in it."""
    because = f"; {names_counted('broken', listing.skipped)}" if listing.skipped else ""
    arrays = [item for item in listing.files if item.name.lower().endswith(ARRAYS) or IDX.search(item.name)]
    names = ", ".join(map(name_of, arrays[:SHOWN]))
    instead = f"; it holds {names}: give the path of one of them" if arrays else ""
    return UserError(
        f"{source} holds no images; files ending in {', '.join(SUFFIXES)} are read, in any case{because}{instead}"
    )


def _places(images: Sequence[Item], metadata: Metadata) -> tuple[Layout, list[str | None]]:
    """Where the images belong by their names, and the class of each: of the metadata where all have one there, or where
    the folders give none."""
    names = [item.name for item in images]
    shards = [STEM.sub("", item.shard) for item in images]
    layout = arrange(names, shards)
    if not metadata.labels:
        return layout, [place[1] if place else None for place in layout.places]
    labels = [metadata.labels.get(key_of(item)) for item in images]
    if not layout.classes or None not in labels:
        return arrange(names, shards, classes="classes from the metadata"), labels
    note = f"classes of the metadata are not used: {labels.count(None):,} of {len(images):,} images have none there"
    return replace(layout, notes=[*layout.notes, note]), [place[1] if place else None for place in layout.places]
