"""Keys that vary over a picture, as `imagine` and `sample` take them: one along a row, one down a column."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from trilemma.arguments import parse_value, word
from trilemma.errors import UserError, unknown

BAR = "|"  # between values that have commas in them


@dataclass(frozen=True)
class Axes:
    """What varies over a picture. along: key and values of a row; down: those of a column, None for a single row."""

    along: tuple[str, list[Any]]
    down: tuple[str, list[Any]] | None = None

    @property
    def columns(self) -> int:
        """How many cells lie side by side."""
        return len(self.along[1])

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The values of the keys that vary, of each cell, row by row."""
        key, values = self.along
        down, rows = self.down or ("", [None])
        return [{**({down: row} if down else {}), key: value} for row in rows for value in values]

    @property
    def names(self) -> list[str]:
        """ROW-COLUMN of each cell, from 0."""
        return [f"{k // self.columns}-{k % self.columns}" for k in range(len(self.cells))]

    def text_of(self, cell: dict[str, Any]) -> str:
        """What stands under a cell: its values, first that of its column.

        >>> Axes(("steps", [1, 2]), ("guidance", [3.0])).text_of({"guidance": 3.0, "steps": 1})
        'steps=1, guidance=3'
        """
        keys = [self.along[0], *([self.down[0]] if self.down else [])]
        return ", ".join(f"{key}={word(cell[key])}" for key in keys)


def axes_of(x: str, y: str | None, keys: Collection[str], most: int, texts: Collection[str] = ()) -> Axes:
    """The axes of a picture.

    Args:
        x, y: as typed, KEY:VALUE,VALUE.
        keys: those that may vary; most: cells of a picture; texts: see `axis`.
    Raises:
        UserError: an axis has another form, its key cannot vary, both vary one key, or there are too many cells.
    """
    along, down = axis("x", x, keys, texts), axis("y", y, keys, texts) if y else None
    if down is not None and along[0] == down[0]:
        raise UserError(f"x= and y= both vary {along[0]}; give two keys")
    count = len(along[1]) * (len(down[1]) if down else 1)
    if count > most:
        raise UserError(f"x= and y= make {count} images; a picture has at most {most}")
    return Axes(along, down)


def axis(name: str, text: str, keys: Collection[str], texts: Collection[str] = ()) -> tuple[str, list[Any]]:
    """Key and values of an axis.

    Args:
        texts: keys whose values are no numbers, whatever they look like.

    >>> axis("x", "steps:1,2,4", ["steps"]), axis("y", "guidance:0", ["guidance"])
    (('steps', [1, 2, 4]), ('guidance', [0]))
    >>> axis("x", "prompt:a fox, in oil|7", ["prompt"], texts=["prompt"])
    ('prompt', ['a fox, in oil', '7'])

    Raises:
        UserError: it has another form, or the key cannot vary.
    """
    key, _, values = text.partition(":")
    parts = [part.strip() for part in values.split(BAR if BAR in values else ",") if part.strip()]
    if not parts:
        raise UserError(f"{name}={text:.80}: give a key and its values, as {name}=steps:1,2,4")
    if key not in keys:
        raise unknown(f"key of {name}=", key, keys)
    return key, [part if key in texts and part.lower() != "none" else parse_value(part) for part in parts]
