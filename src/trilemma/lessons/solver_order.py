"""The error of each solver against its network calls, on data whose paths are known: one Gaussian, and two modes.

In one dimension a path of the probability flow stays at one quantile, which gives its end exactly (lessons/mixture.py).
Paths go from log(alpha / sigma) = NOISY to CLEAN in equal steps of it, for at a last step to sigma = 0 every solver is
of order 1; solvers with a memory begin with steps so short that they cost no order. The order is minus the slope of the
mean error of several paths in a plot of logarithms (Hairer, Norsett & Wanner 1993, "Solving ordinary differential
equations I", section III.2 for methods with memory)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from trilemma.diffusion.inversion import no_noise
from trilemma.diffusion.samplers import SAMPLERS
from trilemma.diffusion.schedule import Schedule, get_schedule
from trilemma.diffusion.solvers import unipc
from trilemma.errors import UserError
from trilemma.lessons.mixture import Mixture, levels
from trilemma.pictures import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

DATA = {"a Gaussian": Mixture(((0.3,),), (0.4,)), "two modes": Mixture(((-0.7,), (0.5,)), (0.3, 0.2))}
CLEAN, NOISY = 3.0, -2.0  # log(alpha / sigma) at the ends of the paths
MEMORY, SHORT = 3, 1e-3  # steps before the first, and their size in log(alpha / sigma)
FITTED = 3  # last points that give the slope
FLOOR = 1e-12  # error below which float64 has no digits left
SOLVERS: dict[str, Callable[..., Tensor]] = {
    "ddim = euler": SAMPLERS["ddim"],
    **{name: SAMPLERS[name] for name in ("heun", "dpm++2m", "dpm++3m", "eab3")},
    **{f"unipc, order={order}": partial(unipc, order=order) for order in (2, 3)},
}


class Convergence(NamedTuple):
    """Of a solver, for each number of steps: network calls, and the mean error of the paths' ends."""

    calls: list[int]
    errors: list[float]

    @property
    def order(self) -> float | None:
        """Minus the slope of the last points, by least squares; None where too few are above the floor."""
        points = [(n, error) for n, error in zip(self.calls, self.errors, strict=True) if error > FLOOR][-FITTED:]
        if len(points) < 2:
            return None
        x, y = torch.tensor(points, dtype=torch.float64).log().T
        return -float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def measure(
    solver: Callable[..., Tensor], data: Mixture, schedule: Schedule, counts: Sequence[int], starts: int
) -> Convergence:
    """The errors of a solver in several numbers of steps, over paths from evenly spaced starts."""
    calls, errors = [], []
    for steps in counts:
        times = _times(schedule, steps)
        first, last = (levels(schedule, t) for t in times[[0, -1]].tolist())
        x_T = first[1] * torch.linspace(-2, 2, starts, dtype=torch.float64)[:, None, None, None]
        asked: list[float] = []

        def denoise(x_t: Tensor, t: Tensor, asked: list[float] = asked) -> Tensor:
            asked.append(float(t[0]))
            return data.denoiser(schedule)(x_t, t)

        end = solver(denoise, schedule, times, x_T, no_noise)
        calls.append(1 + sum(t < float(times[MEMORY]) for t in asked))  # from the first step that is not short
        errors.append(float((end.flatten(1) - data.path_end(x_T.flatten(1), first, last)).abs().mean()))
    return Convergence(calls, errors)


def solver_order(
    *,
    schedule: str = "cosine",
    counts: tuple[Annotated[int, Field(ge=2)], ...] = (10, 20, 40, 80, 160, 320),
    starts: Annotated[int, Field(ge=2)] = 16,
) -> "Image.Image":
    """A panel for each kind of data, a line for each solver, with its measured order.

    Args:
        counts: numbers of steps, two or more.
        starts: paths that an error is the mean of.
    """
    if len(set(counts)) < 2:
        raise UserError(f"counts={','.join(map(str, counts))}: a slope needs two different numbers of steps")
    figure, axes = plots.row_of_plots(len(DATA), width=11.0, height=4.6)
    how = get_schedule(schedule), sorted(set(counts)), starts
    for ax, (name, data) in zip(axes, DATA.items(), strict=True):
        _panel(ax, {label: measure(solver, data, *how) for label, solver in SOLVERS.items()})
        plots.label_axes(ax, name, "network calls", "mean error at the end of a path" if ax is axes[0] else "")
    return plots.pixels(figure)


def _panel(ax: "Axes", results: dict[str, Convergence]) -> None:
    for k, (name, result) in enumerate(results.items()):
        order = "" if result.order is None else f": order {result.order:.2f}"
        look = {"marker": plots.style(k)[1], "markersize": 4, "label": f"{name}{order}", **plots.line_style(k)}
        ax.plot(result.calls, result.errors, **look)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.legend(fontsize=7.5, frameon=False, loc="lower left")
    ax.grid(color="0.9", linewidth=0.6)


def _times(schedule: Schedule, steps: int) -> Tensor:
    """Equal steps of log(alpha / sigma), after some so short that they cost no order."""
    inner = torch.linspace(NOISY, CLEAN, steps + 1, dtype=torch.float64)
    before = NOISY - SHORT * torch.arange(MEMORY, 0, -1, dtype=torch.float64)
    return schedule.t_of(2 * torch.cat([before, inner]))
