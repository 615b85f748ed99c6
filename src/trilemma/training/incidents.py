"""What happened to a training: the steps it skipped, the lower learning rate, and the last incident of each kind."""

from trilemma.run.state import Checkpoint


class Incidents:
    """A part of the state of a training, and of what its summary says."""

    def __init__(self) -> None:
        self.skipped: list[int] = []  # steps skipped because a number was not finite
        self.slowed: list[int] = []  # the step from which the learning rate is lower, if there is one
        self.events: dict[str, str] = {}  # by kind, the last that happened, with its step

    def add(self, kind: str, step: int, text: str) -> None:
        """Keep what happened for the summary."""
        self.events[kind] = f"step {step:,}: {text}"

    def state(self) -> Checkpoint:
        """All of it."""
        values = {"skipped": list(self.skipped), "slowed": list(self.slowed), "events": dict(self.events)}
        return Checkpoint(values)

    def load(self, state: Checkpoint) -> None:
        """Take it back."""
        self.skipped, self.slowed = list(state.values["skipped"]), list(state.values["slowed"])
        self.events = dict(state.values["events"])
