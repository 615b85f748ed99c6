"""Images drawn again: exact cases of Gaussian data and of one image, masks bit for bit, noise that is known."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from oracles import gaussian_denoiser
from torch import Tensor

from trilemma import rng
from trilemma.diffusion.editing import keep_outside, redraw_sampler, repaint, time_of_noise, times_from
from trilemma.diffusion.grids import times_of
from trilemma.diffusion.samplers import ddpm
from trilemma.diffusion.schedule import SCHEDULES, Schedule, get_schedule
from trilemma.diffusion.solvers import unipc
from trilemma.types import Redraw

MEAN, STD = 0.3, 0.5
gaussian = partial(gaussian_denoiser, mean=MEAN, std=STD)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_like(x: Tensor, seed: int = 1):
    return lambda step: rng.normal(torch.arange(len(x)), tuple(x.shape[1:]), seed, "step", step).double()


def levels(schedule: Schedule, t: float) -> tuple[float, float, float]:
    """alpha, sigma, and the standard deviation of x_t."""
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    return alpha, sigma, math.hypot(alpha * STD, sigma)


def end_of_path(schedule: Schedule, times: Tensor, strength: float) -> float:
    """f of x - MEAN = f (x_t - alpha_t MEAN), for an image that is drawn from t = strength on.

    x_s - alpha_s MEAN is spread(s) / spread(t) times that, down to the last time s before 0; there the estimate is
    taken, which is alpha_s STD**2 / spread(s)**2 times it.
    """
    (_, _, spread), (alpha, _, last) = levels(schedule, strength), levels(schedule, float(times[-2]))
    return alpha * STD**2 / (last * spread)


@pytest.mark.parametrize("name", SCHEDULES)
def test_strength_0_changes_nothing_and_1_leaves_what_is_left_at_the_largest_noise(name: str) -> None:
    schedule = get_schedule(name)
    times, x0 = times_of("log-snr", schedule, 100), 0.7 * normal(8, 1, 2, 2)
    sampler, start = redraw_sampler(gaussian(schedule), schedule, times, x0, Redraw(strength=0.0), unipc)
    assert torch.equal(sampler(start(normal(8, 1, 2, 2)), noise_like(x0)), x0)
    eps, results = normal(8, 1, 2, 2, seed=3), list[Tensor]()
    for image in (x0, -x0):
        sampler, start = redraw_sampler(gaussian(schedule), schedule, times, image, Redraw(strength=1.0), unipc)
        results.append(sampler(start(eps), noise_like(x0)))
    begin = float(times[0])
    expected = end_of_path(schedule, times, begin) * levels(schedule, begin)[0] * 2 * x0
    torch.testing.assert_close(results[0] - results[1], expected, rtol=1e-3, atol=1e-9)
    assert expected.abs().max() < 0.03  # of images up to 1.6 apart


@pytest.mark.parametrize("strength", [0.4, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_an_image_drawn_again_has_the_law_of_theory(name: str, strength: float) -> None:
    """Of Gaussian data on the probability-flow path, see `end_of_path`; the solver is of order 2 at least."""
    schedule, errors = get_schedule(name), list[float]()
    x0, eps = MEAN + STD * normal(64, 1, 2, 2), normal(64, 1, 2, 2, seed=2)
    for steps in (100, 400):
        times = times_of("log-snr", schedule, steps)
        sampler, start = redraw_sampler(gaussian(schedule), schedule, times, x0, Redraw(strength=strength), unipc)
        begin = min(strength, float(times[0]))
        alpha, sigma, _ = levels(schedule, begin)
        expected = MEAN + end_of_path(schedule, times, begin) * (alpha * x0 + sigma * eps - alpha * MEAN)
        errors.append(float((sampler(start(eps), noise_like(x0)) - expected).abs().max()))
    assert errors[1] < errors[0] / 4**2 and errors[1] < 1e-5


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
    ours = repaint(gaussian(schedule), schedule, times, x, even, rounds=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def law_of_rounds(schedule: Schedule, times: Tensor, rounds: int) -> tuple[float, float]:
    """Mean and variance of what is drawn from x_T ~ N(0, 1): an affine recursion.

    From t to s, with a = alpha_t / alpha_s and b = sigma_t**2 - a**2 sigma_s**2, the posterior q(x_s | x_t, x0_hat) has
    the mean alpha_s b / sigma_t**2 x0_hat + a sigma_s**2 / sigma_t**2 x_t and the variance b sigma_s**2 / sigma_t**2;
    of Gaussian data x0_hat = m + k (x_t - alpha_t m), k = alpha_t STD**2 / spread**2. Back, x_t = a x_s + sqrt(b) eps.
    """
    mean, variance = 0.0, 1.0
    for t, s in pairwise(times.tolist()):
        (alpha_t, sigma_t, spread), (alpha_s, sigma_s, _) = levels(schedule, t), levels(schedule, s)
        sigma_s = sigma_s if s > 0 else 0.0
        a = alpha_t / alpha_s
        b = sigma_t**2 - (a * sigma_s) ** 2
        k, to_x0 = alpha_t * STD**2 / spread**2, alpha_s * b / sigma_t**2
        slope, offset = to_x0 * k + a * (sigma_s / sigma_t) ** 2, to_x0 * (1 - k * alpha_t) * MEAN
        for taken in range(rounds if s > 0 else 1):
            if taken:
                mean, variance = a * mean, a**2 * variance + b
            mean, variance = slope * mean + offset, slope**2 * variance + b * (sigma_s / sigma_t) ** 2
    return mean, variance


def test_rounds_take_so_many_calls_and_keep_the_law() -> None:
    """With the exact denoiser of Gaussian data the law is that of an affine recursion, which tends to that of data."""
    schedule, calls, n = get_schedule("cosine"), [], 4000
    times, x = times_of("uniform", schedule, 50), normal(n, 1, 1, 1)
    exact = gaussian(schedule)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t[0]))
        return exact(x_t, t)

    result = repaint(denoise, schedule, times, x, noise_like(x), rounds=3)
    assert len(calls) == 3 * 49 + 1  # the last step, to no noise, is taken once
    mean, variance = law_of_rounds(schedule, times, 3)
    assert float(result.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert float(result.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    assert law_of_rounds(schedule, times_of("uniform", schedule, 5000), 3) == pytest.approx((MEAN, STD**2), rel=0.01)


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        (Redraw(strength=0.7), [1, 2, 3, 4]),  # from 0.7 to 0.6, 0.4, 0.2 and 0
        (Redraw(noise=0.1), [1]),  # from a time below 0.2
        (Redraw(mask=torch.ones(1, 1, 1, 1), rounds=2), [1, 1, 2, 2, 3, 3, 4, 4, 5]),
    ],
)
def test_the_step_of_each_call_is_told(how: Redraw, steps: list[int]) -> None:
    schedule, told = get_schedule("cosine"), list[tuple[int, int]]()
    times, x0 = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0], dtype=torch.float64), normal(1, 1, 2, 2)
    on_step = lambda *at: told.append(at)  # noqa: E731
    sampler, start = redraw_sampler(gaussian(schedule), schedule, times, x0, how, unipc, on_step=on_step)
    sampler(start(normal(1, 1, 2, 2)).float(), noise_like(x0))
    assert told == [(step, steps[-1]) for step in steps]


@pytest.mark.parametrize("rounds", [1, 4])
def test_pixels_outside_the_mask_end_as_they_were(rounds: int) -> None:
    schedule = get_schedule("cosine")
    times, x0 = times_of("uniform", schedule, 10), 0.5 * normal(3, 1, 4, 4).clamp(-1, 1)
    mask = torch.zeros(3, 1, 4, 4)
    mask[..., :2] = 1
    how = Redraw(mask=mask, rounds=rounds)
    sampler, start = redraw_sampler(gaussian(schedule), schedule, times, x0, how, unipc)
    result = sampler(start(normal(3, 1, 4, 4, seed=5)), noise_like(x0))
    torch.testing.assert_close(result[..., 2:], x0[..., 2:], rtol=0, atol=1e-9)  # alpha(0) is 1 but for 5e-10
    assert (result[..., :2] - x0[..., :2]).abs().min() > 1e-6


def test_a_known_pixel_is_seen_by_the_denoiser_as_its_own_noisy_state() -> None:
    """With rounds, x_t outside the mask stays alpha x0 plus noise of sigma: mean and variance at every call."""
    schedule, n = get_schedule("cosine"), 5000
    times, x0 = times_of("uniform", schedule, 6), torch.full((n, 1, 1, 2), 0.6, dtype=torch.float64)
    mask, seen = torch.tensor([1.0, 0.0]).expand(n, 1, 1, 2), []
    exact = gaussian(schedule)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((float(t[0]), x_t[..., 1].mean().item(), x_t[..., 1].var().item()))
        return exact(x_t, t)

    known = keep_outside(denoise, x0, mask)
    alpha, sigma = float(schedule.alpha(times[0])), float(schedule.sigma(times[0]))
    start = alpha * x0 + sigma * normal(n, 1, 1, 2)
    repaint(known, schedule, times, start, noise_like(x0), rounds=3)
    assert len(seen) == 3 * 5 + 1
    for t, mean, variance in seen:
        alpha, sigma, _ = levels(schedule, t)
        assert mean == pytest.approx(alpha * 0.6, abs=4 * sigma / math.sqrt(n))
        assert variance == pytest.approx(sigma**2, rel=4 * math.sqrt(2 / n))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("std", [0.02, 0.1, 0.3])
def test_the_time_of_a_noise(name: str, std: float) -> None:
    schedule = get_schedule(name)
    t = time_of_noise(schedule, std)
    assert float(schedule.sigma(t) / schedule.alpha(t)) == pytest.approx(2 * std, rel=1e-12)


def test_an_image_is_drawn_out_of_its_own_noise() -> None:
    """One image x0 with noise of 0.1 in [0, 1]: a denoiser that knows the image gives it back, whatever the noise."""
    schedule, x0 = get_schedule("cosine"), 0.5 * normal(2, 1, 4, 4).clamp(-1, 1)
    noisy = x0 + 0.2 * normal(2, 1, 4, 4, seed=7)
    times = times_of("log-snr", schedule, 20)
    sampler, start = redraw_sampler(lambda x_t, t: x0, schedule, times, noisy, Redraw(noise=0.1), unipc)
    x_t = start(normal(2, 1, 4, 4, seed=8))
    t = time_of_noise(schedule, 0.1)
    torch.testing.assert_close(x_t, float(schedule.alpha(t)) * noisy, rtol=0, atol=1e-12)  # no noise is added
    torch.testing.assert_close(sampler(x_t, noise_like(x0)), x0, rtol=0, atol=1e-9)
