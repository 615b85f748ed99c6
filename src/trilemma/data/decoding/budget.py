"""How many pixels are decoded at a time: a few large images, however many threads or processes there are.

A small file may hold an image of as many pixels as are let through, and each pixel takes 3 to 13 bytes until the image
has its final size. An image waits until the others that are being decoded leave room for it. Small images do not count:
a core has one of them at a time.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import ForkContext

PIXELS = 2**27  # at a time
SMALL = 2**20  # pixels; a smaller image does not count
LARGE = 2**24  # pixels; before a larger one, memory that is free goes back to the system


class Budget:
    """Pixels that are being decoded.

    Args:
        fork: of the processes that share it; by default the threads of one.
    """

    def __init__(self, fork: ForkContext | None = None) -> None:
        self._free = fork.Condition() if fork else threading.Condition()
        self._used = fork.RawValue(ctypes.c_longlong) if fork else ctypes.c_longlong()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for an image of that many pixels, and hold it inside."""
        if pixels < SMALL:
            yield
            return
        pixels = min(pixels, PIXELS)  # one that is larger goes alone
        with self._free:
            self._free.wait_for(lambda: self._used.value + pixels <= PIXELS)
            self._used.value += pixels
        if pixels >= LARGE:
            _trim()
        try:
            yield
        finally:
            with self._free:
                self._used.value -= pixels
                self._free.notify_all()


def _trim() -> None:
    """Give back what the C library keeps of freed images for their threads, each for itself; only GNU's can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


_budget = Budget()


def budget() -> Budget:
    """The one of this process."""
    return _budget


def share(other: Budget) -> None:
    """Use one that others use too."""
    global _budget
    _budget = other
