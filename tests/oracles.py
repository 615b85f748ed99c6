"""Closed forms that tests of several modules compare with; all numbers float64."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from trilemma.diffusion.samplers import Denoise
from trilemma.diffusion.schedule import Schedule


def gaussian_denoiser(schedule: Schedule, mean: float, std: float) -> Denoise:
    """The denoiser of data N(m, s**2): E[x0 | x_t] = m + alpha s**2 (x_t - alpha m) / (alpha**2 s**2 + sigma**2)."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (level(t)[:, None, None, None] for level in (schedule.alpha, schedule.sigma))
        return mean + alpha * std**2 * (x_t - alpha * mean) / (alpha**2 * std**2 + sigma**2)

    return denoise


def modes_denoiser(schedule: Schedule, modes: Sequence[tuple[float, float]]) -> Denoise:
    """The denoiser of modes N(m, s**2) of equal weight: Bayes' rule over them, and the mean of each."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (level(t)[:, None, None, None] for level in (schedule.alpha, schedule.sigma))
        means, logits = [], []
        for mean, std in modes:
            variance = alpha**2 * std**2 + sigma**2
            means.append(mean + alpha * std**2 * (x_t - alpha * mean) / variance)
            logits.append(-((x_t - alpha * mean) ** 2) / (2 * variance) - variance.log() / 2)
        return (torch.stack(logits).softmax(0) * torch.stack(means)).sum(0)

    return denoise


def gaussian_flow(
    schedule: Schedule, mean: float, std: float, x: Tensor, start: Tensor | float, stop: Tensor | float
) -> Tensor:
    """Where the probability flow takes x from one time to another for data N(m, s**2): x_t - alpha m keeps its ratio to
    sqrt(alpha**2 s**2 + sigma**2)."""
    spread = [(schedule.alpha(t) ** 2 * std**2 + schedule.sigma(t) ** 2).sqrt() for t in (start, stop)]
    return schedule.alpha(stop) * mean + (x - schedule.alpha(start) * mean) * spread[1] / spread[0]


def posterior_variance(alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float) -> float:
    """Variance of q(x_s | x_t, x0): 1 / (a**2 / (1 - a**2) + 1 / sigma_s**2) with a = alpha_t / alpha_s."""
    a = alpha_t / alpha_s
    return 0.0 if sigma_s == 0 else 1 / (a**2 / (1 - a**2) + 1 / sigma_s**2)


def ancestral_moments(
    schedule: Schedule, mean: float, std: float, steps: int, step_variance: Callable[..., float]
) -> list[float]:
    """Mean and variance of what an ancestral sampler draws of data N(m, s**2), by the affine recursion

        x_s = alpha_s x0_hat + sqrt(sigma_s**2 - v) eps_hat + sqrt(v) noise

    from N(0, 1), with v = step_variance(alpha_t, sigma_t, alpha_s, sigma_s).
    """
    centre, variance, times = 0.0, 1.0, schedule.times(steps)
    levels = zip(schedule.alpha(times).tolist(), schedule.sigma(times).tolist(), strict=True)
    for (alpha_t, sigma_t), (alpha_s, sigma_s) in pairwise(levels):
        v = step_variance(alpha_t, sigma_t, alpha_s, sigma_s)
        gain = alpha_t * std**2 / (alpha_t**2 * std**2 + sigma_t**2)  # x0_hat = gain * x + m (1 - gain * alpha_t)
        eps_share = math.sqrt(max(0, sigma_s**2 - v)) / sigma_t
        slope = alpha_s * gain + eps_share * (1 - alpha_t * gain)
        offset = (alpha_s - eps_share * alpha_t) * mean * (1 - gain * alpha_t)
        centre, variance = slope * centre + offset, slope**2 * variance + v
    return [centre, variance]


def order_of(steps: Tensor | Sequence[float], errors: Tensor | Sequence[float]) -> float:
    """The order of a solver: minus the slope of log error over log steps, by least squares."""
    x, y = (torch.as_tensor(values, dtype=torch.float64).log() for values in (steps, errors))
    return -float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def principal_components(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (K,), the largest first, and directions as columns (D, K), of rows x (N, D); K = min(N, D)."""
    _, singular, directions = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    return singular.square() / len(x), directions.T


def auroc_of_normals(apart: float) -> float:
    """The AUROC of two unit Gaussians whose means differ by `apart`: Phi(apart / sqrt 2)."""
    return 0.5 * (1 + math.erf(apart / 2))
