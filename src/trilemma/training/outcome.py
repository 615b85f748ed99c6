"""What the processes that train one model together agree on.

Every decision that the next steps depend on is made from numbers that `Team.agree` returned, so that all processes make
it alike: faults of a step, the seconds that steps took, saves and signals, the value that a plateau follows, and
whether there is time for a validation or a picture.
"""

from dataclasses import dataclass

from trilemma.team import Team

NONE = -1.0  # the step of a fault that there is not


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
