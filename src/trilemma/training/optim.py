"""Optimisers by name, and the learning rate as a factor of progress."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from trilemma.errors import UserError, unknown
from trilemma.run.config import TrainConfig
from trilemma.training.muon import Muon, Rows
from trilemma.training.nadam import NAdam
from trilemma.types import Phase, PhaseError, Player, check_together, players_of

PLAYERS_OWN = ("lr", "optimizer", "betas", "weight_decay", "clip")  # keys that a player may set for itself
PATIENCE = 2  # validations without improvement before the learning rate is halved


def make_optimizer(player: Player, run: TrainConfig, rows: Rows | None = None) -> torch.optim.Optimizer:
    """The optimiser of one player, in the quickest implementation torch has for it.

    Args:
        rows: of its weights, where they are divided over processes.
    Raises:
        UserError: if the run has no learning rate for it, or a key of its own is unknown or does not fit.
    """
    config = optimizer_config(player, run)
    parameters, lr, decay = list(player.parameters), learning_rate(player, run), config.weight_decay
    device = parameters[0].device.type
    if config.optimizer == "nadam" and device in ("cpu", "cuda", "meta") and not decay and config.betas[0]:
        return NAdam(parameters, lr, config.betas)
    if config.optimizer == "nadam":
        return torch.optim.NAdam(parameters, lr, config.betas, weight_decay=decay, foreach=True)
    if config.optimizer == "muon":
        return Muon(parameters, lr, config.betas, decay, rows=rows)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr, weight_decay=decay, foreach=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr, config.betas, weight_decay=decay, fused=device in ("cpu", "cuda"))


def optimizer_config(player: Player, run: TrainConfig) -> TrainConfig:
    """The run's keys with the player's own in their place.

    Raises:
        UserError: if one is unknown or does not fit.
    """
    own = {key: value for key, value in player.optimizer.items() if key != "lr_factor"}
    for key in own:
        if key not in PLAYERS_OWN:
            raise unknown("optimiser key of a player", key, [*PLAYERS_OWN, "lr_factor"])
    return run.with_(**own) if own else run


def learning_rate(player: Player, run: TrainConfig) -> float:
    """The base learning rate of a player: its own, or the run's by its factor; one that the run has for it goes first.

    Raises:
        UserError: if rates are given by player and this one is not among them.
    """
    factor = player.optimizer.get("lr_factor", 1.0)
    own = player.optimizer.get("lr")
    if own is not None and not (isinstance(run.lr, dict) and player.name in run.lr):
        return factor * own
    if not isinstance(run.lr, dict):
        return factor * run.lr
    if player.name not in run.lr:
        raise UserError(
            f'lr= has no value for "{player.name}" (given: {", ".join(run.lr)}); use one number, or add '
            f"{player.name}:0.001"
        )
    return factor * run.lr[player.name]


def check_players(phases: Sequence[Phase], run: TrainConfig) -> None:
    """Refuse phases that do not fit each other, rates by player where one is missing or is for no player, and keys
    that do not fit.

    Raises:
        UserError: with the names of the players.
    """
    try:
        check_together(phases)
    except PhaseError as error:
        raise UserError(str(error)) from None
    players = players_of(phases)
    names = [player.name for player in players]
    if isinstance(run.lr, dict) and (others := [name for name in run.lr if name not in names]):
        raise unknown("player in lr", others[0], names)
    for player in players:
        learning_rate(player, run)
        optimizer_config(player, run)


@dataclass
class Plateau:
    """Halves the learning rate when the monitored value has not improved for PATIENCE validations."""

    best: float = math.inf
    waited: int = 0
    factor: float = 1.0

    def update(self, value: float) -> None:
        """Take the value of one validation; lower is better."""
        if value < self.best:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= PATIENCE:
            self.factor, self.waited = self.factor / 2, 0

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint (JSON has no infinity: None stands for it)."""
        return asdict(self) | {"best": None if math.isinf(self.best) else self.best}

    def load(self, state: dict[str, Any]) -> None:
        """Take the state back."""
        self.best = math.inf if state["best"] is None else state["best"]
        self.waited, self.factor = state["waited"], state["factor"]


def lr_factor(config: TrainConfig, progress: float, images_seen: float, plateau: Plateau) -> float:
    """What the base learning rate is multiplied by at `progress` in [0, 1] of the training, or of a player's span.

    cosine: (1 + cos(pi * progress)) / 2 (Loshchilov & Hutter 2017); linear: 1 - progress (Defazio et al. 2023, "When,
    why and how much? Adaptive learning rate scheduling by refinement"); plateau: see Plateau; and a linear warm-up,
    which is over after `warmup_share` of the training at the latest.
    """
    factor = plateau.factor if config.schedule == "plateau" else 1.0
    if config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    if config.schedule == "linear":
        factor = 1 - min(progress, 1.0)
    if images_seen < config.warmup_images:
        latest = progress / config.warmup_share if config.warmup_share else 0.0
        factor *= max(images_seen / config.warmup_images, min(1.0, latest))
    return factor
