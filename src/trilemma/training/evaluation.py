"""The evaluations of a training beside its steps, and whether there is time for them: validation, pictures, the end.

In a training of given minutes they take a share of the time of its steps at most (time_budget.py). Before the first one
of a kind, a part of it is done to learn how long it takes. In any other training what the next steps depend on is
always done, so that its result does not depend on the clock.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trilemma.team import smallest
from trilemma.training.calendar import Calendar
from trilemma.training.diagnosis import Diagnosis
from trilemma.training.earlier import keep_weights
from trilemma.training.guard import unless_full
from trilemma.training.in_use import ModelInUse
from trilemma.training.samples import PARTS, SamplePictures
from trilemma.training.time_budget import PICTURES, SHARE, TimeBudget
from trilemma.training.validation import Validation

SETTLED = 0.25  # share of a training after which its samples and codes are judged


class Evaluation:
    """Makes them within their budget of time.

    Args:
        path: of the run folder; command: of the training, for its pictures; warn: takes a warning.
    """

    def __init__(
        self, in_use: ModelInUse, calendar: Calendar, path: Path, command: str, warn: Callable[[str], None]
    ) -> None:
        self.in_use, self.calendar, self.path, self.warn = in_use, calendar, path, warn
        self.validation = Validation(in_use, warn)
        self.diagnosis = Diagnosis(self.validation, warn, lambda: calendar.step)
        self.samples = SamplePictures(in_use, path, command, warn)
        self.budget = TimeBudget(team=in_use.team)

    @property
    def settled(self) -> bool:
        """Whether the training is far enough for its samples and codes to be judged."""
        return self.calendar.progress >= SETTLED

    def validation_is_due(self) -> bool:
        """Whether an epoch is over, and there is time for a validation."""
        return self.calendar.is_due(self.calendar.epoch) and self._has_time_to_validate()

    def picture_is_due(self) -> bool:
        """Whether a sample picture is due, and there is time for one unless the user says how often."""
        by_user = self.calendar.config.sample_every is not None
        return self.calendar.picture_is_due() and (by_user or self._has_time_to_draw())

    def validate(self, over: bool) -> dict[str, Any]:
        """The values of a validation, the active units of a variational code, and how far a critic is overfit.

        Args:
            over: whether it is the last one, which is made of as many images as there is time for.
        """
        row: dict[str, Any] = {}
        most = self._batches_in_time() if over else None
        with self.budget.timed("validation"):
            row |= self.validation.validate(self.calendar.images, most)
            self._unless_full("the check of the codes", lambda: row.update(self.diagnosis.active_units()))
            self._unless_full("the check of the critic", lambda: row.update(self.diagnosis.critic_overfit()))
        return row

    def check_row(self, row: dict[str, Any]) -> None:
        """Warn of what a row of the log shows."""
        with self.budget.timed("checks"):
            self.diagnosis.check_row(row, settled=self.settled)

    def draw(self) -> None:
        """A sample picture, named by the images seen."""
        name = f"{self.calendar.images:012d}"

        def draw() -> None:
            images = self.samples.snapshot(name)
            if images is not None:
                self.diagnosis.check_samples(images, settled=self.settled)

        with self.budget.timed("picture"):
            self._unless_full(f"the picture {name}.png", draw)

    def keep_weights(self) -> None:
        """The weights to use by now, named by the images seen. The user asked for them: no other evaluation has less
        time for that."""
        name = f"{self.calendar.images:012d}"
        self._unless_full(f"the weights {name}", lambda: keep_weights(self.in_use, self.path, name, self.warn))

    def draw_last(self, name: str) -> None:
        """The picture of the final weights, whose samples are checked in every model."""
        with self.budget.timed("picture"):
            if (images := self.samples.draw(name)) is not None:
                self.diagnosis.check_samples(images, last=True)

    def check_final(self) -> None:
        """Warn of what is wrong with the weights that the training ends with."""
        with self.budget.timed("checks"):
            self.diagnosis.check_final()

    def take_final_weights(self) -> None:
        """The weights to use, and the model's last step."""
        seconds, validation = self._seconds_to_finish(), self.validation
        with self.budget.timed("final weights"):
            self.in_use.take_final_weights(validation.best_weights)
            if validation.best_weights:
                validation.values = {name: value for name, value in validation.best.items() if name != "images"}
            validation.values = validation.values | self.in_use.finish_within(seconds)

    def _seconds_to_finish(self) -> float | None:
        """Seconds for the model's last step, so that the last picture has its time too; None: no limit. What was spent
        before a resume is not known: half of its share."""
        if self.calendar.config.minutes is None:
            return None
        return max(self.budget.left(self.calendar.seconds, "drawing", "checks"), SHARE / 2 * self.budget.since)

    def _batches_in_time(self) -> int | None:
        """Batches of a validation for which there is time, one at least; None for all."""
        n_batches = self.validation.n_batches
        if self.calendar.config.minutes is None or n_batches < 2:
            return None
        if "validation" not in self.budget.costs:
            with self.budget.timed("validation", times=n_batches):
                self.validation.validate_part()
        left = self.budget.left(self.calendar.seconds, "drawing", "checks")
        most = int(smallest(self.budget.team, left * n_batches / max(self.budget.costs["validation"], 1e-9)))
        return max(most, 1) if most < n_batches else None

    def _has_time_to_validate(self) -> bool:
        if self.calendar.config.minutes is None:
            return True
        if "validation" not in self.budget.costs and self.budget.allows("validation", self.calendar.seconds):
            with self.budget.timed("validation", times=self.validation.n_batches):
                self.validation.validate_part()
        return self.budget.allows("validation", self.calendar.seconds)

    def _has_time_to_draw(self) -> bool:
        """Where warnings follow from a picture, only a training of given minutes depends on the clock."""
        if self.diagnosis.n_players > 1 and self.calendar.config.minutes is None:
            return True
        share = PICTURES * SHARE
        if "picture" not in self.budget.costs and self.budget.allows("picture", self.calendar.seconds, share):
            self._draw_part(4 * PARTS)  # what is done once in a process, such as an import, does not count
            with self.budget.timed("picture", times=PARTS):
                self._draw_part(PARTS)
        return self.budget.allows("picture", self.calendar.seconds, share)

    def _draw_part(self, parts: int) -> None:
        self._unless_full("a picture", lambda: self.samples.draw_part(parts))
        self.budget.costs["drawing"] = self.samples.seconds

    def _unless_full(self, what: str, action: Callable[[], None]) -> None:
        unless_full(what, action, self.warn, self.in_use.shards)
