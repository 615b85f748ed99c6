"""Everything that the next steps of a training depend on, as one list of parts.

The form of every state of a training is known before it begins: the names, shapes and types of its weights are those of
the model, and what an optimiser holds follows from the parameters it moves (`run.state` compares).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trilemma.run.config import TrainConfig
from trilemma.run.state import Checkpoint, Tensors
from trilemma.training.optim import make_optimizer
from trilemma.training.shards import Shards
from trilemma.types import Player


class Part(Protocol):
    """Something that the next steps depend on: its state is a copy, under keys of its own, which it takes back."""

    def state(self) -> Checkpoint:
        """What it depends on itself."""
        ...

    def load(self, state: Checkpoint) -> None:
        """Take it back, from a state of all parts."""
        ...


class Parts:
    """All that the next steps of a training depend on.

    Args:
        first: gives the form of what the first step adds to the state; shards: of the weights, where they are divided
            over processes: states are of what this process has then, and what is saved is whole.
    """

    def __init__(self, parts: Sequence[Part], first: Callable[[], Checkpoint], shards: Shards | None = None) -> None:
        self.parts, self.first, self.shards = list(parts), first, shards

    def state(self) -> Checkpoint:
        """The state of all parts, as copies."""
        states = [part.state() for part in self.parts]
        values = {name: value for state in states for name, value in state.values.items()}
        return Checkpoint(values, {file: group for state in states for file, group in state.tensors.items()})

    def load(self, state: Checkpoint) -> None:
        """Take a state back."""
        for part in self.parts:
            part.load(state)

    def form(self) -> Checkpoint:
        """The form of every saved state: this one, as if one step had been taken."""
        state, first = self.state(), self.first()
        if self.shards is not None:
            state = self.shards.form(state)
        return Checkpoint(state.values | first.values, state.tensors | first.tensors, first.late)

    def to_save(self, state: Checkpoint) -> Checkpoint:
        """A state as it is saved, in the process that writes; all processes take part."""
        return state if self.shards is None else self.shards.gathered(state)

    def from_saved(self, state: Checkpoint) -> Checkpoint:
        """The state of this process, from a saved one."""
        return state if self.shards is None else self.shards.divide(state)


def first_entries(player: Player, config: TrainConfig) -> Tensors:
    """The form, without values, of what a player's optimiser holds after its first step."""
    parameters = [nn.Parameter(torch.empty_like(p, device="meta")) for p in player.parameters]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    optimizer = make_optimizer(replace(player, parameters=parameters), config)
    optimizer.step()
    return flatten_optimizer(optimizer)


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> Tensors:
    """An optimiser's state as named tensors: "parameter number/key"; plain numbers become float64 tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{key}": value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
        for number, entries in state.items()
        for key, value in entries.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put the named tensors of `flatten_optimizer` back, in the memory layout of their parameters."""
    optimizer.state.clear()  # room for what takes its place
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        like = parameters[int(number)]
        same = tensor.shape == like.shape
        state.setdefault(int(number), {})[key] = torch.empty_like(like).copy_(tensor) if same else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
