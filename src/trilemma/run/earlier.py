"""The model of a run as it was on the way, from the weights that its training kept (keep_weights=)."""

from typing import NamedTuple

from trilemma.run.locate import EARLIER
from trilemma.run.run import Run

MOST = 20  # files that are looked at


class Earlier(NamedTuple):
    """A run as it was after so many images and seconds of its training."""

    images: int
    seconds: float
    run: Run


def earlier_runs(run: Run) -> list[Earlier]:
    """Those whose weights are in the folder and whose time is in the log, in their order."""
    seconds = {row["images"]: row["seconds"] for row in run.log if {"images", "seconds"} <= row.keys()}
    files = sorted((run.path / EARLIER).glob("*.safetensors"))[:MOST]
    numbers = [(int(file.stem), file) for file in files if file.stem.isdecimal()]
    return [Earlier(n, seconds[n], run.with_weights(file)) for n, file in numbers if n in seconds]
