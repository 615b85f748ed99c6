"""Samplers: from pure noise x_T along a decreasing grid of times to an image.

Each is a function of a denoiser, a schedule, the grid, x_T and noise. One step goes from t to s < t, with a = alpha_t /
alpha_s and b = sigma_t**2 - a**2 sigma_s**2, the variance of q(x_t | x_s), which is 1 - a**2 where variance is
preserved:

    x0_hat = denoise(x_t, t),    eps_hat = (x_t - alpha_t x0_hat) / sigma_t

    ddim   x_s = alpha_s x0_hat + sqrt(sigma_s**2 - std**2) eps_hat + std * noise
           std = eta (sigma_s / sigma_t) sqrt(b)
           (Song, Meng & Ermon 2021, "Denoising diffusion implicit models", eq. 12 and 16)

    ddpm   x_s = mean of q(x_s | x_t, x0_hat) + std * noise
           mean = alpha_s b / sigma_t**2 x0_hat + a sigma_s**2 / sigma_t**2 x_t
           std**2 = b sigma_s**2 / sigma_t**2  ("posterior"),  or b  ("beta", none in the last step)
           (Ho, Jain & Abbeel 2020, eq. 6-7 and section 3.2)

The solvers for few calls are in solvers.py; `SAMPLERS` has all.

ddim with eta = 1 is ddpm with the posterior variance; with eta = 0 it follows the probability-flow path. Only x0_hat is
asked for, so a denoiser that clips it is followed consistently.
"""

import math
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.diffusion.schedule import Schedule
from trilemma.diffusion.solvers import dpmpp_2m, dpmpp_3m, eab3, euler, heun, unipc
from trilemma.diffusion.steps import Denoise, Noise, steps_of
from trilemma.errors import UserError, named, unknown
from trilemma.modes import in_eval_mode


def ddim(denoise: Denoise, schedule: Schedule, times: Tensor, x_T: Tensor, noise: Noise, *, eta: float = 0.0) -> Tensor:
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
    for i, step in enumerate(steps_of(schedule, times)):
        x0_hat = denoise(x, x.new_full((len(x),), step.t))
        eps_hat = (x - step.alpha_t * x0_hat) / step.sigma_t
        std = eta * step.sigma_s / step.sigma_t * math.sqrt(step.added)
        x = step.alpha_s * x0_hat + math.sqrt(step.sigma_s**2 - std**2) * eps_hat
        if std > 0:
            x = x + std * noise(i)
    return x


def ddpm(
    denoise: Denoise,
    schedule: Schedule,
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
    for i, step in enumerate(steps_of(schedule, times)):
        x0_hat = denoise(x, x.new_full((len(x),), step.t))
        a, b, ratio = step.alpha_t / step.alpha_s, step.added, (step.sigma_s / step.sigma_t) ** 2
        x = step.alpha_s * b / step.sigma_t**2 * x0_hat + a * ratio * x
        if step.sigma_s > 0:
            x = x + math.sqrt(b * ratio if variance == "posterior" else b) * noise(i)
    return x


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "euler": euler,
    "heun": heun,
    "dpm++2m": dpmpp_2m,
    "dpm++3m": dpmpp_3m,
    "eab3": eab3,
    "unipc": unipc,
}
ALWAYS_RANDOM = ("ddpm",)  # they add noise whatever their options, and end elsewhere for every number of steps


def calls_of(name: str, steps: int) -> int:
    """Network calls per image of a sampler in so many steps."""
    return 2 * steps - 1 if name == "heun" else steps


def steps_for(name: str, calls: int) -> int:
    """The most steps of a sampler, at least 1, that take no more calls."""
    return (calls + 1) // 2 if name == "heun" else calls


def get_sampler(name: str, **options: Any) -> Callable[..., Tensor]:
    """The named sampler, once it is sure to know the given options.

    Raises:
        UserError: unknown sampler, or an option that it has not.
    """
    sampler = named("sampler", name, SAMPLERS)
    for option in options:
        if option not in options_of(name):
            takers = " or ".join(other for other in SAMPLERS if option in options_of(other))
            instead = f", or use sampler={takers}" if takers else ""
            raise UserError(f"the sampler {name} takes no {option}=; leave it out{instead}")
    return sampler


def options_of(name: str) -> list[str]:
    """The keywords of a sampler beside its arguments."""
    return [p.name for p in signature(SAMPLERS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]


def draw_x0(
    network: nn.Module,
    sampler: Callable[[Tensor, Noise], Tensor],
    ids: Tensor,
    shape: tuple[int, int, int],
    seed: int,
    device: torch.device,
    start: Callable[[Tensor], Tensor] = lambda eps: eps,
) -> Tensor:
    """What is number `ids` (n,) of `seed`, each from noise of its own: (n, *shape).

    Args:
        network: behind the sampler; in eval mode meanwhile.
        sampler: (x_T, noise) -> x0; start: standard normal noise, as x_T -> x_T.
    """

    def noise(purpose: str, *step: int) -> Tensor:
        return random.normal(ids, shape, seed, purpose, *step).to(device)

    with in_eval_mode(network):
        return sampler(start(noise("x_T")), lambda step: noise("step", step))
