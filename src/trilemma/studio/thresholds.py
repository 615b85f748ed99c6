"""Thresholds of a detection that lies in a run, read from the files that `detect` wrote: no model is loaded."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import read_json, read_plain
from trilemma.studio.library import Library, StudioRun, entries
from trilemma.studio.place import Missing

FIGURES, TABLE = "figures.json", "thresholds.csv"
LARGEST_TABLE = 1 << 20  # bytes
MOST = 50  # detections of a run that are offered
MOST_COUNTED = 10**12  # images
FLAGGED = "flagged_"


@dataclass(frozen=True)
class Threshold:
    """A threshold. rate, low, high: of false alarms, with its 95% interval, None where it is not known; key: the value
    of false_alarms= that sets it, "" where there is none; above: images above it, by kind."""

    value: float
    rate: float | None
    low: float | None
    high: float | None
    key: str
    above: Mapping[str, int]


@dataclass(frozen=True)
class StudioDetection:
    """A detection as its files say; thresholds: the lowest first."""

    id: str
    name: str  # of its folder
    score: str
    used: float
    counted: bool
    counts: Mapping[str, int]
    thresholds: Sequence[Threshold]

    @property
    def in_use(self) -> int:
        """The number of the threshold that the detection itself set."""
        return min(range(len(self.thresholds)), key=lambda k: abs(self.thresholds[k].value - self.used))

    def number_of(self, text: str) -> int:
        """The number of a threshold as a form has it; that in use for another text."""
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else -1
        return number if 0 <= number < len(self.thresholds) else self.in_use

    def normal(self, number: int) -> tuple[int, int]:
        """Normal images above a threshold, and all of them: those on which false alarms are counted or expected."""
        kind = "normal" if self.counted else "calibration"
        return self.thresholds[number].above.get(kind, 0), self.counts.get(kind, 0)


def detections_of(library: Library, run: StudioRun) -> list[StudioDetection]:
    """The detections in a run's folder whose files can be read, by name."""
    folders = [Path(entry.path) for entry in entries(run.path) if _may_be_detection(entry.name)]
    plain = [folder for folder in folders if folder.is_dir() and not folder.is_symlink()][:MOST]
    return [one for folder in plain if (one := _read(library.id_of(folder), folder)) is not None]


def detection_of(library: Library, run: StudioRun, ident: str) -> StudioDetection:
    """The detection of that id, or the first one for "".

    Raises:
        Missing: there is none.
    """
    detection = next((one for one in detections_of(library, run) if ident in ("", one.id)), None)
    if detection is None:
        raise Missing("Detection not found. Choose another, or run detect again.")
    return detection


def _may_be_detection(name: str) -> bool:
    return name == "detect" or name.startswith(("detect-", "detect_"))


def _read(ident: str, folder: Path) -> StudioDetection | None:
    """The detection in a folder; None if its files are not those of one."""
    try:
        figures = read_json(folder / FIGURES)
        lines = read_plain(folder / TABLE, LARGEST_TABLE).decode("utf-8").splitlines()
        thresholds = [_threshold(row) for row in csv.DictReader(lines)]
        counts = {str(kind): _count(count) for kind, count in figures["counts"].items()}
        score, used, counted = str(figures["score"]), float(figures["threshold"]), bool(figures["counted"])
    except (OSError, UserError, LookupError, TypeError, ValueError, OverflowError, AttributeError, csv.Error):
        return None
    return StudioDetection(ident, folder.name, score, used, counted, counts, thresholds) if thresholds else None


def _threshold(row: Mapping[str, Any]) -> Threshold:
    """A row of the table.

    Raises:
        ValueError, LookupError, TypeError, OverflowError: it is not one.
    """
    value, rate, low, high = (_number(row[name]) for name in ("threshold", "false_alarm_rate", "low", "high"))
    if value is None or len({part is None for part in (rate, low, high)}) > 1:
        raise ValueError("no threshold, or a rate without its interval")
    above = {name.removeprefix(FLAGGED): _count(text) for name, text in row.items() if name.startswith(FLAGGED)}
    _number(row["false_alarms"])
    return Threshold(value, rate, low, high, row["false_alarms"], above)


def _count(value: Any) -> int:
    """A number of images; raises ValueError, OverflowError or TypeError for anything else."""
    count = int(value)
    if not 0 <= count < MOST_COUNTED:
        raise ValueError("not a number of images")
    return count


def _number(text: str) -> float | None:
    value = float(text) if text else None
    if value is not None and not math.isfinite(value):
        raise ValueError("not finite")
    return value
