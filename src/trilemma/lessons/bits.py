"""Where the bits of the bound on the likelihood are (diffusion/likelihood.py), for values of which all is known.

Values are N(0, s^2), rounded to 256 levels. Of an estimate that takes them for N(0, u^2), x0_hat = g x_t / alpha with

    g = u^2 exp(l) / (1 + u^2 exp(l)),    E(x0 - x0_hat)^2 = (1 - g)^2 s^2 + g^2 exp(-l)

at the log-SNR l. The bound pays exp(l) E(x0 - x0_hat)^2 / 2 nats for each unit of l, least of all where u = s; there it
is about the entropy of the levels, -sum P log P. Another u pays log(u / s) + s^2 / (2 u^2) - 1 / 2 nats more, which is
the divergence of N(0, s^2) from N(0, u^2) (Verdu 2010, "Mismatched estimation and relative entropy")."""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import PositiveFloat
from torch import Tensor

from trilemma.diffusion.likelihood import LEVELS, level_log_probability, range_of, variational_bound
from trilemma.diffusion.prediction import get_prediction
from trilemma.diffusion.schedule import get_schedule
from trilemma.diffusion.steps import Denoise, of_images
from trilemma.keys import OneOrMore
from trilemma.pictures import plots

if TYPE_CHECKING:
    from PIL import Image

COSINE = get_schedule("cosine")
SHAPE, CALLS = (64, 1, 32, 32), 50  # images that are measured, at so many noise levels each
POINTS = 2001
HALF = (LEVELS - 1) / 2


class Bits(NamedTuple):
    """Of a value: of pure noise, of all noise levels between, and of which level a value with little noise is; and
    their sum, as `variational_bound` measures it."""

    noise: float
    between: float
    level: float
    measured: float


def images_of(std: float, rng: torch.Generator) -> Tensor:
    """N(0, std^2) on 256 levels of [-1, 1], float64 SHAPE."""
    x0 = std * torch.randn(SHAPE, generator=rng, dtype=torch.float64)
    return ((x0 + 1) * HALF).round().clamp(0, LEVELS - 1) / HALF - 1


def entropy(std: float) -> float:
    """Bits of such a value; the outermost levels have what is beyond them, too."""
    edges = (torch.arange(1, LEVELS, dtype=torch.float64) - 0.5) / HALF - 1
    below = torch.special.ndtr(edges / std)
    shares = torch.cat([below.new_zeros(1), below, below.new_ones(1)]).diff()
    return float(torch.special.entr(shares).sum()) / math.log(2)


def rate(log_snr: Tensor, std: float, assumed_std: float) -> Tensor:
    """Bits of a value for each unit of the log-SNR, of an estimate that takes the data for N(0, assumed_std^2)."""
    snr = log_snr.exp()
    gain = assumed_std**2 * snr / (1 + assumed_std**2 * snr)
    return snr * ((1 - gain) ** 2 * std**2 + gain**2 / snr) / (2 * math.log(2))


def estimate(assumed_std: float) -> Denoise:
    """The best linear estimate for white data of a standard deviation: c_skip of edm."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        skip = get_prediction("edm")(COSINE.alpha(t), COSINE.sigma(t), assumed_std).skip
        return of_images(skip).to(x_t) * x_t

    return denoise


def bits_of(std: float, assumed_std: float, seed: int = 0) -> Bits:
    """The parts of the bound, and the bound."""
    (low, high), rng, scale = range_of(COSINE), torch.Generator().manual_seed(seed), math.log(2) * math.prod(SHAPE)
    x0, levels = images_of(std, rng), torch.linspace(low, high, POINTS, dtype=torch.float64)
    r = math.exp(-high / 2)
    y = x0 + r * torch.randn(SHAPE, generator=rng, dtype=torch.float64)
    return Bits(
        noise=math.exp(low) * std**2 / (2 * math.log(2)),
        between=float(torch.trapezoid(rate(levels, std, assumed_std), levels)),
        level=-float(level_log_probability(y, x0, r).sum()) / scale,
        measured=-float(variational_bound(estimate(assumed_std), COSINE, x0, rng, CALLS).sum()) / scale,
    )


def bits(
    *,
    data_std: PositiveFloat = 0.25,
    assumed_std: OneOrMore[PositiveFloat] = (0.25, 0.1, 1.0),
    seed: int = 0,
) -> "Image.Image":
    """Bits of a value by noise level and their sum, of estimates that take the data for wider or narrower ones.

    Args:
        data_std: standard deviation of the values, in [-1, 1].
        assumed_std: standard deviations that the estimates assume.
        seed: of the values and the noise.
    """
    levels = torch.linspace(*range_of(COSINE), POINTS, dtype=torch.float64)
    figure, (rates, sums) = plots.row_of_plots(2, width=9.6, height=3.5)
    for k, std in enumerate(assumed_std):
        rates.plot(levels, rate(levels, data_std, std), label=f"for a spread of {std:g}", **plots.line_style(k))
        parts = bits_of(data_std, std, seed)
        at = 0.0
        for j, (name, value) in enumerate(zip(("pure noise", "between", "which level"), parts, strict=False)):
            sums.barh(k, value, left=at, color=plots.style(j + 3)[0], label=name if k == 0 else None)
            at += value
        sums.text(at, k, f" {parts.measured:.2f}", fontsize=8.5, va="center")
    sums.axvline(entropy(data_std), color=plots.GREY, linestyle=":", label=f"entropy: {entropy(data_std):.2f}")
    sums.set_yticks(range(len(assumed_std)), [f"{std:g}" for std in assumed_std])
    sums.margins(x=0.15)
    rates.legend(fontsize=8, frameon=False)
    sums.legend(fontsize=8, frameon=False, loc="upper center", ncols=4, bbox_to_anchor=(0.5, -0.18))
    plots.label_axes(rates, "bits of a value for each unit of the log-SNR", "log-SNR: from noise to the image")
    plots.label_axes(sums, "their sum, as it is measured", "bits of a value", "spread it is an estimate for")
    return plots.pixels(figure)
