"""The states that a training can return to: the last good one, the one before it, and those that were saved."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.memory import with_room
from trilemma.run.checkpoint import images_of, list_checkpoints, read_checkpoint
from trilemma.run.state import Broken, Checkpoint
from trilemma.team import Team, is_alike
from trilemma.training.spikes import WINDOW
from trilemma.training.state import Parts


class History:
    """Holds two states, WINDOW steps apart, so that one is far enough before every jump of a loss.

    Args:
        parts: what a state is of; folder: of the checkpoints.
    """

    def __init__(self, parts: Parts, folder: Path) -> None:
        self.parts, self.folder = parts, folder
        self.good = parts.state()  # the state to return to
        self.earlier: Checkpoint | None = None  # the good state before it, until it is known that no jump began there

    def resume(self) -> None:
        """Take the state that the training is resumed from as a good one; the one before is that it began with."""
        self.earlier, self.good = self.good, self.parts.state()

    def keep(self, state: Checkpoint, *, in_doubt: bool) -> None:
        """Keep a state to return to, unless a loss stands out: it may be one to be given up."""
        steps = state.values["step"] - self.good.values["step"]
        if steps == 0:
            self.good = state
        elif steps >= WINDOW and not in_doubt:
            self.earlier, self.good = self.good, state

    def drop_earlier(self, step: int) -> None:
        """Let the earlier state go where no jump can have begun before the good one."""
        if step >= self.good.values["step"] + WINDOW:
            self.earlier = None

    def before(self, step: int) -> Checkpoint:
        """The newest state that is held, or saved, of this step or before."""
        held = [state for state in (self.good, self.earlier) if state is not None]
        newest = next((state for state in held if state.values["step"] <= step), None)
        for path in reversed(list_checkpoints(self.folder) if self.folder.is_dir() else []):
            if newest is not None and images_of(path) <= newest.values["images"]:
                break
            with suppress(Broken, PermissionError):
                state = read_checkpoint(path, self.parts.form())
                if state.values["step"] <= step:
                    return self.parts.from_saved(state)
        return newest or held[-1]

    def check_same(self, team: Team, state: Checkpoint | None) -> None:
        """Check that a state that was read, or None, is that of the same place of the training in all processes.

        Raises:
            UserError: it is not.
        """
        if not is_alike(team, -1.0 if state is None else state.values["images"]):
            raise UserError(
                f"the processes of this training see different checkpoints in {self.folder}; give an out= on a "
                "disk that all machines share"
            )

    def restore(self, state: Checkpoint, learned: Mapping[str, Any]) -> None:
        """Return to a state, but for values that were learned of the training since."""
        with_room(lambda: self.parts.load(Checkpoint({**state.values, **learned}, state.tensors)))
        self.good, self.earlier = state, None
