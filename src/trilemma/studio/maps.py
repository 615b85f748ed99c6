"""Maps of codes that `trilemma map interactive=true` left in a run, checked: their files may be anybody's."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import parse_json, read_plain
from trilemma.studio.library import LARGEST_PICTURE, StudioRun
from trilemma.studio.numbers import is_number
from trilemma.studio.place import Missing
from trilemma.studio_files import MAP_FORMAT, MAP_POINTS, MAP_THUMBNAILS

WAYS = ("pca", "tsne")
LARGEST_POINTS = 32 << 20  # bytes; 10,000 points have 2 MB
MOST_POINTS, MOST_CLASSES = 100_000, 10_000
LONGEST_NAME = 4096  # letters of a class or a file
COLOUR = re.compile("#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Neighbour:
    """An image near another. row: of the map; distance: of their codes, Euclidean; None of the image itself."""

    row: int
    index: int
    kind: str
    file: str
    distance: float | None = None


@dataclass(frozen=True)
class CodeMap:
    """A map. content: the columns of its points, as `explore/map_files.py` writes them; text: the same as JSON."""

    how: str
    folder: Path
    content: dict[str, Any]
    text: bytes

    def __len__(self) -> int:
        return len(self.content["x"])

    @property
    def thumbnails(self) -> Path:
        """The sheet of all thumbnails.

        Raises:
            Missing: it is not there, or is very large.
        """
        path = self.folder / MAP_THUMBNAILS
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST_PICTURE:
            raise Missing("Thumbnails not found. Make the map again.")
        return path

    def image(self, row: int, distance: float | None = None) -> Neighbour:
        """The image of a row."""
        kinds, files = self.content["class"], self.content["file"]
        kind = "" if kinds is None else self.content["classes"][kinds[row]]["name"]
        return Neighbour(row, self.content["index"][row], kind, "" if files is None else files[row], distance)

    def nearest(self, row: int) -> list[Neighbour]:
        """The images whose codes are nearest to that of a row, the nearest first.

        Raises:
            Missing: there is no such row.
        """
        if not 0 <= row < len(self):
            raise Missing("This image is not on the map. Choose one that is.")
        pairs = zip(self.content["nearest"][row], self.content["distance"][row], strict=True)
        return [self.image(other, distance) for other, distance in pairs]

    def row_of(self, index: int) -> int:
        """The row of the image of that number; raises Missing if it is not on the map."""
        if index not in self.content["index"]:
            raise Missing("This image is not on the map. Choose one that is.")
        return self.content["index"].index(index)

    def is_of(self, run: StudioRun) -> bool:
        """Whether it was made from the weights that a run has now, as far as both say."""
        weights, own = self.content.get("weights"), run.summary.get("weights_sha256")
        return not isinstance(weights, str) or not isinstance(own, str) or own.startswith(weights)


def ways_of(run: StudioRun) -> list[str]:
    """The methods by which maps of a run are there."""
    return [how for how in WAYS if _is_plain(_folder(run, how) / MAP_POINTS)]


def map_of(run: StudioRun, how: str) -> CodeMap:
    """The map of a run by a method.

    Raises:
        Missing: it is not there.
        UserError: its file is not one of a map.
    """
    folder = _folder(run, how)
    if how not in WAYS or not _is_plain(folder / MAP_POINTS):
        raise Missing("Map not found. Make it again.")
    stat = (folder / MAP_POINTS).stat()
    content, text = _content(folder / MAP_POINTS, stat.st_mtime_ns, stat.st_size)
    return CodeMap(how, folder, content, text)


def _folder(run: StudioRun, how: str) -> Path:
    return run.path / f"map-{how}-interactive"


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and not path.parent.is_symlink()


@lru_cache(maxsize=4)
def _content(path: Path, modified: int, size: int) -> tuple[dict[str, Any], bytes]:
    text = read_plain(path, LARGEST_POINTS)
    content = parse_json(text, path.name)
    if not _is_map(content):
        raise UserError("the file of this map is not one that this version wrote; make the map again")
    return content, text


def _is_map(content: Any) -> bool:
    """Whether a file has the columns of a map, all as long, with values that a page can draw."""
    if not isinstance(content, dict) or content.get("format") != MAP_FORMAT:
        return False
    x, classes = content.get("x"), content.get("classes")
    if not isinstance(x, list) or not 1 <= len(x) <= MOST_POINTS or not isinstance(classes, list):
        return False
    n, row, place = len(x), _whole(len(x)), _whole(len(classes))
    checks: list[tuple[str, Callable[[Any], bool]]] = [
        ("x", is_number),
        ("y", is_number),
        ("index", _whole(10**12)),
        ("nearest", lambda rows: _all(rows, row)),
        ("distance", lambda values: _all(values, is_number)),
    ]
    checks += [(name, one) for name, one in (("class", place), ("file", _short)) if content.get(name, "") is not None]
    return (
        all(_all(content.get(name), check) and len(content[name]) == n for name, check in checks)
        and all(len(a) == len(b) for a, b in zip(content["nearest"], content["distance"], strict=True))
        and len(classes) <= MOST_CLASSES
        and all(_is_class(one) for one in classes)
        and all(_whole(10_000)(content.get(name)) and content[name] > 0 for name in ("side_px", "columns"))
    )


def _all(values: Any, check: Callable[[Any], bool]) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and all(map(check, values))


def _whole(most: int) -> Callable[[Any], bool]:
    """Whether a value is a whole number from 0 to below `most`."""
    return lambda value: type(value) is int and 0 <= value < most


def _short(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME


def _is_class(one: Any) -> bool:
    return isinstance(one, dict) and _short(one.get("name")) and bool(COLOUR.fullmatch(str(one.get("colour"))))
