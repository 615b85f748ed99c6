"""The same work for many files, by all cores: in threads, or in forked processes where the work is mostly Python.

Decoding a small image spends more time in Pillow's Python than in its C, so threads wait for one another; processes do
not. They are forked (Linux only): nothing is imported again, open archives are read by offset, and the images go
straight into the file that all of them have mapped. The system ends them with the process that forked them, however
that one ends.
"""

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import current_process, get_context
from typing import Any, TypeVar

from trilemma.data.decoding.budget import Budget, share
from trilemma.data.decoding.pixels import reason
from trilemma.hardware import cores

CHUNK, FORKED_CHUNK = 32, 128  # files per task
FORK_FROM = 2_000  # files that are worth forking for
PR_SET_PDEATHSIG = 1  # prctl(2): the signal a process gets when the thread that forked it ends

R = TypeVar("R")
_work: Callable[[int], Any] | None = None  # what the forked processes do


def each(
    work: Callable[[int], R], indices: Sequence[int], bad: dict[int, str], *, shared: bool = False
) -> dict[int, R]:
    """work(i) for each index; where it raises, the reason goes into `bad`.

    Args:
        shared: what the work writes is shared with forked processes, so that they may do it.
    """
    global _work
    able = sys.platform == "linux" and cores() > 1 and not current_process().daemon
    if shared and able and len(indices) >= FORK_FROM:
        _work = work
        try:
            fork = get_context("fork")
            start = (os.getpid(), Budget(fork))
            with ProcessPoolExecutor(cores(), fork, initializer=_start, initargs=start) as pool:
                return _gather(pool, _in_process, indices, bad, FORKED_CHUNK)
        except (BrokenProcessPool, OSError):  # a decoder crashed, or no process may be made
            pass
        finally:
            _work = None
    with ThreadPoolExecutor(cores()) as pool:
        return _gather(pool, lambda chunk: _chunk(work, chunk), indices, bad)


def _gather(
    pool: Executor,
    task: Callable[[Sequence[int]], tuple[dict[int, Any], dict[int, str]]],
    indices: Sequence[int],
    bad: dict[int, str],
    size: int = CHUNK,
) -> dict[int, Any]:
    """The results of all chunks of that size."""
    results: dict[int, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about oddities inside files that can be read all the same
        for part, failed in pool.map(task, [indices[k : k + size] for k in range(0, len(indices), size)]):
            results.update(part)
            bad.update(failed)
    return results


def _start(parent: int, together: Budget) -> None:
    """Begin a forked process: one that shares the pixels in flight with the others, and ends with its parent."""
    share(together)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what the parent does on a signal is not for this process to do
    # Else it would wait for ever on a pipe that its siblings hold open. A sandbox may forbid the call.
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0 and os.getppid() != parent:
        os._exit(1)  # the parent ended before


def _in_process(chunk: Sequence[int]) -> tuple[dict[int, Any], dict[int, str]]:
    assert _work is not None
    return _chunk(_work, chunk)


def _chunk(work: Callable[[int], Any], chunk: Sequence[int]) -> tuple[dict[int, Any], dict[int, str]]:
    """(results, reasons of failures) by index."""
    results, failed = {}, {}
    for i in chunk:
        try:
            results[i] = work(i)
        except Exception as error:  # a decoder may raise anything on a broken file
            failed[i] = reason(error)
    return results, failed
