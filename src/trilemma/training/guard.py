"""What keeps a training sound: numbers that are not finite, losses that jump, and memory that runs out.

- A number that is not finite: return to the last good state, and skip the step that spoilt it from then on.
- A loss that jumps and does not come back: return to WINDOW steps before the jump, and resume from there with SLOWER
  times the learning rate; once. A state in doubt is not saved, so this is the same wherever a training was interrupted.
- Memory that runs out: return to the last good state, and divide each batch into twice as many micro-batches.

A fault is met in one process (`attempt`), agreed on by all (outcome.py), and mended in all alike (`recover`). What is
only tried again or skipped where memory runs out (`unless_full`) is no part of that: others must not have to wait for
it.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from trilemma.errors import Diverged, UserError, of_process
from trilemma.memory import is_out_of_memory, release, with_room
from trilemma.run.state import Checkpoint, not_finite
from trilemma.team import Team, together
from trilemma.training.calendar import Calendar
from trilemma.training.health import PlayerStep, StepMonitor
from trilemma.training.history import History
from trilemma.training.incidents import Incidents
from trilemma.training.log import LogFile
from trilemma.training.outcome import Fault, LastingJump, NoMemory, NotFinite, Outcome, agree
from trilemma.training.players import PhaseLoss, Players, needing_whole_batch, summing_statistics
from trilemma.training.shards import Shards
from trilemma.training.spikes import WINDOW, LossJump, LossSpikeDetector
from trilemma.types import Batch, count_players

T = TypeVar("T")
SLOWER = 0.5  # times the learning rate, after a loss that jumped and did not come back
MOST_SKIPPED = 5  # steps skipped since the last good state, after which a training gives up


class Guard:
    """Checks every step, and returns to an earlier state where one went wrong.

    Args:
        history: the states to return to; incidents: takes what happened; detector: of losses that jump, which is not
        asked about players against each other, for their losses jump in health, too; warn: takes a warning.
    """

    def __init__(
        self,
        calendar: Calendar,
        players: Players,
        log: LogFile,
        history: History,
        incidents: Incidents,
        detector: LossSpikeDetector,
        team: Team,
        warn: Callable[[str], None],
    ) -> None:
        self.calendar, self.players, self.log, self.history = calendar, players, log, history
        self.incidents, self.team, self.warn = incidents, team, warn
        shards = {} if players.shards is None else players.shards.own
        one = detector if count_players(players.phases) == 1 else None
        self.monitor = StepMonitor(players.model, one, shards=shards)
        self.in_doubt = False  # whether a loss stands out, in any process
        self.never_finite = not_finite(history.good)  # such as a buffer that marks with an infinity

    @property
    def lr_factor(self) -> float:
        """What the learning rate is multiplied by since a loss jumped and did not come back."""
        slowed = self.incidents.slowed
        return SLOWER if slowed and self.calendar.step >= slowed[0] else 1.0

    def check(self, losses: Sequence[PhaseLoss], batch: Batch, norm: Tensor) -> None:
        """Check losses and the norm of their gradient, before the weights change.

        Raises:
            NotFinite, LastingJump: which `attempt` catches.
        """
        values = torch.stack([*(part.loss for part in losses), norm])
        phases, parts = [part.phase for part in losses], [part.parts for part in losses]
        self._handle_jumps(self.monitor.check(PlayerStep(self.calendar.step, phases, batch, parts, values)))

    def flush(self) -> None:
        """Wait for the device, and check what is pending, as on a GPU; raises as `check`."""
        if self.players.device.type == "cuda":
            torch.cuda.synchronize()
        self._handle_jumps(self.monitor.flush())

    def attempt(self, action: Callable[[], None]) -> Fault | None:
        """The fault that an action met, in this process."""
        try:
            action()
            return None
        except (NotFinite, LastingJump) as fault:
            return fault.with_traceback(None)  # which holds on to what the action lost

    def attempt_step(self, action: Callable[[], None]) -> Fault | None:
        """As `attempt`, and memory may run out. After a fault this process still takes part in what is exchanged."""
        try:
            fault = self.attempt(action)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if self.team.size > 1 and (summing := summing_statistics(self.players.model)):
                awaited = f"the other processes wait for the statistics that {summing[0]} takes over a batch"
                raise _awaited(error, self.team, awaited) from None
            if self.players.shards is not None:
                raise _awaited(error, self.team) from None
            fault = NoMemory(self.calendar.step, str(error))
        if fault is not None:
            self.players.exchange.abandon()
        return fault

    def recover(self, outcome: Outcome) -> None:
        """Return to an earlier state if a step met a fault, in any process."""
        self.in_doubt = outcome.in_doubt
        match outcome.fault:
            case NoMemory() as fault:
                self._divide_batch(fault)
            case NotFinite() as fault:
                self._roll_back(fault)
            case LastingJump() as fault:
                self._slow_down(fault)

    def sound_state(self) -> Checkpoint:
        """The state, to be saved or to be returned to, where it is sound in all processes.

        Raises:
            NotFinite: if a tensor of it is not finite that was at the start, under the last step that was taken.
            MemoryError: if memory runs out in any process, in all of them.
        """
        state: list[Checkpoint] = []
        try:
            fault = self.attempt(lambda: with_room(lambda: state.append(self._checked_state())))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            fault = NoMemory(self.calendar.step, str(error))  # the others wait for what is agreed on
        outcome = agree(self.team, Outcome(fault, self.monitor.in_doubt))
        if isinstance(outcome.fault, NoMemory):
            raise MemoryError(str(outcome.fault))
        if outcome.fault is not None:
            raise outcome.fault
        self.in_doubt = outcome.in_doubt
        return state[-1]

    def _checked_state(self) -> Checkpoint:
        """A step's own check is of what it starts from; what the last step changed is checked here."""
        self.flush()
        state = self.history.parts.state()
        if names := [name for name in not_finite(state) if name not in self.never_finite]:
            first = self.history.good.values["step"]
            last = max(set(range(first, self.calendar.step)) - set(self.incidents.skipped), default=None)
            step = self.calendar.step - 1 if last is None else last
            raise NotFinite(step, f"after the step {names[0]} is not finite")
        return state

    def _handle_jumps(self, jumps: Sequence[LossJump]) -> None:
        """Warn of losses that jumped; LastingJump if one did not come back, for the first time."""
        for jump in jumps:
            if jump.stays and not self.incidents.slowed:
                raise LastingJump(jump.step, jump.text)
            self.warn(jump.text)
            if jump.stays:
                self.incidents.add("risen", jump.step, jump.text)

    def _roll_back(self, fault: NotFinite) -> None:
        """Return to the last good state, and skip the step that spoilt the numbers from then on."""
        skipped, good = self.incidents.skipped, self.history.good
        skipped.append(fault.step)
        if len([step for step in skipped if step >= good.values["step"]]) > MOST_SKIPPED:
            raise Diverged(f"{fault} (step {fault.step}); {MOST_SKIPPED} steps were skipped and it did not help")
        self._return_to(good)
        self.warn(f"{fault}. Rolled back to step {self.calendar.step:,}; step {fault.step:,} will be skipped")
        self.incidents.add("skipped", fault.step, f"{fault}, so this step is skipped")

    def _slow_down(self, fault: LastingJump) -> None:
        """Return to before a jump, and lower the learning rate from WINDOW steps before it on."""
        state = together(self.team, lambda: self.history.before(fault.step - WINDOW))
        self.history.check_same(self.team, state)
        self.incidents.slowed = [max(fault.step - WINDOW, state.values["step"])]
        self._return_to(state)
        text = f"{fault}. Resumed from step {self.incidents.slowed[0]:,} with half the learning rate"
        self.warn(text)
        self.incidents.add("slowed", fault.step, text)

    def _divide_batch(self, fault: NoMemory) -> None:
        """Halve the micro-batch, accumulated to the same batch, where that is the same mathematics."""
        batch = self.players.config.batch
        whole, size = needing_whole_batch(self.players.model), batch // (self.team.size * self.players.pieces)
        if whole:
            raise _too_large(size, fault, whole[0])
        if size < 2:
            raise UserError(f"out of memory even for one image at a time ({fault}); choose a smaller size=")
        release()
        self._return_to(self.history.good)
        self.players.pieces *= 2
        text = f"out of memory: from now on each batch of {batch} is processed as {self.players.pieces} micro-batches"
        self.warn(text)
        self.incidents.add("memory", self.calendar.step, text)

    def _return_to(self, state: Checkpoint) -> None:
        """Resume from an earlier state, but for what was learned of the training itself, and the time it took."""
        learned = self.incidents.state().values | {"pieces": self.players.pieces, "seconds": self.calendar.seconds}
        self.history.restore(state, learned)
        self.monitor.reset()
        self.in_doubt = False
        self.log.cut(step=self.calendar.step)


def _too_large(batch: int, error: Exception, part: str) -> UserError:
    return UserError(
        f"out of memory with batch={batch} ({error}); smaller micro-batches would change the statistics that {part} "
        "takes over a batch, so choose a smaller batch= or size= yourself"
    )


def _awaited(
    error: Exception, team: Team, reason: str = "with shard=true the other processes wait for this one"
) -> UserError:
    refusal = UserError(f"out of memory ({error}); {reason}, so choose a smaller batch= or size= yourself")
    return of_process(refusal, team.rank, team.size)


def with_own_room(action: Callable[[], T], shards: Shards | None) -> T:
    """`with_room`, where other processes need not take part once more: not where weights are divided over them.

    Raises:
        UserError: if memory runs out there.
    """
    if shards is None:
        return with_room(action)
    try:
        return action()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _awaited(error, shards.team) from None


def unless_full(
    what: str, action: Callable[[], object], warn: Callable[[str], None], shards: Shards | None = None
) -> bool:
    """Do what a training can go without for a while; a warning if memory runs out, and runs out again.

    Returns:
        Whether it was done.
    Raises:
        UserError: as `with_own_room`.
    """
    try:
        with_own_room(action, shards)
        return True
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error)
    release()
    warn(f"out of memory ({reason}): {what} is skipped")
    return False
