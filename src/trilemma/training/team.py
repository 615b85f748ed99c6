"""The processes that train one model together, of which there is one so far, and the signals that reach them.

Every decision that the next steps depend on passes through `Team.agree`, so that all processes make it alike.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Stopped(KeyboardInterrupt):
    """A signal ended the training after its step and its checkpoint; `code` is the exit status to use."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + signum


class Interrupted(KeyboardInterrupt):
    """A signal arrived in the middle of a report."""


@dataclass(frozen=True)
class Decision:
    """What follows a step: whether it is to be reported, whether the state is to be saved, the signal to stop by."""

    report: bool
    save: bool
    stop: int

    @property
    def goes_on(self) -> bool:
        """Whether nothing but the next step follows."""
        return not (self.report or self.save or self.stop)


class Team:
    """One process. `stop_signal` is the signal by which the training was asked to end, 0 if none was."""

    def __init__(self) -> None:
        self.stop_signal = 0
        self.save_signal = False  # whether a signal asked for a checkpoint

    def agree(self, decision: Decision) -> Decision:
        """What all processes do, from what each of them would."""
        return decision

    @contextmanager
    def signals(self, stop: Callable[[], None]) -> Iterator[None]:
        """Inside, the first SIGINT, SIGTERM or SIGHUP sets `stop_signal` and calls `stop`; the second one leaves at
        once. SIGUSR1, by which batch systems announce the end, asks for a save."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle_stop(signum: int, frame: Any) -> None:
            if self.stop_signal:
                raise KeyboardInterrupt
            self.stop_signal = signum
            stop()

        def handle_save(signum: int, frame: Any) -> None:
            self.save_signal = True

        handlers = {signal.SIGINT: handle_stop, signal.SIGTERM: handle_stop}
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
            handlers[signal.SIGHUP] = handle_stop
        if hasattr(signal, "SIGUSR1"):
            handlers[signal.SIGUSR1] = handle_save
        previous = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)
