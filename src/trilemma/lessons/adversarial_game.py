"""The game of generator and critic on points of a line, step by step, with the critic that would be best at each step.

Against a generator of density q, on data of density p, each critic's loss (gans/losses.py) has its minimum, point by
point, at the logits

    minimax, non-saturating   log p / q,    so that sigmoid(l) = p / (p + q)           (Goodfellow et al. 2014, prop. 1)
    relativistic              log p / q + c, c any constant: only differences count
    least-squares             p / (p + q)                                              (Mao et al. 2017)
    hinge                     sign(p - q)
    wasserstein               the integral of sign(Q - P) + c, of slope at most 1, with P and Q the shares below x

For the last, E_p l - E_q l = integral of l' (Q - P), which is at most the integral of |Q - P|, the distance W."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor

from trilemma.gans.gan import GAN
from trilemma.lessons.mixture import Mixture
from trilemma.lessons.points import gan_of_points, generated, logits, play
from trilemma.pictures import plots
from trilemma.pictures.page import below

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

DATA = Mixture(((0.3,), (0.7,)), (0.05, 0.08))
LATENT, WIDTH = 4, 32
RATES = {"critic": 0.01, "generator": 0.0005}  # a critic that is faster stays near the best one
GRID, DRAWN = 400, 20_000  # points of a curve; generated points behind a density
WINDOW = 0.01  # standard deviation of the kernel of a density
TINY = 1e-6  # added to a density, whose logarithm is taken
SHARES = (0.0, 0.02, 0.1, 0.3, 1.0)  # of the steps that are shown


class Optimum(NamedTuple):
    """Where a critic's loss has its minimum.

    logits: of an even grid x (N,) and the densities p and q on it, (N,). probability: whether sigmoid(l) is drawn.
    shift: whether another constant is as good.
    """

    logits: Callable[[Tensor, Tensor, Tensor], Tensor]
    probability: bool = False
    shift: bool = False


def log_ratio(x: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """log p / q, (N,)."""
    return (p + TINY).log() - (q + TINY).log()


def potential(x: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Kantorovich's potential, (N,): it rises at slope 1 where more of q than of p lies below, and else falls."""
    spacing = x[1] - x[0]
    rise = spacing * ((q - p).cumsum(0) * spacing).sign()  # from each point to the next
    return rise.cumsum(0) - rise


OPTIMA = {
    "minimax": Optimum(log_ratio, probability=True),
    "non-saturating": Optimum(log_ratio, probability=True),
    "least-squares": Optimum(lambda x, p, q: (p + TINY) / (p + q + 2 * TINY)),
    "hinge": Optimum(lambda x, p, q: (p - q).sign()),
    "wasserstein": Optimum(potential, shift=True),
    "relativistic": Optimum(log_ratio, probability=True, shift=True),
}


class Moment(NamedTuple):
    """After some steps, on the grid, (N,): the generator's density, the critic as learned, and the best one."""

    step: int
    q: Tensor
    learned: Tensor
    best: Tensor


def grid() -> Tensor:
    """The middles of GRID equal parts of [0, 1], float64."""
    return (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID


def data_density(x: Tensor) -> Tensor:
    """p at x (N,)."""
    return DATA.log_density(x[:, None], 1.0, 0.0).exp()


def density(points: Tensor, x: Tensor) -> Tensor:
    """Density of points (M,) in [0, 1] at the grid x (N,): counts, smoothed by a Gaussian."""
    counts = torch.histc(points.float(), len(x), 0, 1).to(x)
    kernel = torch.exp(-((x[:, None] - x) / WINDOW).square() / 2) / (WINDOW * math.sqrt(2 * math.pi))
    return kernel @ counts / len(points)


def moment(model: GAN, step: int, seed: int) -> Moment:
    """What a model's players have reached."""
    x, optimum = grid(), OPTIMA[model.config.loss]
    p, q = data_density(x), density(generated(model, DRAWN, seed).flatten(), x)
    best, learned = optimum.logits(x, p, q), logits(model, x[:, None]).double()
    if optimum.shift:
        learned = learned + ((p + q) * (best - learned)).sum() / (p + q).sum()
    if optimum.probability:
        best, learned = best.sigmoid(), learned.sigmoid()
    return Moment(step, q, learned, best)


def adversarial_game(
    *,
    loss: str = "non-saturating",
    penalty: str | None = None,
    critic_steps: PositiveInt = 1,
    steps: PositiveInt = 2000,
    seed: int = 0,
) -> "Image.Image":
    """Densities of the data and of the generator, and under them the critic, at several steps of a training.

    Args:
        loss, penalty, critic_steps: as those of the model; a loss that needs a bound on the critic's slope has the
            gradient penalty by default, others none.
        steps: of the generator.
        seed: of the weights, the data and z.
    """
    model = gan_of_points(
        1, loss=loss, penalty=penalty, seed=seed, latent=LATENT, width=WIDTH, critic_steps=critic_steps
    )
    shown = sorted({round(share * steps) for share in SHARES})
    shots = [moment(model, step, seed) for step in play(model, DATA.draw, steps, seed, RATES) if step in shown]
    return below([_row(shots, _densities), _row(shots, _critics)], gap=0)


def _row(shots: list[Moment], draw: "Callable[[Axes, Moment], None]") -> "Image.Image":
    """A panel for each moment; those of a row have one scale."""
    figure, axes = plots.row_of_plots(len(shots), width=11.0, height=2.2)
    for ax, shot in zip(axes, shots, strict=True):
        draw(ax, shot)
        ax.sharey(axes[0])
        ax.set_xlim(0, 1)
    axes[0].legend(fontsize=7.5, frameon=False)
    return plots.pixels(figure)


def _densities(ax: "Axes", shot: Moment) -> None:
    x = grid()
    ax.fill_between(x, data_density(x), color=plots.GREY, alpha=0.3, linewidth=0, label="data, p")
    ax.plot(x, shot.q, label="generated, q", **plots.line_style(1))
    ax.set_ylim(0, 1.6 * float(data_density(x).max()))
    plots.label_axes(ax, f"step {shot.step:,}", "")


def _critics(ax: "Axes", shot: Moment) -> None:
    ax.plot(grid(), shot.best, color=plots.GREY, linewidth=2.5, alpha=0.5, label="best for p and q")
    ax.plot(grid(), shot.learned, label="critic", **plots.line_style(0))
    plots.label_axes(ax, "", "x")
