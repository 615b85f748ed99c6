"""A GAN whose images are points: the model, the losses and the phases of a preset, on data whose density is known.

A point of D numbers in [0, 1] is an image of one row, (1, 1, D), for fully connected networks."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from trilemma import rng
from trilemma.errors import unknown
from trilemma.gans.gan import GAN
from trilemma.gans.losses import LOSSES
from trilemma.registry import create
from trilemma.types import Batch, players_of

Draw = Callable[[int, torch.Generator], Tensor]  # n, rng -> points (n, D) in [0, 1]

BATCH, BETAS = 256, (0.5, 0.9)  # the betas are Adam's
# Of the penalties. Points lie closer than images, so their critics are steeper; and on a line a slope goes from -1 to 1
# through 0, from which a gradient penalty of weight 10 keeps it.
WEIGHTS = {"none": None, "gradient": 0.1, "r1": 0.01, "r1r2": 0.01}


def gan_of_points(dimensions: int, *, loss: str, penalty: str | None, seed: int, **settings: object) -> GAN:
    """The preset `gan` for points.

    Args:
        penalty: None: a gradient penalty where the loss needs a bound on the critic's slope, else none.
        settings: of the model.
    Raises:
        UserError: for an unknown loss or penalty.
    """
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    penalty = penalty or ("gradient" if LOSSES[loss].slopes else "none")
    if penalty not in WEIGHTS:
        raise unknown("penalty", penalty, WEIGHTS)
    settings |= {"loss": loss, "penalty": penalty, "penalty_weight": WEIGHTS[penalty]}
    model = create("gan", shape=(1, 1, dimensions), seed=seed, **settings)
    assert isinstance(model, GAN)
    return model


def play(model: GAN, draw: Draw, steps: int, seed: int, rates: Mapping[str, float]) -> Iterator[int]:
    """Train by the model's phases; yields the number of steps done, from 0 to `steps`.

    Args:
        rates: of each player, by name.
    """
    players = players_of(model.phases)
    moves = {id(player): torch.optim.Adam(player.parameters, lr=rates[player.name], betas=BETAS) for player in players}
    yield 0
    for step in range(steps):
        for phase in model.phases:
            for repeat in range(phase.repeats):
                draws = rng.generator(seed, phase.name, step, repeat)
                loss, _ = phase.loss(batch_of(draw(BATCH, draws)), draws)
                moves[id(phase.player)].zero_grad(set_to_none=True)
                loss.backward()
                moves[id(phase.player)].step()
                if phase.player.after_step:
                    with torch.no_grad():
                        phase.player.after_step()
        yield step + 1


def batch_of(points: Tensor) -> Batch:
    """Points (n, D) as images (n, 1, 1, D), float32."""
    return Batch(points[:, None, None].float())


def generated(model: GAN, n: int, seed: int) -> Tensor:
    """Points (n, D) of the generator, the same z for the same seed."""
    return model.sample(n, seed=seed).flatten(1)


@torch.no_grad()
def logits(model: GAN, points: Tensor) -> Tensor:
    """The critic's logits (n,) of points (n, D)."""
    return model.critic(batch_of(points).image)
