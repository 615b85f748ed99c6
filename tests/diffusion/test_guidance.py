"""Guidance in closed form: linear combinations, Gaussian data and a Gaussian classifier."""

import math

import pytest
import torch
from torch import Tensor

from trilemma.diffusion.guidance import by_classifier, guided_denoiser
from trilemma.diffusion.schedule import get_schedule, noise_level
from trilemma.errors import UserError

SCHEDULE = get_schedule("cosine")
X = torch.randn(5, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
HALF = torch.full((5,), 0.5, dtype=torch.float64)


def times(factor: float, calls: list[float] | None = None):
    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        if calls is not None:
            calls.append(factor)
        return factor * x_t

    return denoise


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_the_combination(scale: float) -> None:
    calls: list[float] = []
    denoise = guided_denoiser(times(0.7, calls), times(0.2, calls), scale, SCHEDULE)
    torch.testing.assert_close(denoise(X, HALF), (0.2 + scale * 0.5) * X, atol=1e-12, rtol=0)
    assert calls == {0.0: [0.2], 1.0: [0.7]}.get(scale, [0.7, 0.2])


def test_the_interval_is_of_the_noise_level() -> None:
    calls: list[float] = []
    denoise = guided_denoiser(times(0.7, calls), times(0.2, calls), 3.0, SCHEDULE, interval=(-1.0, 1.0))
    for t in (0.1, 0.5, 0.9):
        calls.clear()
        level = float(noise_level(SCHEDULE.alpha(t), SCHEDULE.sigma(t)))
        result = denoise(X, torch.full((5,), t, dtype=torch.float64))
        inside = -1 <= level <= 1
        torch.testing.assert_close(result, (1.7 if inside else 0.7) * X, atol=1e-12, rtol=0)
        assert len(calls) == 1 + inside


def test_rescaling_gives_the_standard_deviation_of_the_strong() -> None:
    for phi in (0.0, 0.4, 1.0):
        for scale, combined in ((3.0, 1.7), (0.0, 0.2)):
            result = guided_denoiser(times(0.7), times(0.2), scale, SCHEDULE, rescale=phi)(X, HALF)
            torch.testing.assert_close(result, ((1 - phi) * combined + phi * 0.7) * X, atol=1e-9, rtol=0)


def test_a_classifier_shifts_the_posterior_mean() -> None:
    """x0 ~ N(0, 1), log p(label | x0_hat) = -(x0_hat - 2)**2 / 2; its gradient has the factor d x0_hat / d x_t."""
    alpha, sigma = float(SCHEDULE.alpha(0.5)), float(SCHEDULE.sigma(0.5))
    gain = alpha / (alpha**2 + sigma**2)
    denoise = by_classifier(times(gain), lambda x0: -((x0 - 2) ** 2).flatten(1).sum(1) / 2, 1.5, SCHEDULE)
    expected = gain * X + 1.5 * sigma**2 / alpha * gain * (2 - gain * X)
    with torch.no_grad():
        torch.testing.assert_close(denoise(X, HALF), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("scale", "interval", "rescale"), [(-1.0, (0.0, 1.0), 0.0), (2.0, (1.0, 0.0), 0.0), (2.0, (-math.inf, 0.0), 1.5)]
)
def test_impossible_guidance_is_refused(scale: float, interval: tuple[float, float], rescale: float) -> None:
    with pytest.raises(UserError, match="give a scale of at least 0"):
        guided_denoiser(times(1.0), times(0.0), scale, SCHEDULE, interval, rescale)
