"""A line on the terminal for work that is silent for longer than a second."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

SILENT_S = 1.0  # seconds after which a line says what is going on


@contextmanager
def announced(doing: str | None) -> Iterator[None]:
    """Inside, work that takes more than a second is named on a terminal; None names nothing."""
    if not doing or not sys.stderr.isatty():
        yield
        return
    timer = Timer(SILENT_S, print, [f"{doing} ..."], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
