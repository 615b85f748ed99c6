"""Where a training is, and what is due: its end, a report, a validation, a picture, a checkpoint.

Progress is counted in images. Only a training whose length is given in minutes counts the seconds of its steps.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trilemma.run.config import TrainConfig
from trilemma.run.state import Checkpoint

VALIDATE_AT_LEAST = 10_000  # images between validations of a data set smaller than this
REPORTS = 20  # in the images between two validations
SNAPSHOTS = 10  # sample pictures in a training, where sample_every is not given
SAVE_EVERY_S = 60.0  # a checkpoint at the next step after this time, where save_every is not given


class Calendar:
    """The step that comes next, the seconds that the steps took, and what is due after a step.

    Args:
        n_train: training images; stride: images in a step.
    """

    def __init__(self, config: TrainConfig, n_train: int, stride: int) -> None:
        self.config, self.n_train, self.stride = config, n_train, stride
        self.total = config.total_images(n_train, stride)
        self.step, self.seconds = 0, 0.0
        self.reported = 0.0  # progress at the last report
        self.unreported = False  # whether the last step is still to be reported
        self.saved_at = time.monotonic()

    @property
    def images(self) -> int:
        """Training images seen."""
        return self.step * self.stride

    @property
    def progress(self) -> float:
        """Share of the training that is done, in [0, 1]."""
        if self.total is not None:
            return min(1.0, self.images / self.total)
        return min(1.0, self.seconds / (60 * (self.config.minutes or 1)))

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do: the last step is taken, and reported."""
        return self.progress >= 1 and not self.unreported

    @property
    def epoch(self) -> int:
        """Images between validations: an epoch, or more where an epoch is short."""
        return max(self.n_train, VALIDATE_AT_LEAST)

    @property
    def report_every(self) -> list[int]:
        """Images between reports: REPORTS of them in an epoch, and where the user wants a checkpoint or a picture."""
        by_user = (self.config.save_every, self.config.sample_every)
        return [max(self.epoch // REPORTS, self.stride), self.epoch, *(every for every in by_user if every)]

    @property
    def position(self) -> dict[str, Any]:
        """Where the training is, as every row of the log begins."""
        return {"step": self.step, "images": self.images, "seconds": round(self.seconds, 3)}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Inside, the seconds of the steps are counted."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def is_due(self, every: int) -> bool:
        """Whether the last step passed a multiple of `every` images."""
        return self.images // every > (self.images - self.stride) // every

    def report_is_due(self) -> bool:
        """Whether the last step ended the training, or a report is due after it."""
        return self.progress >= 1 or self.keep_is_due() or any(map(self.is_due, self.report_every))

    def picture_is_due(self) -> bool:
        """Whether a sample picture is due: one in `sample_every` images, or SNAPSHOTS in a training at most."""
        if self.config.sample_every:
            return self.is_due(self.config.sample_every)
        return int(SNAPSHOTS * self.progress) > int(SNAPSHOTS * self.reported)

    def keep_is_due(self) -> bool:
        """Whether 1/2, 1/4, ... of the training, as many shares as weights are to be kept, was passed since the last
        report."""
        shares = (0.5**k for k in range(1, self.config.keep_weights + 1))
        return any(self.reported < share <= self.progress for share in shares) and self.progress < 1

    def save_is_late(self) -> bool:
        """Whether the clock asks for a checkpoint, which it does unless the user says how often."""
        return self.config.save_every is None and time.monotonic() - self.saved_at >= SAVE_EVERY_S

    def save_is_due(self) -> bool:
        """Whether the last step is one after which the user wants a checkpoint."""
        return self.config.save_every is not None and self.is_due(self.config.save_every)

    def state(self) -> Checkpoint:
        """The position in the training."""
        names = ("step", "images", "seconds", "progress", "reported", "unreported")
        return Checkpoint({name: getattr(self, name) for name in names})

    def load(self, state: Checkpoint) -> None:
        """Take a position back; a training may have become longer since."""
        self.step, self.seconds = state.values["step"], state.values["seconds"]
        self.reported = min(state.values["reported"], self.progress)
        self.unreported = state.values["unreported"]
