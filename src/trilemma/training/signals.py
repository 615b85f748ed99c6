"""The signals by which a training is asked to end, or to save."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Stopped(KeyboardInterrupt):
    """A signal ended the training after its step and its checkpoint; `code` is the exit status to use."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + signum


class Interrupted(KeyboardInterrupt):
    """A signal arrived in the middle of a report."""


class Signals:
    """The signals that reached this process.

    `stop` is the signal by which the training was asked to end, also in another process, and `received` that of this
    one, 0 for none; `save`, whether one asked for a checkpoint.

    Args:
        on_stop: called where a signal to stop arrives.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self.on_stop = on_stop
        self.stop, self.received, self.save = 0, 0, False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Inside, the first SIGINT, SIGTERM or SIGHUP that this process receives sets `stop`, which the processes may
        have agreed on already; its second one leaves at once. SIGUSR1, by which batch systems announce the end, sets
        `save`."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle_stop(signum: int, frame: Any) -> None:
            if self.received:
                raise KeyboardInterrupt
            self.received = self.stop = signum
            self.on_stop()

        def handle_save(signum: int, frame: Any) -> None:
            self.save = True

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
