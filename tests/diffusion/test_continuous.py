"""Continuous schedules, what networks predict over them, weights, densities and grids, against their definitions."""

import math

import pytest
import torch
from torch import Tensor

from trilemma.diffusion.grids import BEGIN, GRIDS, first_time, times_of
from trilemma.diffusion.prediction import PREDICTIONS, edm, get_prediction, v
from trilemma.diffusion.schedule import (
    LOG_SNR,
    SCHEDULES,
    Linear,
    Schedule,
    cosine,
    get_schedule,
    linear,
    log_snr,
    noise_level,
)
from trilemma.diffusion.weighting import DENSITIES, WEIGHTINGS, evenly_spread, get_density, get_weighting
from trilemma.errors import UserError

M, S = 0.3, 0.4
T = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
ALL = {
    **SCHEDULES,
    **{f"{name}-shifted": get_schedule(name, 3.0) for name in SCHEDULES},
    "cosine table": cosine(4000),
    "linear table": linear(1000),
}


@pytest.mark.parametrize("name", ALL)
def test_laws_of_a_schedule(name: str) -> None:
    schedule = ALL[name]
    alpha, sigma = schedule.alpha(T), schedule.sigma(T)
    assert alpha.dtype == sigma.dtype == torch.float64
    assert (log_snr(schedule, T).diff() < 0).all()
    tolerance = 1e-9 if "table" not in name else 0.6 / schedule.T  # type: ignore[attr-defined]
    torch.testing.assert_close(schedule.t_of(log_snr(schedule, T)), T, atol=tolerance, rtol=0)
    if "edm" not in name and "flow" not in name:
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(T), atol=1e-12, rtol=0)


def test_definitions() -> None:
    for t in (0.1, 0.5, 0.9):
        assert float(SCHEDULES["flow"].alpha(t)) == pytest.approx(1 - t) and float(SCHEDULES["flow"].sigma(t)) == t
        karras = (0.002 ** (1 / 7) + t * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
        assert float(SCHEDULES["edm"].sigma(t)) == pytest.approx(karras, rel=1e-12)
        assert float(SCHEDULES["cosine"].alpha(t)) == pytest.approx(math.cos(t * math.pi / 2), abs=1e-4)
        u = torch.linspace(0, t, 10_001, dtype=torch.float64)
        total = float(torch.trapezoid(0.1 + 19.9 * u, u))  # alpha**2 = exp(-integral of beta)
        assert float(SCHEDULES["linear"].alpha(t)) ** 2 == pytest.approx(math.exp(-total), rel=1e-9)
    assert [float(SCHEDULES["cosine"].t_of(level)) for level in (LOG_SNR, -LOG_SNR)] == pytest.approx([0, 1], abs=1e-12)


def test_the_table_of_many_steps_is_the_continuous_linear_schedule() -> None:
    """Betas from 1e-4 to 0.02 in 1,000 steps are beta(t) / 1000 from 0.1 to 20: equal but for the step's size."""
    t = torch.arange(50, 1000, 50, dtype=torch.float64) / 1000
    continuous, table = Linear(), linear(1000)
    torch.testing.assert_close(table.alpha(t).log(), continuous.alpha(t).log(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_shift_moves_the_log_snr(name: str) -> None:
    shifted = get_schedule(name, 2.0)
    difference = log_snr(shifted, T) - log_snr(SCHEDULES[name], T)
    torch.testing.assert_close(difference, torch.full_like(T, -2 * math.log(2)), atol=1e-8, rtol=0)
    if name == "flow":  # Esser et al. (2024), eq. 23
        torch.testing.assert_close(shifted.sigma(T), 2 * T / (1 + T), atol=1e-9, rtol=0)
    assert get_schedule(name, 1.0) is SCHEDULES[name]


def test_what_a_network_is_told_depends_on_the_noise_alone() -> None:
    for level in (-8.0, 0.0, 5.0):
        messages = []
        for schedule in SCHEDULES.values():
            t = schedule.t_of(level)
            messages.append(float(noise_level(schedule.alpha(t), schedule.sigma(t))))
        assert messages == pytest.approx([-level / 2] * len(messages), abs=1e-9)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert noise_level(one, zero) == -LOG_SNR / 2 and noise_level(zero, one) == LOG_SNR / 2


def x_and_target(schedule: Schedule) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(len(T), dtype=torch.float64, generator=generator) for _ in range(2))
    alpha, sigma = schedule.alpha(T), schedule.sigma(T)
    return x0, eps, alpha, sigma, alpha * x0 + sigma * eps


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
def test_the_true_output_gives_the_image_back(schedule: Schedule) -> None:
    x0, eps, alpha, sigma, x_t = x_and_target(schedule)
    unit = (alpha**2 + sigma**2).sqrt()
    outputs = {
        "eps": eps,
        "x0": x0,
        "v": (alpha * eps - sigma * x0) / unit,
        "flow": eps - x0,
        "edm": (x0 - alpha * S**2 * x_t / (alpha**2 * S**2 + sigma**2))
        * (alpha**2 * S**2 + sigma**2).sqrt()
        / (sigma * S),
    }
    for name, output in outputs.items():
        skip, out, _ = PREDICTIONS[name](alpha, sigma, S)
        torch.testing.assert_close(skip * x_t + out * output, x0, atol=1e-9, rtol=1e-9)


def test_edm_with_unit_data_is_v_with_the_sign_reversed() -> None:
    for name in ("cosine", "linear"):
        alpha, sigma = SCHEDULES[name].alpha(T), SCHEDULES[name].sigma(T)
        one, other = edm(alpha, sigma, 1.0), v(alpha, sigma, 1.0)
        torch.testing.assert_close(one.skip, other.skip, atol=1e-12, rtol=0)
        torch.testing.assert_close(one.out, -other.out, atol=1e-12, rtol=0)
        torch.testing.assert_close(one.inside, other.inside, atol=1e-12, rtol=0)


def test_flow_is_that_of_the_straight_line() -> None:
    alpha, sigma = SCHEDULES["flow"].alpha(T), SCHEDULES["flow"].sigma(T)
    skip, out, _ = PREDICTIONS["flow"](alpha, sigma, 1.0)
    torch.testing.assert_close(skip, torch.ones_like(T), atol=1e-12, rtol=0)
    torch.testing.assert_close(out, -T, atol=1e-12, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
def test_each_optimum_on_gaussian_data_is_the_posterior_mean(schedule: Schedule) -> None:
    """The best output is the mean of the target given x_t, and x_t, x0 and eps are jointly Gaussian; input and output
    of edm have variance 1 over the data."""
    _, _, alpha, sigma, x_t = x_and_target(schedule)
    unit, total = (alpha**2 + sigma**2).sqrt(), alpha**2 * S**2 + sigma**2
    mean = M + alpha * S**2 * (x_t - alpha * M) / total
    eps = sigma * (x_t - alpha * M) / total
    best = {
        "eps": eps,
        "x0": mean,
        "v": (alpha * eps - sigma * mean) / unit,
        "flow": eps - mean,
        "edm": (mean - alpha * S**2 * x_t / total) * total.sqrt() / (sigma * S),
    }
    best["wiener"] = best["edm"]  # for one number (test_spectrum.py)
    assert best.keys() == PREDICTIONS.keys()
    for name, output in best.items():
        skip, out, _ = PREDICTIONS[name](alpha, sigma, S)
        torch.testing.assert_close(skip * x_t + out * output, mean, atol=1e-9, rtol=1e-9)
    skip, out, inside = edm(alpha, sigma, S)
    variance = inside**2 * (alpha**2 * S**2 + sigma**2)
    target = ((1 - skip * alpha) ** 2 * S**2 + skip**2 * sigma**2) / out**2
    torch.testing.assert_close(torch.stack([variance, target]), torch.ones(2, len(T), dtype=torch.float64))


def test_weights() -> None:
    level = torch.linspace(-10, 10, 41, dtype=torch.float64)
    snr = level.exp()
    alpha, sigma = level.sigmoid().sqrt(), (-level).sigmoid().sqrt()
    out = {name: prediction(alpha, sigma, S).out for name, prediction in PREDICTIONS.items()}
    weights = {name: WEIGHTINGS[name](level, out["eps"], S) for name in WEIGHTINGS}
    torch.testing.assert_close(weights["uniform"], snr, rtol=1e-9, atol=0)  # the plain error of eps
    torch.testing.assert_close(WEIGHTINGS["uniform"](level, out["v"], S), snr + 1, rtol=1e-9, atol=0)
    torch.testing.assert_close(weights["edm"], out["edm"] ** -2, rtol=1e-9, atol=0)
    torch.testing.assert_close(weights["min-snr"], snr.clamp(max=5), rtol=1e-12, atol=0)
    torch.testing.assert_close(weights["soft-min-snr"], snr / (1 + S**2 * snr), rtol=1e-9, atol=0)
    torch.testing.assert_close(weights["sigmoid"], snr / (1 + (level + 1).exp()), rtol=1e-9, atol=0)


def test_densities_over_an_even_spread() -> None:
    u = evenly_spread(4096, torch.Generator().manual_seed(3))
    assert u.min() > 0 and u.max() < 1
    gaps = u.sort().values.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 4096), atol=2e-6, rtol=0)
    flow = SCHEDULES["flow"]
    z = DENSITIES["logit-normal"](u, flow, 0.5, 1.5).logit()
    assert [float(z.mean()), float(z.std())] == pytest.approx([0.5, 1.5], abs=0.01)
    for schedule in SCHEDULES.values():
        t = DENSITIES["log-normal"](u, schedule, -1.2, 1.2)
        inner = (t > 0) & (t < 1)
        z = -log_snr(schedule, t[inner]) / 2
        assert [float(z.mean()), float(z.std())] == pytest.approx([-1.2, 1.2], abs=0.02)
    torch.testing.assert_close(DENSITIES["uniform"](u, flow, 0.0, 1.0), u)


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid != "auto"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
def test_grids(grid: str, schedule: Schedule) -> None:
    for steps in (1, 2, 9):
        times = times_of(grid, schedule, steps)
        assert len(times) == steps + 1 and (times.diff() < 0).all() and times[-1] == 0
        assert times[0] == pytest.approx(first_time(schedule, BEGIN))
        assert float(log_snr(schedule, times[0])) >= BEGIN - 1e-6
    inner = times_of(grid, schedule, 9)[:-1]
    level = log_snr(schedule, inner)
    spaced = {
        "uniform": inner,
        "quadratic": inner.sqrt(),
        "karras": (-level / 14).exp(),
        "log-snr": level,
    }[grid].diff()
    torch.testing.assert_close(spaced, spaced[0].expand_as(spaced), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
def test_the_automatic_grid(schedule: Schedule) -> None:
    """That of Karras; below 8 steps sigma / alpha from 40, or where t is 1, to 0.08, with equal steps of its root."""
    assert torch.equal(times_of("auto", schedule, 8), times_of("karras", schedule, 8))
    for steps in (1, 2, 5, 7):
        times = times_of("auto", schedule, steps)
        assert len(times) == steps + 1 and (times.diff() < 0).all() and times[-1] == 0
        ratio = (-log_snr(schedule, times[:-1]) / 2).exp()
        assert ratio[0] <= 40 * (1 + 1e-6) and (ratio[0] == pytest.approx(40, rel=1e-6) or times[0] == 1)
        if steps > 1:
            roots = (ratio**0.2).diff()
            assert ratio[-1] == pytest.approx(0.08, rel=1e-6)
            torch.testing.assert_close(roots, roots[0].expand_as(roots), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("get", [get_prediction, get_weighting, get_density, get_schedule], ids=lambda f: f.__name__)
def test_unknown_names_are_refused(get) -> None:
    with pytest.raises(UserError, match=r'unknown [a-z ]+ "edn"'):
        get("edn")


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(UserError, match="steps=0: give at least 1"):
        times_of("karras", SCHEDULES["edm"], 0)
    with pytest.raises(UserError, match='unknown grid "kerras"'):
        times_of("kerras", SCHEDULES["edm"], 3)
