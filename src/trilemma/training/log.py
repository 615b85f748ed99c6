"""What a training says: `log.jsonl` with every figure, a progress bar on a terminal, plain lines elsewhere."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from torch import Tensor

from trilemma.errors import UserError
from trilemma.files import parse_json, read_plain, write_atomic
from trilemma.text import encodable, printable
from trilemma.training.state import Checkpoint

PLAIN_EVERY_S = 15.0
BAR = 20  # characters
UNKNOWN = "-:--:--"  # time left
LARGEST_LOG = 32 << 20  # bytes; 100,000 rows
LARGEST_FIGURE = torch.finfo(torch.float32).max
PLACE = ("step", "images", "seconds")  # with which every row begins


class Averages:
    """Running means of named scalars, kept on their device so that a step never waits for a number."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}
        self.counts: dict[str, int] = {}

    def add(self, prefix: str, parts: dict[str, Tensor]) -> None:
        """Add one value per part."""
        for part, value in parts.items():
            name = f"{prefix}/{part}"
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call; the sums start again."""
        there = {name: value.float() for name, value in self.sums.items() if isinstance(value, Tensor)}
        here = dict(zip(there, torch.stack(list(there.values())).tolist(), strict=True)) if there else {}
        means = {name: here.get(name, self.sums[name]) / count for name, count in self.counts.items()}
        self.sums, self.counts = {}, {}
        return means

    def state(self) -> Checkpoint:
        """Sums and counts as plain numbers; a sum that JSON does not know (nan, inf) as text."""
        sums = {name: _plain(float(value)) for name, value in self.sums.items()}
        return Checkpoint({"averages": {"sums": sums, "counts": dict(self.counts)}})

    def load(self, state: Checkpoint) -> None:
        """Take sums and counts back; a sum in single precision is the same as a plain number."""
        averages = state.values["averages"]
        self.sums = {name: float(value) for name, value in averages["sums"].items()}
        self.counts = dict(averages["counts"])


class Journal:
    """`log.jsonl`, one JSON object per report. A disk that refuses costs a warning, never the training."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path, self.say, self.failed = path, say, False
        self.rows = 0  # in the file

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; numbers that JSON does not know (nan, inf) become text."""
        row = {key: _plain(value) for key, value in row.items()}
        with self._surviving(), self.path.open("ab", buffering=0) as file:
            _append(file, json.dumps(row).encode() + b"\n")
            self.rows += 1

    def cut(self, *, step: int | None = None, rows: int | None = None) -> None:
        """Drop the rows after a step, or after so many rows: they are about to be written again.

        Where the disk refuses, they stay and count: `rows` is what the next cut, after a restart, keeps.
        """
        self.rows = self.rows if rows is None else rows
        with self._surviving():
            there = read_log(self.path)
            self.rows = len(there)
            kept = [row for row in there[:rows] if step is None or row["step"] <= step]
            write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in kept))
            self.rows = len(kept)

    def state(self) -> Checkpoint:
        """How many rows belong to the training so far."""
        return Checkpoint({"rows": self.rows})

    def load(self, state: Checkpoint) -> None:
        """Take that back; the rows are still to be cut."""
        self.rows = state.values["rows"]

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Inside, an error of the disk is a warning, said once."""
        try:
            yield
        except (OSError, UserError) as error:
            if not self.failed:
                self.say(f"warning: {self.path} cannot be written ({error}); training continues without its log")
            self.failed = True


def _append(file: FileIO, line: bytes) -> None:
    """The whole line at the end of a file, or nothing of it."""
    good = file.tell()
    try:
        while line:  # a disk that is nearly full takes a part without an error
            line = line[file.write(line) :]
    except BaseException:
        with suppress(OSError):
            file.truncate(good)
        raise


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a line that was cut off, or is none of ours, is skipped.

    Raises:
        UserError: if it is no plain file, or too large.
    """
    try:
        lines = read_plain(path, LARGEST_LOG).split(b"\n")
    except FileNotFoundError:
        return []
    return [row for line in lines if line and (row := _row_in(line)) is not None]


def _row_in(line: bytes) -> dict[str, Any] | None:
    """The row of a line, with the place where the training was, figures and texts; None where it is no such row."""
    try:
        row = parse_json(line)
    except UserError:
        return None
    if not isinstance(row, dict) or not all(_is_figure(row.get(key)) and row[key] >= 0 for key in PLACE):
        return None
    return {key: value for key, value in row.items() if isinstance(value, str) or _is_figure(value)}


def _is_figure(value: Any) -> bool:
    """Whether a value is a number that single precision, in which all of this is computed, can hold."""
    return type(value) in (int, float) and abs(value) <= LARGEST_FIGURE


class Display:
    """Progress for a person: a bar on a terminal, one plain line at a time elsewhere, nothing when quiet."""

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, stderr=True, highlight=False, soft_wrap=True)
        self.title, self.last, self.bar = title, 0.0, None
        self.first: tuple[float, float] | None = None  # time and progress when it was first updated
        if self.console.is_terminal and not quiet:
            rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # all columns but the figures have their width
            self.bar = Progress(
                TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=len(title))),
                BarColumn(BAR, table_column=Column(min_width=BAR)),
                TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True, min_width=4)),
                TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True, min_width=len(UNKNOWN))),
                TextColumn("{task.fields[figures]}", table_column=rest),
                console=self.console,
                expand=True,
            )
            self.task = self.bar.add_task(title, total=1.0, figures="", left=UNKNOWN)
            self.bar.start()

    def say(self, text: str) -> None:
        """A line that stays. A terminal that was closed, or a reader that left, ends the talk and not the training."""
        try:
            self.console.print(self._printable(text), markup=False)
        except (OSError, SystemExit):  # rich leaves the process when a pipe breaks
            self.console.quiet = True

    def update(self, progress: float, text: str) -> None:
        """Show how far the training is; at most one plain line per PLAIN_EVERY_S seconds."""
        left = self._left(progress)
        if self.bar is not None:
            self.bar.update(self.task, completed=progress, figures=self._printable(text), left=left)
        elif time.monotonic() - self.last >= PLAIN_EVERY_S:
            self.last = time.monotonic()
            self.say(f"{self.title} {progress:4.0%} {left} {text}")

    def _left(self, progress: float) -> str:
        """The time left, at the mean pace so far of all that is done: steps, validation, pictures, checkpoints."""
        now = time.monotonic()
        since, begin = self.first = self.first or (now, progress)
        if progress <= begin:
            return UNKNOWN
        return str(timedelta(seconds=round((now - since) / (progress - begin) * (1 - progress))))

    def _printable(self, text: str) -> str:
        """The text in one line that a terminal shows as it is, with "?" for letters that its encoding lacks."""
        return encodable(printable(text), self.console)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            with suppress(OSError, SystemExit):
                self.bar.stop()


def figures_text(row: dict[str, Any]) -> str:
    """A row of the log as short text.

    >>> figures_text({"step": 3, "images": 96, "seconds": 1.0, "vae/loss": 0.03125})
    '96 images, vae/loss 0.03125'
    """
    shown = [
        f"{name} {value:.4g}"
        for name, value in row.items()
        if name not in ("step", "images", "seconds", "lr", "valid_images")
    ]
    return ", ".join([f"{row['images']:,} images", *shown])


def _plain(value: Any) -> Any:
    """A value as it is, but a number that JSON does not know as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
