"""Samplers: from pure noise x_T along a decreasing grid of times to an image.

Each is a function of a denoiser, a schedule, the grid, x_T and noise. One step goes from t to s < t:

    x0_hat = denoise(x_t, t),    eps_hat = (x_t - alpha_t x0_hat) / sigma_t

    ddim   x_s = alpha_s x0_hat + sqrt(sigma_s**2 - std**2) eps_hat + std * noise
           std = eta (sigma_s / sigma_t) sqrt(1 - alpha_t**2 / alpha_s**2)
           (Song, Meng & Ermon 2021, "Denoising diffusion implicit models", eq. 12 and 16)

    ddpm   x_s = mean of q(x_s | x_t, x0_hat) + std * noise,  with a = alpha_t / alpha_s
           mean = alpha_s (1 - a**2) / sigma_t**2 x0_hat + a sigma_s**2 / sigma_t**2 x_t
           std**2 = (1 - a**2) sigma_s**2 / sigma_t**2  ("posterior"),  or 1 - a**2  ("beta", none in the last step)
           (Ho, Jain & Abbeel 2020, eq. 6-7 and section 3.2)

ddim with eta = 1 is ddpm with the posterior variance; with eta = 0 it follows the probability-flow path. Only x0_hat is
asked for, so a denoiser that clips it is followed consistently.
"""

import math
from collections.abc import Callable, Iterator
from inspect import signature
from itertools import pairwise
from typing import Any, Protocol

from torch import Tensor

from trilemma.errors import UserError, unknown

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, C, H, W), t (B,)) -> x0_hat, as x_t
Noise = Callable[[int], Tensor]  # step number 0, 1, ... -> standard normal, as x_t


class NoiseLevels(Protocol):
    """What a sampler needs to know of a schedule."""

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of x0."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Factor of eps."""
        ...


def ddim(
    denoise: Denoise, schedule: NoiseLevels, times: Tensor, x_T: Tensor, noise: Noise, *, eta: float = 0.0
) -> Tensor:
    """Song et al. (2021).

    Args:
        denoise: x0_hat of (x_t, t).
        schedule: alpha and sigma.
        times: decreasing, (steps + 1,); sigma must be positive at all but the last.
        x_T: the noisy image at times[0], (B, C, H, W).
        noise: what step i adds; not called where nothing is added.
        eta: 0 deterministic ... 1 ancestral.
    Returns:
        The image at times[-1], (B, C, H, W).
    """
    if not 0 <= eta <= 1:
        raise UserError(f"eta={eta}: give a number from 0 (deterministic) to 1 (as much noise as ddpm)")
    x = x_T
    for i, (t, alpha_t, sigma_t, alpha_s, sigma_s) in enumerate(_steps(schedule, times)):
        x0_hat = denoise(x, x.new_full((len(x),), t))
        eps_hat = (x - alpha_t * x0_hat) / sigma_t
        std = eta * sigma_s / sigma_t * math.sqrt(1 - (alpha_t / alpha_s) ** 2)
        x = alpha_s * x0_hat + math.sqrt(sigma_s**2 - std**2) * eps_hat
        if std > 0:
            x = x + std * noise(i)
    return x


def ddpm(
    denoise: Denoise,
    schedule: NoiseLevels,
    times: Tensor,
    x_T: Tensor,
    noise: Noise,
    *,
    variance: str = "posterior",
) -> Tensor:
    """Ho et al. (2020), on any grid; arguments as in `ddim`, and the variance of a step: "posterior" or "beta"."""
    if variance not in ("posterior", "beta"):
        raise unknown("variance", variance, ("posterior", "beta"))
    x = x_T
    for i, (t, alpha_t, sigma_t, alpha_s, sigma_s) in enumerate(_steps(schedule, times)):
        x0_hat = denoise(x, x.new_full((len(x),), t))
        a = alpha_t / alpha_s
        beta, shrink = 1 - a**2, (sigma_s / sigma_t) ** 2
        x = alpha_s * beta / sigma_t**2 * x0_hat + a * shrink * x
        if sigma_s > 0:
            x = x + math.sqrt(beta * shrink if variance == "posterior" else beta) * noise(i)
    return x


SAMPLERS: dict[str, Callable[..., Tensor]] = {"ddim": ddim, "ddpm": ddpm}


def get_sampler(name: str, **options: Any) -> Callable[..., Tensor]:
    """The named sampler, once it is sure to know the given options.

    Raises:
        UserError: unknown sampler, or an option that it has not.
    """
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    allowed = [p.name for p in signature(SAMPLERS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in allowed:
            raise unknown(f"{name} option", option, allowed)
    return SAMPLERS[name]


def _steps(schedule: NoiseLevels, times: Tensor) -> Iterator[tuple[float, float, float, float, float]]:
    """(t, alpha_t, sigma_t, alpha_s, sigma_s) of each step t -> s, as numbers of double precision."""
    levels = zip(times.tolist(), schedule.alpha(times).tolist(), schedule.sigma(times).tolist(), strict=True)
    for (t, alpha_t, sigma_t), (_, alpha_s, sigma_s) in pairwise(levels):
        yield t, alpha_t, sigma_t, alpha_s, sigma_s
