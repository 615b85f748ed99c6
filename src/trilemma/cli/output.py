"""How the command line prints: facts, tables and numbers."""

import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from shutil import get_terminal_size
from typing import Any

from trilemma.text import printable

GAP = 3  # letters between two columns of a drawn table


@contextmanager
def every_letter() -> Iterator[None]:
    """Inside, "?" is printed for a letter that the terminal's encoding lacks, where Python would raise an error."""
    strict = [stream for stream in (sys.stdout, sys.stderr) if getattr(stream, "errors", "") == "strict"]
    streams = [stream for stream in strict if hasattr(stream, "reconfigure")]
    for stream in streams:
        stream.reconfigure(errors="replace")  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for stream in streams:
            with suppress(OSError, ValueError):  # closed, or its reader left
                stream.reconfigure(errors="strict")  # type: ignore[attr-defined]


def say(text: str) -> None:
    """One line; on a terminal it is wrapped between words."""
    print(wrapped(printable(text)))


def facts(values: Mapping[str, Any]) -> None:
    """One line for each fact; None values are left out. On a terminal, text is wrapped between words."""
    values = {printable(name): value for name, value in values.items() if value is not None}
    margin = max(map(len, values)) + 2
    for name, value in values.items():
        print(f"{name:{margin}}{wrapped(printable(str(value)), margin)}")


def wrapped(text: str, margin: int = 0) -> str:
    """A text with lines that fit the terminal behind a margin, in which no word is broken; as it is elsewhere."""
    if not sys.stdout.isatty():
        return text
    width = max(get_terminal_size().columns - margin, 20)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * margin}".join(lines)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table: drawn on a terminal, in columns that break no word or else as a list; plain columns elsewhere."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for row in [columns, *cells]:
            print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    widths = column_widths([columns, *cells], get_terminal_size().columns - GAP * (len(columns) - 1))
    if widths:
        _draw(columns, cells, widths)
        return
    for first, *rest in cells:
        print(wrapped(first))
        for column, cell in zip(columns[1:], rest, strict=True):
            if cell:
                print(f"  {column}: {wrapped(cell, len(column) + 4)}")


def column_widths(lines: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Widths of columns that share the room, the widest giving way; None if a word would be broken.

    >>> column_widths([("name", "what"), ("vae", "an autoencoder with a prior")], 20)
    [4, 16]
    >>> column_widths([("name", "what"), ("vae", "an autoencoder with a prior")], 12)
    """
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((k for k in range(len(widths)) if widths[k] > least[k]), key=lambda k: widths[k])
        widths[widest] -= 1
    return widths


def _draw(columns: Sequence[str], cells: Iterable[Sequence[str]], widths: Sequence[int]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.HORIZONTALS, show_edge=False, pad_edge=False)
    for name, width in zip(columns, widths, strict=True):
        drawn.add_column(name, width=width)
    for row in cells:
        drawn.add_row(*map(Text, row))
    Console(width=sum(widths) + GAP * (len(widths) - 1)).print(drawn)


def number(value: float | None) -> str:
    """Four digits, or a dash for none."""
    return "-" if value is None else f"{value:.4g}"


def interval(bounds: tuple[float, float] | None) -> str:
    """Both ends, or a dash for none."""
    return "-" if bounds is None else " to ".join(map(number, bounds))


def estimate(value: float | None, bounds: tuple[float, float] | None) -> str:
    """A value with its interval behind it."""
    return number(value) if bounds is None else f"{number(value)} ({interval(bounds)})"
