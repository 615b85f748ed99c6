"""Whether each metric moves as it must on images whose faults are known: `trilemma doctor metrics`.

On the 8x8 digits, which need no network: some are the real images, others the training images, and others are drawn by
a model that is as good as can be. Beside that, models with one fault each: the real images themselves, one image over
and over, noise, three digits that are never drawn, blur, copies of training images. A fault must show as a difference
from the good model whose 95% interval leaves out 0. The real images themselves have the least distance of all, and a
density of (k + 1) / k, as each ball holds its own image, too. What is measured of a model beside its images has faults
of its own: another class is drawn than was asked for, images come back blurred or as noise, the way between two codes
has a cliff; there the intervals of both values must not meet. Authenticity and near copies have fixed limits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma import rng
from trilemma.classifiers.bundled import FeatureNetwork, load_network
from trilemma.data import load_data
from trilemma.metrics.catalogue import CATALOGUE, Needs
from trilemma.metrics.classification import class_agreement, class_diversity, classes_seen, f_score
from trilemma.metrics.features import extract
from trilemma.metrics.frechet import frechet_distance, frechet_infinity
from trilemma.metrics.inception import inception_score
from trilemma.metrics.intervals import Estimate, Spread, difference
from trilemma.metrics.kernel import kernel_distance
from trilemma.metrics.nearest import authenticity, closeness, copies, near_copies
from trilemma.metrics.neighbours import K_DENSITY, nearest, neighbour_scores
from trilemma.metrics.path_length import STEP, of_moves
from trilemma.metrics.reconstruction import feature_distance, reconstruction_values
from trilemma.pictures.levels import to_float

N = 500  # images of each kind
NEVER = (3, 5, 8)  # digits that are never drawn
CLASSES = 10
CLIFF = 50.0  # of a logistic curve from one code to the other: nine tenths of it lie in 12% of the way
LOWER, HIGHER = "lower", "higher"
DIRECTIONS: dict[str, dict[str, str]] = {  # metric -> fault -> where it moves
    "frechet_distance": dict.fromkeys(("one image", "noise", "missing classes", "blur"), HIGHER),
    "frechet_infinity": dict.fromkeys(("one image", "noise", "missing classes", "blur"), HIGHER),
    "kernel_distance": dict.fromkeys(("one image", "noise", "missing classes", "blur"), HIGHER),
    "precision": {**dict.fromkeys(("noise", "blur"), LOWER), "real images": HIGHER},
    "recall": {**dict.fromkeys(("one image", "noise", "missing classes", "blur"), LOWER), "real images": HIGHER},
    "density": dict.fromkeys(("noise", "blur"), LOWER),
    "coverage": {**dict.fromkeys(("one image", "noise", "missing classes", "blur"), LOWER), "real images": HIGHER},
    "inception_score": dict.fromkeys(("one image", "noise", "missing classes", "blur"), LOWER),
    "class_diversity": dict.fromkeys(("one image", "missing classes", "blur"), LOWER),
}
UNTESTED: dict[Needs, str] = {  # what metrics need that are not tested here, and why
    "sampler": "a time or a count, which no image tells",
    "likelihood": "a bound of a model, which no image tells",
    "classifier": "takes minutes: `trilemma augment` trains classifiers",
}


class Verdict(NamedTuple):
    """One metric on one fault: whether it moved as it must, and what was measured, in words."""

    metric: str
    fault: str
    right: bool
    values: str


class Sets(NamedTuple):
    """Digits, uint8 (N, 1, 8, 8) each: to measure by, to train on, and as a model draws them that is as good as can be,
    with their labels (N,)."""

    real: Tensor
    training: Tensor
    good: Tensor
    labels: Tensor


def verdicts(seed: int = 0) -> Iterator[Verdict]:
    """Every metric on every fault that it must show."""
    network, sets = load_network("digits-cnn"), digits(seed)
    real, training, good, labels = sets
    faulty = faults(sets, seed)
    of_real = extract(network, real)
    scores = {name: _scores(network, of_real, images) for name, images in faulty.items()}
    base = _scores(network, of_real, good)
    for metric, directions in DIRECTIONS.items():
        for fault, direction in directions.items():
            yield _moved(metric, fault, direction, scores[fault][metric], base[metric])
    yield from _identical(scores.pop("real images"), [base, *scores.values()])
    yield from _copies(network, training, {"copies": faulty["copies"], "new images": good}, real)
    yield from _asked(network, good, labels)
    yield from _reconstructed(network, good, {name: faulty[name] for name in ("blur", "noise")})
    yield _path(network, good, real, of_real, seed)


def faults(sets: Sets, seed: int) -> Mapping[str, Tensor]:
    """Images with one fault each, uint8 (N, 1, 8, 8)."""
    real, training, good, labels = sets
    kept = good[(labels[:, None] != torch.tensor(NEVER)).all(1)]
    static = (256 * rng.uniform(torch.arange(N), good.shape[1:], seed, "self-test")).floor().to(torch.uint8)
    blurred = F.avg_pool2d(good.float(), 3, 1, 1, count_include_pad=False)
    return {
        "real images": real,
        "one image": good[:1].expand(N, -1, -1, -1),
        "noise": static,
        "missing classes": kept[torch.arange(N) % len(kept)],
        "blur": blurred.round().to(torch.uint8),
        "copies": training[:N],
    }


def digits(seed: int) -> Sets:
    """N digits of each kind."""
    data = load_data("digits")
    images = torch.cat([split.images for split in data.splits.values()])
    labels = torch.cat([split.labels for split in data.splits.values() if split.labels is not None])
    order = rng.permutation(len(images), seed, "self-test")
    real, training, good = order[: 3 * N].chunk(3)
    return Sets(images[real], images[training], images[good], labels[good])


def scores_of(network: FeatureNetwork, *, real: Tensor, fake: Tensor) -> dict[str, Spread]:
    """Every score of two sets of features (N, D)."""
    logits, of_real = (network.classify(features) for features in (fake, real))
    diversity = class_diversity(real=real, fake=fake, real_class=of_real.argmax(1), fake_class=logits.argmax(1))
    assert isinstance(diversity, Spread)
    return {
        "frechet_distance": frechet_distance(real=real, fake=fake, minimum=2),
        "kernel_distance": kernel_distance(real=real, fake=fake),
        "inception_score": inception_score(logits),
        "class_diversity": diversity,
        **neighbour_scores(real=real, fake=fake),
    }


def _scores(network: FeatureNetwork, real: Tensor, images: Tensor) -> dict[str, Spread]:
    """Every score of images by features (N, D) of real ones, with the extrapolated distance."""
    fake = extract(network, images)
    scores = scores_of(network, real=real, fake=fake)
    infinity = frechet_infinity(real=real, fake=fake, at_n=scores["frechet_distance"], minimum=2)
    assert isinstance(infinity, Spread)
    return {**scores, "frechet_infinity": infinity}


def _moved(metric: str, fault: str, direction: str, of_fault: Spread, base: Spread) -> Verdict:
    low, high = difference(of_fault, base).interval
    right = low > 0 if direction == HIGHER else high < 0
    return Verdict(metric, fault, right, f"{_words([of_fault.value])}, {_words([base.value])} of new images")


def _identical(same: Mapping[str, Spread], others: Sequence[Mapping[str, Spread]]) -> Iterator[Verdict]:
    """Whether the real images themselves have a Frechet distance of 0, up to rounding, the least kernel distance
    (unbiased at new images, it is below 0 there), and the density of k + 1 images in each ball."""
    for name, most in (("frechet_distance", 1e-6), ("kernel_distance", 1.0)):
        value, least = same[name].value, min(scores[name].value for scores in others)
        right = value < most * least
        yield Verdict(name, "real images", right, f"{_words([value])}, of others at least {_words([least])}")
    density, expected = same["density"].value, (K_DENSITY + 1) / K_DENSITY
    right = abs(density - expected) < 1e-9
    yield Verdict("density", "real images", right, f"{_words([density])}, expected {_words([expected])}")


def _asked(network: FeatureNetwork, good: Tensor, labels: Tensor) -> Iterator[Verdict]:
    """Whether images of the next class are told from those of the class that was asked for."""
    taken, next_class = classes_seen(network, good), (labels + 1) % CLASSES
    for name, values in (
        ("class_obeyed", [class_agreement(network, good, asked) for asked in (labels, next_class)]),
        ("class_f_score", [f_score(taken, asked, CLASSES) for asked in (labels, next_class)]),
    ):
        yield _better(name, "other classes", *values)


def _reconstructed(network: FeatureNetwork, good: Tensor, results: Mapping[str, Tensor]) -> Iterator[Verdict]:
    """Whether blurred images are nearer to what was to come back than noise is."""
    image, features = to_float(good), extract(network, good)

    def values(result: Tensor) -> dict[str, Estimate | str]:
        fake = extract(network, result)
        return {
            **reconstruction_values(image, to_float(result)),
            "reconstruction_features": feature_distance(real=features, fake=fake),
            "reconstruction_frechet": frechet_distance(real=features, fake=fake, minimum=2).estimate(),
        }

    blurred, noise = map(values, results.values())
    for name, value in blurred.items():
        yield _better(name, ", ".join(results), value, noise[name])


def _path(network: FeatureNetwork, one: Tensor, other: Tensor, of_real: Tensor, seed: int) -> Verdict:
    """Whether a way from one image to another with a cliff is longer than an even one."""
    start, end = to_float(one), to_float(other)
    t = (1 - STEP) * rng.uniform(torch.arange(len(one)), (), seed, "self-test").double()

    def length(share: Callable[[Tensor], Tensor]) -> Estimate | str:
        ways = [start.lerp(end, share(at).float()[:, None, None, None]) for at in (t, t + STEP)]
        before, after = (extract(network, way, rounded=False) for way in ways)
        return of_moves(before, after, real=of_real)

    return _better("path_length", "a cliff", length(lambda at: at), length(lambda at: (CLIFF * (at - 0.5)).sigmoid()))


def _better(metric: str, fault: str, good: Estimate | str, faulty: Estimate | str) -> Verdict:
    """Whether a metric is better without a fault than with it, by intervals that do not meet."""
    assert isinstance(good, Estimate) and isinstance(faulty, Estimate)
    above, below = (good, faulty) if CATALOGUE[metric].better == HIGHER else (faulty, good)
    right = above.interval[0] > below.interval[1]
    return Verdict(metric, fault, right, f"{_words([faulty.value])}, {_words([good.value])} without")


def _copies(network: FeatureNetwork, training: Tensor, kinds: Mapping[str, Tensor], real: Tensor) -> Iterator[Verdict]:
    """Whether copies of training images are told from images that are as near to them as new real ones."""
    train = extract(network, training)
    of_real = nearest(extract(network, real), [train])[1]
    for name, images in kinds.items():
        index, distance = nearest(extract(network, images), [train])
        parts = closeness(index, distance, real=of_real)
        p = min(part.p for part in parts)
        yield Verdict("copies of training images", name, copies(parts) == (name == "copies"), f"p = {p:.2g}")
        share = authenticity(index, distance, train).value
        yield Verdict("authenticity", name, share < 0.05 if name == "copies" else share > 0.2, f"{share:.3g}")
        near = near_copies(index, distance, real=of_real)
        assert isinstance(near, Estimate)
        right = near.value > 0.5 if name == "copies" else near.value < 0.1
        yield Verdict("near_copies", name, right, _words([near.value]))


def _words(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
