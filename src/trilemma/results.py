"""What a verb leaves: files of others are never written over or removed, and nothing is written through a link.

`claim` looks before the work begins. It refuses the first file that exists and is not ours, and removes what
killed processes of ours were writing beside it. A picture is ours if it says how it was made. Other files cannot say
so; they belong to a picture (`Results`), whose entry names them with the SHA-256 that each has and is about to have: so
they are ours whenever the process is killed, and no longer ours once they were changed.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from trilemma.arguments import typed, word
from trilemma.errors import UserError
from trilemma.files import refuse_foreign, refuse_links, remove_leftovers, sha256_of, user_path, write_atomic
from trilemma.pictures.png import read_metadata, save_png, says_how_made

if TYPE_CHECKING:
    from PIL import Image

FILES = "files"  # in a picture's entry: of each file beside it, by its path from there, the SHA-256 of ours
LONGEST_NAME = 60  # letters
CLEAR = re.compile(r"[\w.]+|[\d.]+(,[\d.]+)+")  # values that no other one looks like in a name: words, lists of numbers
VERBS = {"images of each class": "augment"}  # of pictures that an earlier version wrote without it


class Place(NamedTuple):
    """Where to write, and the folder below which nothing may be a link; the user's own may lead there by one."""

    path: Path
    within: Path


def place(out: str | Path | None, folder: Path, name: str) -> Place:
    """`out` (default: a name in a folder of ours)."""
    if out is None:
        return Place(folder / name, folder)
    path = out_path(out)
    return Place(path, path.parent)


def out_path(out: str | Path) -> Path:
    """`out` as a path; ~ is expanded.

    Raises:
        UserError: it has no name of its own, beside which other files could lie.
    """
    path = user_path(out)
    if path.name in ("", ".."):
        raise UserError(f'out="{out}" has no name; give the name of what to write, for instance out=results/NAME')
    return path


def with_keys(stem: str, keys: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """A name in which the keys follow that are not as by default, so that what is made otherwise lies beside.

    A few letters of a hash follow if other values would give the same name.

    >>> with_keys("traversal", {"image": 7, "units": "0,4", "span": 3.0}, {"image": None, "units": None, "span": 3.0})
    'traversal-image-7-units-0-4'
    """
    other = {key: value for key, value in keys.items() if value != defaults.get(key)}
    name = re.sub(r"[^\w.]+", "-", "-".join([stem, *(f"{key}-{word(value)}" for key, value in other.items())]))
    if all(CLEAR.fullmatch(word(value)) for value in other.values()) and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(' '.join(typed(other)).encode()).hexdigest()[:8]}"


def claim(pictures: Iterable[Path], within: Path, is_ours: Callable[[Path], bool] = says_how_made) -> None:
    """Make sure, before the work, that files may be written.

    Args:
        within: a folder; below it nothing may be a link.
        is_ours: whether a file is ours (default: a picture that says how it was made).
    Raises:
        UserError: there is a file of others, or a link; the message names it.
    """
    paths = list(pictures)
    folders = {path.parent for path in paths}
    claim_folders(folders, within)
    for path in paths:
        refuse_foreign(path, is_ours)
    for folder in folders:
        remove_leftovers(folder)


def claim_folders(folders: Iterable[Path], within: Path) -> None:
    """Make sure that existing folders are folders, and are not links below `within`.

    Raises:
        UserError: one is not; the message names it.
    """
    for folder in sorted({path for one in folders for path in (one, *one.parents)}):
        if folder != within and folder.is_relative_to(within):
            refuse_links(folder)
        if os.path.lexists(folder) and not folder.is_dir():
            raise UserError(f"{folder} is not a folder; choose another out=")


class Results:
    """A picture, and files that belong to it, as one verb writes them.

    Args:
        beside: the files that belong to it, in its folder or below.
        verb: that writes them; pictures of earlier versions do not name such files, and stand for those of their verb.
        pictures: more pictures, each with its own receipt.
    Raises:
        UserError: as `claim`, or two of the files have one name.
    """

    def __init__(
        self, picture: Path, beside: Iterable[Path], *, verb: str, within: Path, pictures: Iterable[Path] = ()
    ) -> None:
        self.picture, self.beside, self.verb = picture, list(beside), verb
        own = [picture, *pictures]
        if len({*own, *self.beside}) < len(own) + len(self.beside):
            raise UserError(f'{picture}: a file beside the picture has this name too; end out= in ".png"')
        claim(own, within)
        claim(self.beside, within, self._is_ours)

    def write(
        self, image: "Image.Image | Tensor | bytes", receipt: dict[str, Any], files: Mapping[Path, bytes | str]
    ) -> Path:
        """Write the picture, then the files, each whole or not at all.

        Args:
            receipt: how the picture was made.
            files: some of those beside it; the others stay as they are.
        Returns:
            The picture.
        """
        contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        sums = self._named() or {}
        for path in self.beside:
            refuse_foreign(path, self._is_ours)  # it may have appeared meanwhile
            old = [sha256_of(path)] if path.exists() else []
            new = [hashlib.sha256(contents[path]).hexdigest()] if path in contents else []
            sums[self._name(path)] = [*old, *new]
        save_png(image, self.picture, {**receipt, FILES: sums})
        for path, content in contents.items():
            write_atomic(path, content)
        return self.picture

    def _is_ours(self, path: Path) -> bool:
        """Whether the picture names a file with the content that it has."""
        sums = self._named()
        return sums is None or sha256_of(path) in sums.get(self._name(path), ())

    def _named(self) -> dict[str, list[str]] | None:
        """The files that the picture names; None if it is of an earlier version, and stands for its verb's."""
        if not says_how_made(self.picture):
            return {}
        entry = read_metadata(self.picture)
        if FILES not in entry and entry.get("verb", VERBS.get(str(entry.get("what")))) == self.verb:
            return None
        return _sums_in(entry)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.picture.parent).as_posix()


def _sums_in(entry: dict[str, Any]) -> dict[str, list[str]]:
    """The files that an entry names with their sums; anything else is left out."""
    entries = entry.get(FILES)
    return {name: sums for name, sums in entries.items() if isinstance(sums, list)} if isinstance(entries, dict) else {}
