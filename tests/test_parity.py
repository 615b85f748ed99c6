"""Our arithmetic beside that of outside libraries on the same numbers, both sides of the tolerance.

`make slow` installs the libraries (by hand: `pip install --no-deps azula einops`, as azula names torchvision among its
requirements, and does not use it here). Without a library its tests are skipped.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import modes_denoiser
from torch import Tensor

from trilemma.diffusion.grids import times_of
from trilemma.diffusion.samplers import SAMPLERS, ddim, ddpm
from trilemma.diffusion.schedule import TABLES, Schedule, Table, cosine, get_schedule, linear
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


def as_denoiser(schedule: Table) -> Callable[[Tensor, Tensor], Tensor]:
    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (level(t)[:, None, None, None] for level in (schedule.alpha, schedule.sigma))
        return (x_t - sigma * eps_hat(x_t, schedule.index(t)[:, None, None, None])) / alpha

    return denoise


def scheduler_of(kind: str, schedule: Table, **options: Any) -> Any:
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
    ours = TABLES[name](T).table[1:]
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), ours, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("schedule", [linear(T), cosine(T)], ids=["linear", "cosine"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_follows_the_path_of_diffusers(schedule: Table, eta: float) -> None:
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
def test_ddpm_follows_the_path_of_diffusers(schedule: Table, variance: str, theirs: str) -> None:
    scheduler, x = scheduler_of("DDPMScheduler", schedule, variance_type=theirs), normals(0)(0)
    rng = torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        x = scheduler.step(eps_hat(x, t + 1), t, x, generator=rng).prev_sample
    times = torch.cat([scheduler.timesteps + 1, torch.zeros(1)]).double() / T
    ours = ddpm(as_denoiser(schedule), schedule, times, normals(0)(0), normals(1), variance=variance)
    torch.testing.assert_close(ours, x, rtol=1e-8, atol=1e-8)


MODES = ((-0.6, 0.2), (0.6, 0.2))  # means and standard deviations of the data
ENDS = {"clean": 0.0, "noisy": 0.1}  # t at the end of the grid


def times_to(schedule: Schedule, end: float) -> Tensor:
    """A Karras grid of STEPS steps that ends at `end`, float64."""
    times = times_of("karras", schedule, STEPS)
    return times if end == 0 else times[0] + (times - times[0]) * (times[0] - end) / times[0]


def by_diffusers(kind: str, name: str, times: Tensor, x: Tensor, **options: Any) -> Tensor:
    """A solver of diffusers on our grid, told x0_hat; most of them go on in float32.

    Traps: a last step to sigma = 0 must be of order 1 (`final_sigmas_type`, or `lower_order_final` of UniPC, which
    also lowers the step before it); `lower_order_final` of DPMSolverMultistep lowers two of fewer than 15 steps.
    """
    diffusers, schedule = pytest.importorskip("diffusers"), get_schedule(name)
    denoise, is_clean, noise = modes_denoiser(schedule, MODES), float(times[-1]) == 0, normals(1)
    options |= {"final_sigmas_type": "zero" if is_clean else "sigma_min", "use_flow_sigmas": name == "flow"}
    scheduler = getattr(diffusers, kind)(prediction_type="sample", **options)
    scheduler.set_timesteps(len(times) - 1)
    scheduler.set_begin_index(0)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times).where(times > 0, 0.0)
    scheduler.sigmas = sigma if name == "flow" else sigma / alpha
    for step, (t, place) in enumerate(zip(times[:-1], scheduler.timesteps, strict=True)):
        added = {"variance_noise": noise(step)} if "sde" in options.get("algorithm_type", "") else {}
        x = scheduler.step(denoise(x, t.expand(len(x))), place, x, **added).prev_sample
    return x


MULTISTEP, LAST_STEP = "DPMSolverMultistepScheduler", {"lower_order_final": False}
UNIPC = "UniPCMultistepScheduler"
SOLVERS: list[tuple[str, dict[str, Any], str, dict[str, Any], str]] = [  # ours and theirs, and the end of the grid
    *[
        (ours, keys, MULTISTEP, LAST_STEP | options, end)
        for ours, keys, options in (
            ("ddim", {}, {"solver_order": 1}),
            ("dpm++2m", {}, {"solver_order": 2}),
            ("dpm++2m", {"eta": 1.0}, {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}),
            ("dpm++3m", {}, {"solver_order": 3}),
        )
        for end in ENDS
    ],
    ("unipc", {"order": 2}, UNIPC, {"solver_order": 2}, "clean"),
    ("unipc", {"order": 2}, UNIPC, LAST_STEP | {"solver_order": 2}, "noisy"),
    ("unipc", {"order": 3}, UNIPC, LAST_STEP | {"solver_order": 3}, "noisy"),
]


@pytest.mark.parametrize("name", ["cosine", "linear", "flow"])
@pytest.mark.parametrize(("ours", "keys", "kind", "options", "end"), SOLVERS)
def test_solvers_are_those_of_diffusers(
    ours: str, keys: dict[str, Any], kind: str, options: dict[str, Any], end: str, name: str
) -> None:
    schedule = get_schedule(name)
    times, x = times_to(schedule, ENDS[end]), normals(0)(0)
    result = SAMPLERS[ours](modes_denoiser(schedule, MODES), schedule, times, x, normals(1), **keys)
    expected = by_diffusers(kind, name, times, x, **options)
    torch.testing.assert_close(result, expected.double(), rtol=1e-5, atol=1e-5)
    assert (result - x).abs().max() > 0.1


@pytest.mark.parametrize("name", ["cosine", "linear", "edm"])
@pytest.mark.parametrize(("ours", "kind"), [("euler", "EulerDiscreteScheduler"), ("heun", "HeunDiscreteScheduler")])
def test_euler_and_heun_are_those_of_diffusers(ours: str, kind: str, name: str) -> None:
    """There x / alpha is followed over sigma / alpha, to 0; Heun's list has each inner level twice, a call each."""
    diffusers, schedule = pytest.importorskip("diffusers"), get_schedule(name)
    denoise, times = modes_denoiser(schedule, MODES), times_to(schedule, 0.0)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times).where(times > 0, 0.0)
    x = normals(0)(0) * sigma[0]
    scheduler = getattr(diffusers, kind)(prediction_type="sample")
    scheduler.set_timesteps(STEPS)
    scheduler.set_begin_index(0)
    calls = torch.arange(STEPS + 1)
    if ours == "heun":
        calls = torch.cat([calls[:1], calls[1:-1].repeat_interleave(2), calls[-1:]])
    scheduler.sigmas, y = (sigma / alpha)[calls], x / alpha[0]
    for k, place in zip(calls[:-1], scheduler.timesteps, strict=True):
        y = scheduler.step(denoise(alpha[k] * y, times[k].expand(len(y))), place, y).prev_sample
    result = SAMPLERS[ours](denoise, schedule, times, x, normals(1))
    torch.testing.assert_close(result, alpha[-1] * y.double(), rtol=1e-5, atol=1e-5)
    assert (result - x).abs().max() > 0.1


@pytest.mark.parametrize("name", ["cosine", "linear", "edm", "flow"])
@pytest.mark.parametrize(
    ("ours", "keys", "kind", "options"),
    [
        ("ddim", {}, "DDIMSampler", {}),
        ("ddim", {"eta": 0.5}, "DDIMSampler", {"eta": 0.25}),  # theirs is of the variance
        ("ddpm", {}, "DDPMSampler", {}),
        ("euler", {}, "EulerSampler", {}),
        ("heun", {}, "HeunSampler", {}),
        ("eab3", {}, "xEABSampler", {"order": 3}),
    ],
)
def test_samplers_are_those_of_azula(
    ours: str, keys: dict[str, Any], kind: str, options: dict[str, Any], name: str
) -> None:
    """A grid of equal steps in t that ends above sigma = 0, where theirs divide by it."""
    sample, denoise, noise = (pytest.importorskip(f"azula.{part}") for part in ("sample", "denoise", "noise"))
    schedule = get_schedule(name)

    class Levels(noise.Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return schedule.alpha(t), schedule.sigma(t)

    class Known(denoise.Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = Levels()

        def forward(self, x_t: Tensor, t: Tensor) -> Any:
            return denoise.DiracPosterior(modes_denoiser(schedule, MODES)(x_t, t.expand(len(x_t))))

    span = {"start": 0.95, "stop": 0.05, "steps": STEPS}
    sampler = getattr(sample, kind)(Known(), silent=True, dtype=torch.float64, **span, **options)
    x, times = normals(0)(0), torch.linspace(0.95, 0.05, STEPS + 1, dtype=torch.float64)
    torch.manual_seed(1)  # theirs takes its noise from here
    expected = sampler(x)
    result = SAMPLERS[ours](modes_denoiser(schedule, MODES), schedule, times, x, normals(1), **keys)
    torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)
    assert (result - x).abs().max() > 0.1
