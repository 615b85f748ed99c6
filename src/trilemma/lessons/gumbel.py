"""Draws of the Gumbel-softmax (autoencoders/codes.py): weights over the categories that come near a choice as the
temperature falls, while the largest of them is a draw from the same probabilities at every temperature."""

import math
from typing import TYPE_CHECKING

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from trilemma import rng
from trilemma.autoencoders.codes import gumbel_softmax
from trilemma.errors import UserError
from trilemma.keys import OneOrMore
from trilemma.pictures import plots

if TYPE_CHECKING:
    from PIL import Image

MANY = 100_000  # draws whose largest weights are counted


def relaxed(logits: Tensor, temperatures: tuple[float, ...], n: int, seed: int) -> Tensor:
    """n draws at each temperature, with the same noise: logits (K,) -> (len(temperatures), n, K)."""
    return torch.stack([_draws(logits, n, seed, temperature, hard=False) for temperature in temperatures])


def chosen(logits: Tensor, n: int, seed: int) -> Tensor:
    """Share of n draws in which each category is the largest, (K,)."""
    return _draws(logits, n, seed, hard=True).mean(0)


def _draws(logits: Tensor, n: int, seed: int, temperature: float = 1.0, *, hard: bool) -> Tensor:
    return gumbel_softmax(logits.expand(n, -1), temperature, rng.generator(seed, "gumbel"), hard=hard)


def gumbel(
    *,
    probabilities: tuple[PositiveFloat, ...] = (0.4, 0.3, 0.15, 0.1, 0.05),
    temperatures: OneOrMore[PositiveFloat] = (1.0, 0.5, 0.1),
    draws: PositiveInt = 16,
    seed: int = 0,
) -> "Image.Image":
    """A panel for each temperature with a row for each draw, and how often each category is the largest."""
    if not math.isclose(sum(probabilities), 1, abs_tol=1e-6) or len(probabilities) < 2:
        raise UserError(f"probabilities={probabilities}: give two or more that sum to 1")
    logits = torch.tensor(probabilities).log()
    figure, axes = plots.row_of_plots(len(temperatures) + 1, width=2.6 * (len(temperatures) + 1))
    categories = range(1, len(logits) + 1)
    edges = (0.5, len(logits) + 0.5, draws + 0.5, 0.5)
    for ax, temperature, weights in zip(axes, temperatures, relaxed(logits, temperatures, draws, seed), strict=False):
        ax.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto", extent=edges, interpolation="nearest")
        plots.label_axes(ax, f"temperature {temperature:g}", "category", "draw" if ax is axes[0] else "")
        ax.set_xticks(categories)
    axes[-1].bar(
        categories,
        chosen(logits, MANY, seed).tolist(),
        width=0.7,
        alpha=0.5,
        color=plots.style(0)[0],
        label="share of draws",
    )
    axes[-1].plot(categories, probabilities, "k_", markersize=16, label="probability")
    axes[-1].set_xticks(categories)
    axes[-1].legend(fontsize=7.5, frameon=False)
    plots.label_axes(axes[-1], f"largest in {MANY:,} draws", "category")
    return plots.pixels(figure)
