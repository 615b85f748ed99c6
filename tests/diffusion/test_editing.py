"""Images drawn again: exact cases of Gaussian data and of one image, masks bit for bit, noise that is known."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from trilemma import rng
from trilemma.diffusion.editing import kept_outside, redrawing, resampled, time_of_noise, times_from
from trilemma.diffusion.grids import times_of
from trilemma.diffusion.samplers import ddpm
from trilemma.diffusion.schedule import SCHEDULES, Schedule, get_schedule
from trilemma.diffusion.solvers import unipc
from trilemma.types import Redraw

MEAN, STD = 0.3, 0.5


def gaussian(schedule: Schedule) -> "partial[Tensor]":
    """E[x0 | x_t] of x0 ~ N(MEAN, STD**2)."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (part.to(x_t)[:, None, None, None] for part in (schedule.alpha(t), schedule.sigma(t)))
        return MEAN + alpha * STD**2 * (x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)

    return partial(denoise)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_like(x: Tensor, seed: int = 1):
    return lambda step: rng.normal(torch.arange(len(x)), tuple(x.shape[1:]), seed, "step", step).double()


@pytest.mark.parametrize("name", SCHEDULES)
def test_strength_0_changes_nothing_and_1_forgets_all(name: str) -> None:
    schedule = get_schedule(name)
    times, x0 = times_of("log-snr", schedule, 40), 0.7 * normal(8, 1, 2, 2)
    sampler, start = redrawing(gaussian(schedule), schedule, times, x0, Redraw(strength=0.0), unipc)
    assert torch.equal(sampler(start(normal(8, 1, 2, 2)), noise_like(x0)), x0)
    sampler, start = redrawing(gaussian(schedule), schedule, times, x0, Redraw(strength=1.0), unipc)
    eps = normal(8, 1, 2, 2, seed=3)
    one, other = sampler(start(eps), noise_like(x0)), None
    sampler, start = redrawing(gaussian(schedule), schedule, times, -x0, Redraw(strength=1.0), unipc)
    other = sampler(start(eps), noise_like(x0))
    assert (one - other).abs().max() < 0.05  # what is left of the image at the largest noise


def test_an_image_drawn_again_has_the_law_of_theory() -> None:
    """Of Gaussian data on the probability-flow path: x(0) - m is s / spread(t) (x_t - alpha m), exactly."""
    schedule, strength = get_schedule("cosine"), 0.4
    x0, eps = MEAN + STD * normal(64, 1, 2, 2), normal(64, 1, 2, 2, seed=2)
    times = times_of("log-snr", schedule, 200)
    sampler, start = redrawing(gaussian(schedule), schedule, times, x0, Redraw(strength=strength), unipc)
    result = sampler(start(eps), noise_like(x0))
    alpha, sigma = float(schedule.alpha(strength)), float(schedule.sigma(strength))
    x_t = alpha * x0 + sigma * eps
    expected = MEAN + STD / math.sqrt(alpha**2 * STD**2 + sigma**2) * (x_t - alpha * MEAN)
    torch.testing.assert_close(result, expected, rtol=0, atol=0.01)


def test_a_grid_begins_at_the_strength() -> None:
    times = torch.tensor([1.0, 0.8, 0.5, 0.2, 0.0])
    assert times_from(times, 0.6).tolist() == pytest.approx([0.6, 0.5, 0.2, 0.0])
    assert times_from(times, 0.5).tolist() == pytest.approx([0.5, 0.2, 0.0])
    assert times_from(times, 1.0).tolist() == times.tolist() and times_from(times, 0.0).tolist() == [0.0]


def test_one_round_is_ddpm() -> None:
    schedule = get_schedule("cosine")
    times, x = times_of("uniform", schedule, 7), normal(4, 1, 2, 2)
    even = lambda step: noise_like(x)(step // 2)  # noqa: E731
    theirs = ddpm(gaussian(schedule), schedule, times, x, noise_like(x))
    ours = resampled(gaussian(schedule), schedule, times, x, even, rounds=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_rounds_take_so_many_calls_and_keep_the_law() -> None:
    """With the exact denoiser of Gaussian data every round has the law of x_s: mean and deviation stay those of data,
    up to the steps that ddpm is short of."""
    schedule, calls = get_schedule("cosine"), []
    times, x = times_of("uniform", schedule, 50), normal(4000, 1, 1, 1)
    exact = gaussian(schedule)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t[0]))
        return exact(x_t, t)

    result = resampled(denoise, schedule, times, x, noise_like(x), rounds=3)
    assert len(calls) == 3 * 49 + 1  # the last step, to no noise, is taken once
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(result.std()) == pytest.approx(STD, abs=0.05)


@pytest.mark.parametrize("rounds", [1, 4])
def test_pixels_outside_the_mask_end_as_they_were(rounds: int) -> None:
    schedule = get_schedule("cosine")
    times, x0 = times_of("uniform", schedule, 10), 0.5 * normal(3, 1, 4, 4).clamp(-1, 1)
    mask = torch.zeros(3, 1, 4, 4)
    mask[..., :2] = 1
    how = Redraw(mask=mask, rounds=rounds)
    sampler, start = redrawing(gaussian(schedule), schedule, times, x0, how, unipc)
    result = sampler(start(normal(3, 1, 4, 4, seed=5)), noise_like(x0))
    torch.testing.assert_close(result[..., 2:], x0[..., 2:], rtol=0, atol=1e-8)
    assert (result[..., :2] - x0[..., :2]).abs().min() > 1e-6


def test_a_known_pixel_is_seen_by_the_denoiser_as_its_own_noisy_state() -> None:
    """With rounds, x_t outside the mask stays alpha x0 plus noise of sigma: E and standard deviation at every call."""
    schedule = get_schedule("cosine")
    times, x0 = times_of("uniform", schedule, 6), torch.full((5000, 1, 1, 2), 0.6, dtype=torch.float64)
    mask, seen = torch.tensor([1.0, 0.0]).expand(5000, 1, 1, 2), []
    exact = gaussian(schedule)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((float(t[0]), x_t[..., 1].mean().item(), x_t[..., 1].std().item()))
        return exact(x_t, t)

    known = kept_outside(denoise, x0, mask)
    alpha, sigma = float(schedule.alpha(times[0])), float(schedule.sigma(times[0]))
    start = alpha * x0 + sigma * normal(5000, 1, 1, 2)
    resampled(known, schedule, times, start, noise_like(x0), rounds=3)
    for t, mean, std in seen:
        assert mean == pytest.approx(float(schedule.alpha(t)) * 0.6, abs=0.06)
        assert std == pytest.approx(float(schedule.sigma(t)), abs=0.04)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("std", [0.02, 0.1, 0.3])
def test_the_time_of_a_noise(name: str, std: float) -> None:
    schedule = get_schedule(name)
    t = time_of_noise(schedule, std)
    assert float(schedule.sigma(t) / schedule.alpha(t)) == pytest.approx(2 * std, rel=1e-4)


def test_an_image_is_drawn_out_of_its_own_noise() -> None:
    """One image x0 with noise of 0.1 in [0, 1]: a denoiser that knows the image gives it back, whatever the noise."""
    schedule, x0 = get_schedule("cosine"), 0.5 * normal(2, 1, 4, 4).clamp(-1, 1)
    noisy = x0 + 0.2 * normal(2, 1, 4, 4, seed=7)
    times = times_of("log-snr", schedule, 20)
    sampler, start = redrawing(lambda x_t, t: x0, schedule, times, noisy, Redraw(noise=0.1), unipc)
    x_t = start(normal(2, 1, 4, 4, seed=8))
    t = time_of_noise(schedule, 0.1)
    torch.testing.assert_close(x_t, float(schedule.alpha(t)) * noisy, rtol=0, atol=1e-6)  # no noise is added
    torch.testing.assert_close(sampler(x_t, noise_like(x0)), x0, rtol=0, atol=1e-6)
