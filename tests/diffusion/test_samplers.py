"""Samplers against Gaussian data N(M, S**2), whose exact denoiser is known (oracles.py), in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import ancestral_moments, gaussian_denoiser, gaussian_flow, order_of, posterior_variance
from torch import Tensor

from trilemma.diffusion.samplers import calls_of, ddim, ddpm, get_sampler, steps_for
from trilemma.diffusion.schedule import Table as Schedule
from trilemma.diffusion.schedule import cosine, linear
from trilemma.diffusion.steps import Denoise
from trilemma.errors import UserError

M, S = 0.3, 0.4


def no_noise(step: int) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def test_ddim_converges_to_the_probability_flow_at_order_one() -> None:
    schedule = cosine(4000)
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(9, 1, 1, 1)
    start, stop = torch.tensor([0.95, 0.05], dtype=torch.float64)
    exact = gaussian_flow(schedule, M, S, x_T, start, stop)
    counts = torch.tensor([18.0, 36, 72, 144], dtype=torch.float64)  # divisors of the 3600 steps between
    errors = []
    for n in counts.int().tolist():
        times = torch.linspace(3800, 200, n + 1, dtype=torch.float64) / 4000
        errors.append((ddim(gaussian_denoiser(schedule, M, S), schedule, times, x_T, no_noise) - exact).abs().max())
    assert order_of(counts, torch.stack(errors)) == pytest.approx(1, abs=0.1)
    assert 0 < errors[-1] < 0.02


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_with_one_image_ddim_is_exact_in_any_number_of_steps(steps: int) -> None:
    schedule, x_T = cosine(4000), torch.randn(3, 2, 4, 5, dtype=torch.float64)
    image = torch.rand(1, 2, 4, 5, dtype=torch.float64)
    denoise: Denoise = lambda x_t, t: image.expand_as(x_t)  # noqa: E731
    x0 = ddim(denoise, schedule, schedule.times(steps), x_T, no_noise)
    torch.testing.assert_close(x0, image.expand_as(x0), atol=1e-12, rtol=0)
    times = torch.linspace(4000, 400, steps + 1, dtype=torch.float64).round() / 4000  # stop on the way, at t = 0.1
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    expected = alpha[-1] * image + sigma[-1] / sigma[0] * (x_T - alpha[0] * image)
    torch.testing.assert_close(ddim(denoise, schedule, times, x_T, no_noise), expected, atol=1e-12, rtol=0)


def sampled_moments(sampler: Callable[..., Tensor], schedule: Schedule, steps: int, **options: Any) -> list[float]:
    """Mean and variance of a sampler's output, exactly: it is affine in x_T and in each step's noise.

    Image 0 has no noise at all; image 1 has x_T = 1; image 2 + i has 1 in the noise of step i.
    """
    size = steps + 2
    one = torch.eye(size, dtype=torch.float64).reshape(size, size, 1, 1, 1)
    noise = lambda step: one[2 + step]  # noqa: E731
    x0 = sampler(gaussian_denoiser(schedule, M, S), schedule, schedule.times(steps), one[1], noise, **options).flatten()
    return [x0[0].item(), (x0[1:] - x0[0]).square().sum().item()]


@pytest.mark.parametrize("steps", [1, 4, 50])
@pytest.mark.parametrize("make", [cosine, linear])
def test_moments_follow_the_affine_recursion(make: Callable[[], Schedule], steps: int) -> None:
    schedule = make()
    for eta in (0.0, 0.5, 0.85, 1.0):
        expected = ancestral_moments(
            schedule, M, S, steps, lambda *levels, eta=eta: eta**2 * posterior_variance(*levels)
        )
        assert sampled_moments(ddim, schedule, steps, eta=eta) == pytest.approx(expected, abs=1e-9)
    expected = ancestral_moments(schedule, M, S, steps, posterior_variance)
    assert sampled_moments(ddpm, schedule, steps) == pytest.approx(expected, abs=1e-9)


def test_all_steps_of_ddpm_give_the_data_back() -> None:
    schedule = linear(1000)
    mean, variance = sampled_moments(ddpm, schedule, 1000)
    assert mean == pytest.approx(M, abs=0.01)
    assert variance == pytest.approx(S**2, rel=0.02)
    _, fewer = sampled_moments(ddpm, schedule, 10)
    assert fewer < 0.9 * S**2  # with few steps the variance is too small: the recursion is the truth


@pytest.mark.parametrize("steps", [1, 5, 50])
def test_ddpm_is_ddim_with_eta_one(steps: int) -> None:
    schedule, x_T = cosine(4000), torch.randn(4, 1, 3, 3, dtype=torch.float64)
    draws = torch.randn(steps, 4, 1, 3, 3, dtype=torch.float64)
    arguments = (gaussian_denoiser(schedule, M, S), schedule, schedule.times(steps), x_T, lambda step: draws[step])
    by_ddpm, by_ddim = ddpm(*arguments), ddim(*arguments, eta=1.0)
    torch.testing.assert_close(by_ddpm, by_ddim, atol=1e-9, rtol=0)
    if steps > 1:
        assert (by_ddpm - ddim(*arguments, eta=0.0)).abs().max() > 1e-3
        assert (by_ddpm - ddpm(*arguments, variance="beta")).abs().max() > 1e-3


def test_the_larger_variance_of_ddpm_is_beta() -> None:
    schedule = cosine(100)
    times = torch.tensor([0.6, 0.5], dtype=torch.float64)
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    denoise = gaussian_denoiser(schedule, M, S)
    still = ddpm(denoise, schedule, times, zero, lambda step: zero, variance="beta")
    moved = ddpm(denoise, schedule, times, zero, lambda step: zero + 1, variance="beta")
    expected = 1 - schedule.alpha_bar(0.6) / schedule.alpha_bar(0.5)
    assert (moved - still).item() ** 2 == pytest.approx(expected.item(), abs=1e-12)


def test_the_denoiser_is_called_once_a_step_with_the_time() -> None:
    schedule, seen = cosine(4000), []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return torch.zeros_like(x_t)

    for sampler in (ddim, ddpm):
        seen.clear()
        sampler(denoise, schedule, schedule.times(4), torch.zeros(2, 1, 1, 1), lambda step: torch.zeros(2, 1, 1, 1))
        assert [t.tolist() for t in seen] == [[1, 1], [0.75, 0.75], [0.5, 0.5], [0.25, 0.25]]


@pytest.mark.parametrize(("name", "calls", "steps"), [("heun", 10, 5), ("heun", 5, 3), ("heun", 1, 1), ("ddim", 7, 7)])
def test_steps_that_make_so_many_calls(name: str, calls: int, steps: int) -> None:
    assert steps_for(name, calls) == steps
    assert calls_of(name, steps) <= calls < calls_of(name, steps + 1)


def test_wrong_names_and_values_are_refused() -> None:
    schedule, x = cosine(10), torch.zeros(1, 1, 1, 1)
    with pytest.raises(UserError, match='did you mean "ddim"'):
        get_sampler("ddin")
    with pytest.raises(UserError, match="sampler ddpm takes no eta=; leave it out, or use sampler=ddim or dpm"):
        get_sampler("ddpm", eta=0.5)
    with pytest.raises(UserError, match="eta=2"):
        ddim(gaussian_denoiser(schedule, M, S), schedule, schedule.times(2), x, no_noise, eta=2)
    with pytest.raises(UserError, match="unknown variance"):
        ddpm(gaussian_denoiser(schedule, M, S), schedule, schedule.times(2), x, no_noise, variance="alpha")
