"""Processes that do one piece of work together: what they agree on, and how they divide it.

`ranks.py` has the processes of torch.distributed; one process alone is a team, too.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from trilemma.errors import ReportedElsewhere, UserError, of_process

T = TypeVar("T")


@runtime_checkable
class Team(Protocol):
    """Processes that work together.

    size: their number; rank: the number of this one, from 0; writes: whether this one writes files and prints.
    """

    size: int

    @property
    def rank(self) -> int: ...

    @property
    def writes(self) -> bool: ...

    def agree(self, numbers: Sequence[float]) -> Sequence[float]:
        """The largest of each number over all processes, NaN where one is.

        All processes call it, in the same order and with as many numbers.
        """
        ...

    def sum(self, values: Tensor) -> None:
        """Put the sum over all processes in the place of values, which have the same shape in all."""
        ...

    def broadcast(self, text: str) -> str:
        """The text of process 0, in all processes."""
        ...


class Alone:
    """A team of one process."""

    size, rank, writes = 1, 0, True

    def agree(self, numbers: Sequence[float]) -> Sequence[float]:
        """What this process says."""
        return numbers

    def sum(self, values: Tensor) -> None:
        """They are the sum."""

    def broadcast(self, text: str) -> str:
        """The text itself."""
        return text


ALONE = Alone()


def smallest(team: Team, number: float) -> float:
    """The smallest of a number over all processes."""
    return -team.agree([-number])[0]


def is_alike(team: Team, number: float) -> bool:
    """Whether a number is the same in all processes."""
    largest, negative = team.agree([number, -number])
    return largest == -negative


def barrier(team: Team) -> None:
    """Wait until all processes are here."""
    team.agree([0.0])


def check_same(team: Team, fingerprint: str, name: str) -> None:
    """Check that something is the same in all processes.

    Args:
        fingerprint: identifies its content; name: what it is, in the plural.
    Raises:
        UserError: in the first process whose fingerprint is not that of process 0; ReportedElsewhere in the others.
    """
    first = team.broadcast(fingerprint)

    def check() -> None:
        if fingerprint != first:
            raise UserError(
                f"the {name} of process {team.rank} are not those of process 0; give {name} on a disk that all "
                "machines share"
            )

    together(team, check)


@torch.no_grad()
def broadcast_tensors(team: Team, tensors: Iterable[Tensor]) -> None:
    """Put those of process 0, to the bit, in the place of tensors that have the same shapes in all processes."""
    for tensor in tensors if team.size > 1 else ():
        if not tensor.numel():
            continue
        values = tensor.clone(memory_format=torch.contiguous_format)
        if team.rank > 0:
            values.zero_()
        sum_bytes(team, values)
        if team.rank > 0:
            tensor.copy_(values)


def sum_bytes(team: Team, values: Tensor) -> None:
    """Put the sum over all processes in the place of values, contiguous in memory: for each number that is not 0 in one
    process alone, its bits, also of NaN and -0."""
    team.sum(values.view(-1).view(torch.uint8))


def part_of(team: Team, total: int) -> tuple[int, int]:
    """Which of `total` things this process has: the first, and their number, which differ by one at most."""
    first, end = (-(-total * rank // team.size) for rank in (team.rank, team.rank + 1))
    return first, end - first


def together(team: Team, action: Callable[[], T]) -> T:
    """`action()` in all processes; if it fails in one, an error in all.

    Raises:
        UserError, OSError: of the first process in which it failed; ReportedElsewhere in the others.
    """
    results: list[T] = []
    error: UserError | OSError | None = None
    try:
        results.append(action())
    except (UserError, OSError) as failure:
        error = failure
    first = int(smallest(team, team.size if error is None else team.rank))
    if error is not None and first == team.rank:
        raise of_process(error, team.rank, team.size)
    if first < team.size:
        raise ReportedElsewhere(f"process {first} of {team.size} reports an error")
    return results[0]


def by_writer(team: Team, action: Callable[[], T]) -> T | None:
    """`action()` in the process that writes, for which the others wait; None in those. Errors as `together`."""
    return together(team, lambda: action() if team.writes else None)


def in_turn(team: Team, action: Callable[[], T]) -> T:
    """`action()` in the process that writes, then in the others, which have its files; errors as `together`."""
    result = by_writer(team, action)
    rest = together(team, lambda: None if team.writes else action())
    return result if team.writes else rest  # type: ignore[return-value]


def in_first(team: Team, measure: Callable[[], object]) -> Any:
    """`measure()` in process 0, for which the others wait, and its result in all: numbers, texts and lists of them, as
    JSON has them; errors as `together`."""
    text = together(team, lambda: json.dumps(measure()) if team.rank == 0 else "")
    return json.loads(team.broadcast(text))


def by_batches(team: Team, total: int, batch: int, compute: Callable[[int, int], Tensor]) -> Tensor:
    """`compute(first, count)` of `total` rows, `batch` at a time, joined: (total, ...).

    Each process computes some of the batches, which are the same for any number of processes, or all of them where
    there are fewer batches than processes.

    Raises:
        UserError, OSError: as `together`.
    """
    starts = range(0, total, batch)
    first, count = part_of(team, len(starts)) if len(starts) >= team.size else (0, len(starts))
    own = starts[first : first + count]
    rows = together(team, lambda: torch.cat([compute(start, min(batch, total - start)) for start in own]))
    if len(own) == len(starts):
        return rows
    whole = rows.new_zeros(total, *rows.shape[1:])
    whole[own[0] : own[0] + len(rows)] = rows
    sum_bytes(team, whole)
    return whole
