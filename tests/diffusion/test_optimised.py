"""Time grids that are optimised for a model on images."""

import math
from pathlib import Path

import pytest
import torch
from oracles import modes_denoiser
from presets import small
from torch import Tensor

import trilemma
from trilemma.diffusion import optimised
from trilemma.diffusion.grids import times_of
from trilemma.diffusion.inversion import no_noise
from trilemma.diffusion.optimised import optimised_times
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.diffusion.schedule import SCHEDULES
from trilemma.diffusion.solvers import dpmpp_2m, euler
from trilemma.errors import UserError

MODE, WIDTH = 0.7, 0.1
MODES = ((-MODE, WIDTH), (MODE, WIDTH))  # of the data


def data(n: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    sign = 2.0 * (torch.arange(n) % 2) - 1
    x0 = sign + WIDTH / MODE * torch.randn(n, generator=rng, dtype=torch.float64)
    eps = torch.randn(n, generator=rng, dtype=torch.float64)
    return MODE * x0[:, None, None, None], eps[:, None, None, None]


@pytest.mark.parametrize(
    ("solver", "steps", "share"), [(euler, 8, 0.8), (dpmpp_2m, 8, 1), (euler, 5, 1), (dpmpp_2m, 5, 1)]
)
@pytest.mark.parametrize("schedule", ["cosine", "edm", "flow"])
def test_other_paths_end_as_near_as_on_the_fixed_grids(solver, steps: int, share: float, schedule: str) -> None:
    """Measured on images that the grid has not seen, against a path of 400 steps."""
    levels = SCHEDULES[schedule]
    denoise, (x0, eps) = modes_denoiser(levels, MODES), data(64)
    best = optimised_times(denoise, levels, solver, steps, x0[:32], eps[:32])
    assert len(best) == steps + 1 and (best.diff() < 0).all() and best[-1] == 0

    def drawn(times: Tensor) -> Tensor:
        x_T = float(levels.alpha(times[0])) * x0[32:] + float(levels.sigma(times[0])) * eps[32:]
        return solver(denoise, levels, times, x_T, no_noise)

    end = drawn(times_of("log-snr", levels, 400))

    def error(times: Tensor) -> float:
        return math.sqrt((drawn(times) - end).square().mean())

    of_fixed = min(error(times_of(name, levels, steps)) for name in optimised.FIXED)
    assert error(best) <= of_fixed * share


@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps(steps: int) -> None:
    levels = SCHEDULES["cosine"]
    times = optimised_times(modes_denoiser(levels, MODES), levels, euler, steps, *data(4))
    assert len(times) == steps + 1 and (times.diff() < 0).all()


@pytest.mark.slow
def test_a_run_keeps_its_grids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimised, "FINE", 12)
    settings = {**small("diffusion"), "classes": True, "steps": 2, "batch": 16, "device": "cpu", "quiet": True}
    run = trilemma.train("diffusion", "digits", out=tmp_path / "run", **settings)
    keys = {"steps": 4, "grid": "optimised"}
    images = run.sample(3, **keys)
    assert torch.equal(run.sample(3, **keys), images)
    file = run.path / "grids.json"
    content = file.read_text()
    file.write_text(content.replace(run.weights_id, "0" * 16))  # of other weights: measured again
    assert torch.equal(trilemma.load(run.path).sample(3, **keys), images)
    assert file.read_text() == content
    file.write_text(content.replace('"method": 3', '"method": 1'))
    assert torch.equal(trilemma.load(run.path).sample(3, **keys), images) and file.read_text() == content
    trilemma.load(run.path).sample(3, sampler="ddpm", **keys)
    assert len(file.read_text()) > len(content)
    with pytest.raises(UserError, match="grid=optimised is measured on the held-out images of a run"):
        run.model.sample(1, seed=0, keys=DiffusionSampling(grid="optimised"))
