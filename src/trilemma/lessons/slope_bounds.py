"""What bounds on its slope make of a critic: in the plane, data and generated points of two Gaussians N(m, s^2 I) whose
means are d apart along x, of which neither moves, and the critic of `gan`, which is trained alone.

A generator gets the critic's slope where its points are. The best Wasserstein critic of slope at most 1 falls with the
slope 1 on the whole way from the data to the generated points, as W = d. Without a bound a critic that tells the two
apart lowers its loss by being steeper, without end.

(Why not on a line: there a slope of the wrong sign would have to pass through 0, where a gradient penalty of weight 10
is high; in the plane it turns.)
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor, nn

from trilemma.errors import unknown
from trilemma.gans.gan import GAN
from trilemma.gans.losses import LOSSES
from trilemma.keys import OneOrMore
from trilemma.lessons.mixture import Mixture
from trilemma.lessons.points import logits, play
from trilemma.pictures import plots
from trilemma.registry import create

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

BOUNDS: dict[str, dict[str, Any]] = {  # settings of a model, by what follows the loss
    "none": {"penalty": "none"},
    "clip": {"weight_clip": 0.01},
    "spectral": {"spectral_norm": True},
    "gradient": {"penalty": "gradient"},
    "r1": {"penalty": "r1"},
    "r1r2": {"penalty": "r1r2"},
}
STD = 0.05  # of either Gaussian
WIDTH, RATE = 32, 0.002
POINTS = 401  # of a curve
STEEPEST, FLATTEST = 1e3, 1e-4  # slopes that are drawn
HIGHEST = 0.6  # logit that is drawn


class Gaussian(nn.Module):
    """In place of a generator: z (B, 2) ~ N(0, I) -> images (B, 1, 1, 2) of N(mean, STD^2 I)."""

    def __init__(self, mean: tuple[float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.mean: Tensor

    def forward(self, z: Tensor) -> Tensor:
        """(B, 2) -> (B, 1, 1, 2)."""
        return (self.mean + STD * z)[:, None, None]


class CriticCurve(NamedTuple):
    """On the line through both means, at x (N,): the logits about that at x = 1/2, and |dD/dx|; float64."""

    x: Tensor
    logits: Tensor
    slopes: Tensor


def means(distance: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of the data and of the generated points."""
    return (0.5 - distance / 2, 0.5), (0.5 + distance / 2, 0.5)


def critic_alone(name: str, distance: float, seed: int) -> GAN:
    """The model of LOSS or LOSS+BOUND, whose critic alone moves.

    Raises:
        UserError: for an unknown loss or bound, or a loss without the bound that it needs.
    """
    loss, _, bound = name.partition("+")
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    if (bound := bound or "none") not in BOUNDS:
        raise unknown("bound", bound, BOUNDS)
    model = create("gan", shape=(1, 1, 2), seed=seed, latent=2, width=WIDTH, loss=loss, **BOUNDS[bound])
    assert isinstance(model, GAN)
    model.generator = Gaussian(means(distance)[1])
    model.phases = [phase for phase in model.phases if phase.player.name == "critic"]
    return model


def curve(model: GAN) -> CriticCurve:
    """The critic of a model for x in [0, 1]."""
    x = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    model.critic.eval()
    values = logits(model, torch.stack([x, torch.full_like(x, 0.5)], 1)).double()
    return CriticCurve(x, values - values[POINTS // 2], torch.gradient(values, spacing=(x,))[0].abs())


def slope_bounds(
    *,
    critics: OneOrMore[str] = (
        "non-saturating",
        "non-saturating+r1r2",
        "hinge+spectral",
        "wasserstein+clip",
        "wasserstein+gradient",
    ),
    distance: PositiveFloat = 0.5,
    steps: NonNegativeInt = 300,
    seed: int = 0,
) -> "Image.Image":
    """Data and generated points, the logits of several critics, and their slopes.

    Args:
        critics: each a loss, alone or with its bound, as LOSS+BOUND: clip, spectral, gradient, r1 or r1r2.
        distance: of the means of data and generated points.
        steps: of each critic.
        seed: of the weights, the data and z.
    """
    real = Mixture(means(distance)[:1], (STD,))
    figure, (heights, slopes) = plots.row_of_plots(2)
    for k, name in enumerate(critics):
        model = critic_alone(name, distance, seed)
        for _ in play(model, real.draw, steps, seed, {"critic": RATE}):
            pass
        x, values, slope = curve(model)
        heights.plot(x, values, label=name.replace("+", " + "), **plots.line_style(k))
        slopes.plot(x, slope.clamp(min=FLATTEST), **plots.line_style(k))
    heights.plot([0, 1], [0.5, -0.5], color=plots.GREY, linewidth=3, alpha=0.4, label="slope 1")
    slopes.axhline(1, color=plots.GREY, linewidth=3, alpha=0.4)
    heights.set_ylim(-HIGHEST, HIGHEST)
    slopes.set_yscale("log")
    slopes.set_ylim(FLATTEST, STEEPEST)
    for ax in (heights, slopes):
        _mark_points(ax, distance)
    heights.legend(fontsize=7, frameon=False, loc="lower left")
    plots.label_axes(heights, f"logits after {steps:,} steps, about that at 1/2", "x")
    plots.label_axes(slopes, "their slope", "x")
    return plots.pixels(figure)


def _mark_points(ax: "Axes", distance: float) -> None:
    """Where data and generated points are, to two standard deviations."""
    for (x, _), colour, name in zip(
        means(distance), (plots.GREY, plots.style(1)[0]), ("data", "generated"), strict=True
    ):
        ax.axvspan(x - 2 * STD, x + 2 * STD, color=colour, alpha=0.15, linewidth=0)
        ax.text(x, 1.0, name, transform=ax.get_xaxis_transform(), fontsize=8, ha="center", va="top")
