"""What a training logs: running means of its values, and `log.jsonl` with all of them."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.files import write_atomic
from trilemma.run.log import PLACE, read_log
from trilemma.run.state import Checkpoint

APART = (*PLACE, "lr", "valid_images")  # values of a row that are not of the model


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
        tensors = {name: value.float() for name, value in self.sums.items() if isinstance(value, Tensor)}
        sums = dict(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True)) if tensors else {}
        means = {name: sums.get(name, self.sums[name]) / count for name, count in self.counts.items()}
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


class LogFile:
    """`log.jsonl`, one JSON object per report. A disk that refuses costs a warning, never the training.

    Args:
        writes: whether this process writes it.
    """

    def __init__(self, path: Path, say: Callable[[str], None], *, writes: bool = True) -> None:
        self.path, self.say, self.writes, self.failed = path, say, writes, False
        self.rows = 0  # in the file

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; numbers that JSON does not know (nan, inf) become text."""
        if not self.writes:
            return
        row = {key: _plain(value) for key, value in row.items()}
        with self._surviving(), self.path.open("ab", buffering=0) as file:
            _append(file, json.dumps(row).encode() + b"\n")
            self.rows += 1

    def cut(self, *, step: int | None = None, rows: int | None = None) -> None:
        """Drop the rows after a step, or after so many rows: they are about to be written again.

        Where the disk refuses, they stay and count: `rows` is what the next cut, after a restart, keeps.
        """
        self.rows = self.rows if rows is None else rows
        if not self.writes:
            return
        with self._surviving():
            logged = read_log(self.path)
            self.rows = len(logged)
            rows_left = [row for row in logged[:rows] if step is None or row["step"] <= step]
            write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in rows_left))
            self.rows = len(rows_left)

    def state(self) -> Checkpoint:
        """How many rows belong to the training so far."""
        return Checkpoint({"rows": self.rows})

    def load(self, state: Checkpoint) -> None:
        """Take that back; the rows are still to be cut."""
        self.rows = state.values["rows"]

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Inside, an error of the disk is a warning, once."""
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


def row_text(row: dict[str, Any]) -> str:
    """A row of the log as short text.

    >>> row_text({"step": 3, "images": 96, "seconds": 1.0, "vae/loss": 0.03125})
    '96 images, vae/loss 0.03125'
    """
    values = [f"{name} {value:.4g}" for name, value in row.items() if name not in APART]
    return ", ".join([f"{row['images']:,} images", *values])


def _plain(value: Any) -> Any:
    """A value as it is, but a number that JSON does not know as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
