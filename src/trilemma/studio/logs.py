"""The logs of trainings as pages show them: the values by name, and the warnings.

A log grows by dozens of rows a second, and the page of a training is made anew every two seconds. So what was read is
kept, and only what was appended since is read. A log that does not continue what was read, as of a training that went
back to its checkpoint, is read anew.
"""

import math
import os
import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import open_plain
from trilemma.run.log import LARGEST_LOG, PLACE, rows_in
from trilemma.studio.library import StudioRun

KEPT_LOGS = 8
END = 1000  # bytes by which a log is known to continue what was read

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True)
class Log:
    """What is in a log. series: the finite values by name, (images, values) of each; warnings: each with its step;
    cut_bytes: what was read of a log that goes on, None where that is all."""

    series: Series
    warnings: Sequence[str]
    cut_bytes: int | None = None


def log_of(run: StudioRun) -> Log:
    """The log of a run; an empty one where it cannot be read."""
    try:
        return _reader(run.path / "log.jsonl").read()
    except (UserError, OSError):
        return Log({}, [])


def series_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple["array[float]", "array[float]"]]:
    """The finite values of rows by name, (images, values) of each.

    >>> series_of([{"step": 1, "images": 32, "seconds": 0.1, "loss": 0.5}])
    {'loss': (array('d', [32.0]), array('d', [0.5]))}
    """
    series: dict[str, tuple[array[float], array[float]]] = {}
    _add(series, rows)
    return series


def _add(series: dict[str, tuple["array[float]", "array[float]"]], rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        for name, value in row.items():
            if name not in PLACE and isinstance(value, int | float) and math.isfinite(value):
                images, values = series.setdefault(name, (array("d"), array("d")))
                images.append(row["images"])
                values.append(value)


@lru_cache(maxsize=KEPT_LOGS)
def _reader(path: Path) -> "_Reader":
    return _Reader(path)


class _Reader:
    """Reads a log again and again."""

    def __init__(self, path: Path) -> None:
        self.path, self._turn = path, threading.Lock()  # requests are answered by several threads
        self._forget()

    def _forget(self) -> None:
        self._series: dict[str, tuple[array[float], array[float]]] = {}
        self._warnings: list[str] = []
        self._place, self._end = 0, b""  # bytes that were read, and the last of them
        self._is_cut = False

    def read(self) -> Log:
        """The log as it is now, up to its last whole row and to `LARGEST_LOG` bytes.

        Raises:
            UserError, OSError: it is not a plain file, or cannot be read.
        """
        with self._turn:
            self._read_on()
            series = {name: (x[:], y[:]) for name, (x, y) in self._series.items()}
            return Log(series, [*self._warnings], LARGEST_LOG if self._is_cut else None)

    def _read_on(self) -> None:
        with open_plain(self.path) as file:
            file.seek(self._place - len(self._end))
            if file.read(len(self._end)) != self._end:
                self._forget()
                file.seek(0)
            content, _, _ = file.read(LARGEST_LOG - self._place).rpartition(b"\n")
            self._is_cut = os.fstat(file.fileno()).st_size > LARGEST_LOG
        if not content:
            return
        rows = rows_in(content)
        _add(self._series, rows)
        self._warnings += [f"step {row['step']:,}: {row['warning']}" for row in rows if _warns(row)]
        self._place, self._end = self._place + len(content) + 1, (self._end + content + b"\n")[-END:]


def _warns(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("warning"), str)
