"""The triangle plot: fidelity, diversity and speed of every model, measured, with 95% intervals.

Three spokes, 120 degrees apart, from the centre (worst) to the corner (best). The place of a figure on its spoke is

    fidelity    density     Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models": about 1
    diversity   coverage    for real images; unlike precision, density takes no flat grey for real
    speed       log(s / SLOWEST) / log(FASTEST / SLOWEST),  s = images per second = 1000 / milliseconds per image

held in [0, 1]. Only places along the spokes carry meaning; the area of a triangle does not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trilemma.comparison.content import Model, Place, Places, Scores
from trilemma.comparison.labels import COVERED, Layout, Point, around, text_size
from trilemma.language import translated
from trilemma.metrics.catalogue import CATALOGUE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trilemma.metrics.receipt import Score

SLOWEST, FASTEST = 1.0, 1e6  # images per second at the centre and at the corner
DODGE, ABREAST = 0.042, 0.2  # models stand this far apart beside a spoke, all of them within ABREAST
LOW, HIGH = (-1.2, -0.82), (1.2, 1.29)  # corners of the picture
UNIT = 150.0  # points on paper of a length of 1
MARK, CAP = 0.05, 0.036  # width of a mark; half the width of an interval's ends
BESIDE = (0.065, 0.1, 0.14)  # how far beside its spoke a tick's text may stand
TICK = 8.1  # points of the letters of a tick: 8 px where a phone shows the picture 358 px wide

Reach = tuple[float, Sequence[float]]  # angle of a spoke, ends of an interval on it


@dataclass(frozen=True)
class Axis:
    """One spoke: a score, how to read it (`value`), where it stands (`place`), and its ticks."""

    name: str
    metric: str
    short: str
    angle: float
    value: Callable[[float], float]
    place: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]


def speed(ms_per_image: float) -> float:
    """Images per second; infinite for a time of zero."""
    return 1000 / ms_per_image if ms_per_image > 0 else math.inf


def speed_place(images_per_second: float) -> float:
    """Place on the speed spoke: SLOWEST -> 0, FASTEST -> 1, equal factors equal distances, held in [0, 1]."""
    if images_per_second <= SLOWEST:
        return 0.0
    return min(math.log(images_per_second / SLOWEST) / math.log(FASTEST / SLOWEST), 1.0)


def share_place(share: float) -> float:
    """Place of a density or coverage: itself, held in [0, 1]."""
    return min(max(share, 0.0), 1.0)


_shares = ((0.0, "0"), (0.25, ""), (0.5, "0.5"), (0.75, ""), (1.0, "1"))
_speeds = ((1, "1"), (10, ""), (100, "100"), (1e3, ""), (1e4, "10k"), (1e5, ""), (1e6, "1M"))
_METRICS = {metric.axis: metric.name for metric in CATALOGUE.values()}
AXES = (
    Axis("fidelity", _METRICS["fidelity"], "density", 90, float, share_place, _shares),
    Axis("diversity", _METRICS["diversity"], "coverage", 210, float, share_place, _shares),
    Axis("speed", _METRICS["speed"], "images per second", 330, speed, speed_place, _speeds),
)


def places_of(scores: Scores) -> dict[str, Place | None]:
    """Where a model stands on each axis; None where the score is missing or refused."""
    return {axis.name: _place_of(axis, scores.get(axis.metric)) for axis in AXES}


def _place_of(axis: Axis, score: "Score | None") -> Place | None:
    if score is None or score.value is None or not math.isfinite(axis.value(score.value)):
        return None
    value = axis.value(score.value)
    ends = sorted(axis.value(end) for end in score.interval) if score.interval else None
    ends = ends if ends and all(map(math.isfinite, ends)) else None
    return Place(value, ends, axis.place(value), [axis.place(end) for end in ends] if ends else None)


def point(angle: float, place: float, aside: float = 0.0) -> tuple[float, float]:
    """Coordinates of a place on a spoke, moved `aside` to the left of the outward direction.

    >>> x, y = point(90, 0.5, 0.1); round(x, 9), round(y, 9)
    (-0.1, 0.5)
    """
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return place * cos - aside * sin, place * sin + aside * cos


def _aside(k: int, count: int) -> float:
    """How far the k-th of `count` models stands beside its spoke, so that it does not hide the others."""
    return min(DODGE, ABREAST / count) * (k - (count - 1) / 2)


def _xy(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(zip(*points, strict=True))


def draw(models: Sequence[Model], only: str | None = None) -> "Figure":
    """The plot. With `only`, that model stands out, the others are grey, and there are no names: a small picture."""
    from matplotlib.figure import Figure

    width, height = ((high - low) * UNIT / 72 for low, high in zip(LOW, HIGH, strict=True))
    figure = Figure(figsize=(2.4, 2.1) if only else (width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_xlim(LOW[0], HIGH[0])
    ax.set_ylim(LOW[1], HIGH[1])
    layout = Layout(LOW, HIGH)
    _spokes(ax, layout, small=only is not None)
    for k, model in enumerate(models):
        quiet = only is not None and only != model.name
        _model(ax, layout, model.place, k, _aside(k, len(models)), quiet=quiet, small=only is not None)
    if only is None:
        _ticks(ax, layout)
        _names(ax, layout, models)
    return figure


def _spokes(ax: "Axes", layout: Layout, small: bool) -> None:
    """The rim, the spokes, and their names."""
    from trilemma.pictures.plots import FAINT, INK, MUTED, SOFT

    corners = [point(axis.angle, 1) for axis in AXES]
    ax.fill(*_xy(corners), facecolor=SOFT, edgecolor=FAINT, linewidth=1.2, zorder=1)
    for axis, (x, y) in zip(AXES, corners, strict=True):
        ax.plot(*_xy([(0, 0), (x, y)]), color=FAINT, linewidth=1.2, zorder=1)
        step = 1 if y > 0 else -1
        if small:
            ax.text(x, y + 0.11 * step, translated(axis.name), ha="center", va="center", color=MUTED, fontsize=7)
            continue
        first, second = (0.21, 0.105) if y > 0 else (0.14, 0.245)
        _text(ax, layout, (x, y + first * step), translated(axis.name.capitalize()), 11.5, color=INK, fontweight="bold")
        _text(ax, layout, (x, y + second * step), translated(axis.short), 8.5, color=MUTED)


def _text(ax: "Axes", layout: Layout, centre: Point, text: str, points: float, **options: Any) -> None:
    """A text that no later text covers."""
    ax.text(*centre, text, ha="center", va="center", fontsize=points, parse_math=False, zorder=6, **options)
    layout.block(centre, *text_size(text, points, UNIT))


def _ticks(ax: "Axes", layout: Layout) -> None:
    """Ticks and their texts: over the lines, on the side of the spoke with fewer; left out where a mark stands."""
    from trilemma.pictures.plots import MUTED, SOFT

    for axis in AXES:
        for value, text in axis.ticks[1:]:
            tick = axis.place(value)
            ax.plot(*_xy([point(axis.angle, tick, end) for end in (-0.012, 0.012)]), color=MUTED, linewidth=0.8)
            sides = np.array([point(axis.angle, tick, sign * aside) for aside in BESIDE for sign in (1, -1)])
            k, cost = layout.best(text_size(text, TICK, UNIT), np.array([point(axis.angle, tick)] * len(sides)), sides)
            if text and cost < COVERED:
                patch = {"boxstyle": "square,pad=0.1", "facecolor": SOFT, "edgecolor": "none"}
                _text(ax, layout, (sides[k][0], sides[k][1]), text, TICK, color=MUTED, bbox=patch)


def _model(ax: "Axes", layout: Layout, places: Places, k: int, aside: float, *, quiet: bool, small: bool) -> None:
    from trilemma.pictures.plots import FAINT, PAPER, style

    colour, marker, dashes = style(k)
    colour, layer = (FAINT, 2) if quiet else (colour, 3 + k * 0.01)
    spokes = [(axis.angle, place) for axis in AXES if (place := places.get(axis.name))]
    dots = [point(angle, p.place, aside) for angle, p in spokes]
    if not dots:
        return
    ends = dots if len(dots) < 3 else [*dots, dots[0]]
    ax.plot(*_xy(ends), color=colour, linestyle="-" if quiet else dashes, linewidth=1.0 if small else 1.5, zorder=layer)
    layout.line(ends)
    reach = [(angle, p.reach) for angle, p in spokes if p.reach]
    if not quiet:
        _band(ax, reach, aside, colour)
        _whiskers(ax, layout, reach, aside, colour, layer + 1, cap=0 if small else CAP)
    size = 14 if small else 30
    ax.scatter(*_xy(dots), s=size, marker=marker, color=colour, edgecolors=PAPER, linewidths=0.8, zorder=layer + 2)
    for dot in dots:
        layout.block(dot, MARK, MARK)


def _whiskers(
    ax: "Axes", layout: Layout, reach: Sequence[Reach], aside: float, colour: str, layer: float, *, cap: float
) -> None:
    """Intervals with ends that are wider than a mark, so that one narrower than its mark is seen."""
    for angle, (low, high) in reach:
        whisker = [point(angle, low, aside), point(angle, high, aside)]
        ax.plot(*_xy(whisker), color=colour, linewidth=2.2, solid_capstyle="butt", alpha=0.75, zorder=layer)
        for end in (low, high):
            across = [point(angle, end, aside - cap), point(angle, end, aside + cap)]
            ax.plot(*_xy(across), color=colour, linewidth=1.1, zorder=layer)
        layout.line(whisker, 2 * CAP)


def _band(ax: "Axes", reach: Sequence[Reach], aside: float, colour: str) -> None:
    """The ring between the lower and the upper ends of three intervals."""
    if len(reach) < len(AXES):
        return
    outer = [point(angle, ends[1], aside) for angle, ends in reach]
    inner = [point(angle, ends[0], aside) for angle, ends in reach]
    ring = [*outer, outer[0], inner[0], *inner[:0:-1], inner[0]]
    ax.fill(*_xy(ring), facecolor=colour, edgecolor="none", alpha=0.16, zorder=2.5)


def _names(ax: "Axes", layout: Layout, models: Sequence[Model]) -> None:
    """Each name once, beside one of its model's marks, with a line to it."""
    from trilemma.pictures.plots import INK, MUTED, short

    for k, model in enumerate(models):
        aside = _aside(k, len(models))
        marks = [point(axis.angle, at.place, aside) for axis in AXES if (at := model.place.get(axis.name))]
        if not marks:
            continue
        name = short(model.name)
        size = text_size(name, 9.5, UNIT)
        starts, centres = around(marks, size)
        best, _ = layout.best(size, starts, centres)
        start, centre = starts[best], centres[best]
        edge = np.clip(start, centre - np.array(size) / 2, centre + np.array(size) / 2)
        ax.plot(*_xy([start, edge]), color=MUTED, linewidth=0.7, zorder=5.5)
        layout.line([start, edge])
        _text(ax, layout, (centre[0], centre[1]), name, 9.5, color=INK)
