"""The ranks of torch.distributed as a team: `torchrun --nproc-per-node 2 -m trilemma train ...` starts them.

Numbers that are decided by, and texts, go through gloo, on the CPU: a step never waits for a GPU because of them.
Gradients of a GPU go through NCCL.
"""

import atexit
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor

from trilemma.errors import Disconnected, UserError, of_process
from trilemma.hardware import is_first_process, is_one_of_several, own_gpu
from trilemma.memory import is_out_of_memory
from trilemma.team import ALONE, Team, barrier

TIMEOUT_S = 1800  # seconds to wait for another process, unless TRILEMMA_TIMEOUT_S says how many
POLL_S = 0.05  # seconds between two looks at the store
LAST_S = 0.2  # seconds in which threads of an exchange end what they are at, before the interpreter ends
NO_OFFER = "none"


class Ranks:
    """The ranks of the process group that this process is in; rank 0 writes."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.writes = self.rank == 0

    def agree(self, numbers: Sequence[float]) -> Sequence[float]:
        """The largest of each number, NaN where one is: beside each stands whether it is one."""
        own = torch.tensor(numbers, dtype=torch.float64)
        message = torch.stack([own.masked_fill(own.isnan(), -math.inf), own.isnan().double()])
        with _connected():
            dist.all_reduce(message, dist.ReduceOp.MAX)
        return [math.nan if is_nan else number for number, is_nan in zip(*message.tolist(), strict=True)]

    def sum(self, values: Tensor) -> None:
        """Put the sum over all ranks in their place: the same bits in all."""
        with _connected():
            dist.all_reduce(values)

    def broadcast(self, text: str) -> str:
        """The text of rank 0, in all ranks."""
        letters = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = torch.tensor([len(letters)])
        with _connected():
            dist.broadcast(length, 0)
            letters = letters if self.writes else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(letters, 0)
        return bytes(letters.tolist()).decode()


def current_team() -> Team:
    """The ranks that are connected, or this process alone."""
    return Ranks() if _is_connected() and dist.get_world_size() > 1 else ALONE


@contextmanager
def connected_ranks(advice: str = "run the same command again") -> Iterator[None]:
    """Inside, the processes that torchrun has started are connected, if there are several, and they stay so until they
    end; at the end of it each waits for the others. An error has a note that says in which process it happened, unless
    that is the first, or it is a UserError: those are the same in all, or have the note already.

    Args:
        advice: what to do after another process was lost.
    Raises:
        UserError: they cannot be connected; Disconnected where one of them has ended, or does not answer.
    """
    if is_one_of_several() and not _is_connected():
        _connect()
    team = current_team()
    try:
        yield
        barrier(team)
    except Exception as raised:
        is_lost = team.size > 1 and _is_lost_connection(raised)  # of a collective that is not one of `Ranks`
        error = _disconnected(raised) if is_lost else raised
        if isinstance(error, Disconnected):  # with one missing, the others can only leave
            atexit.unregister(_leave)
            error = Disconnected(f"{error}; {advice}")
        if isinstance(error, Disconnected) or not isinstance(error, UserError):
            of_process(error, team.rank, team.size)
        if error is raised:
            raise
        raise error from None


def _is_connected() -> bool:
    return dist.is_available() and dist.is_initialized()


def _connect() -> None:
    """Join the process group that the environment names, until this process ends.

    torchrun keeps one store for all groups that it starts one after the other: each needs names of its own there, or it
    finds the addresses of processes that have ended.
    """
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    try:
        if (gpu := own_gpu()) is not None:  # else device=cpu is to be used
            backend = "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(gpu)
        timeout = _timeout()
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        store.set_timeout(timeout)
        name = _name_of_group(store, rank, size, timeout)
        store = dist.PrefixStore(name, store)  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        text = f"the processes cannot be connected: {_first_line(error)}"
        advice = "start all of them, with the MASTER_ADDR and MASTER_PORT of process 0"
        refusal = Disconnected(f"{text}; {advice}") if _is_lost_connection(error) else UserError(text)
        if not is_first_process():
            refusal.add_note(f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}")
        raise refusal from None
    atexit.register(_leave)


def _leave() -> None:
    """End the process group. What torch keeps of divided weights holds its threads beyond that: each may free the
    tensors of its last exchange yet, and one that needs the interpreter while it ends would abort the process.
    """
    dist.destroy_process_group()
    time.sleep(LAST_S)


def _timeout() -> timedelta:
    """How long to wait for another process.

    Raises:
        UserError: $TRILEMMA_TIMEOUT_S is not a number of seconds above 0.
    """
    text = os.environ.get("TRILEMMA_TIMEOUT_S", str(TIMEOUT_S))
    try:
        timeout = timedelta(seconds=float(text))
    except (ValueError, OverflowError):  # also of nan and inf
        timeout = timedelta(0)
    if timeout <= timedelta(0):
        raise UserError(f"TRILEMMA_TIMEOUT_S={text}: give a number of seconds above 0, for instance {TIMEOUT_S}")
    return timeout


def _name_of_group(store: Any, rank: int, size: int, timeout: timedelta) -> str:
    """A name that all processes of this group have, and no earlier group had.

    Process 0 offers it and all others answer. An offer that all have answered is taken back before it counts, so that
    no later group takes it. How often torchrun has restarted a group is no name: machines count differently.
    """
    if rank == 0:
        name = uuid4().hex
        store.set("offer", name)
        store.wait([f"{name}/{other}" for other in range(1, size)])
        store.set("offer", NO_OFFER)
        store.set(f"{name}/agreed", "1")
        return name
    name, end = "", time.monotonic() + timeout.total_seconds()
    while not (name and store.check([f"{name}/agreed"])):
        if time.monotonic() > end:
            raise dist.DistStoreError("process 0 does not answer")
        if (offer := store.get("offer").decode()) not in (NO_OFFER, name):
            name = offer
            store.set(f"{name}/{rank}", "1")
        time.sleep(POLL_S)
    return name


def _is_lost_connection(error: Exception) -> bool:
    """Whether it says that another process has ended, or does not answer."""
    is_of_gloo = type(error) is RuntimeError and "gloo" in str(error).lower()
    return (is_of_gloo or isinstance(error, dist.DistError)) and not is_out_of_memory(error)


def _disconnected(error: Exception) -> Disconnected:
    """An error of the connection as one that says what happened."""
    return Disconnected(f"another process has ended, or does not answer ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    """What an error says, without the trace of calls in C++ that may follow."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def _connected() -> Iterator[None]:
    """Inside, an error of the connection is a Disconnected. One of memory is not to be recovered from: the other
    processes wait for what this one does not send."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            team, text = current_team(), f"out of memory ({error}) in an exchange with the other processes"
            raise of_process(UserError(f"{text}; choose a smaller batch= or size="), team.rank, team.size) from None
        if _is_lost_connection(error):
            raise _disconnected(error) from None
        raise
