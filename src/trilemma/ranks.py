"""The ranks of torch.distributed as a team: `torchrun --nproc-per-node 2 -m trilemma train ...` starts them.

Numbers that are decided by, and texts, go through gloo, on the CPU: a step never waits for a GPU because of them.
Gradients of a GPU go through NCCL.
"""

import atexit
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from trilemma.errors import Disconnected, UserError
from trilemma.team import ALONE, Team, wait

TIMEOUT_S = 1800  # seconds to wait for another process, unless TRILEMMA_TIMEOUT_S says how many


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

    def tell(self, text: str) -> str:
        """The text that rank 0 has."""
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
def connected_ranks() -> Iterator[None]:
    """Inside, the processes that torchrun has started are connected, if there are several, and they stay so until they
    end; at the end of it each waits for the others. An error has a note that says in which of them it happened, unless
    that is the first.

    Raises:
        UserError: they cannot be connected.
    """
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _is_connected():
        _connect()
    team = current_team()
    try:
        yield
        wait(team)
    except Exception as error:
        if isinstance(error, Disconnected):  # with one missing, the others can only leave
            atexit.unregister(dist.destroy_process_group)
        if team.rank > 0:
            error.add_note(f"process {team.rank} of {team.size}")
        raise


def _is_connected() -> bool:
    return dist.is_available() and dist.is_initialized()


def _connect() -> None:
    """Join the process group that the environment names, until this process ends.

    torchrun keeps one store for all groups that it starts one after the other: each needs names of its own there, or it
    finds the addresses of processes that have ended.
    """
    from torch.distributed.rendezvous import rendezvous

    backend, timeout = "gloo", timedelta(seconds=float(os.environ.get("TRILEMMA_TIMEOUT_S", TIMEOUT_S)))
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        group = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-of-{size}"
        store = dist.PrefixStore(group, store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of this training cannot be connected: {error}") from None
    atexit.register(dist.destroy_process_group)


@contextmanager
def _connected() -> Iterator[None]:
    """Inside, an error of the connection is one that says what to do."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Disconnected(
            f"another process of this training has ended, or does not answer ({reason}); the same command resumes from "
            "the last checkpoint"
        ) from None
