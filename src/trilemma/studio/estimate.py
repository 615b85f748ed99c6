"""Time and memory of a training before it begins, by a few seconds of its own steps in a process of their own."""

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import disk_errors
from trilemma.studio.processes import OneProcess

FILES = "pace-"  # before the names of folders of measurements
LONGEST_S = 60.0  # seconds for torch, the images, and the steps that are measured


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training takes.

    seconds: of its steps and of those of its parts; parts: (name, seconds) of each that is trained first; own_seconds:
    of its own steps; images: of these, None where the length is given in minutes; rate: images a second; steps,
    measured_s: of the measurement; memory_bytes, gpu_bytes: None where it is not known; busy: whether a job ran
    meanwhile.
    """

    seconds: float
    parts: tuple[tuple[str, float], ...]
    own_seconds: float
    images: int | None
    rate: float
    steps: int
    measured_s: float
    device: str
    memory_bytes: int | None
    gpu_bytes: int | None
    busy: bool


class Estimator:
    """Measures one training at a time.

    Args:
        folder: in which the data lie; own: of the studio, for the files of the measurement.
    """

    def __init__(self, folder: Path, own: Path) -> None:
        self.own, self._turn, self._process = own, threading.Lock(), OneProcess("pacer", folder)

    def close(self) -> None:
        """End a measurement, and begin no other one."""
        self._process.close()
        with self._turn:  # until its files are removed
            pass

    def remove_unfinished(self) -> None:
        """Remove the files of measurements whose studio was killed; only for a folder that this process has locked."""
        for place in self.own.glob(f"{FILES}*"):
            shutil.rmtree(place, ignore_errors=True)

    def estimate(self, words: Sequence[str], *, busy: bool) -> TrainingEstimate:
        """What a training takes.

        Args:
            words: of its command line after `train`: model, data, keys.
            busy: whether a job runs.
        Raises:
            UserError: the training is refused, could not be measured in LONGEST_S, another is measured, or
                the disk refuses.
        """
        if not self._turn.acquire(blocking=False):
            raise UserError("another training is being measured; wait until it is done")
        try:
            with disk_errors(self.own):
                files = tempfile.TemporaryDirectory(prefix=FILES, dir=self.own, ignore_cleanup_errors=True)
            with files as place:
                return _estimate_of(self._ask([place, *words]), busy=busy)
        finally:
            self._turn.release()

    def _ask(self, words: Sequence[str]) -> dict[str, Any]:
        try:
            answer = json.loads(self._process.output(*words, limit_s=LONGEST_S))
        except UserError as error:
            raise UserError(f"time and memory are not known: {error}") from None
        except subprocess.TimeoutExpired:
            raise UserError(
                f"time and memory are not known: the images and a first step take longer than {LONGEST_S:.0f} seconds"
            ) from None
        except ValueError:
            raise UserError("time and memory are not known: the process that measures has ended") from None
        if "error" in answer:
            raise UserError(f"time and memory are not known: {answer['error']}")
        return answer


def _estimate_of(answer: dict[str, Any], *, busy: bool) -> TrainingEstimate:
    """The estimate of the paces of a training and its parts."""
    *parts, own = answer["paces"]
    seconds = [_seconds(pace) for pace in answer["paces"]]
    return TrainingEstimate(
        sum(seconds),
        tuple((part["name"], part_s) for part, part_s in zip(parts, seconds, strict=False)),
        seconds[-1],
        own["images"],
        own["rate"],
        sum(pace["steps"] for pace in answer["paces"]),
        sum(pace["seconds"] for pace in answer["paces"]),
        own["device"],
        _most(pace["memory_bytes"] for pace in answer["paces"]),
        _most(pace["gpu_bytes"] for pace in answer["paces"]),
        busy,
    )


def _seconds(pace: dict[str, Any]) -> float:
    """How long the training of a pace takes; a length in minutes has the work before the first step in it."""
    return 60 * pace["minutes"] if pace["images"] is None else pace["before_s"] + pace["images"] / pace["rate"]


def _most(values: Iterable[int | None]) -> int | None:
    """The most of what is known."""
    return max((value for value in values if value is not None), default=None)
