"""Controls: what the scores are for images whose quality is known, by the same real images, numbers and features.

    real        real images that neither a model nor the measurement has seen: what a perfect model would get
    training    training images: what a model that copies them would get
    mean        the mean training image, every time
    static      uniform noise in every pixel
    one         one training image, every time: what a model that has collapsed would get

A model has learned nothing yet where its samples are as bad as the mean image or static in kernel distance or coverage,
or cover as little as one image does: not significantly better than the control, and nearer to it than to what real
images get. Few images condemn no good model: a score whose interval is wider than what lies between the control and
real images tells nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma import rng
from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.data.selection import ALL, part_named
from trilemma.errors import UserError
from trilemma.metrics import neighbours
from trilemma.metrics.feature_cache import cached_features
from trilemma.metrics.intervals import Estimate, Spread, difference
from trilemma.metrics.quality import Real, Setup, classifier_for, quality, quality_scores, real_of
from trilemma.metrics.reals import choice, order, real_images
from trilemma.metrics.receipt import Score

TITLES = {
    "real": "Held-out images",
    "training": "Training images (a copier)",
    "mean": "Mean image",
    "static": "Static",
    "one": "One image, repeated",
}
IN_WORDS = {"mean": "the mean image", "static": "static", "one": "one image, repeated"}
NOTHING = {  # what a model has to be better than, and in which scores, each with the sign of "better"
    "mean": {"kernel_distance": -1, "coverage": 1},
    "static": {"kernel_distance": -1, "coverage": 1},
    "one": {"coverage": 1},
}
REAL = {"kernel_distance": 0.0, "coverage": 1 - 2.0**-neighbours.K_DENSITY}  # of real images, on average
WORDS = {"kernel_distance": "are no nearer the real images than", "coverage": "cover no more of the real images than"}
FEWEST = 20  # images a side that tell whether a model has learned anything
MEAN_IMAGES = 10_000  # the mean is taken over, at most
STATIC_ROWS = 500  # of noise drawn at a time
DIGITS = 12  # of a hash, in a message


@dataclass(frozen=True)
class Control:
    """The scores of one control; `spreads` by the name of the score, without those that are refused."""

    name: str
    title: str
    scores: tuple[Score, ...]
    spreads: dict[str, Spread]


@dataclass(frozen=True)
class Reference:
    """What every model of a comparison is measured by: real images by their features, the controls, and a classifier of
    the classes, or why there is none."""

    setup: Setup
    real: Real
    controls: tuple[Control, ...]
    classifier: FeatureNetwork | str


def reference_of(setup: Setup, earlier: Reference | None = None) -> Reference:
    """The real images' features and the controls for which there are enough images; an earlier one by the same images.

    Raises:
        UserError: the earlier one is by other real images, or by other features.
    """
    if earlier is not None:
        _check_alike(earlier.setup, setup)
        return earlier
    images = real_images(setup.data, setup.split, setup.n, setup.seed)
    real = real_of(cached_features(setup.network, images, setup.team), setup.team)
    controls = tuple(_control(setup, real, name, x) for name, x in _images(setup))
    return Reference(setup, real, controls, classifier_for(setup))


def learned_nothing(spreads: Mapping[str, Spread], controls: tuple[Control, ...]) -> str | None:
    """Which of the mean image, static and one image is as good as a model's samples, in a sentence; None if none is."""
    if "coverage" not in spreads or spreads["coverage"].n < FEWEST:
        return None
    for control in controls:
        for name, sign in NOTHING.get(control.name, {}).items():
            if _as_bad(spreads[name], control.spreads[name], REAL[name], sign):
                return nothing_text(control.name, name)
    return None


def nothing_text(control: str, score: str) -> str:
    """That a model is no better than a control in a score."""
    return f"learned nothing yet: its samples {WORDS[score]} {IN_WORDS[control]}"


def _as_bad(model: Spread, control: Spread, real: float, sign: int) -> bool:
    """Whether a score is not shown to be better than the control's, and nearer to it than to that of real images, which
    the images are enough to tell apart."""
    low, high = difference(model, control).interval
    gap, width = sign * (real - control.value), high - low
    better = (low if sign > 0 else -high) > 0
    return not better and gap > width and sign * (model.value - control.value) < gap / 2


def spreads_of(values: Mapping[str, Spread | Estimate | str]) -> dict[str, Spread]:
    """The scores of which it is known how they scatter."""
    return {name: value for name, value in values.items() if isinstance(value, Spread)}


def _control(setup: Setup, real: Real, name: str, images: Tensor) -> Control:
    features = cached_features(setup.network, images, setup.team)
    values = quality(real=real, fake=features.expand(setup.n, -1))
    resize = setup.network.resize_rule(setup.data.shape)
    return Control(name, TITLES[name], tuple(quality_scores(setup, values, resize)), spreads_of(values))


def _images(setup: Setup) -> Iterator[tuple[str, Tensor]]:
    """The images of each control, uint8 (n, C, H, W); a single one where they are all alike."""
    data, n, seed = setup.data, setup.n, setup.seed
    part = part_named(data, setup.split)
    if len(part) >= 2 * n:
        yield "real", part.take(order(len(part), seed)[n : 2 * n]).images
    elif other := next((name for name in _others(setup) if len(data.splits[name]) >= n), None):
        yield "real", real_images(data, other, n, seed)
    if setup.own and setup.split != "train" and len(data.train) >= n:
        yield "training", real_images(data, "train", n, seed)
    first = data.train.images[choice(len(data.train), MEAN_IMAGES, seed)]
    total = sum((part.sum(0, dtype=torch.int64) for part in first.split(STATIC_ROWS)), start=torch.zeros(data.shape))
    yield "mean", (total / len(first)).round().to(torch.uint8)[None]
    yield "static", torch.cat([_static(ids, data.shape, seed) for ids in torch.arange(n).split(STATIC_ROWS)])
    yield "one", first[:1]


def _static(ids: Tensor, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Images `ids` of noise, each level as likely as any other: uint8."""
    return (256 * rng.uniform(ids, shape, seed, "static")).floor().to(torch.uint8)


def _others(setup: Setup) -> list[str]:
    """Splits of which neither a model nor the measurement has seen an image."""
    if setup.split == ALL:
        return []
    return [name for name in setup.data.splits if name != setup.split and not (setup.own and name == "train")]


def _check_alike(earlier: Setup, setup: Setup) -> None:
    """Raises UserError where a reference of one setup is no reference of the other."""
    made, now = _key(earlier), _key(setup)
    if differing := [key for key in made if made[key] != now[key]]:
        its, own = (", ".join(f"{key}={key_of[key]}" for key in differing) for key_of in (made, now))
        raise UserError(
            f"the reference was made with {its}, and this is with {own}; give the same, or leave reference= out"
        )


def _key(setup: Setup) -> dict[str, str]:
    """What makes two references the same, as it is given."""
    network, data = setup.network, setup.data
    return {
        "against": f"{data.name} (fingerprint {data.fingerprint[:DIGITS]})",
        "size": "x".join(map(str, data.shape[1:])),
        "channels": str(data.shape[0]),
        "split": setup.split,
        "own": str(setup.own),
        "features": f"{network.name} (weights {network.sha256[:DIGITS]})" if network.sha256 else network.name,
        "n": str(setup.n),
        "seed": str(setup.seed),
    }
