"""Solvers against paths that are known, in float64: their order, one image, moments, and each other."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from oracles import gaussian_denoiser, gaussian_flow, modes_denoiser, order_of
from torch import Tensor

from trilemma.diffusion.samplers import SAMPLERS, calls_of
from trilemma.diffusion.schedule import SCHEDULES, Schedule, get_schedule
from trilemma.diffusion.solvers import dpmpp_2m, euler, integral_weights, unipc
from trilemma.errors import UserError
from trilemma.lessons.mixture import Mixture

M, S = 0.3, 0.4
MODES = ((-0.7, 0.3), (0.5, 0.2))  # means and standard deviations of two modes of equal weight
CLEAN, NOISY = 3.0, -2.0  # l = log(alpha / sigma) at the ends of the paths
STARTS = 16
SETTINGS: list[tuple[str, dict[str, Any], float]] = [
    ("ddim", {}, 1),
    ("euler", {}, 1),
    ("heun", {}, 2),
    ("dpm++2m", {}, 2),
    ("dpm++3m", {}, 2),
    ("eab3", {}, 3),
    ("unipc", {"order": 2}, 3),
    ("unipc", {"order": 3}, 4),
]


def by_log_ratio(schedule: Schedule, steps: int, before: int = 0) -> Tensor:
    """Times with equal steps in l, from NOISY to CLEAN, after `before` steps so small that they cost no order."""
    inner = torch.linspace(NOISY, CLEAN, steps + 1, dtype=torch.float64)
    tiny = NOISY - 1e-3 * torch.arange(before, 0, -1, dtype=torch.float64)
    return schedule.t_of(2 * torch.cat([tiny, inner]))


def starts(schedule: Schedule, t: Tensor) -> Tensor:
    return torch.linspace(-2, 2, STARTS, dtype=torch.float64).reshape(-1, 1, 1, 1) * schedule.sigma(t)


def no_noise(step: int) -> Tensor:
    raise AssertionError("a deterministic solver asked for noise")


def errors_of(name: str, schedule: Schedule, counts: list[int], options: dict[str, Any]) -> list[float]:
    errors = []
    for n in counts:
        times = by_log_ratio(schedule, n, before=3)
        x = starts(schedule, times[0])
        ends = SAMPLERS[name](gaussian_denoiser(schedule, M, S), schedule, times, x, no_noise, **options)
        errors.append(float((ends - gaussian_flow(schedule, M, S, x, times[0], times[-1])).abs().mean()))
    return errors


@pytest.mark.parametrize(("name", "options", "order"), SETTINGS)
@pytest.mark.parametrize("schedule", ["cosine", "edm", "flow"])
def test_order_on_gaussian_data(name: str, options: dict[str, Any], order: float, schedule: str) -> None:
    counts = [320, 640, 1280] if name == "eab3" else [40, 80, 160]  # it is better than its order on few steps
    errors = errors_of(name, get_schedule(schedule), counts, options)
    assert order_of(counts, errors) == pytest.approx(order, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "order"), SETTINGS)
def test_order_on_two_modes(name: str, options: dict[str, Any], order: float) -> None:
    """Paths keep the share of the distribution that is below them, which says where each ends."""
    schedule, counts, errors = get_schedule("linear"), [80, 160, 320], []
    modes = Mixture(tuple((m,) for m, _ in MODES), tuple(s for _, s in MODES))
    for n in counts:
        times = by_log_ratio(schedule, n, before=3)
        x = starts(schedule, times[0])
        ends = SAMPLERS[name](modes_denoiser(schedule, MODES), schedule, times, x, no_noise, **options)
        first, last = ((float(schedule.alpha(t)), float(schedule.sigma(t))) for t in times[[0, -1]])
        errors.append(float((ends.flatten(1) - modes.path_end(x.flatten(1), first, last)).abs().mean()))
    assert order_of(counts, errors) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_one_image_is_exact_in_any_number_of_steps(name: str, schedule: str, steps: int) -> None:
    levels_of = get_schedule(schedule)
    image = torch.rand(1, 2, 4, 5, dtype=torch.float64)
    x_T = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    times = torch.cat([by_log_ratio(levels_of, steps)[:-1], torch.zeros(1, dtype=torch.float64)])
    noise = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    x0 = SAMPLERS[name](lambda x_t, t: image.expand_as(x_t), levels_of, times, x_T, lambda step: noise)
    torch.testing.assert_close(x0, (image * levels_of.alpha(0.0)).expand_as(x0), atol=1e-12, rtol=0)
    if name == "ddpm":
        return
    times = by_log_ratio(levels_of, steps)  # on the way, what is left of the noise is the part of it that was there
    (alpha_T, alpha), (sigma_T, sigma) = levels_of.alpha(times[[0, -1]]), levels_of.sigma(times[[0, -1]])
    x = SAMPLERS[name](lambda x_t, t: image.expand_as(x_t), levels_of, times, x_T, no_noise)
    torch.testing.assert_close(x, alpha * image + sigma / sigma_T * (x_T - alpha_T * image), atol=1e-12, rtol=0)


def test_euler_is_ddim_and_2m_without_noise_is_the_ode() -> None:
    for name in SCHEDULES:
        schedule = get_schedule(name)
        times = by_log_ratio(schedule, 9)
        x = starts(schedule, times[0])
        arguments = (modes_denoiser(schedule, MODES), schedule, times, x, no_noise)
        torch.testing.assert_close(euler(*arguments), SAMPLERS["ddim"](*arguments), atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(dpmpp_2m(*arguments), dpmpp_2m(*arguments, eta=0.0), atol=0, rtol=0)
        assert (dpmpp_2m(*arguments) - euler(*arguments)).abs().max() > 1e-4


@pytest.mark.parametrize("places", [(0.0,), (-0.4, -0.9), (0.0, -0.4, -0.9), (-0.4, -1.3, -2.0)])
def test_weights_integrate_polynomials_exactly(places: tuple[float, ...]) -> None:
    """The integral of exp(u) u**j from -h to 0 by a fine rule."""
    h = 0.4
    u = torch.linspace(-h, 0, 20_001, dtype=torch.float64)
    for j in range(len(places)):
        integral = float(torch.trapezoid(u.exp() * u**j, u))
        by_weights = sum(w * p**j for w, p in zip(integral_weights(places, h), places, strict=True))
        assert by_weights == pytest.approx(integral, abs=1e-9)


def moments(schedule: Schedule, times: Tensor, spread: float, **options: Any) -> list[float]:
    """Mean and variance of dpm++2m on Gaussian data, exactly: its result is affine in x_T and in each step's noise."""
    steps = len(times) - 1
    one = torch.eye(steps + 2, dtype=torch.float64).reshape(steps + 2, steps + 2, 1, 1, 1)
    x_T = spread * one[1]
    denoise = gaussian_denoiser(schedule, M, S)
    x0 = dpmpp_2m(denoise, schedule, times, x_T, lambda step: one[2 + step], **options).flatten()
    return [x0[0].item(), (x0[1:] - x0[0]).square().sum().item()]


def recursion(schedule: Schedule, times: Tensor, spread: float, eta: float) -> list[float]:
    """The same by hand: x and the last estimate are affine in independent normals, kept as their coefficients."""
    x, before, last_h = [0.0, spread], None, 0.0  # constant, x_T, noise of step 0, ...
    a, s = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    for (a_t, s_t), (a_s, s_s) in pairwise(zip(a, s, strict=True)):
        h = math.log(a_s * s_t / (s_s * a_t))
        gain = a_t * S**2 / (a_t**2 * S**2 + s_t**2)
        hat = [gain * value for value in x]
        hat[0] += M * (1 - gain * a_t)
        old = hat if before is None else before + [0.0] * (len(hat) - len(before))
        ratio = 0.0 if before is None else h / (2 * last_h)
        estimate = [(1 + ratio) * now - ratio * then for now, then in zip(hat, old, strict=True)]
        share = a_s * (1 - math.exp(-h * (1 + eta)))
        x = [s_s / s_t * math.exp(-eta * h) * value + share * e for value, e in zip(x, estimate, strict=True)]
        x.append(s_s * math.sqrt(1 - math.exp(-2 * eta * h)))
        before, last_h = hat, h
    return [x[0], sum(value**2 for value in x[1:])]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_moments_of_the_sde_form(name: str, eta: float) -> None:
    schedule = get_schedule(name)
    times = by_log_ratio(schedule, 12)
    spread = float(schedule.sigma(times[0]))
    result = moments(schedule, times, spread, eta=eta)
    assert result == pytest.approx(recursion(schedule, times, spread, eta), abs=1e-9)


LAWS: list[tuple[str, dict[str, Any], float]] = [
    ("ddpm", {}, 1),
    ("ddim", {"eta": 0.5}, 1),
    ("ddim", {"eta": 1.0}, 1),
    ("dpm++2m", {"eta": 0.5}, 2),
    ("dpm++2m", {"eta": 1.0}, 2),
]


@pytest.mark.parametrize(("name", "options", "order"), LAWS)
@pytest.mark.parametrize(("schedule", "shift"), [("cosine", 1.0), ("cosine", 3.0), ("edm", 1.0), ("flow", 1.0)])
def test_samplers_with_noise_converge_to_the_data_in_law(
    name: str, options: dict[str, Any], order: float, schedule: str, shift: float
) -> None:
    """Started with the exact law at the first time, that at the last is N(alpha M, alpha**2 S**2 + sigma**2): the mean
    at once, since x0_hat of alpha M is M, the variance at the order of the sampler."""
    levels_of, errors, counts = get_schedule(schedule, shift), [], [80, 160, 320]
    for n in counts:
        times = by_log_ratio(levels_of, n)
        (alpha, end_alpha), (sigma, end_sigma) = levels_of.alpha(times[[0, -1]]), levels_of.sigma(times[[0, -1]])
        one = torch.eye(n + 2, dtype=torch.float64).reshape(n + 2, n + 2, 1, 1, 1)
        x_T = alpha * M + (alpha**2 * S**2 + sigma**2).sqrt() * one[1]
        denoise = gaussian_denoiser(levels_of, M, S)
        drawn = SAMPLERS[name](denoise, levels_of, times, x_T, lambda i, one=one: one[2 + i], **options)
        mean, spread = drawn.flatten()[0], drawn.flatten()[1:] - drawn.flatten()[0]
        assert float(mean) == pytest.approx(float(end_alpha) * M, abs=1e-12)
        errors.append(abs(float(spread.square().sum() - end_alpha**2 * S**2 - end_sigma**2)))
    assert order_of(counts, errors) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("name", SAMPLERS)
def test_calls_are_as_stated(name: str, steps: int) -> None:
    for schedule in map(get_schedule, SCHEDULES):
        calls = []

        def denoise(x_t: Tensor, t: Tensor, calls: list[float] = calls) -> Tensor:
            calls.append(float(t[0]))
            return torch.zeros_like(x_t)

        zero = torch.zeros(1, 1, 1, 1)
        times = torch.linspace(0.95, 0, steps + 1, dtype=torch.float64)
        SAMPLERS[name](denoise, schedule, times, zero, lambda step, zero=zero: zero)
        assert len(calls) == calls_of(name, steps)


def test_values_outside_are_refused() -> None:
    schedule, x = get_schedule("cosine"), torch.zeros(1, 1, 1, 1)
    times = by_log_ratio(schedule, 2)
    arguments = (gaussian_denoiser(schedule, M, S), schedule, times, x, no_noise)
    with pytest.raises(UserError, match="order=4: give 2 or 3"):
        unipc(*arguments, order=4)
    with pytest.raises(UserError, match="eta=2"):
        dpmpp_2m(*arguments, eta=2.0)
