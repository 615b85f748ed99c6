"""The score of a mixture in the plane at several noise levels, and the path of each sampler through it.

All is drawn in x_t / sqrt(alpha^2 + sigma^2), where every schedule goes from the same images to the same noise. The
arrows are sigma grad log p_t = -E[eps | x_t] (Song & Ermon 2019; Ho, Jain & Abbeel 2020, section 3.2)."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from trilemma import rng
from trilemma.diffusion.grids import times_of
from trilemma.diffusion.samplers import ALWAYS_RANDOM, SAMPLERS, get_sampler
from trilemma.diffusion.schedule import Schedule, get_schedule
from trilemma.keys import OneOrMore
from trilemma.lessons.mixture import Mixture, levels
from trilemma.pictures import plots
from trilemma.pictures.page import below

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

DATA = Mixture(((-1.0, -0.5), (0.9, -0.7), (0.1, 1.0)), (0.25, 0.4, 0.3))
SIDE, PIXELS, ARROWS = 2.2, 120, 15  # half a side of a panel; points of its density and arrows along a side
SHADES = 8
LONGEST = 2.2  # arrows are cut at
RING = 1.6  # radius where paths begin
FINE = 500  # steps of the path that samplers are compared with
COLUMNS = 4

T = TypeVar("T")


class Paths(NamedTuple):
    """states: float64 (points, N, 2), from the starts to the ends; calls: of the network."""

    states: Tensor
    calls: int


def paths(name: str, schedule: Schedule, times: Tensor, starts: Tensor, seed: int = 0) -> Paths:
    """The states of a sampler at the times of its calls, and its end, from starts (N, 2) of unit scale."""
    exact, states, calls = DATA.denoiser(schedule), dict[float, Tensor](), 0

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        states[float(t[0])] = x_t.flatten(1) / math.hypot(*levels(schedule, float(t[0])))
        return exact(x_t, t)

    def noise(step: int) -> Tensor:
        return rng.normal(torch.arange(len(starts)), (2, 1, 1), seed, "step", step).double()

    x_T = starts[:, :, None, None] * math.hypot(*levels(schedule, float(times[0])))
    end = get_sampler(name)(denoise, schedule, times, x_T, noise)
    return Paths(torch.stack([*states.values(), end.flatten(1) / levels(schedule, 0.0)[0]]), calls)


def on_ring(n: int) -> Tensor:
    """n points at equal angles, (n, 2)."""
    angle = 2 * math.pi * (torch.arange(n, dtype=torch.float64) + 0.25) / n
    return RING * torch.stack([angle.cos(), angle.sin()], dim=1)


def score_field(
    *,
    ratios: OneOrMore[PositiveFloat] = (6.0, 1.2, 0.5, 0.15),
    schedule: str = "edm",
    samplers: OneOrMore[str] | None = None,
    steps: PositiveInt = 10,
    grid: str = "karras",
    starts: PositiveInt = 8,
    seed: int = 0,
) -> "Image.Image":
    """A panel of density and score for each noise level, and one of paths for each sampler.

    Args:
        ratios: noise levels, sigma / alpha; samplers: default: all.
        schedule, steps, grid: of the samplers.
        starts: paths in a panel.
        seed: of the noise that ddpm adds.
    """
    levels_of, begin = get_schedule(schedule), on_ring(starts)
    true = paths("unipc", levels_of, times_of(grid, levels_of, FINE), begin).states

    def draw_path(ax: "Axes", name: str) -> None:
        _paths_panel(ax, name, paths(name, levels_of, times_of(grid, levels_of, steps), begin, seed), true)

    fields, walks = rows_of_panels(ratios, _field_panel), rows_of_panels(samplers or tuple(SAMPLERS), draw_path)
    return below([*fields, *walks], gap=0)


def rows_of_panels(entries: Sequence[T], draw: "Callable[[Axes, T], None]") -> "list[Image.Image]":
    """A panel for each entry, in rows."""
    rows = []
    for at in range(0, len(entries), COLUMNS):
        part = entries[at : at + COLUMNS]
        figure, axes = _panels(len(part))
        for ax, entry in zip(axes, part, strict=True):
            draw(ax, entry)
        rows.append(plots.pixels(figure))
    return rows


def _panels(n: int) -> "tuple[Figure, list[Axes]]":
    """A row of n square panels without axes, as wide as that of COLUMNS."""
    figure, axes = plots.row_of_plots(COLUMNS, width=11.0, height=2.9)
    figure.set_layout_engine("constrained", h_pad=0.1)
    for k, ax in enumerate(axes):
        ax.set_axis_off()
        ax.set_visible(k < n)
        ax.set_xlim(-SIDE, SIDE)
        ax.set_ylim(-SIDE, SIDE)
        ax.set_aspect("equal")
    return figure, axes[:n]


def _lattice(n: int, reach: float) -> Tensor:
    """n x n points of a square, row by row, (n * n, 2)."""
    along = torch.linspace(-reach, reach, n, dtype=torch.float64)
    return torch.cartesian_prod(along, along).flip(1)


def shade_density(ax: "Axes", alpha: float, sigma: float) -> None:
    """The root of the density of x_t / sqrt(alpha^2 + sigma^2), as shades."""
    points = _lattice(PIXELS, SIDE)
    density = (DATA.log_density(points * math.hypot(alpha, sigma), alpha, sigma) / 2).exp().view(PIXELS, PIXELS)
    x, y = points.view(PIXELS, PIXELS, 2).unbind(2)
    ax.contourf(x, y, density, levels=SHADES, cmap="Greys", vmin=0, vmax=2.2 * float(density.max()))


def _field_panel(ax: "Axes", ratio: float) -> None:
    """Density, and -E[eps | x_t] as arrows, none longer than LONGEST."""
    alpha, sigma = 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio)
    shade_density(ax, alpha, sigma)
    points = _lattice(ARROWS, 0.92 * SIDE)
    arrows = (alpha * DATA.x0_hat(points, alpha, sigma) - points) / sigma
    arrows *= (LONGEST / arrows.norm(dim=1, keepdim=True)).clamp(max=1)
    ax.quiver(*points.T, *arrows.T, angles="xy", scale=26, width=0.005, color=plots.style(0)[0])
    ax.set_title(f"score where sigma / alpha = {ratio:g}", fontsize=9, loc="left")


def _paths_panel(ax: "Axes", name: str, drawn: Paths, true: Tensor) -> None:
    """Paths over the density of the data; of a sampler without noise, also the true ones and the error at the end."""
    shade_density(ax, 1.0, 0.0)
    error = "with noise"
    if name not in ALWAYS_RANDOM:
        ax.plot(*true.permute(2, 0, 1), color=plots.style(0)[0], linewidth=2.2, alpha=0.5)
        error = f"error {(drawn.states[-1] - true[-1]).norm(dim=1).mean():.2g}"
    ax.plot(*drawn.states.permute(2, 0, 1), "o-", color=plots.style(1)[0], linewidth=0.9, markersize=2.2)
    ax.plot(*drawn.states[-1].T, "o", color="black", markersize=3.2)
    ax.set_title(f"{name}: {drawn.calls} calls, {error}", fontsize=9, loc="left")
