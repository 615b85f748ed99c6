"""Players and phases: what a training lowers, and who moves."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.types.batch import Batch

Logs = dict[str, Tensor]
Loss = Callable[["Batch", torch.Generator], tuple[Tensor, Logs]]
Start = Callable[[Iterable["Batch"], int], dict[str, float]]


class PhaseError(ValueError):
    """A player or a phase that does not fit; the text says what was given and what is allowed."""


@dataclass(frozen=True, eq=False)
class Player:
    """Who moves: the parameters of one optimiser.

    optimizer: keys that differ from the run's: `lr`, `optimizer`, `betas`, `weight_decay`, `clip`, and `lr_factor`,
        times the learning rate. An `lr` of the run for this player (lr=NAME:0.001) goes before its own.
    after_step: is called after each of its steps, for instance to clip the weights.
    averaged: whether its weights are averaged where the run averages weights; those of a critic need not be.

    A parameter that nobody moves (a teacher, a frozen part) belongs to no player and has `requires_grad=False`.
    """

    name: str
    parameters: Iterable[nn.Parameter]
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    after_step: Callable[[], None] | None = None
    averaged: bool = True

    def __post_init__(self) -> None:
        """Raises PhaseError; keeps the parameters as a tuple."""
        _check_name("player", self.name)
        is_list = isinstance(self.parameters, Iterable) and not isinstance(self.parameters, Tensor)
        parameters = tuple(self.parameters) if is_list else (None,)
        if not all(isinstance(parameter, nn.Parameter) for parameter in parameters):
            raise PhaseError(f'the player "{self.name}" needs a list of parameters, such as list(self.parameters())')
        object.__setattr__(self, "parameters", parameters)
        factor = self.optimizer.get("lr_factor", 1.0)
        if not _is_number(factor) or not 0 < factor < float("inf"):
            raise PhaseError(f'lr_factor={factor!r} of the player "{self.name}": give a number above 0')


@dataclass(frozen=True, eq=False)
class Phase:
    """What is lowered, and by whom.

    `loss(batch, rng)` returns the scalar to minimise, a mean over the images of a batch, and its named parts: scalars,
    or (2,), the sum over some of the images and their number, for a mean over those. The phase runs in every `every`-th
    step, and then counts `every` times, so that its expected gradient is that of a phase which runs in each (a lazy
    penalty). It runs `repeats` times in a step, each time on a batch of its own (a Wasserstein critic has repeats=5).
    Phases of one player that run in the same step add up their gradients, and the player moves once.

    The phase is active from the share `begin` of the training to the share `end`. The learning rate of a player goes
    through its whole schedule in the span of its phases: stages that follow each other are players whose spans do.

    start: is called once, before the phase's first step, with training images and a seed; returns values for the log.
        If memory runs out it is called again, with fewer images at a time.
    What it sets has to be a buffer, or a parameter that nobody moves, to be saved with the state.
    """

    name: str
    player: Player
    loss: Loss
    every: int = 1
    repeats: int = 1
    begin: float = 0.0
    end: float = 1.0
    start: Start | None = None

    def __post_init__(self) -> None:
        """Raises PhaseError."""
        _check_name("phase", self.name)
        of_phase = f'of the phase "{self.name}"'
        for key, value in (("every", self.every), ("repeats", self.repeats)):
            if not isinstance(value, int) or value < 1:
                raise PhaseError(f"{key}={value!r} {of_phase}: give a whole number of at least 1")
        if not (_is_number(self.begin) and _is_number(self.end) and 0 <= self.begin < self.end <= 1):
            raise PhaseError(
                f"begin={self.begin!r}, end={self.end!r} {of_phase}: give shares of the training, 0 <= begin < end <= 1"
            )

    def is_active(self, progress: float) -> bool:
        """Whether this share of the training is in its span."""
        return self.begin <= progress < self.end


def _check_name(kind: str, name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise PhaseError(f"the name of a {kind} is {name!r}: use letters, digits, and any of . _ -")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def players_of(phases: Sequence[Phase]) -> list[Player]:
    """Every player once, in the order of their first phases."""
    return list({id(phase.player): phase.player for phase in phases}.values())


def phases_of(player: Player, phases: Sequence[Phase]) -> list[Phase]:
    """The phases of a player among others."""
    return [phase for phase in phases if phase.player is player]


def repeats_of(phases: Sequence[Phase]) -> int:
    """How often a player with these phases moves in a step."""
    return max(phase.repeats for phase in phases)


def not_averaged(phases: Sequence[Phase]) -> list[nn.Parameter]:
    """The parameters of players whose weights are not averaged."""
    return [p for player in players_of(phases) if not player.averaged for p in player.parameters]


def span_of(player: Player, phases: Sequence[Phase]) -> tuple[float, float]:
    """From which share of the training to which a player moves."""
    own = phases_of(player, phases)
    return min(phase.begin for phase in own), max(phase.end for phase in own)


def check_together(phases: Sequence[Phase]) -> None:
    """Whether phases fit each other.

    Raises:
        PhaseError: two players or two phases have one name, a player has no parameters, or a parameter two players at
            the same time.
    """
    for one, other in combinations(phases, 2):
        if one.name == other.name:
            raise PhaseError(f'two phases are named "{one.name}"; give each a name of its own')
    for player in players_of(phases):
        if not player.parameters:
            raise PhaseError(f'the player "{player.name}" has no parameters to move')
    for first, second in combinations(players_of(phases), 2):
        if first.name == second.name:
            raise PhaseError(f'two players are named "{first.name}"; make one Player and give it to both phases')
        (begin, end), (other_begin, other_end) = span_of(first, phases), span_of(second, phases)
        shared = set(map(id, first.parameters)) & set(map(id, second.parameters))
        if shared and max(begin, other_begin) < min(end, other_end):
            raise PhaseError(
                f'the players "{first.name}" and "{second.name}" move the same parameters at the same time; make one '
                "Player and give it to both phases"
            )


def count_players(phases: Sequence[Phase]) -> int:
    """How many players move at the same time, at most: 2 for a GAN, 1 for stages that follow each other."""
    return max(len({id(other.player) for other in phases if other.is_active(phase.begin)}) for phase in phases)
