"""What keeps a training sound: numbers that are none, losses that jump, and memory that runs out.

- A number that is not finite: return to the last good state, and skip the step that spoilt it from then on.
- A loss that jumps and does not come back: return to WINDOW steps before the jump, and go on from there with SLOWER
  times the learning rate; once. A state in doubt is not saved, so this is the same wherever a training was interrupted.
- Memory that runs out: return to the last good state, and divide each batch into twice as many micro-batches.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from trilemma.errors import Diverged, UserError
from trilemma.memory import is_out_of_memory, release, with_room
from trilemma.run.checkpoint import images_of, list_checkpoints, read_checkpoint
from trilemma.run.state import Broken, Checkpoint, spoilt
from trilemma.training.calendar import Calendar
from trilemma.training.health import WINDOW, Jump, LastingJump, NotFinite, Pulse, Reading
from trilemma.training.log import Journal
from trilemma.training.players import Lowered, Players
from trilemma.training.state import Parts
from trilemma.types import Batch, count_rivals

SLOWER = 0.5  # times the learning rate, after a loss that jumped and did not come back
MOST_SKIPPED = 5  # steps skipped since the last good state, after which a training gives up


class Guard:
    """Looks at every step, and returns to an earlier state where one went wrong.

    Args:
        parts: what a state is of; the guard is one more of them.
        checkpoints: the folder of the saved states; warn: takes a warning.
    """

    def __init__(
        self,
        calendar: Calendar,
        players: Players,
        journal: Journal,
        parts: Parts,
        *,
        checkpoints: Path,
        warn: Callable[[str], None],
    ) -> None:
        self.calendar, self.players, self.journal = calendar, players, journal
        self.parts = parts
        self.checkpoints, self.warn = checkpoints, warn
        self.pulse = Pulse(players.model, spikes=count_rivals(players.phases) == 1)
        self.skipped: list[int] = []  # steps skipped because a number was not finite
        self.slowed: list[int] = []  # the step from which the learning rate is lower, if there is one
        self.events: dict[str, str] = {}  # by kind, the last thing that happened to the training, with its step
        parts.add(self)
        self.good = parts.state()  # the state to return to
        self.earlier: Checkpoint | None = None  # the good state before it, until it is known that no jump began there
        self.never_finite = spoilt(self.good)  # such as a buffer that marks with an infinity

    def resume(self) -> None:
        """Take the state that the training is resumed from as a good one; the one before is that it began with."""
        self.earlier, self.good = self.good, self.parts.state()

    @property
    def slower(self) -> float:
        """What the learning rate is multiplied by since a loss jumped and did not come back."""
        return SLOWER if self.slowed and self.calendar.step >= self.slowed[0] else 1.0

    def check(self, lowered: list[Lowered], batch: Batch, norm: Tensor) -> None:
        """Look at losses and the norm of their gradient, before the weights change.

        Raises:
            NotFinite, LastingJump: which `attempt` mends.
        """
        values = torch.stack([*(part.loss for part in lowered), norm])
        phases, parts = [part.phase for part in lowered], [part.parts for part in lowered]
        self._handle_jumps(self.pulse.check(Reading(self.calendar.step, phases, batch, parts, values)))

    def flush(self) -> None:
        """Look at what waits to be looked at, as on a GPU; raises as `check`."""
        self._handle_jumps(self.pulse.flush())

    def attempt(self, action: Callable[[], None]) -> bool:
        """Whether an action met sound numbers only; if not, the training has returned to a good state."""
        try:
            action()
            return True
        except NotFinite as fault:
            self._roll_back(fault)
        except LastingJump as lasting:
            self._slow_down(lasting.jump)
        return False

    def attempt_step(self, action: Callable[[], None]) -> bool:
        """As `attempt`, and memory may run out."""
        try:
            return self.attempt(action)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error)  # the error itself holds on to the step that had no room
        self._divide_batch(reason)
        return False

    def sound_state(self) -> Checkpoint:
        """The state, to be saved or to be returned to.

        A step's own look is at what it starts from; what the last step changed is looked at here.

        Raises:
            NotFinite: if a tensor of it is not finite that was at the start, under the last step that was taken.
        """
        self.flush()
        state = self.parts.state()
        if names := [name for name in spoilt(state) if name not in self.never_finite]:
            taken = set(range(self.good.values["step"], self.calendar.step)) - set(self.skipped)
            raise NotFinite(max(taken, default=self.calendar.step - 1), f"after the step {names[0]} is not finite")
        return state

    def keep(self, state: Checkpoint) -> None:
        """Keep a state to return to, unless a loss stands out: it may be one to be given up. They are WINDOW steps
        apart, so that one is far enough before every jump."""
        steps = state.values["step"] - self.good.values["step"]
        if steps == 0:
            self.good = state
        elif steps >= WINDOW and not self.pulse.in_doubt:
            self.earlier, self.good = self.good, state

    def settle(self) -> None:
        """Let the earlier state go where no jump can have begun before the good one."""
        if not self.pulse.in_doubt and self.calendar.step >= self.good.values["step"] + WINDOW:
            self.earlier = None

    def state(self) -> Checkpoint:
        """What was skipped, slowed down and said, and the losses that new ones are compared with."""
        losses = {phase.name: list(self.pulse.losses.get(phase.name, ())) for phase in self.players.phases}
        values = {"skipped": list(self.skipped), "slowed": list(self.slowed), "events": dict(self.events)}
        return Checkpoint({**values, "losses": losses})

    def load(self, state: Checkpoint) -> None:
        """Take it back."""
        values = state.values
        self.skipped, self.slowed = list(values["skipped"]), list(values["slowed"])
        self.events = dict(values["events"])
        self.pulse.losses = {name: deque(losses, maxlen=WINDOW) for name, losses in values["losses"].items()}

    def _handle_jumps(self, jumps: list[Jump]) -> None:
        """Say that losses jumped; LastingJump if one did not come back, for the first time."""
        for jump in jumps:
            if jump.stays and not self.slowed:
                raise LastingJump(jump)
            self.warn(jump.text)
            if jump.stays:
                self._note("risen", jump.step, jump.text)

    def _note(self, kind: str, step: int, text: str) -> None:
        """Keep what happened for the summary."""
        self.events[kind] = f"step {step:,}: {text}"

    def _roll_back(self, fault: NotFinite) -> None:
        """Return to the last good state, and skip the step that spoilt the numbers from then on."""
        self.skipped.append(fault.step)
        recent = [step for step in self.skipped if step >= self.good.values["step"]]
        if len(recent) > MOST_SKIPPED:
            raise Diverged(f"{fault} (step {fault.step}); {MOST_SKIPPED} steps were left out and it did not help")
        self._return_to(self.good)
        self.warn(f"{fault}. Resumed from step {self.calendar.step:,}; step {fault.step:,} is left out")
        self._note("left out", fault.step, f"{fault}, so this step is left out")

    def _slow_down(self, jump: Jump) -> None:
        """Return to before a jump, and lower the learning rate from WINDOW steps before it on."""
        state = self._state_before(jump.step - WINDOW)
        self.slowed = [max(jump.step - WINDOW, state.values["step"])]
        self._return_to(state)
        text = f"{jump.text}. Resumed from step {self.slowed[0]:,} with half the learning rate"
        self.warn(text)
        self._note("slowed", jump.step, text)

    def _state_before(self, step: int) -> Checkpoint:
        """The newest state that is held, or saved, of this step or before."""
        held = [state for state in (self.good, self.earlier) if state is not None]
        newest = next((state for state in held if state.values["step"] <= step), None)
        for path in reversed(list_checkpoints(self.checkpoints) if self.checkpoints.is_dir() else []):
            if newest is not None and images_of(path) <= newest.values["images"]:
                break
            with suppress(Broken, PermissionError):
                state = read_checkpoint(path, self.parts.form())
                if state.values["step"] <= step:
                    return state
        return newest or held[-1]

    def _divide_batch(self, reason: str) -> None:
        """Go on with half the micro-batch, accumulated to the same batch, where that is the same mathematics."""
        batch = self.players.config.batch
        whole, size = self.players.needing_whole_batch(), batch // self.players.pieces
        if whole:
            raise UserError(
                f"out of memory with batch={size} ({reason}); smaller pieces would change the statistics that "
                f"{whole[0]} takes over a batch, so choose a smaller batch= or size= yourself"
            )
        if size < 2:
            raise UserError(f"out of memory even for one image at a time ({reason}); choose a smaller size=")
        release()
        self._return_to(self.good)
        self.players.pieces *= 2
        text = f"out of memory: batches of {batch} go in {self.players.pieces} pieces from here on"
        self.warn(text)
        self._note("memory", self.calendar.step, text)

    def _return_to(self, state: Checkpoint) -> None:
        """Go on from an earlier state, but for what was learned of the training itself, and the time it took."""
        learned = self.state().values | {"pieces": self.players.pieces, "seconds": self.calendar.seconds}
        learned["losses"] = state.values["losses"]
        with_room(lambda: self.parts.load(Checkpoint(state.values | learned, state.tensors)))
        self.good, self.earlier = state, None
        self.pulse.forget()
        self.journal.cut(step=self.calendar.step)


def unless_full(what: str, action: Callable[[], None], warn: Callable[[str], None]) -> None:
    """Do what a training can go without for a while; a warning if memory runs out, and runs out again."""
    try:
        with_room(action)
        return
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error)
    release()
    warn(f"out of memory ({reason}): {what} is left out")
