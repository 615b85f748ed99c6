"""The processes that train one model together: what they agree on, and how they divide a batch.

Every decision that the next steps depend on is made from numbers that `Team.agree` returned, so that all processes make
it alike: faults of a step, the seconds that steps took, saves and signals, the value that a plateau follows, and
whether there is time for a validation or a picture. Each process has a contiguous part of every batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from trilemma.errors import ReportedElsewhere, UserError

NONE = -1.0  # the step of a fault that there is not
T = TypeVar("T")


class Team(Protocol):
    """The processes of a training.

    size: their number; rank: the number of this one, from 0; writes: whether this one writes the run folder and prints.
    """

    size: int

    @property
    def rank(self) -> int: ...

    @property
    def writes(self) -> bool: ...

    def agree(self, numbers: Sequence[float]) -> Sequence[float]:
        """The largest of each number over all processes, NaN where one is.

        All processes call it, in the same order and with as many numbers.
        """
        ...

    def sum(self, values: Tensor) -> None:
        """Put the sum over all processes in the place of values, which have the same shape in all."""
        ...

    def tell(self, text: str) -> str:
        """The text that process 0 has."""
        ...


class Alone:
    """A team of one process."""

    size, rank, writes = 1, 0, True

    def agree(self, numbers: Sequence[float]) -> Sequence[float]:
        """What this process says."""
        return numbers

    def sum(self, values: Tensor) -> None:
        """They are the sum."""

    def tell(self, text: str) -> str:
        """The text itself."""
        return text


ALONE = Alone()


def smallest(team: Team, number: float) -> float:
    """The smallest of a number over all processes."""
    return -team.agree([-number])[0]


def is_alike(team: Team, number: float) -> bool:
    """Whether a number is the same in all processes."""
    largest, negative = team.agree([number, -number])
    return largest == -negative


def wait(team: Team) -> None:
    """Wait for all processes."""
    team.agree([0.0])


def part_of(team: Team, total: int) -> tuple[int, int]:
    """Which of `total` things this process has: the first, and their number, which differ by one at most."""
    first, end = (total * rank // team.size for rank in (team.rank, team.rank + 1))
    return first, end - first


def together(team: Team, action: Callable[[], T]) -> T:
    """`action()` in all processes, none of which goes on if it fails in one.

    Raises:
        UserError, OSError: of the first process in which it failed; ReportedElsewhere in the others.
    """
    results: list[T] = []
    error: UserError | OSError | None = None
    try:
        results.append(action())
    except (UserError, OSError) as failure:
        error = failure
    first = int(smallest(team, team.size if error is None else team.rank))
    if error is not None and first == team.rank:
        raise error
    if first < team.size:
        raise ReportedElsewhere(f"process {first} of {team.size} reports an error")
    return results[0]


def in_turn(team: Team, action: Callable[[], T]) -> T:
    """`action()` in the process that writes, then in the others, which have its files; errors as `together`."""
    result = together(team, lambda: action() if team.writes else None)
    rest = together(team, lambda: None if team.writes else action())
    return result if team.writes else rest  # type: ignore[return-value]


class Fault(Exception):
    """Why the work of a step is lost; `step` is the one to blame. `elsewhere` is the text in the other processes."""

    elsewhere = ""

    def __init__(self, step: int, text: str) -> None:
        super().__init__(text)
        self.step = step


class NoMemory(Fault):
    """Memory ran out."""

    elsewhere = "in another process"


class NotFinite(Fault):
    """A number is not finite; the text says where."""

    elsewhere = "a number in another process is not finite"


class LastingJump(Fault):
    """A loss jumped in a step and did not come back."""

    elsewhere = "a loss in another process jumped and did not come back"


FAULTS = (NoMemory, NotFinite, LastingJump)  # the first that a process met is mended


@dataclass(frozen=True)
class Outcome:
    """What became of a step in one process, and what that process asks for; or, agreed on, in all of them.

    in_doubt: whether a loss stands out, so that the state may have to be given up; seconds: of all steps so far; save:
    whether a signal or the clock asks for a checkpoint; stop: the signal to stop by, 0 for none.
    """

    fault: Fault | None
    in_doubt: bool
    seconds: float = 0.0
    save: bool = False
    stop: int = 0


def agree(team: Team, own: Outcome) -> Outcome:
    """What became of a step in all processes."""
    fault = own.fault
    steps = [float(fault.step) if isinstance(fault, kind) else NONE for kind in FAULTS]
    *steps, in_doubt, seconds, save, stop = team.agree([*steps, own.in_doubt, own.seconds, own.save, own.stop])
    for kind, step in zip(FAULTS, steps, strict=True):
        if step > NONE:
            same = isinstance(fault, kind) and fault.step == step
            fault = fault if same else kind(int(step), kind.elsewhere)
            break
    return Outcome(fault, bool(in_doubt), seconds, bool(save), int(stop))
