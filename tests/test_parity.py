"""Our arithmetic beside that of outside libraries on the same numbers, both sides of the tolerance.

`pip install -e '.[parity]'` brings the libraries; without one of them its tests are skipped.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from trilemma.diffusion.samplers import ddim, ddpm
from trilemma.diffusion.schedule import SCHEDULES, Schedule, cosine, linear
from trilemma.metrics.frechet import frechet_distance, frechet_of_gaussians, moments
from trilemma.metrics.intervals import quantile, wilson
from trilemma.metrics.kernel import kernel_distance
from trilemma.metrics.neighbours import neighbour_scores

pytestmark = pytest.mark.slow


def features(n_real: int = 90, n_fake: int = 70, dim: int = 12) -> dict[str, Tensor]:
    """Two sets that differ in place and spread, float64 (N, D)."""
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(dim, dim, generator=rng, dtype=torch.float64)
    real = torch.randn(n_real, dim, generator=rng, dtype=torch.float64)
    fake = 0.7 * torch.randn(n_fake, dim, generator=rng, dtype=torch.float64) + 0.2
    return {"real": real @ mix, "fake": fake @ mix}


class Given(torch.nn.Module):
    """In place of a feature network: its features are given."""

    num_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return x


def updated(metric: Any, sets: dict[str, Tensor]) -> Any:
    metric.update(sets["real"], real=True)
    metric.update(sets["fake"], real=False)
    return metric.compute()


def test_frechet_distance_is_that_of_torchmetrics() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    metric = fid.FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    ours = frechet_distance(**features(), minimum=2).value
    assert ours == pytest.approx(updated(metric, features()).item(), rel=1e-9)
    assert ours > 1


def test_kernel_distance_is_that_of_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    sets = features(70, 70)
    metric = kid.KernelInceptionDistance(feature=Given(), subsets=1, subset_size=70).set_dtype(torch.float64)
    ours = kernel_distance(**sets).value
    assert ours == pytest.approx(updated(metric, sets)[0].item(), rel=1e-9)
    assert ours > 1


def test_neighbour_scores_are_those_of_prdc() -> None:
    prdc = pytest.importorskip("prdc")
    sets = features(80, 80, dim=3)
    arrays = {f"{name}_features": values.numpy() for name, values in sets.items()}
    narrow, wide = (prdc.compute_prdc(**arrays, nearest_k=k) for k in (3, 5))
    ours = {name: spread.value for name, spread in neighbour_scores(**sets).items()}
    theirs = {name: narrow[name] for name in ("precision", "recall")}
    theirs |= {name: wide[name] for name in ("density", "coverage")}
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert len(set(ours.values())) == 4


@pytest.mark.parametrize("n_fake", [70, 8])  # 8: a covariance of 12 dimensions without full rank
def test_frechet_distance_is_that_of_a_matrix_square_root(n_fake: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    sets = features(n_fake=n_fake)
    (mean_r, cov_r), (mean_f, cov_f) = moments(sets["real"]), moments(sets["fake"])
    root = linalg.sqrtm((cov_r @ cov_f).numpy()).real
    expected = (mean_r - mean_f).square().sum() + cov_r.trace() + cov_f.trace() - 2 * root.trace()
    assert frechet_of_gaussians(mean_r, cov_r, mean_f, cov_f) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (3, 20), (20, 20), (480, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_intervals_are_those_of_scipy(successes: int, n: int, level: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level=level).interval == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("df", [1, 2.5, 30, math.inf])
def test_quantiles_are_those_of_scipy(df: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    law = stats.norm() if math.isinf(df) else stats.t(df)
    assert quantile(0.95, df) == pytest.approx(law.ppf(0.975), rel=1e-12)


T, STEPS = 1000, 10
SHAPE = (3, 2, 4, 4)


def eps_hat(x: Tensor, step: Tensor | float) -> Tensor:
    """A prediction that depends on image and time, and on no library."""
    return torch.sin(3 * x) + 0.3 * x + 0.001 * step


def as_denoiser(schedule: Schedule) -> Callable[[Tensor, Tensor], Tensor]:
    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (level(t)[:, None, None, None] for level in (schedule.alpha, schedule.sigma))
        return (x_t - sigma * eps_hat(x_t, schedule.index(t)[:, None, None, None])) / alpha

    return denoise


def scheduler_of(kind: str, schedule: Schedule, **options: Any) -> Any:
    """A scheduler of diffusers with our table in float64: its time i is our step i + 1."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, kind)(num_train_timesteps=T, clip_sample=False, **options)
    scheduler.alphas_cumprod, scheduler.one = schedule.table[1:], torch.ones((), dtype=torch.float64)
    scheduler.final_alpha_cumprod = scheduler.one
    scheduler.set_timesteps(STEPS)
    return scheduler


def normals(seed: int) -> Callable[[int], Tensor]:
    """Step number -> noise, the numbers of one generator in the order of the steps."""
    rng = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn(SHAPE, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize(("name", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_schedules_are_those_of_diffusers(name: str, theirs: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=T, beta_schedule=theirs)  # in float32
    ours = SCHEDULES[name](T).table[1:]
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), ours, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("schedule", [linear(T), cosine(T)], ids=["linear", "cosine"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_follows_the_path_of_diffusers(schedule: Schedule, eta: float) -> None:
    scheduler, noise, path = scheduler_of("DDIMScheduler", schedule), normals(1), [normals(0)(0)]
    for t in scheduler.timesteps:
        added = noise(0) if eta else None
        path.append(scheduler.step(eps_hat(path[-1], t + 1), t, path[-1], eta=eta, variance_noise=added).prev_sample)
    times = torch.cat([scheduler.timesteps + 1, torch.zeros(1)]).double() / T
    for end in range(1, STEPS + 1):
        x = ddim(as_denoiser(schedule), schedule, times[: end + 1], path[0], normals(1), eta=eta)
        torch.testing.assert_close(x, path[end], rtol=1e-8, atol=1e-8)
    assert (path[-1] - path[0]).abs().max() > 0.1


@pytest.mark.parametrize("schedule", [linear(T), cosine(T)], ids=["linear", "cosine"])
@pytest.mark.parametrize(("variance", "theirs"), [("posterior", "fixed_small"), ("beta", "fixed_large")])
def test_ddpm_follows_the_path_of_diffusers(schedule: Schedule, variance: str, theirs: str) -> None:
    scheduler, x = scheduler_of("DDPMScheduler", schedule, variance_type=theirs), normals(0)(0)
    rng = torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        x = scheduler.step(eps_hat(x, t + 1), t, x, generator=rng).prev_sample
    times = torch.cat([scheduler.timesteps + 1, torch.zeros(1)]).double() / T
    ours = ddpm(as_denoiser(schedule), schedule, times, normals(0)(0), normals(1), variance=variance)
    torch.testing.assert_close(ours, x, rtol=1e-8, atol=1e-8)
