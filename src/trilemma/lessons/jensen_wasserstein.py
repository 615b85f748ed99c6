"""Jensen-Shannon divergence against Wasserstein distance where two distributions hardly overlap.

Two parallel lines in the plane, p on (0, u) and q on (theta, u), u uniform in [0, 1] (Arjovsky, Chintala & Bottou 2017,
example 1). Where theta is not 0 they have no point in common:

    JS(p, q) = ln 2, its slope 0;        W(p, q) = |theta|, its slope sign(theta)

With Gaussian noise of standard deviation s across the lines, p is N(0, s^2) and q is N(theta, s^2). Between them lies
one optimal critic, D* = p / (p + q) = sigmoid(l*) with l*(x) = theta (theta - 2 x) / (2 s^2), and the slopes by theta
that reach a generator which moves q are (Arjovsky & Bottou 2017, "Towards principled methods for training generative
adversarial networks", theorem 2.5, for the second)

    minimax           2 d JS / d theta
    non-saturating    d/d theta [KL(q || p) - 2 JS(q, p)],    KL(q || p) = theta^2 / (2 s^2)
    wasserstein       d W / d theta = sign(theta), whatever s is
"""

import math
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn.functional import softplus

from trilemma.keys import OneOrMore
from trilemma.pictures import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

POINTS = 402  # of a curve: an even number, so that theta = 0, where the slopes jump, is between two
WIDE, FINE = 12.0, 2001  # standard deviations and points of the integral over x
STEEPEST = 5.0  # slope that is drawn


def jensen_shannon(theta: Tensor, noise: float) -> Tensor:
    """JS(N(0, noise^2), N(theta, noise^2)) in nats, float64 (N,); without noise that of the two lines.

    JS = ln 2 - E over x ~ p of log(1 + q(x) / p(x)), as p and q are mirror images of each other.
    """
    if noise == 0:
        return torch.where(theta == 0, 0.0, math.log(2)).double()
    x = torch.linspace(-WIDE, WIDE, FINE, dtype=torch.float64)  # standard deviations
    shift = theta.double()[:, None] / noise
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    return math.log(2) - torch.trapezoid(density * softplus(shift * x - shift.square() / 2), x)


def minimax_slope(theta: Tensor, noise: float) -> Tensor:
    """2 d JS / d theta, float64 (N,): what an optimal critic leaves to a generator that minimises E log(1 - D)."""
    if noise == 0:
        return torch.zeros_like(theta, dtype=torch.float64)
    theta = theta.detach().double().requires_grad_()
    return torch.autograd.grad(2 * jensen_shannon(theta, noise).sum(), theta)[0]


def non_saturating_slope(theta: Tensor, noise: float) -> Tensor:
    """d [KL - 2 JS] / d theta, float64 (N,): the same for a generator that maximises E log D; noise above 0."""
    return theta.double() / noise**2 - minimax_slope(theta, noise)


def wasserstein(theta: Tensor) -> Tensor:
    """W of the two lines, with noise or without, float64 (N,)."""
    return theta.double().abs()


def jensen_wasserstein(
    *,
    noises: OneOrMore[NonNegativeFloat] = (0.0, 0.1, 0.3),
    reach: PositiveFloat = 1.0,
) -> "Image.Image":
    """The two lines, their distances over theta, and the slopes by theta that a generator gets.

    Args:
        noises: standard deviations of the noise across the lines, for a curve each.
        reach: theta is between minus this and this.
    """
    theta = torch.linspace(-reach, reach, POINTS, dtype=torch.float64)
    figure, (lines, distances, slopes) = plots.row_of_plots(3, width=11.0)
    _draw_lines(lines, 0.6 * reach)
    for k, noise in enumerate(sorted(set(noises)), 1):
        how = f"noise {noise:g}" if noise else "no noise"
        distances.plot(theta, jensen_shannon(theta, noise), label=f"JS, {how}", **plots.line_style(k))
        slopes.plot(theta, minimax_slope(theta, noise), label=f"minimax, {how}", **plots.line_style(k))
        if noise:
            steep = non_saturating_slope(theta, noise)
            slopes.plot(theta, steep, label=f"non-saturating, {how}", alpha=0.45, linewidth=3, color=plots.style(k)[0])
    for ax, values, name in ((distances, wasserstein(theta), "W"), (slopes, theta.sign(), "wasserstein")):
        ax.plot(theta, values, label=name, linewidth=2, color=plots.style(0)[0])
    slopes.set_ylim(-STEEPEST, STEEPEST)
    plots.label_axes(distances, "distance of the lines", "theta", "nats; W in units of theta")
    plots.label_axes(slopes, "slope that an optimal critic gives", "theta", "d loss / d theta")
    for ax in (distances, slopes):
        ax.locator_params(axis="x", nbins=5)
        ax.legend(fontsize=6.5, frameon=False)
    return plots.pixels(figure)


def _draw_lines(ax: "Axes", theta: float) -> None:
    for k, (x, name) in enumerate(((0.0, "p"), (theta, "q"))):
        ax.plot([x, x], [0, 1], linewidth=3, color=(plots.GREY, plots.style(1)[0])[k], label=name)
    ax.annotate("", (theta, 0.5), (0, 0.5), arrowprops={"arrowstyle": "<->", "color": plots.GREY})
    ax.text(theta / 2, 0.54, "theta", fontsize=8.5, ha="center")
    ax.margins(x=0.4)
    ax.legend(fontsize=8, frameon=False)
    plots.label_axes(ax, "two lines without a common point", "x")
