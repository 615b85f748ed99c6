"""When and which states of a training are saved, and how one is resumed."""

import time
from collections.abc import Callable
from functools import partial

from trilemma.memory import with_room
from trilemma.run.checkpoint import load_checkpoint, save_checkpoint
from trilemma.run.state import Checkpoint
from trilemma.team import in_turn
from trilemma.training.calendar import Calendar
from trilemma.training.guard import Guard, unless_full, with_own_room
from trilemma.training.signals import Signals


class Saver:
    """Writes checkpoints of sound states into the folder of the guard's history.

    Args:
        warn: takes a warning.
    """

    def __init__(self, guard: Guard, calendar: Calendar, signals: Signals, warn: Callable[[str], None]) -> None:
        self.guard, self.calendar, self.signals, self.warn = guard, calendar, signals, warn
        self.history = guard.history
        self.saved = -1  # images of the state that was saved last

    @property
    def is_late(self) -> bool:
        """Whether a signal or the clock asks for a checkpoint, in this process."""
        return self.signals.save or self.calendar.save_is_late()

    def save_if_room(self) -> None:
        """Save the state, unless memory runs out."""
        self.calendar.saved_at = time.monotonic()  # if memory runs out, the next attempt has its own time
        try:
            state = self.guard.sound_state()
        except MemoryError as error:  # in all processes
            return self.warn(f"out of memory ({error}): a checkpoint is skipped")
        unless_full("a checkpoint", partial(self.save, state), self.warn, self.guard.players.shards)

    def save_last(self, unfinished: Checkpoint | None) -> None:
        """Save the state that a training is left in, or the one before an unfinished report."""
        with_own_room(partial(self.save, unfinished or self.guard.sound_state()), self.guard.players.shards)

    def save(self, state: Checkpoint) -> None:
        """Write a checkpoint of a state; of the last good one, where a loss stands out."""
        self.signals.save = False
        if self.guard.in_doubt and not _is_last(state):
            if self.saved >= self.history.good.values["images"]:
                return
            state = self.history.good
        self.history.keep(state, in_doubt=self.guard.in_doubt)
        whole = self.history.parts.to_save(state)
        if self.guard.team.writes:
            save_checkpoint(self.history.folder, state.values["images"], whole, self.warn)
        self.saved, self.calendar.saved_at = state.values["images"], time.monotonic()

    def resume(self, say: Callable[[str], None]) -> None:
        """Take the newest checkpoint, if there is one: the same in all processes.

        Raises:
            UserError: if there are checkpoints and none can be used, or the processes see different ones.
        """
        parts, team = self.history.parts, self.guard.team
        state = in_turn(team, lambda: load_checkpoint(self.history.folder, say, parts.form))
        self.history.check_same(team, state)
        if state is None:
            return
        with_room(lambda: parts.load(parts.from_saved(state)))
        say(f"resuming at {self.calendar.images:,} images")
        self.saved = self.calendar.images
        self.history.resume()


def _is_last(state: Checkpoint) -> bool:
    """Whether nothing follows a state: its training is over, and reported."""
    return state.values["progress"] >= 1 and not state.values["unreported"]
