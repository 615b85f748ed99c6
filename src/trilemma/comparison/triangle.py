"""The triangle plot: fidelity, diversity and speed of every model, measured, with 95% intervals.

Three spokes, 120 degrees apart, from the centre (worst) to the corner (best). The place of a figure on its spoke is

    fidelity    precision                       Kynkaanniemi et al. 2019, "Improved precision and recall metric for
    diversity   recall                          assessing generative models": shares, so already in [0, 1]
    speed       log(s / SLOWEST) / log(FASTEST / SLOWEST),  s = images per second = 1000 / milliseconds per image

held in [0, 1]. Only places along the spokes carry meaning; the area of a triangle does not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SLOWEST, FASTEST = 1.0, 1e6  # images per second at the centre and at the corner
DODGE, ABREAST = 0.022, 0.14  # models stand this far apart beside a spoke, all of them within ABREAST
GAP = 0.085  # smallest distance between two labels on the upright spoke; twice that on the slanted ones
LETTER = 0.036  # width of a letter of a name, with some room
TICK_SIDE = {"fidelity": 1, "diversity": 1, "speed": -1}  # 1: left of the outward direction; names stand opposite


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
    """Place of a precision or recall: itself, held in [0, 1]."""
    return min(max(share, 0.0), 1.0)


_shares = ((0.0, ""), (0.25, ""), (0.5, "0.5"), (0.75, ""), (1.0, "1"))
_speeds = ((1, ""), (10, "10"), (100, "100"), (1e3, "1k"), (1e4, "10k"), (1e5, "100k"), (1e6, "1M"))
AXES = (
    Axis("fidelity", "precision", "precision", 90, float, share_place, _shares),
    Axis("diversity", "recall", "recall", 210, float, share_place, _shares),
    Axis("speed", "ms_per_image", "images per second", 330, speed, speed_place, _speeds),
)


def placed(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """Where a model stands on each axis.

    Args:
        scores: metric name -> score as a plain dict.
    Returns:
        axis -> {"value", "interval", "place", "reach"}: value and interval in the axis's own unit, low end first; their
        places in [0, 1] (`reach` is the interval's). None where the score is missing or refused.
    """
    return {axis.name: _placed(axis, scores.get(axis.metric)) for axis in AXES}


def _placed(axis: Axis, score: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if score is None or score["value"] is None or not math.isfinite(axis.value(score["value"])):
        return None
    value, interval = axis.value(score["value"]), score["interval"]
    ends = sorted(axis.value(end) for end in interval) if interval else None
    ends = ends if ends and all(map(math.isfinite, ends)) else None
    reach = [axis.place(end) for end in ends] if ends else None
    return {"value": value, "interval": ends, "place": axis.place(value), "reach": reach}


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


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Places for labels: as near to `places` as can be, in the same order, at least `gap` apart.

    Neighbours that are too close form a block with equal gaps whose mean stays where it was (least squares).
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    blocks: list[list[float]] = []  # [sum of (place - gap * rank), count]
    for rank, i in enumerate(order):
        blocks.append([places[i] - gap * rank, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    starts = [total / count for total, count in blocks for _ in range(int(count))]
    found = [0.0] * len(places)
    for rank, i in enumerate(order):
        found[i] = starts[rank] + gap * rank
    return found


def draw(models: Sequence[Mapping[str, Any]], only: str | None = None) -> "Figure":
    """The plot. With `only`, that model stands out, the others are grey, and there are no names: a small picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4, 2.1) if only else (5.0, 4.4))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_xlim(-1.2, 1.2)
    ax.set_ylim(-0.82, 1.29)
    _spokes(ax, small=only is not None)
    for k, model in enumerate(models):
        _model(
            ax,
            model["place"],
            k,
            _aside(k, len(models)),
            quiet=only is not None and only != model["name"],
            small=only is not None,
        )
    if only is None:
        _names(ax, models)
    return figure


def _spokes(ax: "Axes", small: bool) -> None:
    """The rim, the spokes with their ticks, and their names."""
    from trilemma.comparison.figures import FAINT, INK, MUTED, SOFT

    corners = [point(axis.angle, 1) for axis in AXES]
    ax.fill(*_xy(corners), facecolor=SOFT, edgecolor=FAINT, linewidth=1.2, zorder=1)
    for axis in AXES:
        ax.plot(*_xy([(0, 0), point(axis.angle, 1)]), color=FAINT, linewidth=1.2, zorder=1)
        x, y = point(axis.angle, 1)
        vertical, step = ("bottom", 1) if y > 0 else ("top", -1)
        if small:
            ax.text(x, y + 0.07 * step, axis.name, ha="center", va=vertical, color=MUTED, fontsize=7)
            continue
        first, second = (0.155, 0.07) if y > 0 else (0.08, 0.19)
        ax.text(x, y + first * step, axis.name.capitalize(), ha="center", va=vertical, color=INK, fontsize=11.5,
                fontweight="bold")  # fmt: skip
        ax.text(x, y + second * step, axis.short, ha="center", va=vertical, color=MUTED, fontsize=8.5)
        for value, text in axis.ticks:
            tick, beside = axis.place(value), 0.065 * TICK_SIDE[axis.name]
            ax.plot(*_xy([point(axis.angle, tick, -0.012), point(axis.angle, tick, 0.012)]), color=MUTED, linewidth=0.8)
            ax.text(
                *point(axis.angle, tick, beside), text, ha="center", va="center", color=MUTED, fontsize=7.5, zorder=5
            )


def _model(ax: "Axes", places: Mapping[str, Any], k: int, aside: float, *, quiet: bool, small: bool) -> None:
    from trilemma.comparison.figures import FAINT, PAPER, look

    colour, marker, dashes = look(k)
    colour, layer = (FAINT, 2) if quiet else (colour, 3 + k * 0.01)
    shown = [(axis.angle, places[axis.name]) for axis in AXES if places[axis.name]]
    dots = [point(angle, p["place"], aside) for angle, p in shown]
    if not dots:
        return
    ends = dots if len(dots) < 3 else [*dots, dots[0]]
    ax.plot(*_xy(ends), color=colour, linestyle="-" if quiet else dashes, linewidth=1.0 if small else 1.5, zorder=layer)
    if not quiet and len(shown) == 3 and all(p["reach"] for _, p in shown):
        _band(ax, [(angle, p["reach"]) for angle, p in shown], aside, colour)
    for angle, p in shown:
        if p["reach"] and not quiet:
            whisker = [point(angle, end, aside) for end in p["reach"]]
            ax.plot(*_xy(whisker), color=colour, linewidth=2.2, solid_capstyle="butt", alpha=0.75, zorder=layer + 1)
    ax.scatter(
        *_xy(dots),
        s=14 if small else 34,
        marker=marker,
        color=colour,
        edgecolors=PAPER,
        linewidths=0.8,
        zorder=layer + 2,
    )


def _band(ax: "Axes", reach: Sequence[tuple[float, Sequence[float]]], aside: float, colour: str) -> None:
    """The ring between the lower and the upper ends of the intervals."""
    outer = [point(angle, ends[1], aside) for angle, ends in reach]
    inner = [point(angle, ends[0], aside) for angle, ends in reach]
    ring = [*outer, outer[0], inner[0], *inner[:0:-1], inner[0]]
    ax.fill(*_xy(ring), facecolor=colour, edgecolor="none", alpha=0.16, zorder=2.5)


def _names(ax: "Axes", models: Sequence[Mapping[str, Any]]) -> None:
    """Each name once, at the spoke where its model stands farthest from the others."""
    from trilemma.comparison.figures import MUTED, short

    homes: dict[str, list[tuple[int, float]]] = {}
    for k, model in enumerate(models):
        if home := _home(models, k):
            homes.setdefault(home, []).append((k, model["place"][home]["place"]))
    for axis in AXES:
        here = homes.get(axis.name, [])
        slanted = axis.angle != 90
        heights = spread([place for _, place in here], min(GAP, 1 / max(len(here), 1)) * (2 if slanted else 1))
        for (k, place), height in zip(here, heights, strict=True):
            side = -TICK_SIDE[axis.name]
            start, end = point(axis.angle, place, _aside(k, len(models))), point(axis.angle, height, side * 0.17)
            ax.plot(*_xy([start, end]), color=MUTED, linewidth=0.6, zorder=5)
            _name(ax, short(models[k]["name"]), *end, left=axis.angle == 210)


def _name(ax: "Axes", name: str, x: float, y: float, *, left: bool) -> None:
    """A name to the right or left of a place, moved back into the picture where it would leave it."""
    from trilemma.comparison.figures import INK

    low, high = ax.get_xlim()
    x = max(x, low + LETTER * len(name)) if left else min(x, high - LETTER * len(name))
    align = "right" if left else "left"
    ax.text(x, y, name, ha=align, va="center", color=INK, fontsize=9.5, zorder=6, parse_math=False)


def _home(models: Sequence[Mapping[str, Any]], k: int) -> str | None:
    def room(axis: str) -> float:
        others = [m["place"][axis]["place"] for i, m in enumerate(models) if i != k and m["place"][axis]]
        return min((abs(models[k]["place"][axis]["place"] - other) for other in others), default=1.0)

    mine = [axis.name for axis in AXES if models[k]["place"][axis.name]]
    return max(mine, key=room) if mine else None
