"""Guidance: denoisers made of denoisers, so that any sampler follows them. A guided step costs the calls of both.

guided_denoiser   weak + scale (strong - weak)
                  classifier-free: strong is told the condition, weak is not        (Ho & Salimans 2022, eq. 6)
                  auto-guidance: weak is a smaller or less trained model            (Karras et al. 2024, eq. 5)
                  scale 1 is strong alone, 0 is weak alone
interval          where log(sigma / alpha) is outside it, strong alone, in one call (Kynkaanniemi et al. 2024)
rescale           share phi of the result has the standard deviation of strong      (Lin et al. 2024, eq. 15-16)
by_classifier     x0_hat + scale sigma**2 / alpha * gradient of log p(label | x0_hat) by x_t
                                                                                    (Dhariwal & Nichol 2021, section
                  4.1, with a classifier of clean images at x0_hat: Chung et al. 2023, "Diffusion posterior sampling",
                  eq. 10)
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trilemma.diffusion.schedule import Schedule, noise_level
from trilemma.diffusion.steps import Denoise, of_images
from trilemma.errors import UserError


def guided_denoiser(
    strong: Denoise,
    weak: Denoise,
    scale: float,
    schedule: Schedule,
    interval: tuple[float, float] = (-math.inf, math.inf),
    rescale: float = 0.0,
) -> Denoise:
    """The denoiser weak + scale (strong - weak).

    Args:
        interval: values of log(sigma / alpha) between which it is guided.
        rescale: 0 to 1, share that is brought to the standard deviation of strong, image by image.
    Raises:
        UserError: scale is negative, or the interval or rescale impossible.
    """
    if scale < 0 or not 0 <= rescale <= 1 or interval[0] > interval[1]:
        raise UserError(
            f"guidance={scale:g}, interval={interval[0]:g},{interval[1]:g}, rescale={rescale:g}: give a scale of at "
            "least 0, an interval from low to high, and a rescale from 0 to 1"
        )
    if scale == 1:
        return strong

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        level = float(noise_level(schedule.alpha(float(t[0])), schedule.sigma(float(t[0]))))
        if not interval[0] <= level <= interval[1]:
            return strong(x_t, t)
        if scale == 0 and rescale == 0:
            return weak(x_t, t)
        by_strong, by_weak = strong(x_t, t), weak(x_t, t)
        result = by_weak + scale * (by_strong - by_weak)
        return result if rescale == 0 else result * (1 - rescale + rescale * _std(by_strong) / _std(result))

    return denoise


def by_classifier(
    denoise: Denoise, log_probability: Callable[[Tensor], Tensor], scale: float, schedule: Schedule
) -> Denoise:
    """A denoiser that is pushed to images of which a classifier is sure.

    Args:
        log_probability: images as x0_hat (B, C, H, W) -> log p(label | image) (B,).
    """

    def guided_denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = float(schedule.alpha(float(t[0]))), float(schedule.sigma(float(t[0])))
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            x0_hat = denoise(x, t)
            (gradient,) = torch.autograd.grad(log_probability(x0_hat).sum(), x)
        return x0_hat.detach() + scale * sigma**2 / alpha * gradient

    return guided_denoise


def log_probability(classifier: nn.Module, label: Tensor) -> Callable[[Tensor], Tensor]:
    """log p(label | image) of images in [-1, 1], by a classifier that takes images in [0, 1]."""
    chosen = label[:, None]
    return lambda x0: classifier((x0 + 1) / 2).log_softmax(1).gather(1, chosen.to(x0.device))[:, 0]


def _std(images: Tensor) -> Tensor:
    """Standard deviation of each image, (B, 1, 1, 1)."""
    return of_images(images.flatten(1).std(1).clamp(min=1e-8))
