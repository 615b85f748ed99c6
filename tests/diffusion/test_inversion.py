"""Inversion and likelihood against Gaussian data, whose path and density are known, in double precision."""

import math

import pytest
import torch
from oracles import gaussian_denoiser, gaussian_flow, order_of
from torch import Tensor

from trilemma.diffusion.grids import times_of
from trilemma.diffusion.inversion import invert
from trilemma.diffusion.likelihood import (
    flow_bound,
    flow_log_density,
    level_log_probability,
    range_of,
    variational_bound,
)
from trilemma.diffusion.schedule import SCHEDULES, get_schedule, get_table, log_snr
from trilemma.diffusion.solvers import unipc
from trilemma.errors import UserError

MEAN, STD = 0.3, 0.5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(), dtype=torch.float64)


@pytest.mark.parametrize("name", ["cosine", "edm"])
def test_inversion_has_order_3(name: str) -> None:
    schedule, x0, errors, counts = get_schedule(name), MEAN + STD * normal(16, 1, 1, 1), [], (40, 80, 160)
    low, high = -4.0, 6.0
    for steps in counts:
        times = schedule.t_of(torch.linspace(low, high, steps + 1, dtype=torch.float64))
        expected = gaussian_flow(schedule, MEAN, STD, x0, float(times[-1]), float(times[0]))
        x_T = invert(gaussian_denoiser(schedule, MEAN, STD), schedule, times, x0)
        errors.append(float((x_T - expected).abs().mean()))
    assert 2.85 < order_of(counts, errors) < 3.6  # the corrected solver is between 3 and 4


@pytest.mark.parametrize("name", SCHEDULES)
def test_from_a_clean_image_to_noise_and_back(name: str) -> None:
    schedule, x0 = get_schedule(name), MEAN + STD * normal(16, 1, 1, 1)
    times = times_of("log-snr", schedule, 60)
    denoise = gaussian_denoiser(schedule, MEAN, STD)
    x_T = invert(denoise, schedule, times, x0)
    expected = gaussian_flow(schedule, MEAN, STD, x0, 0.0, float(times[0]))
    torch.testing.assert_close(x_T, expected, atol=2e-3 * float(x_T.std()), rtol=0)
    again = unipc(denoise, schedule, times, x_T, lambda step: torch.zeros(()), order=3)
    torch.testing.assert_close(again, x0, atol=2e-3, rtol=0)


@pytest.mark.parametrize("steps", [2, 7])
def test_the_only_image_comes_back_exactly(steps: int) -> None:
    schedule, image = get_schedule("cosine"), normal(1, 2, 3, 3)
    times = times_of("karras", schedule, steps)
    x_T = invert(lambda x_t, t: image, schedule, times, image)
    assert torch.allclose(x_T, float(schedule.alpha(float(times[0]))) * image, atol=1e-12)
    back = unipc(lambda x_t, t: image, schedule, times, x_T, lambda step: torch.zeros(()), order=3)
    assert torch.allclose(back, image, atol=1e-12)


@pytest.mark.parametrize("name", ["cosine", "edm", "flow"])
def test_the_density_along_the_path_is_that_of_the_data(name: str) -> None:
    """log N(y; mean, std**2 + r**2); the prior of pure noise leaves out the data, so the range goes far."""
    schedule = get_schedule(name)
    low, high = max(-18.0, float(log_snr(schedule, 1.0))), 6.0
    times = schedule.t_of(torch.linspace(high, low, 120, dtype=torch.float64))
    r_0, r_T = math.exp(-high / 2), math.exp(-low / 2)
    std = math.sqrt(STD**2 + r_0**2)
    y = MEAN + std * normal(6, 1, 2, 2)
    probe = torch.ones_like(y)  # exact, for the Jacobian is diagonal
    result = flow_log_density(gaussian_denoiser(schedule, MEAN, STD), schedule, times, y, probe)
    expected = torch.distributions.Normal(MEAN, std, validate_args=False).log_prob(y).flatten(1).sum(1)
    y_T = MEAN + math.sqrt(STD**2 + r_T**2) / std * (y - MEAN)
    instead = [torch.distributions.Normal(0.0, r_T), torch.distributions.Normal(MEAN, math.sqrt(STD**2 + r_T**2))]
    prior = (instead[0].log_prob(y_T) - instead[1].log_prob(y_T)).flatten(1).sum(1)
    torch.testing.assert_close(result, expected + prior, atol=5e-3, rtol=0)


def test_random_signs_estimate_a_trace() -> None:
    """A denoiser x0_hat = A y of three numbers, A full: log p(y) has the trace of A, log-normal terms apart."""
    matrix = torch.tensor([[0.5, 0.3, -0.2], [0.1, 0.4, 0.2], [0.6, -0.1, 0.2]], dtype=torch.float64)
    schedule = get_schedule("edm")  # alpha = 1
    times = schedule.t_of(torch.tensor([2.0, 1.9], dtype=torch.float64))
    y = normal(1, 1, 1, 3).expand(8, -1, -1, -1)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)[:, None, None]
    by_sign = flow_log_density(lambda x, t: x @ matrix.T, schedule, times, y, signs)
    width = 0.05  # of log r
    sigma = float(schedule.sigma(float(times[-1])))
    h = -width
    x = math.exp(-h) * y[:1] + (1 - math.exp(-h)) * (y[:1] @ matrix.T)  # one exponential step
    log_normal = torch.distributions.Normal(0.0, sigma).log_prob(x).sum()
    assert by_sign.mean() == pytest.approx(float(log_normal) + width * (3 - float(matrix.trace())), abs=1e-6)
    assert by_sign.std() > 1e-4


def test_the_bound_of_gaussian_data_is_the_integral_of_its_error() -> None:
    """With E|x0 - x0_hat|**2 = s**2 / (1 + s**2 exp(l)), half the integral of exp(l) times it is in closed form."""
    for schedule in (get_schedule("cosine"), get_table("cosine", 4000)):
        low, high = range_of(schedule)
        s2, n = STD**2, 40_000
        x0 = STD * normal(1, 1, 200, 200)
        denoise = gaussian_denoiser(schedule, 0.0, STD)
        bound = variational_bound(denoise, schedule, x0, generator(), 64)
        r = math.exp(-high / 2)
        noise = level_log_probability(x0 + r * normal(1, 1, 200, 200).flip(3), x0, r)
        integral = n / 2 * math.log((1 + s2 * math.exp(high)) / (1 + s2 * math.exp(low)))
        prior = math.exp(low) / 2 * n * s2
        # the levels of such images are not those of 256: what is tested is the sum of the three terms
        assert float(bound) == pytest.approx(float(noise) - integral - prior, rel=0.01)


def test_the_bound_has_the_distance_of_the_noisiest_image_to_noise() -> None:
    """KL(N(alpha x0, sigma**2), N(0, sigma**2)) = exp(l) |x0|**2 / 2 at the lowest log-SNR l; all else is equal for two
    constant images whose levels are far from the ends, as a denoiser that knows the image errs nowhere."""
    schedule = get_schedule("edm", 0.05)  # ends at a log-SNR of -2.8
    low = float(log_snr(schedule, 1.0))
    assert low == pytest.approx(-2 * math.log(80 * 0.05), abs=1e-9)
    bounds = []
    for level in (140, 220):
        x0 = torch.full((1, 1, 8, 8), 2 * level / 255 - 1, dtype=torch.float64)
        bounds.append(float(variational_bound(lambda x_t, t, x0=x0: x0, schedule, x0, generator(), 4)))
    squares = [64 * (2 * level / 255 - 1) ** 2 for level in (140, 220)]
    expected = -math.exp(low) / 2 * (squares[1] - squares[0])
    assert expected < -0.9 and bounds[1] - bounds[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", ["edm", "cosine", "flow"])
def test_the_density_of_a_path_begins_at_any_schedule_s_clean_end(schedule: str) -> None:
    """Also where a shifted schedule is noisier at t = 0 than a path begins, on data of one image, x0_hat = 0."""
    shifted, x0 = get_schedule(schedule, 2.5), torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    values = flow_bound(lambda x_t, t: 0 * x_t, shifted, x0, generator(), 40)
    assert values.isfinite().all()


def test_a_path_has_two_points() -> None:
    x0 = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    with pytest.raises(UserError, match="at least 2 points"):
        flow_bound(lambda x_t, t: 0 * x_t, get_schedule("cosine"), x0, generator(), 1)


def test_both_bounds_of_flat_data_are_8_bits_a_number() -> None:
    """Of levels that are equally probable, each has 1 / 256: the optimum over x0 uniform, no bound is above log P."""
    levels = (2 * torch.arange(256, dtype=torch.float64) / 255 - 1)[None]
    schedule = get_schedule("cosine")

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (part.to(x_t)[:, None, None, None] for part in (schedule.alpha(t), schedule.sigma(t)))
        distance = (x_t / alpha).flatten(1)[..., None] - levels
        weights = (-(distance**2) / 2 / (sigma / alpha).flatten(1)[..., None] ** 2).softmax(-1)
        return (weights * levels).sum(-1).view_as(x_t)

    x0 = levels[0].view(1, 1, 16, 16).expand(4, -1, -1, -1)
    for bound in (variational_bound, flow_bound):
        bits = -bound(denoise, schedule, x0, generator(), 100) / 256 / math.log(2)
        assert 7.99 < float(bits.mean()) < 8.1


def test_the_level_behind_a_value() -> None:
    """Against all 256 levels, at the ends too."""
    levels = 2 * torch.arange(256, dtype=torch.float64) / 255 - 1
    r = 1 / 255
    x0 = levels[torch.tensor([0, 1, 128, 255])].view(4, 1, 1, 1)
    y = x0 + r * torch.tensor([-2.0, 0.5, 1.7, 1.0], dtype=torch.float64).view(4, 1, 1, 1)
    scores = -((y.flatten()[:, None] - levels) ** 2) / 2 / r**2
    expected = scores.log_softmax(1).gather(1, torch.tensor([0, 1, 128, 255])[:, None])[:, 0]
    torch.testing.assert_close(level_log_probability(y, x0, r), expected, atol=1e-9, rtol=0)
