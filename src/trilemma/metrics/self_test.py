"""Whether each metric moves as it must on images whose faults are known: `trilemma doctor metrics`.

On the 8x8 digits, which need no network: some are the real images, others the training images, and others are drawn by
a model that is as good as can be. Beside that, models with one fault each: the real images themselves, one image over
and over, noise, three digits that are never drawn, blur, copies of training images. A fault must show as a difference
from the good model whose 95% interval leaves out 0.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma import rng
from trilemma.classifiers.bundled import FeatureNetwork, load_network
from trilemma.data import load_data
from trilemma.metrics.classification import class_diversity
from trilemma.metrics.features import extract
from trilemma.metrics.frechet import frechet_distance
from trilemma.metrics.inception import inception_score
from trilemma.metrics.intervals import Spread, difference
from trilemma.metrics.kernel import kernel_distance
from trilemma.metrics.nearest import authenticity, closeness, copies
from trilemma.metrics.neighbours import nearest, neighbour_scores
from trilemma.metrics.reconstruction import ssim
from trilemma.pictures.levels import to_float

N = 500  # images of each kind
NEVER = (3, 5, 8)  # digits that are never drawn
LOWER, HIGHER = "lower", "higher"
DIRECTIONS: dict[str, dict[str, str]] = {  # metric -> fault -> where it moves
    "frechet_distance": dict.fromkeys(("one image", "noise", "missing classes", "blur"), HIGHER),
    "kernel_distance": dict.fromkeys(("one image", "noise", "missing classes", "blur"), HIGHER),
    "precision": {"noise": LOWER, "real images": HIGHER},
    "recall": {"one image": LOWER, "noise": LOWER, "missing classes": LOWER, "real images": HIGHER},
    "density": {"noise": LOWER, "blur": LOWER},
    "coverage": {"one image": LOWER, "noise": LOWER, "missing classes": LOWER, "real images": HIGHER},
    "inception_score": {"one image": LOWER, "missing classes": LOWER},
    "class_diversity": {"one image": LOWER, "missing classes": LOWER},
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
    real, training, good, _ = sets
    faulty = faults(sets, seed)
    of_real = extract(network, real)
    scores = {name: scores_of(network, real=of_real, fake=extract(network, images)) for name, images in faulty.items()}
    base = scores_of(network, real=of_real, fake=extract(network, good))
    for metric, directions in DIRECTIONS.items():
        for fault, direction in directions.items():
            yield _moved(metric, fault, direction, scores[fault][metric], base[metric])
    yield from _copies(network, training, {"copies": faulty["copies"], "new images": good}, real)
    similar = {name: float(ssim(to_float(good), to_float(faulty[name])).mean()) for name in ("blur", "noise")}
    yield Verdict("ssim", "blur, noise", 1 > similar["blur"] > similar["noise"], f"1, {_words(similar.values())}")


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


def _moved(metric: str, fault: str, direction: str, of_fault: Spread, base: Spread) -> Verdict:
    low, high = difference(of_fault, base).interval
    right = low > 0 if direction == HIGHER else high < 0
    return Verdict(metric, fault, right, f"{_words([of_fault.value])}, {_words([base.value])} of new images")


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


def _words(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
