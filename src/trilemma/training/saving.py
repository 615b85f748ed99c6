"""When and which states of a training are saved, and how one is resumed."""

import time
from collections.abc import Callable
from functools import partial

from trilemma.memory import with_room
from trilemma.run.checkpoint import load_checkpoint, save_checkpoint
from trilemma.run.state import Checkpoint
from trilemma.team import by_writer, in_turn, smallest
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
        self.signals.save, self.calendar.saved_at = False, time.monotonic()  # asked for once, also if memory runs out
        try:
            state = self.guard.sound_state()
        except MemoryError as error:  # in all processes
            return self.warn(f"out of memory ({error}): a checkpoint is skipped")
        self.save(state, may_skip=True)

    def save_last(self, unfinished: Checkpoint | None) -> None:
        """Save the state that a training is left in, or the one before an unfinished report."""
        self.save(unfinished or self.guard.sound_state())

    def save(self, state: Checkpoint, *, may_skip: bool = False) -> None:
        """Write a checkpoint of a state; of the last good one, where a loss stands out.

        Args:
            may_skip: whether it may be left out where memory runs out.
        Raises:
            UserError: if the disk refuses; in all processes.
        """
        if self.guard.in_doubt and not _is_last(state):
            if self.saved >= self.history.good.values["images"]:
                return
            state = self.history.good
        self.history.keep(state, in_doubt=self.guard.in_doubt)
        team, images = self.guard.team, state.values["images"]
        whole = with_own_room(partial(self.history.parts.to_save, state), self.guard.players.shards)
        written = by_writer(team, partial(self._write, images, whole, may_skip))
        if smallest(team, written is not False):
            self.saved, self.calendar.saved_at = images, time.monotonic()

    def _write(self, images: int, state: Checkpoint, may_skip: bool) -> bool:
        """Write a checkpoint, once more if memory runs out, for which the other processes wait.

        Returns:
            Whether it was written.
        """
        write = partial(save_checkpoint, self.history.folder, images, state, self.warn)
        if may_skip:
            return unless_full("a checkpoint", write, self.warn)
        with_room(write)
        return True

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
