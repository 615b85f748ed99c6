"""How the command line prints: facts, tables, and values as they are typed."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from trilemma.arguments import typed
from trilemma.text import printable


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
    """One line."""
    print(printable(text))


def facts(values: Mapping[str, Any]) -> None:
    """One line for each fact; those that are None are left out."""
    values = {printable(name): value for name, value in values.items() if value is not None}
    width = max(map(len, values))
    for name, value in values.items():
        say(f"{name:{width}}  {value}")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table: drawn on a terminal, plain columns elsewhere."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*columns)
        for row in cells:
            drawn.add_row(*map(Text, row))
        Console().print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [columns, *cells]:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def words(values: Mapping[str, Any]) -> str:
    """The form in which keys are typed.

    >>> words({"lr": 0.001, "hidden": (256, 128)})
    'lr=0.001 hidden=256,128'
    """
    return " ".join(typed(values))


def number(value: float | None) -> str:
    """Four digits, or a dash for none."""
    return "-" if value is None else f"{value:.4g}"


def interval(bounds: tuple[float, float] | None) -> str:
    """Both ends, or a dash for none."""
    return "-" if bounds is None else " to ".join(map(number, bounds))


def estimate(value: float | None, bounds: tuple[float, float] | None) -> str:
    """A value with its interval behind it."""
    return number(value) if bounds is None else f"{number(value)} ({interval(bounds)})"
