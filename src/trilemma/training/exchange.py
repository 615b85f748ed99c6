"""The sum over processes of what a player moves by: one all-reduce, of its gradients and the losses that they are of.

A process has n of the B images of a batch. What it computes is n / B times means over its own images, so that the sums
over all processes are the means over the batch, however it is divided.

Every parameter of a player has its place in the buffer, whether or not it has a gradient in this process: which of them
have one may differ between processes. How many processes have one is exchanged, too: a parameter without a gradient in
any of them stays without, and an optimiser skips it.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import chain

import torch
from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.team import Team
from trilemma.types import Logs, Player

ROOM = 64  # losses and their parts beside the gradients of a player


class Exchange:
    """Sums over the processes of a team, into memory that is taken once: to take part never fails for want of it.

    `left` are the players whose gradients are still to be summed in a step, in their order.

    Args:
        without: parameters whose gradients are summed elsewhere, as the shards of those that are divided.
    """

    def __init__(self, team: Team, players: Sequence[Player], without: Iterable[nn.Parameter] = ()) -> None:
        self.team, left_out = team, set(map(id, without))
        self.parameters = {player.name: [p for p in player.parameters if id(p) not in left_out] for player in players}
        self.buffers = {player.name: self._buffer(player) for player in players} if team.size > 1 else {}
        self.left: list[Player] = []

    def sum(self, player: Player, losses: Sequence[tuple[Tensor, Logs]]) -> list[tuple[Tensor, Logs]]:
        """Put the sums over all processes in the place of a player's gradients; the sums of the losses and parts."""
        if self.team.size == 1:
            return list(losses)
        parameters, buffer = self.parameters[player.name], self.buffers[player.name]
        *places, present, room = buffer.split([*_sizes(parameters), len(parameters), ROOM])
        slices = [place.view(parameter.shape) for place, parameter in zip(places, parameters, strict=True)]
        values = torch.cat([value.view(-1).to(buffer) for value in _values(losses)])
        if len(values) > ROOM:
            raise UserError(f"{player.name} has {len(values)} losses and parts of them; {ROOM} can be exchanged")
        _pack(parameters, slices, present)
        room[: len(values)] = values
        self.left = self.left[1:]
        self.team.sum(buffer)
        _unpack(parameters, slices, present)
        return _like(losses, iter(room.clone().split(1)))

    def abandon(self) -> None:
        """Take part in the sums that are left of a step, for the others wait for them; they are not numbers then."""
        left, self.left = self.left if self.team.size > 1 else [], []
        for player in left:
            self.team.sum(self.buffers[player.name].fill_(torch.nan))

    def _buffer(self, player: Player) -> Tensor:
        """Memory for a player's gradients, one after the other, which of them there are, and ROOM numbers."""
        parameters = self.parameters[player.name]
        dtype = reduce(torch.promote_types, (parameter.dtype for parameter in player.parameters), torch.float32)
        count = sum(_sizes(parameters)) + len(parameters) + ROOM
        return torch.zeros(count, dtype=dtype, device=next(iter(player.parameters)).device)


def _pack(parameters: Sequence[nn.Parameter], slices: Sequence[Tensor], present: Tensor) -> None:
    """Copy the gradients to their places: zeros, and a 0 in `present`, for a parameter that has none."""
    present.fill_(1)
    for number, parameter in enumerate(parameters):
        if parameter.grad is None:
            slices[number].zero_()
            present[number] = 0
    _copy(*_pairs(parameters, slices))


def _unpack(parameters: Sequence[nn.Parameter], slices: Sequence[Tensor], present: Tensor) -> None:
    """Copy the sums back; a parameter that only other processes have a gradient of gets it here.

    `present` is read only where a gradient is missing: on a GPU that waits for the sum.
    """
    sums, gradients = _pairs(parameters, slices)
    _copy(gradients, sums)
    if len(gradients) == len(parameters):
        return
    for parameter, place, count in zip(parameters, slices, present.tolist(), strict=True):
        if parameter.grad is None and count:
            parameter.grad = torch.empty_like(parameter).copy_(place)


def _pairs(parameters: Sequence[nn.Parameter], slices: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The places of the gradients that there are, and these gradients."""
    pairs = [(s, p.grad) for p, s in zip(parameters, slices, strict=True) if p.grad is not None]
    return [place for place, _ in pairs], [gradient for _, gradient in pairs]


def _copy(to: list[Tensor], values: list[Tensor]) -> None:
    if to:
        torch._foreach_copy_(to, values)  # pyright: ignore[reportPrivateImportUsage]


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
