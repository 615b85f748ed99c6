"""Data to choose from: the words of `trilemma data list`, and what lies in the folder, by ids."""

import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from trilemma import vocabulary
from trilemma.errors import UserError
from trilemma.run.locate import CONFIG, RUNS
from trilemma.studio.forms import is_data_word
from trilemma.studio.library import Library, entries, some_entries

ARCHIVES = {".zip", ".tar", ".npz", ".npy", ".parquet"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
LOOKED_AT, LOOKED_AT_OF_CLASS = 50, 3  # entries of a folder, and of one in it, to see whether it holds images


@dataclass(frozen=True)
class Source:
    """Data that can be chosen. id: a word, or the id of a file or folder; word: as it is typed in the folder."""

    id: str
    word: str


def sources(library: Library) -> list[Source]:
    """What can be chosen: the folder's own first."""
    return [*own_sources(library), *(Source(word, word) for word in vocabulary.data_words())]


def own_sources(library: Library) -> list[Source]:
    """Archives, and folders that hold images, in the folder and in its data/."""
    folders = (library.folder, library.folder / "data")
    places = [Path(entry.path) for folder in folders for entry in entries(folder, is_source)]
    return [Source(library.id_of(path), library.name_of(path)) for path in places]


def is_source(entry: os.DirEntry[str]) -> bool:
    """Whether an entry looks like data: an archive, or a folder with images in it or in a folder of a class. Of a
    folder a few entries are looked at, however many it has."""
    if entry.name.startswith(".") or entry.is_symlink():
        return False
    if entry.is_file():
        return _suffix(entry) in ARCHIVES
    if entry.name == RUNS.name or os.path.exists(os.path.join(entry.path, CONFIG)):
        return False
    inside = some_entries(entry.path, LOOKED_AT)
    classes = (inner for inner in inside if inner.is_dir(follow_symlinks=False))
    deeper = (inner for one in classes for inner in some_entries(one.path, LOOKED_AT_OF_CLASS))
    return any(_suffix(inner) in IMAGE_SUFFIXES and inner.is_file() for inner in chain(inside, deeper))


def _suffix(entry: os.DirEntry[str]) -> str:
    return Path(entry.name).suffix.lower()


def source_word(library: Library, ident: str) -> str:
    """The word of a choice.

    Raises:
        UserError: it is not one that is offered.
    """
    if is_data_word(ident):
        return ident
    return own_word(library, ident)


def own_word(library: Library, ident: str) -> str:
    """The word of data in the folder; errors as `source_word`."""
    for source in own_sources(library):
        if source.id == ident:
            return source.word
    raise UserError("data not found; choose others")
