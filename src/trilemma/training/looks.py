"""The looks at a training beside its steps, and whether there is time for them: validation, pictures, the last step.

In a training of given minutes they take a share of the time of its steps at most (pace.py). Before the first one of a
kind, a part of it is done to learn how long it takes. In any other training what the next steps depend on is always
done, so that its result does not depend on the clock.
"""

from collections.abc import Callable
from typing import Any

from trilemma.training.calendar import Calendar
from trilemma.training.guard import unless_full
from trilemma.training.observe import PARTS, Observer
from trilemma.training.pace import PICTURES, SHARE, Pace

SETTLED = 0.25  # share of a training after which its samples and codes are judged


class Looks:
    """Takes them by the observer, and counts their time."""

    def __init__(self, observer: Observer, calendar: Calendar, pace: Pace, warn: Callable[[str], None]) -> None:
        self.observer, self.calendar, self.pace, self.warn = observer, calendar, pace, warn

    @property
    def settled(self) -> bool:
        """Whether the training is far enough for its samples and codes to be judged."""
        return self.calendar.progress >= SETTLED

    def validation_is_due(self) -> bool:
        """Whether an epoch is over, and there is time for a validation."""
        return self.calendar.is_due(self.calendar.epoch) and self._has_time_to_validate()

    def picture_is_due(self) -> bool:
        """Whether a sample picture is, and there is time for one if the user did not say how often."""
        asked = self.calendar.config.sample_every is not None
        return self.calendar.picture_is_due() and (asked or self._has_time_to_draw())

    def validate(self, over: bool) -> dict[str, Any]:
        """The values of a validation, and the active units of a variational code.

        Args:
            over: whether it is the last one, which is made of as many images as there is time for.
        """
        row: dict[str, Any] = {}
        most = self._batches_in_time() if over else None
        with self.pace.timed("validation"):
            row |= self.observer.validate(self.calendar.images, most)
            unless_full("a look at the codes", lambda: row.update(self.observer.active_units()), self.warn)
        return row

    def judge(self, row: dict[str, Any]) -> None:
        """Warn of what a row of the log shows."""
        with self.pace.timed("judgement"):
            self.observer.listen(row, settled=self.settled)

    def draw(self) -> None:
        """A sample picture, named by the images seen."""
        name = f"{self.calendar.images:012d}"
        with self.pace.timed("picture"):
            draw = lambda: self.observer.snapshot(name, settled=self.settled)  # noqa: E731
            unless_full(f"the picture {name}.png", draw, self.warn)

    def take_final_weights(self) -> None:
        """The weights to use, and the model's last step."""
        with self.pace.timed("final weights"):
            self.observer.take_final_weights(self._seconds_to_finish())

    def _seconds_to_finish(self) -> float | None:
        """Seconds for the model's last step, so that the last picture has its time too; None: no limit. What was spent
        before a resume is not known: half of its share."""
        if self.calendar.config.minutes is None:
            return None
        return max(self.pace.left(self.calendar.seconds, "drawing", "judgement"), SHARE / 2 * self.pace.since)

    def _batches_in_time(self) -> int | None:
        """Batches of a validation for which there is time, one at least; None for all."""
        batches = self.observer.valid_batches
        if self.calendar.config.minutes is None or batches < 2:
            return None
        if "validation" not in self.pace.costs:
            with self.pace.timed("validation", times=batches):
                self.observer.validate_part()
        left = self.pace.left(self.calendar.seconds, "drawing", "judgement")
        most = int(left * batches / max(self.pace.costs["validation"], 1e-9))
        return max(most, 1) if most < batches else None

    def _has_time_to_validate(self) -> bool:
        if self.calendar.config.minutes is None:
            return True
        if "validation" not in self.pace.costs and self.pace.allows("validation", self.calendar.seconds):
            with self.pace.timed("validation", times=self.observer.valid_batches):
                self.observer.validate_part()
        return self.pace.allows("validation", self.calendar.seconds)

    def _has_time_to_draw(self) -> bool:
        """Where warnings follow from a picture, only a training of given minutes depends on the clock."""
        if self.observer.rivals > 1 and self.calendar.config.minutes is None:
            return True
        share = PICTURES * SHARE
        if "picture" not in self.pace.costs and self.pace.allows("picture", self.calendar.seconds, share):
            self._draw_part(4 * PARTS)  # what is done once in a process, such as an import, does not count
            with self.pace.timed("picture", times=PARTS):
                self._draw_part(PARTS)
        return self.pace.allows("picture", self.calendar.seconds, share)

    def _draw_part(self, parts: int) -> None:
        unless_full("a picture", lambda: self.observer.draw_part(parts), self.warn)
        self.pace.costs["drawing"] = self.observer.draw_seconds
