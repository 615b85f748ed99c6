"""How much time goes into evaluating a training beside its steps, and whether there is time for more."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from trilemma.team import ALONE, Team, smallest

SHARE = 0.1  # of the time of the steps, at most, goes into pictures, validation and the density fit
LAST = ("validation", "drawing")  # what is done at the end in any case; a picture on the way has a fit of its own
PICTURES = 0.5  # of that share, at most, is spent before a picture is drawn: the rest is kept for validation
FREE_S = 0.5  # seconds that nobody misses, however short a training is


class TimeBudget:
    """Measures evaluations by their kind; `spent` seconds in all, `costs` those of the last one of a kind.

    Args:
        since: seconds of steps before this process began; team: the processes that have one budget.
    """

    def __init__(self, since: float = 0.0, team: Team = ALONE) -> None:
        self.since, self.team, self.spent = since, team, 0.0
        self.costs: dict[str, float] = {}

    @contextmanager
    def timed(self, kind: str, times: float = 1.0) -> Iterator[None]:
        """Inside, an evaluation is made, or a part of one that takes `times` as long in full."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.spent += seconds
            self.costs[kind] = times * seconds

    def left(self, seconds: float, *kinds: str, share: float = SHARE) -> float:
        """What the share of so many seconds of steps has left after one more evaluation of each of these kinds, in
        seconds, in the process that has the least; negative if it has not enough."""
        needed = self.spent + sum(self.costs.get(kind, 0.0) for kind in kinds)
        return smallest(self.team, max(FREE_S, share * (seconds - self.since)) - needed)

    def allows(self, kind: str, seconds: float, share: float = SHARE) -> bool:
        """Whether one more evaluation like the last stays within the share, with room for the LAST ones."""
        return self.left(seconds, kind, *LAST, share=share) >= 0
