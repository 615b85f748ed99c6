"""Progress for a person: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from trilemma.text import encodable, printable

PLAIN_EVERY_S = 15.0
BAR = 20  # characters
UNKNOWN = "-:--:--"  # time left
OnStep = Callable[[int, int], None]  # is told how many steps are done, and how many there are


class Display:
    """Progress for a person: a bar on a terminal, one plain line at a time elsewhere, nothing when quiet.

    at_once: whether the first plain line is printed at the first update, or PLAIN_EVERY_S seconds from now.
    """

    def __init__(self, title: str, *, quiet: bool = False, at_once: bool = True) -> None:
        self.console = Console(quiet=quiet, stderr=True, highlight=False, soft_wrap=True)
        self.title, self.last, self.bar = title, 0.0 if at_once else time.monotonic(), None
        self.first: tuple[float, float] | None = None  # time and progress when it was first updated
        if self.console.is_terminal and not quiet:
            rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # all columns but the values have their width
            self.bar = Progress(
                TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=len(title))),
                BarColumn(BAR, table_column=Column(min_width=BAR)),
                TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True, min_width=4)),
                TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True, min_width=len(UNKNOWN))),
                TextColumn("{task.fields[values]}", table_column=rest),
                console=self.console,
                expand=True,
            )
            self.task = self.bar.add_task(title, total=1.0, values="", left=UNKNOWN)
            self.bar.start()

    def restart(self, title: str) -> None:
        """Show another training from now on."""
        self.title, self.first = title, None
        if self.bar is not None:
            self.bar.update(self.task, description=title, completed=0.0, values="", left=UNKNOWN)

    def say(self, text: str) -> None:
        """A line that stays. A terminal that was closed, or a reader that left, ends the talk and not the training."""
        try:
            self.console.print(self._printable(text), markup=False)
        except (OSError, SystemExit):  # rich leaves the process when a pipe breaks
            self.console.quiet = True

    def update(self, progress: float, text: str) -> None:
        """Show how far the training is; at most one plain line per PLAIN_EVERY_S seconds."""
        left = self._left(progress)
        if self.bar is not None:
            self.bar.update(self.task, completed=progress, values=self._printable(text), left=left)
        elif time.monotonic() - self.last >= PLAIN_EVERY_S:
            self.last = time.monotonic()
            self.say(f"{self.title} {progress:4.0%} {left} {text}")

    def _left(self, progress: float) -> str:
        """The time left, at the mean pace so far of all that is done: steps, validation, pictures, checkpoints."""
        now = time.monotonic()
        since, begin = self.first = self.first or (now, progress)
        if progress <= begin:
            return UNKNOWN
        return str(timedelta(seconds=round((now - since) / (progress - begin) * (1 - progress))))

    def _printable(self, text: str) -> str:
        """The text in one line that a terminal shows as it is, with "?" for letters that its encoding lacks."""
        return encodable(printable(text), self.console)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            with suppress(OSError, SystemExit):
                self.bar.stop()


@contextmanager
def drawing_progress(count: int, what: str = "image") -> Iterator[Callable[[int], OnStep]]:
    """Inside, show how far images are that are drawn one after another, each in steps.

    Args:
        what: the name of one of them.
    Yields:
        Called with the number of the next image, from 0, it gives what is to be told its steps.
    """
    display = Display("drawing", at_once=False)

    def on_steps_of(k: int) -> OnStep:
        part = [f"{what} {k + 1} of {count}"] if count > 1 else []
        display.update(k / count, ", ".join(part))

        def on_step(done: int, steps: int) -> None:
            display.update((k + done / steps) / count, ", ".join([*part, f"step {done} of {steps}"]))

        return on_step

    try:
        yield on_steps_of
    finally:
        display.close()
