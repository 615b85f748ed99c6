"""A time grid for one model: the best of several for its solver and number of steps, measured on images.

Images are noised up to the beginning of a grid and followed down from there in FINE steps. That gives the end of each
path, and the speed of x0_hat along it, |d x0_hat / d l| with l the log-SNR. The local error of a step grows with the
speed and a power of its length, so steps are best short where x0_hat changes fast: those of a candidate are equal parts
of the integral of speed**p, for each p in POWERS. They compete with the grids of FIXED, each from the same images and
noise at its own beginning. The grid whose ends are nearest to those of the fine path wins, so it is at least as near
as any of FIXED.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from trilemma.diffusion.grids import times_of
from trilemma.diffusion.inversion import no_noise
from trilemma.diffusion.schedule import Schedule, log_snr
from trilemma.diffusion.solvers import unipc
from trilemma.diffusion.steps import Denoise

FINE = 64  # steps of the path that candidates are compared with
POWERS = (1.0, 0.5, 1 / 3)
FIXED = ("auto", "karras", "log-snr")
OPTIMISED = "optimised"

Solver = Callable[..., Tensor]  # (denoise, schedule, times, x_T, noise) -> x0, without noise of its own


def optimised_times(
    denoise: Denoise, schedule: Schedule, solver: Solver, steps: int, x0: Tensor, eps: Tensor
) -> Tensor:
    """The best times for a solver, decreasing, float64 (steps + 1,).

    Args:
        x0: images in [-1, 1], (B, C, H, W), that the model was not trained on; eps: as many of standard normal noise.
    """
    fine = times_of("log-snr", schedule, FINE)
    states: list[Tensor] = []

    def begin(times: Tensor) -> Tensor:
        return float(schedule.alpha(times[0])) * x0 + float(schedule.sigma(times[0])) * eps

    def denoise_and_record(x_t: Tensor, t: Tensor) -> Tensor:
        states.append(denoise(x_t, t))
        return states[-1]

    end = unipc(denoise_and_record, schedule, fine, begin(fine), no_noise, order=3)
    speed = torch.stack([(b - a).square().mean().sqrt().cpu().double() for a, b in pairwise(states)])
    grids = [times_of(name, schedule, steps) for name in FIXED]
    grids += [_equal_parts(schedule, fine[:-1], speed**power, steps) for power in POWERS]
    ends = [solver(denoise, schedule, times, begin(times), no_noise) for times in grids]
    errors = [(drawn - end).square().mean().item() for drawn in ends]
    return grids[min(range(len(grids)), key=errors.__getitem__)]


def _equal_parts(schedule: Schedule, times: Tensor, density: Tensor, steps: int) -> Tensor:
    """Times with equal shares of a density between neighbours, (N - 1,) over the log-SNR of N times, then t = 0."""
    levels = log_snr(schedule, times)
    share = torch.cat([density.new_zeros(1), density.clamp(min=1e-6 * float(density.max())).cumsum(0)])
    wanted = torch.linspace(0, float(share[-1]), steps, dtype=torch.float64)
    right = torch.searchsorted(share, wanted).clamp(1, len(share) - 1)
    part = ((wanted - share[right - 1]) / (share[right] - share[right - 1])).clamp(0, 1)
    inner = schedule.t_of(levels[right - 1] + part * (levels[right] - levels[right - 1]))
    return torch.cat([times[:1], inner[1:], inner.new_zeros(1)])
