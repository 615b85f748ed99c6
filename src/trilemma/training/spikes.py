"""Losses that jump: each is compared with the window of those before it."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from trilemma.run.state import Checkpoint

WINDOW = 50  # losses that a new one is compared with, and after which a loss that rose has come back or has not
SPIKE, SPIKE_SPREADS = 2.0, 20.0  # a spike is so many times the window's median, and median deviations above it
RISE, RISE_SPREADS = 1.3, 10.0  # a rise is smaller, and is reported only if the loss does not come back
LASTING = 3  # steps in a row: a single batch may stand out in a healthy training


@dataclass(frozen=True)
class LossJump:
    """A loss that rose: in words, the step it began in, and whether it had WINDOW losses to come back and did not."""

    text: str
    step: int
    stays: bool = False


@dataclass
class Suspect:
    """A loss that rose in `step` above what it was: its level before, the bounds, and since then the losses."""

    step: int
    before: float
    rise: float
    spike: float
    losses: list[float]
    reported: bool = False


class LossSpikeDetector:
    """Finds the losses that jump, phase by phase. The losses that new ones are compared with are its state.

    Args:
        phases: the names of the phases.
    """

    def __init__(self, phases: Iterable[str]) -> None:
        self.losses: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in phases}
        self.suspects: dict[str, Suspect] = {}  # by phase: a loss that may have jumped

    @property
    def in_doubt(self) -> bool:
        """Whether a loss stands out now: the state is one that may have to be given up."""
        return bool(self.suspects)

    def check(self, step: int, losses: Mapping[str, float]) -> list[LossJump]:
        """Take the losses of a step by phase; the jumps that are new."""
        ended = [name for name, suspect in self.suspects.items() if step - suspect.step > WINDOW]
        for name in ended:  # its phase ended before the loss could come back
            del self.suspects[name]
        jumps = [self._compare(phase, loss, step) for phase, loss in losses.items()]
        return [jump for jump in jumps if jump is not None]

    def reset(self) -> None:
        """Start anew, after a return to an earlier state."""
        self.suspects = {}

    def state(self) -> Checkpoint:
        """The window of every phase."""
        return Checkpoint({"losses": {name: list(losses) for name, losses in self.losses.items()}})

    def load(self, state: Checkpoint) -> None:
        """Take them back."""
        for name, losses in state.values["losses"].items():
            self.losses[name] = deque(losses, maxlen=WINDOW)

    def _compare(self, phase: str, loss: float, step: int) -> LossJump | None:
        """Compare a loss with the window of those before it, or with what there was before it rose."""
        window = self.losses[phase]
        suspect = self.suspects.get(phase) or _suspect(window, loss, step)
        if suspect is None:
            window.append(loss)
            return None
        self.suspects[phase] = suspect
        suspect.losses.append(loss)
        count = len(suspect.losses)
        if count == WINDOW or (count <= LASTING and loss <= suspect.rise):
            del self.suspects[phase]
            window.extend(suspect.losses)
        if count == WINDOW and median(suspect.losses) > suspect.rise:
            return LossJump(f"{_text(phase, suspect)} and did not come back in {WINDOW} steps", suspect.step, True)
        if not suspect.reported and count >= LASTING and min(suspect.losses[-LASTING:]) > suspect.spike:
            suspect.reported = True
            advice = "if it does not come back, lower lr= or set a smaller clip"
            return LossJump(f"{_text(phase, suspect)}: {advice}", suspect.step)
        return None


def _suspect(window: deque[float], loss: float, step: int) -> Suspect | None:
    """A loss that stands out of the window of those before it."""
    if len(window) < WINDOW or loss <= RISE * min(window):  # the last: quick, and mostly true
        return None
    middle = median(window)
    spread = median(abs(value - middle) for value in window)
    rise, spike = (
        middle + max((times - 1) * abs(middle), spreads * spread)
        for times, spreads in ((RISE, RISE_SPREADS), (SPIKE, SPIKE_SPREADS))
    )
    return Suspect(step, middle, rise, spike, []) if loss > rise else None


def _text(phase: str, suspect: Suspect) -> str:
    last, before = suspect.losses[-1], suspect.before
    return f"the loss of {phase} jumped to {last:.4g} in step {suspect.step} (it was about {before:.4g})"
