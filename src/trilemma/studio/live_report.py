"""What a comparison that runs, or was stopped, knows so far: its partial.json, checked, for the page of its job."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from trilemma.errors import UserError
from trilemma.files import read_json
from trilemma.studio.jobs import Job, process_of
from trilemma.studio.library import Library, StudioRun, entries
from trilemma.studio.numbers import is_number, number
from trilemma.studio.sections import COMPARED_STATES
from trilemma.studio_files import PARTIAL_FORMAT, PARTIAL_REPORT

LARGEST = 4 << 20  # bytes
MOST_ROWS, MOST_METRICS = 500, 40


@dataclass(frozen=True)
class Cell:
    """A value of a table, with the ends of its interval where it has one. best: whether no other value is better."""

    value: float | None
    low: float | None = None
    high: float | None = None
    refused: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One of those compared. run: its training, where that is listed; cells: one for each metric."""

    label: str
    state: str
    error: str
    run: StudioRun | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class LiveReport:
    """A report as far as it is known. done: of all rows, those that were measured or have failed.

    metrics: (title, unit, whether higher is better) of each column; elapsed_s, total_s: seconds of the work so far, and
    of the whole as it was estimated.
    """

    metrics: tuple[tuple[str, str, bool], ...]
    rows: tuple[Row, ...]
    elapsed_s: float
    total_s: float

    @property
    def done(self) -> int:
        """How many of the rows are measured, or failed."""
        return sum(row.state in ("measured", "failed") for row in self.rows)


def partial_file(library: Library, job: Job) -> Path | None:
    """The partial.json of the comparison that the process of a job writes, or wrote; None if there is none."""
    if (process := process_of(job.place)) is None:
        return None
    for path in _partial_files(library.folder):
        content = _read(path)
        if content.get("process") == process and (number(content.get("began")) or 0.0) >= (job.started or 0.0) - 1.0:
            return path
    return None


def live_report(library: Library, path: Path, *, running: bool = False) -> LiveReport | None:
    """The report of a file; None where that is gone, or is not one.

    Args:
        running: whether its comparison still runs, so that time has passed since the file was written.
    """
    content = _read(path)
    metrics, rows = content.get("metrics"), content.get("rows")
    if (
        content.get("format") != PARTIAL_FORMAT
        or not _are_objects(metrics, MOST_METRICS)
        or not _are_objects(rows, MOST_ROWS)
    ):
        return None
    written = number(content.get("written"))
    since_s = max(0.0, time.time() - written) if running and written else 0.0
    columns = [_cells(metric, rows) for metric in metrics]
    return LiveReport(
        tuple((str(m.get("title", "")), str(m.get("unit", "")), m.get("better") == "higher") for m in metrics),
        tuple(_row(library, row, [column[k] for column in columns]) for k, row in enumerate(rows)),
        (number(content.get("elapsed_s")) or 0.0) + since_s,
        number(content.get("total_s")) or 0.0,
    )


def _partial_files(folder: Path) -> Iterator[Path]:
    """Those of the comparisons in the folder's runs/, none behind a link."""
    for entry in entries(folder / "runs"):
        path = Path(entry.path) / PARTIAL_REPORT
        if entry.is_dir(follow_symlinks=False) and path.is_file() and not path.is_symlink():
            yield path


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, UserError):
        content = read_json(path, LARGEST)
        return content if isinstance(content, dict) else {}
    return {}


def _row(library: Library, row: Mapping[str, Any], cells: list[Cell]) -> Row:
    state, run = row.get("state"), row.get("run")
    known = state if state in COMPARED_STATES else "waiting"
    listed = library.run_at(run) if isinstance(run, str) else None
    return Row(str(row.get("label", "")), known, str(row.get("error") or ""), listed, tuple(cells))


def _cells(metric: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """A column; the best value is marked where there are several."""
    name = str(metric.get("name"))
    scores = [row["scores"].get(name) if isinstance(row.get("scores"), dict) else None for row in rows]
    cells = [_cell(score) if isinstance(score, dict) else Cell(None) for score in scores]
    values = [cell.value for cell in cells if cell.value is not None]
    best = (max if metric.get("better") == "higher" else min)(values) if len(values) > 1 else None
    return [Cell(c.value, c.low, c.high, c.refused, c.value is not None and c.value == best) for c in cells]


def _cell(score: Mapping[str, Any]) -> Cell:
    interval = score.get("interval")
    both = isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
    low, high = interval if isinstance(interval, list) and both else (None, None)
    value = score.get("value")
    return Cell(value if is_number(value) else None, low, high, str(score.get("refused") or ""))


def _are_objects(values: Any, most: int) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(values, list) and len(values) <= most and all(isinstance(value, dict) for value in values)
