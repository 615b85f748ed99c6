"""How near two sets of images are in features: Frechet and kernel distance, precision, recall, density, coverage."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trilemma.classifiers.bundled import Classifies, FeatureNetwork
from trilemma.data import Data
from trilemma.data.selection import ALL
from trilemma.errors import UserError
from trilemma.metrics import classification, frechet, inception, kernel, nearest, neighbours
from trilemma.metrics.catalogue import CATALOGUE, DETAILS, QUALITY
from trilemma.metrics.feature_cache import cached_features, cached_statistics
from trilemma.metrics.intervals import Estimate, Spread
from trilemma.metrics.probe import probe_of
from trilemma.metrics.reals import choice
from trilemma.metrics.receipt import Score, protocol_name, score_of
from trilemma.team import ALONE, Team

INTERVAL_IS = {
    "frechet_distance": frechet.INTERVAL_IS,
    "frechet_infinity": frechet.INFINITY_IS,
    "inception_score": inception.INTERVAL_IS,
    "kernel_distance": kernel.INTERVAL_IS,
    "authenticity": nearest.AUTHENTICITY_IS,
    "near_copies": nearest.NEAR_COPIES_IS,
    "class_diversity": classification.DIVERSITY_IS,
}
OF_TRAINING = ("authenticity", "near_copies")  # the scores that look for generated images among the training images
SEARCHED = 1_000  # generated images, and as many held-out ones, that are searched for
ROUGH = ("precision", "recall")  # come out too high where there are few images, whatever their interval says


@dataclass(frozen=True)
class Setup:
    """What all the scores of one evaluation have in common.

    split: of the real data, "all" for all its images; own: whether a run was trained on the same data; n: images on
    either side; seed: of which real images are taken; settings: of the run's sampler; team: the processes that divide
    the work.
    """

    data: Data
    split: str
    own: bool
    network: FeatureNetwork
    n: int
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    team: Team = ALONE

    @property
    def split_label(self) -> str:
        """The split's name in a protocol."""
        return self.split if self.own else f"{self.data.name}-{self.split}"


@dataclass(frozen=True)
class Real:
    """Features of real images (n, D), and what the scores need of them alone: computed once, whatever is measured.

    balls: or why they are too few for nearest neighbours.
    """

    features: Tensor
    gaussian: frechet.Gaussian
    similarity: kernel.Similarity
    balls: neighbours.Balls | str


def real_of(features: Tensor, team: Team = ALONE) -> Real:
    """What the scores need of real images, from their features (N, D); what takes long is kept in the user's cache."""
    n, gaussian = len(features), frechet.gaussian(features)

    def compute() -> dict[str, Tensor]:
        statistics = {"sums": kernel.similarity(features).sums}
        if not frechet.refusal(n, n):
            statistics["root"] = gaussian.root
        if not neighbours.refusal(n):
            balls = neighbours.real_balls(features)
            statistics |= {"narrow": balls.narrow, "wide": balls.wide}
        return statistics

    known = cached_statistics(features, compute, team)
    return Real(
        features,
        replace(gaussian, known_root=known.get("root")),
        kernel.Similarity(features.double(), known["sums"]),
        neighbours.refusal(n) or neighbours.balls_of(features, known["narrow"], known["wide"]),
    )


def quality(*, real: Real, fake: Tensor) -> dict[str, Spread | str]:
    """Every score of real images and of the features of generated ones, (M, D), by name; the reason where it is
    refused."""
    counts, balls = (len(real.features), len(fake)), real.balls
    return {
        "frechet_distance": frechet.refusal(*counts) or frechet.frechet_distance(real=real.gaussian, fake=fake),
        "kernel_distance": kernel.refusal(*counts) or kernel.kernel_distance(real=real.similarity, fake=fake),
        **(
            dict.fromkeys(neighbours.SCORES, balls)
            if isinstance(balls, str)
            else neighbours.neighbour_scores(real=balls, fake=fake)
        ),
    }


def classifier_for(setup: Setup) -> FeatureNetwork | str:
    """Of the classes of the data: the bundled one, or else one on the features; or why there is none."""
    try:
        return classification.classifier_of(setup.data)
    except UserError as error:
        bundled = str(error)
    try:
        return probe_of(setup.data, setup.network) if setup.data.classes else bundled
    except UserError as error:
        return str(error)


def details(
    setup: Setup,
    values: Mapping[str, Spread | str],
    classifier: FeatureNetwork | str,
    *,
    real: Real,
    fake: Tensor,
) -> dict[str, Spread | Estimate | str]:
    """Further scores of the features of generated images (M, D), beside those of `quality`.

    Args:
        classifier: that of the classes of the data, or why there is none.
    """
    network, at_n = setup.network, values["frechet_distance"]
    return {
        **_memorisation(setup, real=real, fake=fake),
        "frechet_infinity": at_n
        if isinstance(at_n, str)
        else frechet.frechet_infinity(real=real.gaussian, fake=fake, at_n=at_n),
        "inception_score": inception.inception_score(network.classify(fake))
        if isinstance(network.network, Classifies)
        else f"the feature network {network.name} is not a classifier",
        **_class_diversity(setup, classifier, real=real, fake=fake),
    }


def _class_diversity(
    setup: Setup, classifier: FeatureNetwork | str, *, real: Real, fake: Tensor
) -> dict[str, Spread | Estimate | str]:
    """Of data with classes, where they are told by the features that are measured, else why there is none."""
    if not setup.data.classes:
        return {}
    if isinstance(classifier, str):
        return {"class_diversity": classifier}
    if classifier.sha256 != setup.network.sha256:
        own = f"classes are told by {classifier.name}, and the features are those of {setup.network.name}"
        return {"class_diversity": f"{own}; give features={classifier.name}"}
    of_real, of_fake = (classifier.classify(values).argmax(1) for values in (real.features, fake))
    features = {"real": real.features, "fake": fake}
    return {"class_diversity": classification.class_diversity(**features, real_class=of_real, fake_class=of_fake)}


def _memorisation(setup: Setup, *, real: Real, fake: Tensor) -> dict[str, Estimate | str]:
    """Of the first images of a run, by as many of the real ones at random; {} where the training images are not those
    of these data."""
    images = setup.data.train.images
    if not setup.own or len(images) < 2:
        return {}
    if refused := nearest.refusal(len(images), setup.network):
        return dict.fromkeys(OF_TRAINING, refused)
    train, n = cached_features(setup.network, images, setup.team), min(SEARCHED, len(fake))
    held_out = real.features[choice(len(real.features), _n_held_out(setup), setup.seed)]
    index, distance = nearest.nearest(torch.cat([fake[:n], held_out]), train.split(nearest.BLOCK))
    scores: dict[str, Estimate | str] = {"authenticity": nearest.authenticity(index[:n], distance[:n], train)}
    if len(held_out):
        scores["near_copies"] = nearest.near_copies(index[:n], distance[:n], real=distance[n:])
    return scores


def _n_held_out(setup: Setup) -> int:
    """How many of the real images are compared with the training images: none where they are some of these."""
    return 0 if setup.split in ("train", ALL) else min(setup.n, SEARCHED)


def quality_scores(setup: Setup, values: Mapping[str, Spread | Estimate | str], resize: str) -> list[Score]:
    """Scores with their receipts; `resize` says how the images were brought to the feature network."""
    return [_score(setup, name, values[name], resize) for name in (*QUALITY, *DETAILS) if name in values]


def _score(setup: Setup, name: str, value: Spread | Estimate | str, resize: str) -> Score:
    measured, used = _measured(setup, name), setup.network.receipt
    if name == "near_copies":
        used["held_out"] = f"{_n_held_out(setup)} images of {setup.split_label}"
    return score_of(
        name,
        protocol_name(CATALOGUE[name].word, setup.network.name, measured.n_fake, *_labels(setup, name)),
        value.estimate() if isinstance(value, Spread) else value,
        interval_is=INTERVAL_IS.get(name, neighbours.INTERVAL_IS),
        features=setup.network.name,
        seed=setup.seed,
        resize=resize,
        used=used,
        rough=name in ROUGH and setup.n < neighbours.ROUGH,
        settings=setup.settings,
        **measured._asdict(),
    )


def _labels(setup: Setup, name: str) -> list[str | int]:
    """Which real images the protocol of a score names; of near copies also those that make the threshold."""
    if name in OF_TRAINING:
        return ["train", *([_n_held_out(setup), setup.split_label] if name == "near_copies" else [])]
    return [] if name == "inception_score" else [setup.split_label]


class _Measured(NamedTuple):
    """What a score was measured on, as its receipt has it."""

    n_real: int
    n_fake: int
    split: str
    data: str
    data_fingerprint: str


def _measured(setup: Setup, name: str) -> _Measured:
    data = setup.data
    if name == "inception_score":  # looks at no real image
        return _Measured(0, setup.n, "none", "", "")
    if name in OF_TRAINING:
        few = min(setup.n, SEARCHED)
        return _Measured(len(data.train.images), few, "train", data.name, data.fingerprint)
    return _Measured(setup.n, setup.n, setup.split, data.name, data.fingerprint)
