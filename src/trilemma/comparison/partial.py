"""What a comparison knows before its report is there: FOLDER/partial.json, written anew after each step.

It is for those who watch, as the studio does, and goes when the report has come. A file that cannot be written costs
the comparison nothing.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from trilemma.comparison.entries import Entry
from trilemma.comparison.plain import Json, clean
from trilemma.comparison.progress import Progress
from trilemma.comparison.rows import scores_of
from trilemma.errors import UserError
from trilemma.files import remove, write_json
from trilemma.metrics.catalogue import CATALOGUE, COST, QUALITY
from trilemma.studio_files import PARTIAL_FORMAT, PARTIAL_REPORT

State = Literal["waiting", "training", "trained", "measuring", "measured", "failed"]


class Partial:
    """The file of a comparison in `folder`.

    Args:
        entries: what is compared; they are looked at whenever the file is written.
        progress: which says how long the work has taken, and how long the whole takes.
        trains: whether the models are trained, in folder/runs.
    """

    def __init__(self, folder: Path, entries: Sequence[Entry], progress: Progress, *, trains: bool) -> None:
        self.folder, self.entries, self.progress, self.trains = folder, entries, progress, trains
        self._began = time.time()

    def write(self, label: str = "", doing: str = "") -> None:
        """Write what is known.

        Args:
            label: of the entry that something is done to now, and `doing` what.
        """
        rows = [self._row(entry, doing if entry.label == label else "") for entry in self.entries]
        measured = {name for row in rows for name in row["scores"]}
        shown = [CATALOGUE[name] for name in (*QUALITY, *COST) if name in measured]
        content = {
            "format": PARTIAL_FORMAT,
            "process": os.getpid(),
            "began": self._began,
            "written": time.time(),
            "elapsed_s": self.progress.elapsed(),
            "total_s": self.progress.total(),
            "metrics": [{"name": m.name, "title": m.title, "unit": m.unit, "better": m.better} for m in shown],
            "rows": rows,
        }
        with suppress(OSError, UserError):
            write_json(self.folder / PARTIAL_REPORT, clean(content))

    def remove(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            remove(self.folder / PARTIAL_REPORT)

    def _row(self, entry: Entry, doing: str) -> Json:
        run = entry.run.path if entry.run else self.folder / "runs" / entry.label if self.trains else None
        scores = {} if entry.evaluation is None else scores_of(entry.evaluation)
        return {
            "label": entry.label,
            "state": self._state(entry, doing),
            "error": entry.error,
            "run": None if run is None else str(run),
            "scores": {
                name: {"value": score.value, "interval": score.interval, "refused": score.refused}
                for name, score in scores.items()
                if name in (*QUALITY, *COST)
            },
        }

    def _state(self, entry: Entry, doing: str) -> State:
        """What has become of an entry, or what is done to it now."""
        if entry.error:
            return "failed"
        if doing in ("training", "measuring"):
            return doing
        if entry.evaluation:
            return "measured"
        return "trained" if self.trains and entry.contestant else "waiting"
