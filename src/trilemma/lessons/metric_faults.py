"""What moves each metric: digits with one fault each, from none to all of it, and every score on the way.

    blur             each image is mixed with its mean over 5 x 5 pixels
    noise            each image is mixed with static
    missing digits   so many digits are never drawn
    one image        so many of the images are one and the same
    copies           so many of the images are training images

Density and precision fall with what makes images unlike real ones, coverage and recall with what is not drawn, the
distances rise with both. Copies move nothing but authenticity and near copies: in everything else they are perfect.

A second figure has what is measured of a model beside the set of its images:

    other digits     so many images show the next digit instead of the one that was asked for
    blur, noise      held-out images come back with the fault above
    a cliff          the way from one digit to another, at last half of it within a twentieth of its length"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trilemma import rng
from trilemma.classifiers.bundled import FeatureNetwork, load_network
from trilemma.metrics.classification import classes_seen, f_score
from trilemma.metrics.features import extract
from trilemma.metrics.frechet import frechet_infinity
from trilemma.metrics.intervals import Estimate, Spread
from trilemma.metrics.nearest import authenticity, near_copies
from trilemma.metrics.neighbours import nearest
from trilemma.metrics.path_length import STEP, of_moves
from trilemma.metrics.reconstruction import feature_distance, frechet_of_pairs, reconstruction_values
from trilemma.metrics.self_test import N, Sets, digits, scores_of
from trilemma.pictures import plots
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import to_float
from trilemma.pictures.page import below, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

FAULTS = ("blur", "noise", "missing digits", "one image", "copies")
PLOTS = {  # title -> metrics, and the value that each is divided by
    "like real images": {"density": 1.0, "precision": 1.0},
    "all kinds of real images": {"coverage": 1.0, "recall": 1.0, "class_diversity": 1.0},
    "distances, over their largest": {"kernel_distance": 0.0, "frechet_distance": 0.0, "frechet_infinity": 0.0},
    "without real images; copies": {"inception_score": 10.0, "authenticity": 1.0, "near_copies": 1.0},
}
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOWN = 8  # images of the strongest fault
OF_MODELS = ("other digits", "blur", "noise", "a cliff")
RECONSTRUCTIONS = ("rmse", "psnr", "features", "frechet")
RELATIVE = (*(f"reconstruction_{name}" for name in RECONSTRUCTIONS), "path_length")  # shown over their largest value
STEEP = 50.0  # slope of a logistic curve
Strengths = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=2)]


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
    fake, of_real = extract(network, images), nearest(real, [train])[1]
    scores = scores_of(network, real=real, fake=fake)
    near = nearest(fake, [train])
    more = {
        "frechet_infinity": frechet_infinity(real=real, fake=fake, at_n=scores["frechet_distance"], minimum=2),
        "authenticity": authenticity(*near, train),
        "near_copies": near_copies(*near, real=of_real),
    }
    return {name: _value(score) for name, score in {**scores, **more}.items()}


def _value(score: Spread | Estimate | str) -> float:
    assert not isinstance(score, str), score
    return score.value


def metric_faults(*, strengths: Strengths = STRENGTHS, seed: int = 0) -> "Image.Image":
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


def model_faults(*, strengths: Strengths = STRENGTHS, seed: int = 0) -> "Image.Image":
    """A plot for each fault of a model: the scores over its strength.

    Args:
        strengths: of a fault, from 0 (none) to 1.
    """
    sets, network = digits(seed), load_network("digits-cnn")
    figure, axes = plots.row_of_plots(len(OF_MODELS), width=11.0, height=2.4)
    for ax, fault in zip(axes, OF_MODELS, strict=True):
        values = [values_of_model(network, fault, strength, sets, seed) for strength in strengths]
        for k, name in enumerate(values[0]):
            largest = (name in RELATIVE and max(filter(math.isfinite, (one[name] for one in values)))) or 1.0
            _line(ax, k, name.removeprefix("reconstruction_"), strengths, [one[name] / largest for one in values])
        plots.label_axes(ax, "", fault)
        ax.legend(fontsize=7, frameon=False)
    return plots.pixels(figure)


def values_of_model(network: FeatureNetwork, fault: str, strength: float, sets: Sets, seed: int) -> dict[str, float]:
    """What a fault of a strength in [0, 1] moves; without one the PSNR is infinite, and not shown."""
    good, labels = sets.good, sets.labels
    if fault == "other digits":
        other = torch.arange(N) < round(strength * N)
        asked, taken = torch.where(other, (labels + 9) % 10, labels), classes_seen(network, good)
        return {
            "class_obeyed": (taken == asked).double().mean().item(),
            "class_f_score": f_score(taken, asked, 10).value,
        }
    if fault == "a cliff":
        return {"path_length": _path_length(network, strength, sets, seed)}
    result = faulty(fault, strength, sets, seed)
    features = {"real": extract(network, good), "fake": extract(network, result)}
    values = {
        **reconstruction_values(to_float(good), to_float(result)),
        "reconstruction_features": feature_distance(**features),
        "reconstruction_frechet": frechet_of_pairs(**features, minimum=2),
    }
    return {name: math.inf if isinstance(value, str) else value.value for name, value in values.items()}


def _path_length(network: FeatureNetwork, strength: float, sets: Sets, seed: int) -> float:
    """Of ways from one digit to another that fade evenly, the more suddenly the stronger the fault."""
    start, end = to_float(sets.good), to_float(sets.real)
    t = (1 - STEP) * rng.uniform(torch.arange(N), (), seed, "a cliff").double()

    def images(at: Tensor) -> Tensor:
        share = torch.lerp(at, (STEEP * (at - 0.5)).sigmoid(), strength)
        return start.lerp(end, share.float()[:, None, None, None])

    before, after = (extract(network, images(at), rounded=False) for at in (t, t + STEP))
    return _value(of_moves(before, after, real=extract(network, sets.real)))
