"""What guidance buys and costs: precision, recall, the distance to real images, and the share of images that are of the
class asked for, over the scale (Ho & Salimans 2022, section 4: fidelity against diversity)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from trilemma.errors import UserError
from trilemma.keys import OneOrMore
from trilemma.lessons.calls import distance_of, plot_with_intervals
from trilemma.metrics.classification import class_agreement, classifier_of
from trilemma.metrics.evaluate import setup_of
from trilemma.metrics.features import extract
from trilemma.metrics.intervals import Estimate
from trilemma.metrics.neighbours import neighbour_scores
from trilemma.metrics.reals import choose_reals, real_images
from trilemma.pictures import plots
from trilemma.run.run import Run
from trilemma.types import default_label, flags

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image


class Point(NamedTuple):
    """Of a scale: distance to real images, precision, recall, and the share drawn as asked, None where no bundled
    classifier knows the classes."""

    scale: float
    distance: Estimate
    precision: Estimate
    recall: Estimate
    as_asked: Estimate | None


def guidance(
    run: Run,
    *,
    scales: OneOrMore[NonNegativeFloat] = (1.0, 1.5, 2.0, 3.0, 4.0),
    steps: PositiveInt = 10,
    n: Annotated[int, Field(ge=12)] | None = None,
    seed: int = 0,
) -> "Image.Image":
    """Scores over the guidance, and precision against recall.

    Args:
        n: images on either side; default: as many as there are, at most 2,500. Below 2,048 the distance is the kernel
            distance.
        seed: of the images.
    """
    if not flags(run.model).n_classes:
        raise UserError(f"the figure guidance is drawn from a run that draws classes; {run.path} was trained without")
    split, n = choose_reals(run.data, n)
    setup = setup_of(run.data, split, n, seed=seed)
    real = extract(setup.network, real_images(setup.data, setup.split, n, seed))
    measured_by, labels = distance_of(setup), default_label(torch.arange(n), flags(run.model).n_classes)
    points = []
    for scale in sorted(set(scales)):
        images = run.sample(n, seed=seed, guidance=scale, steps=steps)
        fake = extract(setup.network, images)
        near = neighbour_scores(real=real, fake=fake)
        try:
            as_asked = class_agreement(classifier_of(run.data), images, labels)
        except UserError:
            as_asked = None
        scores = near["precision"].estimate(), near["recall"].estimate(), as_asked
        points.append(Point(scale, measured_by.distance(fake=fake).estimate(), *scores))
    return _page(points, measured_by.name, f"{n:,} images, {setup.network.name}")


def _page(points: Sequence[Point], distance: str, measured_on: str) -> "Image.Image":
    figure, (scores, distances, pair) = plots.row_of_plots(3, width=11.0, height=3.5)
    at = [point.scale for point in points]
    for k, name in enumerate(("precision", "recall", "as_asked")):
        values = [getattr(point, name) for point in points]
        if values[0] is not None:
            _line(scores, at, values, k, {"as_asked": "drawn as asked"}.get(name, name))
    _line(distances, at, [point.distance for point in points], 3, distance)
    pair.plot([p.recall.value for p in points], [p.precision.value for p in points], marker="o", **plots.line_style(4))
    for point in points:
        where = (point.recall.value, point.precision.value)
        pair.annotate(f"{point.scale:g}", where, xytext=(4, 4), textcoords="offset points", fontsize=8)
    scores.legend(fontsize=8, frameon=False)
    plots.label_axes(scores, "scores", "guidance")
    plots.label_axes(distances, f"{distance} ({measured_on})", "guidance")
    plots.label_axes(pair, "precision against recall, by guidance", "recall", "precision")
    return plots.pixels(figure)


def _line(ax: "Axes", at: Sequence[float], values: Sequence[Estimate], k: int, name: str) -> None:
    """Values over the scale, with their intervals."""
    look = {"marker": plots.style(k)[1], "markersize": 4, "label": name, **plots.line_style(k)}
    plot_with_intervals(ax, at, values, look)
