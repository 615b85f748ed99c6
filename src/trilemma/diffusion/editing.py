"""Images drawn again, from a noisier state of themselves on: whole, or in part.

strength   x_t = alpha_t x0 + sigma_t eps at t = strength, from which a sampler goes on to 0: what is larger than
           the noise stays    (Meng et al. 2022, "SDEdit: guided image synthesis and editing with stochastic
           differential equations", algorithm 1)
mask       the estimate x0_hat is the image itself where the mask is 0, so that these pixels take their own path
           from noise; each step of ddpm is taken several times, with the noise of q(x_t | x_s) added again in
           between, so that both parts come to fit        (Lugmayr et al. 2022, "RePaint: inpainting using
           denoising diffusion probabilistic models", algorithm 1, where known pixels are drawn anew from the image
           at each step; here they follow from the replaced x0_hat, by the same law)
noise      the image is noisy itself: alpha_t times it is x_t at the t where sigma_t / alpha_t is its noise
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma.config import Config
from trilemma.diffusion.schedule import Schedule
from trilemma.diffusion.steps import Denoise, Noise, steps_of, with_step_count
from trilemma.errors import UserError
from trilemma.pictures.levels import hide
from trilemma.types import Redraw

if TYPE_CHECKING:
    from trilemma.progress import OnStep

ROUNDS = 5  # of each step under a mask
OF_SOLVER = ("sampler", "eta", "order", "variance")  # keys of a sampler
REPAINT_VALUES = ("auto", "ddpm", "posterior")  # values of these that say what is done under a mask


def redraw_sampler(
    denoise: Denoise,
    schedule: Schedule,
    times: Tensor,
    x0: Tensor,
    how: Redraw,
    solver: Callable[..., Tensor],
    *,
    resample: bool = True,
    on_step: "OnStep | None" = None,
) -> tuple[Callable[[Tensor, Noise], Tensor], Callable[[Tensor], Tensor]]:
    """The sampler of images x0 (B, C, H, W) in [-1, 1], and what it starts from, of standard normal noise as x0.

    Args:
        times: the grid of a whole drawing; solver: that of images that are drawn again without a mask, or with
            resample=False, for a denoiser that is given the mask.
        on_step: is told the step of each call of the denoiser, of how many.
    """
    begin = how.strength if how.noise is None else time_of_noise(schedule, how.noise)
    grid = times_from(times, min(begin, float(times[0])))
    if len(grid) == 1:  # nothing is to be drawn
        return (lambda x, noise: x0), (lambda eps: x0)
    alpha, sigma = (float(level(grid[:1])) for level in (schedule.alpha, schedule.sigma))
    added = 0.0 if how.noise is not None else sigma
    denoise = with_step_count(denoise, grid, on_step)
    if how.mask is not None:
        denoise = keep_outside(denoise, x0, how.mask)
    if how.mask is not None and resample:
        sampler = partial(repaint, denoise, schedule, grid, rounds=ROUNDS if how.rounds is None else how.rounds)
    else:
        sampler = partial(solver, denoise, schedule, grid)
    return sampler, lambda eps: alpha * x0 + added * eps


def check_rounds(how: Redraw, keys: Config, resample: bool) -> None:
    """Refuse keys of a sampler, and rounds=, that have no effect under a mask.

    Raises:
        UserError: see above.
    """
    if how.mask is None:
        return
    if not resample and how.rounds is not None:
        raise UserError(
            f"rounds={how.rounds}: this model was trained with masks and takes each step once; leave it out"
        )
    given = {key: value for key, value in keys.given().items() if key in OF_SOLVER and value not in REPAINT_VALUES}
    if resample and (key := next(iter(given), None)):
        raise UserError(
            f"{key}={keys.get(key)}: with mask= the steps are those of ddpm, each taken rounds= times; leave it out, "
            "or train diffusion-inpaint, which takes any sampler"
        )


def seen_of(image: Tensor, how: Redraw) -> Tensor:
    """Images (B, C, H, W) in [0, 1], grey under a mask where nothing that is there may be seen: at strength 1."""
    return image if how.mask is None or how.strength < 1 else hide(image, how.mask)


def times_from(times: Tensor, start: float) -> Tensor:
    """The part of a decreasing grid below a time, with it in front."""
    return torch.cat([times.new_tensor([start]), times[times < start]])


def keep_outside(denoise: Denoise, x0: Tensor, mask: Tensor) -> Denoise:
    """A denoiser that knows the image x0 (B, C, H, W) where the mask (B, 1, H, W) is 0."""

    def denoise_inside(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.where(mask > 0, denoise(x_t, t), x0.to(x_t))

    return denoise_inside


def repaint(denoise: Denoise, schedule: Schedule, times: Tensor, x_T: Tensor, noise: Noise, *, rounds: int) -> Tensor:
    """ddpm, as in `samplers`, each step of which is taken `rounds` times: a call of the denoiser for each."""
    x = x_T
    for i, step in enumerate(steps_of(schedule, times)):
        a, b, ratio = step.alpha_t / step.alpha_s, step.added, (step.sigma_s / step.sigma_t) ** 2
        for r in range(rounds):
            x0_hat = denoise(x, x.new_full((len(x),), step.t))
            y = step.alpha_s * b / step.sigma_t**2 * x0_hat + a * ratio * x
            if step.sigma_s > 0:
                y = y + math.sqrt(b * ratio) * noise(2 * (rounds * i + r))
            if r == rounds - 1 or step.sigma_s == 0:
                x = y
                break
            x = a * y + math.sqrt(b) * noise(2 * (rounds * i + r) + 1)
    return x


def time_of_noise(schedule: Schedule, std: float) -> float:
    """The t where sigma / alpha is the standard deviation of the noise of an image in [0, 1]: 2 std in [-1, 1]."""
    return float(schedule.t_of(-2 * math.log(2 * std)))
