"""Mode collapse seen and cured: eight Gaussians on a ring in the plane, and what generators of several losses and
penalties make of them. A point belongs to a mode if it is within three of its standard deviations, and a mode is
reached if it has a fifth of its share of the points (after Srivastava et al. 2017, "VEEGAN", section 4.1)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from trilemma.keys import OneOrMore
from trilemma.lessons.mixture import Mixture
from trilemma.lessons.points import gan_of_points, generated, play
from trilemma.pictures import plots
from trilemma.pictures.page import below

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

RADIUS, STD = 0.35, 0.02  # of the ring, around the middle of the unit square; of a mode
LATENT, WIDTH, RATE = 8, 64, 0.001  # the rate is the generator's
POINTS = 1000  # generated, in a panel and behind a count
NEAR, REACHED = 3, 0.2  # standard deviations; share of a mode's own points
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)  # of the steps that are shown


class Reached(NamedTuple):
    """How many modes have their points, and the share of points that are near any."""

    modes: int
    near: float


def ring(n: int) -> Mixture:
    """n modes at equal angles."""
    angles = [2 * math.pi * k / n for k in range(n)]
    means = tuple((0.5 + RADIUS * math.cos(angle), 0.5 + RADIUS * math.sin(angle)) for angle in angles)
    return Mixture(means, (STD,) * n)


def reached(points: Tensor, data: Mixture) -> Reached:
    """Of points (N, D)."""
    distance, mode = torch.cdist(points.double(), torch.tensor(data.means, dtype=torch.float64)).min(1)
    near = distance < NEAR * torch.tensor(data.stds, dtype=torch.float64)[mode]
    counts = mode[near].bincount(minlength=len(data.means))
    enough = counts >= REACHED * len(points) / len(data.means)
    return Reached(int(enough.sum()), float(near.double().mean()))


def mode_collapse(
    *,
    losses: OneOrMore[str] = ("non-saturating", "non-saturating+r1r2"),
    modes: PositiveInt = 8,
    critic_rate: PositiveFloat = RATE,
    steps: PositiveInt = 2000,
    seed: int = 0,
) -> "Image.Image":
    """For each loss a row of generated points over the data at several steps, and the number of modes reached.

    Args:
        losses: each alone or with a penalty, as LOSS+PENALTY.
        modes: on the ring.
        critic_rate: the critic's learning rate; that of the generator is 0.001.
        steps: of each training.
        seed: of the weights, the data and z.
    """
    data = ring(modes)
    shown = sorted({max(1, round(share * steps)) for share in SHARES})
    return below([_row(name, shown, drawn_by(name, data, shown, critic_rate, seed), data) for name in losses], gap=0)


def drawn_by(name: str, data: Mixture, shown: Sequence[int], critic_rate: float, seed: int) -> list[Tensor]:
    """Points (POINTS, 2) of a generator after each number of steps; name: LOSS or LOSS+PENALTY."""
    loss, _, penalty = name.partition("+")
    model = gan_of_points(2, loss=loss, penalty=penalty or None, seed=seed, latent=LATENT, width=WIDTH)
    game = play(model, data.draw, shown[-1], seed, {"critic": critic_rate, "generator": RATE})
    return [generated(model, POINTS, seed) for step in game if step in shown]


def _row(name: str, steps: Sequence[int], drawn: Sequence[Tensor], data: Mixture) -> "Image.Image":
    figure, axes = plots.row_of_plots(len(steps), width=11.0, height=2.6)
    figure.suptitle(name.replace("+", " + "), fontsize=9.5, x=0.005, ha="left")
    for ax, step, points in zip(axes, steps, drawn, strict=True):
        _panel(ax, points, data)
        count = reached(points, data)
        title = f"step {step:,}: {count.modes} of {len(data.means)} modes, {count.near:.0%} near"
        ax.set_title(title, fontsize=8, loc="left")
    return plots.pixels(figure)


def _panel(ax: "Axes", points: Tensor, data: Mixture) -> None:
    """Circles of NEAR standard deviations around the modes, and points."""
    from matplotlib.patches import Circle

    for mean, std in zip(data.means, data.stds, strict=True):
        ax.add_patch(Circle((mean[0], mean[1]), NEAR * std, color=plots.GREY, alpha=0.3, linewidth=0))
    ax.plot(*points.T, ".", markersize=1.5, alpha=0.5, color=plots.style(1)[0])
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_aspect("equal")
    ax.set_axis_off()
