"""How likely an image of 256 levels is: a bound, and the density along the probability-flow path.

Both are bounds on log P(image), in which a little noise makes the levels continuous: with levels x_k = 2 k / 255 - 1
and y = x0 + r eps, where r is about half the distance of two levels,

    log P >= E[log p(y) + log P(k | y) - log N(y; x0, r**2)],   P(k | y) ~ exp(-(y - x_k)**2 / (2 r**2))

and for p(y), with l = log(alpha**2 / sigma**2) from its value `low` in pure noise to that of y,

    bound   log P >= -KL(q(x_T | x0), N(0, sigma_T**2)) - 1/2 integral of exp(l) E|x0 - x0_hat|**2 dl + E log P(k | y)
            KL = exp(low) |x0|**2 / 2                                                      (Kingma et al. 2021, eq. 15)
    flow    log p(y) = log N(y_T; 0, r_T**2) + integral of (D - trace of d x0_hat / d y) d log r along the path of y
            trace = E v' J v, v of random signs        (Song et al. 2021, eq. 39-40; Skilling 1989; Hutchinson 1990)

with D numbers in an image, y = x / alpha and r = sigma / alpha. Images are in [-1, 1].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trilemma.diffusion.inversion import no_noise
from trilemma.diffusion.schedule import Schedule, log_snr
from trilemma.diffusion.solvers import eab3
from trilemma.diffusion.steps import Denoise, of_images
from trilemma.errors import UserError

CLEAN = 2 * math.log(255)  # log-SNR at which noise is half the distance of two levels
NOISY = -10.0  # log-SNR at which an image is noise: what is left of it is 3e-5 nats a number
LEVELS = 256
NEAR = 8  # standard deviations on either side of a value that its level may be away


def range_of(schedule: Schedule) -> tuple[float, float]:
    """The log-SNR from noise to a little noise, as far as the schedule goes."""
    low = float(schedule.t_of(max(NOISY, float(log_snr(schedule, 1.0)))))
    high = float(schedule.t_of(min(CLEAN, float(log_snr(schedule, 0.0)))))
    return float(log_snr(schedule, low)), float(log_snr(schedule, high))


def variational_bound(denoise: Denoise, schedule: Schedule, x0: Tensor, rng: torch.Generator, calls: int) -> Tensor:
    """A lower bound on log P of images (B, C, H, W), estimated at noise levels evenly spread over each: nats (B,)."""
    (low, high), total = range_of(schedule), x0.new_zeros(len(x0))
    start = _random(torch.rand, (len(x0),), x0, rng).cpu().double()
    for call in range(calls):
        t = schedule.t_of(low + (call + start) / calls * (high - low))
        alpha, sigma = of_images(schedule.alpha(t).to(x0)), of_images(schedule.sigma(t).to(x0))
        x_t = alpha * x0 + sigma * _random(torch.randn, x0.shape, x0, rng)
        error = (x0 - denoise(x_t, t)).square().flatten(1).sum(1)
        total += log_snr(schedule, t).exp().to(x0) * error
    diffusion = (high - low) / calls * total / 2
    prior = math.exp(low) / 2 * x0.square().flatten(1).sum(1)
    r = math.exp(-high / 2)
    return level_log_probability(x0 + r * _random(torch.randn, x0.shape, x0, rng), x0, r) - diffusion - prior


def flow_bound(denoise: Denoise, schedule: Schedule, x0: Tensor, rng: torch.Generator, calls: int) -> Tensor:
    """A lower bound on log P of images (B, C, H, W), by the density of the path: nats (B,). Few points make an error of
    either sign in the density.

    Args:
        calls: points of the path, at least 2, each a call with its gradient.
    Raises:
        UserError: a single point has no path.
    """
    if calls < 2:
        raise UserError("likelihood=flow needs at least 2 points of the path; give bound_samples=50, for instance")
    low, high = range_of(schedule)
    t = schedule.t_of(torch.linspace(high, low, calls, dtype=torch.float64))
    t = schedule.t_of(log_snr(schedule, t).unique().flip(0))  # of a table: each of its steps once
    r = math.exp(-high / 2)
    y = x0 + r * _random(torch.randn, x0.shape, x0, rng)
    entropy = x0[0].numel() / 2 * math.log(2 * math.pi * math.e * r**2)
    probe = 2.0 * (_random(torch.rand, x0.shape, x0, rng) < 0.5) - 1
    return flow_log_density(denoise, schedule, t, y, probe) + level_log_probability(y, x0, r) + entropy


def flow_log_density(denoise: Denoise, schedule: Schedule, times: Tensor, y: Tensor, probe: Tensor) -> Tensor:
    """log p(y) at the first of some increasing times, y = x / alpha of images (B, C, H, W): nats (B,)."""
    integrand: list[Tensor] = []

    def denoise_and_trace(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0_hat = denoise(x, t)
            (gradient,) = torch.autograd.grad((probe * x0_hat).sum(), x)
        trace = float(schedule.alpha(times[len(integrand)])) * (probe * gradient).flatten(1).sum(1)
        integrand.append(y[0].numel() - trace)
        return x0_hat.detach()

    x = eab3(denoise_and_trace, schedule, times, float(schedule.alpha(times[0])) * y, no_noise)
    denoise_and_trace(x, x.new_full((len(x),), float(times[-1])))
    log_r = -log_snr(schedule, times).to(y) / 2
    sigma, alpha = float(schedule.sigma(times[-1])), float(schedule.alpha(times[-1]))
    normal = (x / sigma).square().flatten(1).sum(1) + y[0].numel() * math.log(2 * math.pi * (sigma / alpha) ** 2)
    return torch.trapezoid(torch.stack(integrand), log_r, dim=0) - normal / 2


def level_log_probability(y: Tensor, x0: Tensor, r: float) -> Tensor:
    """log P(k | y) of the levels of images x0, summed over an image: (B, C, H, W) twice -> nats (B,)."""
    half = (LEVELS - 1) / 2
    near = min(LEVELS, math.ceil(NEAR * r * half))
    nearest = ((y + 1) * half).round().clamp(0, LEVELS - 1)
    levels = nearest[..., None] + torch.arange(-near, near + 1, device=y.device)
    distance = (y[..., None] + 1) * half - levels
    scores = -(distance / half / r).square() / 2
    outside = (levels < 0) | (levels > LEVELS - 1)
    own = -((y - x0) / r).square() / 2
    return (own - scores.masked_fill(outside, -math.inf).logsumexp(-1)).flatten(1).sum(1)


def _random(
    draw: Callable[..., Tensor], shape: torch.Size | tuple[int, ...], like: Tensor, rng: torch.Generator
) -> Tensor:
    """Random numbers of a generator, as another tensor."""
    return draw(shape, generator=rng, dtype=like.dtype, device=rng.device).to(like.device)
