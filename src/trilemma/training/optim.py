"""Optimisers by name, and the learning rate as a factor of progress."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from trilemma.errors import UserError, unknown
from trilemma.training.config import TrainConfig
from trilemma.training.nadam import NAdam
from trilemma.types import Phase

PATIENCE = 2  # validations without improvement before the learning rate is halved


def make_optimizer(phase: Phase, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of one phase, in the quickest implementation torch has for it."""
    parameters, lr, decay = list(phase.parameters), learning_rate(phase.name, config), config.weight_decay
    device = parameters[0].device.type
    if config.optimizer == "nadam" and device in ("cpu", "cuda", "meta") and not decay:
        return NAdam(parameters, lr, config.betas)
    if config.optimizer == "nadam":
        return torch.optim.NAdam(parameters, lr, config.betas, weight_decay=decay, foreach=True)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr, weight_decay=decay, foreach=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr, config.betas, weight_decay=decay, fused=device in ("cpu", "cuda"))


def learning_rate(phase: str, config: TrainConfig) -> float:
    """The base learning rate of a phase.

    Raises:
        UserError: if rates are given by phase and this one is not among them.
    """
    if not isinstance(config.lr, dict):
        return config.lr
    if phase not in config.lr:
        raise UserError(
            f'lr has no rate for the phase "{phase}"; it has {", ".join(config.lr)}: give one number or add it'
        )
    return config.lr[phase]


def check_rates(phases: Sequence[Phase], config: TrainConfig) -> None:
    """Refuse rates by phase where one is missing, or is for a phase that is not there.

    Raises:
        UserError: with the names of the phases.
    """
    names = [phase.name for phase in phases]
    for name in names:
        learning_rate(name, config)
    if isinstance(config.lr, dict) and (strange := [name for name in config.lr if name not in names]):
        raise unknown("phase in lr", strange[0], names)


@dataclass
class Plateau:
    """Halves the learning rate when the followed figure has not improved for PATIENCE validations."""

    best: float = math.inf
    waited: int = 0
    factor: float = 1.0

    def see(self, figure: float) -> None:
        """Take the figure of one validation; lower is better."""
        if figure < self.best:
            self.best, self.waited = figure, 0
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
    """What the base learning rate is multiplied by at `progress` in [0, 1] of the training, or of a phase's span of it.

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
