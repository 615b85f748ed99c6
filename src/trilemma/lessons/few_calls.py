"""Points in few calls, for a mixture in the plane: a solver that follows the path, and f, which jumps to its end.

    f(x, t) = the end of the path through x = x0 + t eps                        (Song et al. 2023, "Consistency models")

Here a fine solver gives f; `diffusion-few` has a network that has learned it. After a jump that is not the last, noise
is added again, of the levels that `diffusion-few` has (diffusion/few.py)."""

import math
from typing import TYPE_CHECKING

import torch
from pydantic import PositiveInt
from torch import Tensor

from trilemma import rng
from trilemma.diffusion.few import RHO, T_MAX, noise_levels
from trilemma.diffusion.grids import times_of
from trilemma.diffusion.inversion import no_noise
from trilemma.diffusion.model import DATA_STD
from trilemma.diffusion.schedule import get_schedule
from trilemma.diffusion.solvers import unipc
from trilemma.keys import OneOrMore
from trilemma.lessons.mixture import Mixture
from trilemma.lessons.score_field import DATA, Paths, paths, rows_of_panels, shade_density
from trilemma.pictures import plots
from trilemma.pictures.page import below

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

EDM = get_schedule("edm")
FINE, CLEAN = 100, 0.01  # steps of f, and the noise that the last one begins at
DRAWN = 4  # points whose way is drawn


def jump(x: Tensor, t: float, data: Mixture = DATA) -> Tensor:
    """f(x, t) of points x float64 (N, D)."""
    noise = torch.linspace(t ** (1 / RHO), CLEAN ** (1 / RHO), FINE, dtype=torch.float64) ** RHO
    times = torch.cat([EDM.t_of(-2 * noise.log()), noise.new_zeros(1)])
    return unipc(data.denoiser(EDM), EDM, times, x[:, :, None, None], no_noise).flatten(1)


def jumps(calls: int, starts: Tensor, seed: int = 0, data: Mixture = DATA) -> Paths:
    """Where each jump begins and ends, from starts (N, D) of unit scale; all in x / sqrt(1 + t^2)."""
    unit, states, x0_hat = spread_of(data) / DATA_STD, list[Tensor](), torch.zeros_like(starts)
    for call, level in enumerate(noise_levels(calls)):
        t, ids = min(unit * level, T_MAX), torch.arange(len(starts))
        eps = starts if call == 0 else rng.normal(ids, tuple(starts.shape[1:]), seed, "jump", call).double()
        x = x0_hat + t * eps
        x0_hat = jump(x, t, data)
        states += [x / math.hypot(1, t), x0_hat]
    return Paths(torch.stack(states), calls)


def spread_of(data: Mixture) -> float:
    """The standard deviation of a coordinate, over all coordinates."""
    means, stds = torch.tensor(data.means, dtype=torch.float64), torch.tensor(data.stds, dtype=torch.float64)
    return float((means.var(0, correction=0).mean() + stds.square().mean()).sqrt())


def few_calls(
    *,
    steps: OneOrMore[PositiveInt] = (1, 2, 4, 10),
    sampler: str = "ddim",
    grid: str = "auto",
    points: PositiveInt = 300,
    seed: int = 0,
) -> "Image.Image":
    """A panel for each number of steps: of a sampler above, of jumps below.

    Args:
        steps: numbers of them; of jumps, each is a call.
        sampler, grid: of the upper panels.
        points: drawn in a panel.
        seed: of the noise.
    """
    starts = rng.normal(torch.arange(points), (2,), seed, "start").double()

    def of_sampler(ax: "Axes", n: int) -> None:
        _panel(ax, sampler, paths(sampler, EDM, times_of(grid, EDM, n), starts, seed))

    return below(
        [
            *rows_of_panels(steps, of_sampler),
            *rows_of_panels(steps, lambda ax, n: _panel(ax, "jumps", jumps(n, starts, seed))),
        ],
        gap=0,
    )


def _panel(ax: "Axes", name: str, drawn: Paths) -> None:
    """The ends of all points over the density of the data, and the way of some."""
    shade_density(ax, 1.0, 0.0)
    ends = drawn.states[-1]
    ax.plot(*ends.T, ".", color=plots.style(0)[0], markersize=2.5)
    ax.plot(*drawn.states[:, :DRAWN].permute(2, 0, 1), "o-", color=plots.style(1)[0], linewidth=0.9, markersize=2.2)
    spread = float(ends.var(0, correction=0).mean().sqrt())
    counted = f"{drawn.calls} call{'s' * (drawn.calls > 1)}"
    ax.set_title(f"{name}: {counted}, spread {spread:.2f} of {spread_of(DATA):.2f}", fontsize=9, loc="left")
