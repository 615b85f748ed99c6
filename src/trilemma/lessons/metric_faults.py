"""What moves each metric: digits with one fault each, from none to all of it, and every score on the way.

    blur             each image is mixed with its mean over 5 x 5 pixels
    noise            each image is mixed with static
    missing digits   so many digits are never drawn
    one image        so many of the images are one and the same
    copies           so many of the images are training images

Density and precision fall with what makes images unlike real ones, coverage and recall with what is not drawn, the
distances rise with both. Copies move nothing but authenticity: in everything else they are perfect."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trilemma import rng
from trilemma.classifiers.bundled import FeatureNetwork, load_network
from trilemma.metrics.features import extract
from trilemma.metrics.nearest import authenticity
from trilemma.metrics.neighbours import nearest
from trilemma.metrics.self_test import N, Sets, digits, scores_of
from trilemma.pictures import plots
from trilemma.pictures.grid import grid
from trilemma.pictures.page import below, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

FAULTS = ("blur", "noise", "missing digits", "one image", "copies")
PLOTS = {  # title -> metrics, and the value that each is divided by
    "like real images": {"density": 1.0, "precision": 1.0},
    "all kinds of real images": {"coverage": 1.0, "recall": 1.0, "class_diversity": 1.0},
    "distances, over their largest": {"kernel_distance": 0.0, "frechet_distance": 0.0},
    "without real images; copies": {"inception_score": 10.0, "authenticity": 1.0},
}
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOWN = 8  # images of the strongest fault


class Fault(NamedTuple):
    """Images of the strongest fault, uint8 (SHOWN, 1, 8, 8), and each metric at each strength."""

    images: Tensor
    values: dict[str, list[float]]


def faulty(fault: str, strength: float, sets: Sets, seed: int) -> Tensor:
    """Good images with a fault of a strength in [0, 1], uint8 (N, 1, 8, 8)."""
    good, first = sets.good, torch.arange(N) < round(strength * N)
    if fault in ("blur", "noise"):
        other = F.avg_pool2d(good.float(), 5, 1, 2, count_include_pad=False)
        if fault == "noise":
            other = 256 * rng.uniform(torch.arange(N), tuple(good.shape[1:]), seed, "faults")
        return torch.lerp(good.float(), other, strength).round().clamp(0, 255).to(torch.uint8)
    if fault == "missing digits":
        kept = good[sets.labels >= round(9 * strength)]
        return kept[torch.arange(N) % len(kept)]
    other = good[:1].expand(N, -1, -1, -1) if fault == "one image" else sets.training[:N]
    return torch.where(first[:, None, None, None], other, good)


def measure(fault: str, strengths: Sequence[float], seed: int) -> Fault:
    """Every metric of images with a fault, at every strength."""
    network, sets = load_network("digits-cnn"), digits(seed)
    real, train = extract(network, sets.real), extract(network, sets.training)
    values: dict[str, list[float]] = {}
    images = sets.good
    for strength in strengths:
        images = faulty(fault, strength, sets, seed)
        for name, value in _values(network, real, train, images).items():
            values.setdefault(name, []).append(value)
    return Fault(images[:SHOWN], values)


def _values(network: FeatureNetwork, real: Tensor, train: Tensor, images: Tensor) -> dict[str, float]:
    fake = extract(network, images)
    scores = {name: spread.value for name, spread in scores_of(network, real=real, fake=fake).items()}
    return {**scores, "authenticity": authenticity(*nearest(fake, [train]), train).value}


def metric_faults(
    *,
    strengths: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=2)] = STRENGTHS,
    seed: int = 0,
) -> "Image.Image":
    """A row for each fault: images of the strongest, and the scores over its strength.

    Args:
        strengths: of a fault, from 0 (none) to 1.
    """
    faults = {fault: measure(fault, strengths, seed) for fault in FAULTS}
    largest = {
        name: max(abs(value) for one in faults.values() for value in one.values[name])
        for names in PLOTS.values()
        for name in names
    }
    return below([_row(fault, one, strengths, largest, k == 0) for k, (fault, one) in enumerate(faults.items())])


def _row(fault: str, one: Fault, strengths: Sequence[float], largest: dict[str, float], first: bool) -> "Image.Image":
    figure, axes = plots.row_of_plots(len(PLOTS), width=11.0, height=2.0)
    for ax, (title, names) in zip(axes, PLOTS.items(), strict=True):
        for k, (name, unit) in enumerate(names.items()):
            _line(ax, k, name, strengths, [value / (unit or largest[name]) for value in one.values[name]])
        plots.label_axes(ax, title if first else "", fault)
        if first:
            ax.legend(fontsize=7, frameon=False)
    return side_by_side([grid(one.images, columns=4, scale=6), plots.pixels(figure)])


def _line(ax: "Axes", k: int, name: str, x: Sequence[float], y: Sequence[float]) -> None:
    ax.plot(x, y, marker=plots.style(k)[1], markersize=4, label=name.replace("_", " "), **plots.line_style(k))
    ax.set_ylim(-0.05, max(1.15, ax.get_ylim()[1]))
