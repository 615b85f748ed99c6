"""The values of a training as small plots: SVG made of plain lines, which a strict content policy lets through."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trilemma.healthy import (
    BETTER_THAN_LINEAR,
    BETTER_THAN_MEAN,
    HEALTHY,
    LINEAR,
    healthy_range,
    linear_of,
    mean_image_rmse_in,
    part_of,
)
from trilemma.studio.library import StudioRun
from trilemma.studio.logs import Series
from trilemma.titles import square_of, title
from trilemma.words import capital

WIDTH, HEIGHT, EDGE = 300.0, 110.0, 4.0  # units of a plot; its edge keeps the line inside
MOST_POINTS = 300
APART = ("lr", "valid_images")
T = TypeVar("T")


@dataclass(frozen=True)
class Plot:
    """A value over the images seen.

    points: of a line in a box of WIDTH x HEIGHT; low, high: the ends of its axis; healthy: what is, in English, ""
    where that is not known, with `rmse`, what it is compared with, as {rmse}; has_range: whether there is a healthy
    range; band: its top and height in the box, None if it is outside.
    """

    title: str
    points: str
    low: float
    high: float
    last: float
    images: int
    healthy: str = ""
    has_range: bool = False
    band: tuple[float, float] | None = None
    rmse: float = 0.0


@dataclass(frozen=True)
class RangeInputs:
    """What healthy ranges depend on besides the log: numbers in a code, and the error of the mean training image."""

    units: int | None = None
    mean_image_rmse: float | None = None


def plots_of(series: Series, inputs: RangeInputs | None = None) -> list[Plot]:
    """A plot for each value of a log that has two points or more, validation first; a square beside its root is one."""
    shown = [name for name in series if name not in APART and (square_of(name) not in series or "valid" in name)]
    values = {name: series[name] for name in shown if not _is_square(name, series)}
    ordered = sorted(values, key=lambda name: not name.startswith("valid_"))
    linear = {name: values[linear_of(name)][1][-1] for name in ordered if linear_of(name) in values}
    plotted = [name for name in ordered if len(values[name][1]) > 1 and not name.startswith(LINEAR)]
    return [_plot(name, *values[name], inputs or RangeInputs(), linear.get(name)) for name in plotted]


def range_inputs(run: StudioRun, output: str = "") -> RangeInputs:
    """What a run says of its healthy ranges. output: what its training printed, which is all there is until its end."""
    units, rmse = run.settings.get("latent"), run.summary.get("mean_image_rmse")
    rmse = rmse if isinstance(rmse, float) else mean_image_rmse_in(output)
    return RangeInputs(units if isinstance(units, int) else None, rmse)


def thinned(points: Sequence[T], most: int = MOST_POINTS) -> list[T]:
    """At most so many values, or pictures, evenly; the first and the last stay.

    >>> thinned([(k, k) for k in range(9)], 3)
    [(0, 0), (4, 4), (8, 8)]
    """
    if len(points) <= most:
        return list(points)
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]


def line(points: Sequence[tuple[float, float]]) -> str:
    """The points of a polyline in a box of WIDTH x HEIGHT, the least value at its foot.

    >>> line([(0.0, 1.0), (50.0, 3.0), (100.0, 2.0)])
    '4.0,106.0 150.0,4.0 296.0,55.0'
    """
    left, right = points[0][0], points[-1][0]
    low, high = min(y for _, y in points), max(y for _, y in points)
    across = (WIDTH - 2 * EDGE) / ((right - left) or 1.0)
    up = (HEIGHT - 2 * EDGE) / ((high - low) or 1.0)
    return " ".join(f"{EDGE + (x - left) * across:.1f},{HEIGHT - EDGE - (y - low) * up:.1f}" for x, y in points)


def _is_square(name: str, names: Iterable[str]) -> bool:
    """Whether the root of a value is there, too, which is easier to read."""
    return any(square_of(other) == name for other in names)


def band(healthy: tuple[float, float], low: float, high: float) -> tuple[float, float] | None:
    """Top and height of a healthy range in a box of HEIGHT whose axis goes from low to high; None if it is outside.

    >>> band((2.0, 9.0), 1.0, 3.0), band((4.0, 9.0), 1.0, 3.0)
    ((0.0, 55.0), None)
    """
    if healthy[1] < low or healthy[0] > high:
        return None
    up = (HEIGHT - 2 * EDGE) / ((high - low) or 1.0)
    bottom = HEIGHT if healthy[0] <= low else HEIGHT - EDGE - (healthy[0] - low) * up
    top = 0.0 if healthy[1] >= high else HEIGHT - EDGE - (healthy[1] - low) * up
    return round(top, 1), round(bottom - top, 1)


def _plot(
    name: str, images: Sequence[float], values: Sequence[float], inputs: RangeInputs, linear_rmse: float | None
) -> Plot:
    low, high = min(values), max(values)
    words = title(name.partition("/")[2] or name.removeprefix("valid_"))
    text = f"{words}, validation" if name.startswith("valid_") else words
    mean_rmse = inputs.mean_image_rmse
    healthy = healthy_range(name, values, units=inputs.units, mean_image_rmse=mean_rmse, linear_rmse=linear_rmse)
    about = HEALTHY.get(part_of(name), "")
    if healthy and (linear_rmse is not None or name == "valid_rmse"):
        about = BETTER_THAN_MEAN if linear_rmse is None else BETTER_THAN_LINEAR
    shaded = None if healthy is None else band(healthy, low, high)
    points = line([*zip(thinned(images), thinned(values), strict=True)])
    place = (points, low, high, values[-1], int(images[-1]))
    return Plot(capital(text), *place, about, healthy is not None, shaded, linear_rmse or mean_rmse or 0.0)
