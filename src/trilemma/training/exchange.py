"""The sum over processes of what a player moves by: one all-reduce, of its gradients and the losses that they are of.

A process has n of the B images of a batch. What it computes is n / B times means over its own images, so that the sums
over all processes are the means over the batch, however it is divided.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import chain

import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.team import Team
from trilemma.types import Logs, Player

ROOM = 64  # losses and their parts beside the gradients of a player


class Exchange:
    """Sums over the processes of a team, into memory that is taken once: to take part never fails for want of it.

    `left` are the players whose gradients are still to be summed in a step, in their order.
    """

    def __init__(self, team: Team, players: Sequence[Player]) -> None:
        self.team = team
        self.buffers = {player.name: _buffer(player) for player in players} if team.size > 1 else {}
        self.left: list[Player] = []

    def sum(self, player: Player, losses: Sequence[tuple[Tensor, Logs]]) -> list[tuple[Tensor, Logs]]:
        """Put the sums over all processes in the place of a player's gradients; the sums of the losses and parts."""
        if self.team.size == 1:
            return list(losses)
        buffer, gradients = self.buffers[player.name], [p.grad for p in player.parameters if p.grad is not None]
        parts = buffer[: sum(_sizes(gradients))].split(_sizes(gradients))
        slices = [part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]
        values = torch.cat([value.view(-1).to(buffer) for value in _values(losses)])
        if len(values) > ROOM:
            raise UserError(f"{player.name} has {len(values)} losses and parts of them; {ROOM} can be exchanged")
        buffer[sum(_sizes(gradients)) :].zero_()
        torch._foreach_copy_(slices, gradients)  # pyright: ignore[reportPrivateImportUsage]
        buffer[-ROOM:][: len(values)] = values
        self.left = self.left[1:]
        self.team.sum(buffer)
        torch._foreach_copy_(gradients, slices)  # pyright: ignore[reportPrivateImportUsage]
        return _like(losses, iter(buffer[-ROOM:].clone().split(1)))

    def abandon(self) -> None:
        """Take part in the sums that are left of a step, for the others wait for them; they are not numbers then."""
        left, self.left = self.left if self.team.size > 1 else [], []
        for player in left:
            self.team.sum(self.buffers[player.name].fill_(torch.nan))


def _buffer(player: Player) -> Tensor:
    """Memory for a player's gradients, one after the other, and ROOM numbers."""
    parameters = list(player.parameters)
    dtype = reduce(torch.promote_types, (parameter.dtype for parameter in parameters), torch.float32)
    return torch.zeros(sum(_sizes(parameters)) + ROOM, dtype=dtype, device=parameters[0].device)


def _sizes(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.numel() for tensor in tensors]


def _values(losses: Sequence[tuple[Tensor, Logs]]) -> Iterator[Tensor]:
    """All losses and parts, in one order."""
    return chain.from_iterable((loss, *parts.values()) for loss, parts in losses)


def _like(losses: Sequence[tuple[Tensor, Logs]], numbers: Iterator[Tensor]) -> list[tuple[Tensor, Logs]]:
    """Numbers in the order of `_values`, as losses and parts."""

    def take(value: Tensor) -> Tensor:
        return torch.cat([next(numbers) for _ in range(value.numel())]).view(value.shape)

    return [(take(loss), {name: take(part) for name, part in parts.items()}) for loss, parts in losses]
