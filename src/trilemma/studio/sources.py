"""Data to choose from: the words of `trilemma data list`, and what lies in the folder, by ids."""

from dataclasses import dataclass
from pathlib import Path

from trilemma import vocabulary
from trilemma.errors import UserError
from trilemma.run.locate import CONFIG
from trilemma.studio.forms import is_data_word
from trilemma.studio.library import Library, entries

ARCHIVES = {".zip", ".tar", ".npz", ".npy", ".parquet"}
IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
LOOKED_AT = 50  # entries of a folder, to see whether it holds images


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
    places = [Path(entry.path) for folder in (library.folder, library.folder / "data") for entry in entries(folder)]
    return [Source(library.id_of(path), library.name_of(path)) for path in places if is_source(path)]


def is_source(path: Path) -> bool:
    """Whether a path looks like data: an archive, or a folder with images in it or in a folder of a class."""
    if path.is_symlink() or path.name.startswith("."):
        return False
    if path.is_file():
        return path.suffix.lower() in ARCHIVES
    if (path / CONFIG).exists() or path.name == "runs":
        return False
    inside = entries(path)[:LOOKED_AT]
    deeper = [
        inner for entry in inside if entry.is_dir(follow_symlinks=False) for inner in entries(Path(entry.path))[:3]
    ]
    return any(Path(entry.name).suffix.lower() in IMAGES for entry in [*inside, *deeper] if entry.is_file())


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
    raise UserError("these data are not there any more; choose others")
