"""Ranks of a training as threads of one process, which agree and sum as those of a process group do."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
SELF = threading.local()  # `rank` and `team`, in the thread of each


class Threads:
    """A team of threads. Calls that do not match are an error.

    Args:
        all_write: whether each has a run folder of its own.
    """

    def __init__(self, size: int, *, all_write: bool = False) -> None:
        self.size, self.all_write = size, all_write
        self.barrier, self.values = threading.Barrier(size, timeout=60), {}
        self.bytes: dict[str, list[int]] = {"agree": [], "sum": []}  # of each call

    @property
    def rank(self) -> int:
        return SELF.rank

    @property
    def writes(self) -> bool:
        return self.all_write or self.rank == 0

    def agree(self, numbers: Sequence[float]) -> list[float]:
        rows = self._all("agree", list(numbers), 2 * 8 * len(numbers))
        columns = list(zip(*rows, strict=True))
        return [math.nan if any(map(math.isnan, column)) else float(max(column)) for column in columns]

    def sum(self, values: Tensor) -> None:
        parts = self._all("sum", values.clone(), values.nbytes)
        assert len({(part.shape, part.dtype) for part in parts}) == 1
        values.copy_(torch.stack(parts).sum(0))

    def broadcast(self, text: str) -> str:
        return self._all("broadcast", text, 0)[0]

    def _all(self, kind: str, value: Any, size: int) -> list[Any]:
        """What all threads give to the same call, by rank."""
        self.values[self.rank] = (kind, value)
        self.barrier.wait()
        values = [self.values[rank] for rank in range(self.size)]
        self.barrier.wait()
        assert {other for other, _ in values} == {kind}
        if self.rank == 0 and kind in self.bytes:
            self.bytes[kind].append(size)
        return [value for _, value in values]


def in_threads(size: int, action: Callable[[Threads], T], *, all_write: bool = False) -> list[T]:
    """The results of an action in each thread of a team, by rank; the first error that is not one of waiting."""
    team = Threads(size, all_write=all_write)

    def run(rank: int) -> T:
        SELF.rank, SELF.team = rank, team
        try:
            return action(team)
        except BaseException:
            team.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
        errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return [future.result() for future in futures]
