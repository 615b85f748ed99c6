"""Jensen's gap on a model whose evidence is known: a VAE with linear networks, one pixel and one number in its code.

    p(z) = N(0, 1),   p(x|z) = N(w z + b, s^2)   =>   p(x) = N(b, w^2 + s^2),
    p(z|x) = N(w (x - b) / (w^2 + s^2), s^2 / (w^2 + s^2))

For any q(z) = N(m, v), log E_q[p(x, z) / q(z)] = log p(x), and by Jensen's inequality E_q of the log is less:

    log p(x) - ELBO = KL(q || p(z|x))

which is 0 for the posterior alone. The importance-weighted bound of k samples (Burda, Grosse & Salakhutdinov 2016,
theorem 1) rises to log p(x) for any q whose weights are bounded.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from trilemma import rng
from trilemma.autoencoders.losses import gaussian_log_likelihood, kl_between_normals, kl_to_standard_normal
from trilemma.errors import UserError
from trilemma.metrics.likelihood import importance_weighted_bound
from trilemma.pictures import plots
from trilemma.registry import create
from trilemma.types import WeighsCodes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

POINTS = 81  # of a curve


@dataclass(frozen=True)
class LinearGaussian:
    """p(z) = N(0, 1), p(x|z) = N(weight z + bias, variance); all numbers float64."""

    weight: float = 1.0
    bias: float = 0.0
    variance: float = 0.25

    def log_evidence(self, x: float) -> Tensor:
        """log p(x), nats, ()."""
        return gaussian_log_likelihood(_pixel(self.bias), _pixel(x), _pixel(self.weight**2 + self.variance).log())[0]

    def posterior(self, x: float) -> tuple[float, float]:
        """Mean and standard deviation of p(z|x)."""
        total = self.weight**2 + self.variance
        return self.weight * (x - self.bias) / total, math.sqrt(self.variance / total)

    def elbo(self, x: float, mean: Tensor, std: Tensor) -> Tensor:
        """ELBO of q = N(mean, std^2), each (N,): E_q log p(x|z) - KL(q || p(z)) in closed form, nats (N,).

        E_q (x - w z - b)^2 = (x - w m - b)^2 + w^2 std^2.
        """
        centre = (self.weight * mean + self.bias)[:, None]
        at_mean = gaussian_log_likelihood(centre, _pixel(x), _pixel(self.variance).log())
        spread = (self.weight * std).square() / (2 * self.variance)
        return at_mean - spread - kl_to_standard_normal(mean[:, None], 2 * std.log()[:, None])

    def gap(self, x: float, mean: Tensor, std: Tensor) -> Tensor:
        """KL(q || p(z|x)), nats (N,)."""
        m, s = self.posterior(x)
        return kl_between_normals(mean[:, None], 2 * std.log()[:, None], _pixel(m), 2 * _pixel(s).log())

    def as_vae(self, mean: float, std: float) -> nn.Module:
        """The preset `vae` with linear networks that are this model, and q = N(mean, std^2) for every image."""
        settings = {"reconstruction": "gaussian", "variance": self.variance, "output": "none"}
        vae = create("vae", shape=(1, 1, 1), hidden=(), latent=1, **settings).double().eval()
        for network, weight, bias in (
            (vae.get_submodule("encoder"), [0.0, 0.0], [mean, 2 * math.log(std)]),
            (vae.get_submodule("decoder"), [self.weight], [self.bias]),
        ):
            (layer,) = [part for part in network.modules() if isinstance(part, nn.Linear)]
            with torch.no_grad():
                layer.weight.copy_(torch.tensor(weight, dtype=torch.float64)[:, None])
                layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
        return vae


def measured(vae: nn.Module, x: float, k: int, repeats: int, seed: int) -> float:
    """The bound of k samples by the model's own code, mean of `repeats`; the ELBO for k = 1. Nats."""
    assert isinstance(vae, WeighsCodes)
    images = torch.full((repeats, 1, 1, 1), x, dtype=torch.float64)
    return float(importance_weighted_bound(vae, images, k, rng.generator(seed, "jensen", k)).mean())


def jensen_gap(
    *,
    x: float = 1.5,
    weight: float = 1.0,
    variance: PositiveFloat = 0.25,
    shift: float = 1.5,
    scale: Annotated[float, Field(gt=0.71)] = 1.0,
    samples: PositiveInt = 1000,
    repeats: PositiveInt = 1000,
    seed: int = 0,
) -> "Image.Image":
    """ELBO over q's mean and standard deviation, and the importance-weighted bound over the number of samples.

    Args:
        shift, scale: q of the third panel: its mean in posterior standard deviations from that of the posterior, and
            its standard deviation in theirs. Below a scale of 1 / sqrt(2) the weights' variance is infinite.
        samples: the largest k; repeats: estimates that each dot is the mean of.
    """
    if not math.isfinite(x + weight + shift):
        raise UserError(f"x={x}, weight={weight}, shift={shift}: give finite numbers")
    model = LinearGaussian(weight, 0.0, variance)
    m, s = model.posterior(x)
    figure, (means, widths, many) = plots.row_of_plots(3, width=11.0)
    along = torch.linspace(-3, 3, POINTS, dtype=torch.float64)  # standard deviations of the posterior
    _elbo_panel(means, along, model, x, m + s * along, torch.full_like(along, s), (repeats, seed))
    times = torch.logspace(-2, 2, POINTS, base=2, dtype=torch.float64)
    _elbo_panel(widths, times, model, x, torch.full_like(times, m), s * times, (repeats, seed))
    _bound_panel(many, model, x, m + shift * s, scale * s, samples, (repeats, seed))
    widths.set_xscale("log", base=2)
    plots.label_axes(means, "q of the posterior's width, moved", "posterior std between the means", "nats")
    plots.label_axes(widths, "q at the posterior's mean, widened", "std of q / std of the posterior")
    plots.label_axes(many, f"q moved by {shift:g}, width times {scale:g}", "samples k")
    means.legend(fontsize=7.5, frameon=False, loc="lower center")
    many.legend(fontsize=7.5, frameon=False, loc="center right")
    return plots.pixels(figure)


def _elbo_panel(
    ax: "Axes", across: Tensor, model: LinearGaussian, x: float, mean: Tensor, std: Tensor, how: tuple[int, int]
) -> None:
    """ELBO, log p(x) - KL(q || posterior) on top of it, and what the VAE's own code measures of every tenth q."""
    evidence, elbo = model.log_evidence(x), model.elbo(x, mean, std)
    dots = [
        measured(model.as_vae(m, s), x, 1, *how) for m, s in zip(mean[::10].tolist(), std[::10].tolist(), strict=True)
    ]
    ax.axhline(float(evidence), color=plots.GREY, linewidth=1, label="log p(x)")
    ax.fill_between(across, elbo, float(evidence), color=plots.GREY, alpha=0.12, linewidth=0)
    ax.plot(across, elbo, color=plots.style(0)[0], linewidth=4, alpha=0.4, label="ELBO")
    ax.plot(across, evidence - model.gap(x, mean, std), label="log p(x) - KL(q || p(z|x))", **plots.line_style(1))
    ax.plot(across[::10], dots, "o", color="black", markersize=3, label="measured by the model")


def _bound_panel(
    ax: "Axes", model: LinearGaussian, x: float, mean: float, std: float, most: int, how: tuple[int, int]
) -> None:
    """The importance-weighted bound of 1, 2, 5, 10, ... samples, between the ELBO and log p(x)."""
    ks = [k for k in (a * 10**b for b in range(7) for a in (1, 2, 5)) if k <= most]
    vae, q = model.as_vae(mean, std), tuple(torch.tensor([v], dtype=torch.float64) for v in (mean, std))
    ax.axhline(float(model.log_evidence(x)), color=plots.GREY, linewidth=1, label="log p(x)")
    ax.axhline(float(model.elbo(x, *q)), color=plots.style(0)[0], linewidth=4, alpha=0.4, label="ELBO")
    ax.plot(ks, [measured(vae, x, k, *how) for k in ks], "o-", color="black", markersize=3, label="bound of k samples")
    ax.set_xscale("log")


def _pixel(value: float) -> Tensor:
    """A number as a batch of one image of one value, float64 (1, 1)."""
    return torch.tensor([[value]], dtype=torch.float64)
