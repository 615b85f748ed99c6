"""Whether a conditional model draws what it is asked for, as judged by a classifier of the same classes.

The share of generated images that a classifier takes for the class they were asked for (Ravuri & Vinyals 2019 train
their classifier on the generated images; here it is a bundled feature network, trained on real ones). The classifier
errs, too: real images of its test split are taken for their class with the accuracy in its card, so 1 is not to be
expected even of perfect images. The F-score counts the classes alike, also those that are drawn for others.

Of any model, how much the images that it takes for one class differ: a model may draw every class, and one image of
each.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trilemma.classifiers.bundled import BUNDLED, CHANNELS, FeatureNetwork, load_network
from trilemma.config import Config
from trilemma.data import Data
from trilemma.errors import UserError
from trilemma.metrics.catalogue import CATALOGUE, names_that_need
from trilemma.metrics.features import extract
from trilemma.metrics.intervals import Estimate, Spread, infinitesimal_jackknife, jackknife, logit_estimate, wilson
from trilemma.metrics.receipt import Score, protocol_name, score_of
from trilemma.types import Conditional, Samples, default_label

if TYPE_CHECKING:
    from trilemma.run.compute import ImageBatch
    from trilemma.run.run import Run

LEAST_OF_CLASS = 10  # real images, from which a variance is estimated
METRICS = names_that_need("classes") + names_that_need("classes", detail=True)
INTERVAL_IS = "Wilson 95% over the generated images, the classifier held fixed"
DIVERSITY_IS = "infinitesimal jackknife over the images of both sets, the classifier held fixed"
F_SCORE_IS = (
    "delete-one jackknife over the generated images on the logit scale (Wilson where all or none are as asked for), "
    "the classifier held fixed"
)


def class_scores(
    data: Data,
    images: Tensor,
    n_classes: int,
    *,
    classifier: FeatureNetwork | str,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
) -> Iterator[Score]:
    """The scores `class_obeyed` and `class_f_score` of images 0 ... n - 1 that were drawn without a label, each of its
    `default_label`. They are refused where no classifier knows the classes of the data.

    Args:
        data: what the model was trained on; images: (n, C, H, W), uint8 or float in [0, 1].
        classifier: that of the classes, or why there is none.
        seed, settings: with which the images were drawn.
    """
    labels = default_label(torch.arange(len(images)), n_classes)
    try:
        if isinstance(classifier, str):
            raise UserError(classifier)
        name, taken = classifier.name, classes_seen(classifier, images)
        values = (_agreement(taken, labels), f_score(taken, labels, n_classes))
        resize, used = classifier.resize_rule(images.shape[1:]), classifier.receipt
        used |= {"classifier": classifier.note} if classifier.note else {}
    except UserError as error:
        values, name, resize, used = (str(error),) * 2, "none", "none", {}
    for metric, value, interval_is in zip(METRICS, values, (INTERVAL_IS, F_SCORE_IS), strict=True):
        yield score_of(
            metric,
            protocol_name(CATALOGUE[metric].word, name, len(images)),
            value,
            interval_is=interval_is,
            n_fake=len(images),
            features=name,
            seed=seed,
            resize=resize,
            used=used,
            data=data.name,
            data_fingerprint=data.fingerprint,
            settings=settings or {},
        )


def class_agreement(network: FeatureNetwork, images: Tensor, labels: Tensor) -> Estimate:
    """The share of images that a classifier takes for the class they were asked for, `labels`, int64 (N,)."""
    return _agreement(classes_seen(network, images), labels)


def classes_seen(network: FeatureNetwork, images: Tensor) -> Tensor:
    """The class that a classifier takes each of some images for, int64 (N,)."""
    return network.classify(extract(network, images)).argmax(1)


def _agreement(taken: Tensor, labels: Tensor) -> Estimate:
    return wilson(int((taken == labels).sum()), len(labels))


def f_score(taken: Tensor, labels: Tensor, n_classes: int) -> Estimate:
    """The mean over the classes of 2 TP / (2 TP + FP + FN), of the classes `taken` (N,) for those asked for, `labels`.

    Its interval is by the delete-one jackknife on the logit scale: all images of one class that are taken for one have
    the same influence. Where all images are as asked for, or none is, that of the share of such images (Wilson 1927).
    """
    cell = labels * n_classes + taken
    counts = torch.bincount(cell, minlength=n_classes**2).double()
    left_out = torch.zeros_like(counts)
    for one in counts.nonzero()[:, 0].tolist():
        counts[one] -= 1
        left_out[one] = _mean_f(counts, n_classes)
        counts[one] += 1
    value, n = _mean_f(counts, n_classes), len(labels)
    if value in (0.0, 1.0):
        return Estimate(value, wilson(round(value * n), n).interval)
    return logit_estimate(value, float(jackknife(left_out[cell]).square().sum().sqrt()), n - 1)


def _mean_f(counts: Tensor, n_classes: int) -> float:
    """Of the counts of each pair (asked for, taken for); a class that is neither has none."""
    table = counts.view(n_classes, n_classes)
    both = table.sum(0) + table.sum(1)
    return float((2 * table.diagonal()[both > 0] / both[both > 0]).mean())


def class_diversity(*, real: Tensor, fake: Tensor, real_class: Tensor, fake_class: Tensor) -> Spread | str:
    """How much images of one class differ among themselves, over the same of real images, on average over the classes;
    1 for real images, 0 where each class is one image, over and over:

        mean over c of (tr cov f(y) over images y of class c) / (tr cov f(x) over real images x of class c)

    A class of which fewer than two images are generated counts 0; one with fewer than LEAST_OF_CLASS real images does
    not count. Features that scatter more than those of real images give more than 1; noise in the pixels does not (0.3
    to 1 in docs/figures/metric-faults.png). One image over and over beside others is hidden by the other classes.

    Args:
        real, fake: features, (N, D) and (M, D); their classes, int64 (N,) and (M,), as one classifier takes them.
    Returns:
        The value with its spread (infinitesimal jackknife), or why there is none.
    """
    counts = torch.bincount(real_class).tolist()
    enough = [c for c, count in enumerate(counts) if count >= LEAST_OF_CLASS]
    variances = {c: v for c in enough if (v := _variance(real[real_class == c])) > 0}
    if not variances:
        return f"no class has {LEAST_OF_CLASS} real images that differ"
    of_fake = {c: _variance(fake[fake_class == c]) for c in variances}
    ratios = {c: of_fake[c] / v for c, v in variances.items()}
    shared, own = torch.zeros(len(real)).double(), torch.zeros(len(fake)).double()
    for c, v in variances.items():
        shared[real_class == c] -= ratios[c] * _rates(real, real_class == c, v) / v
        own[fake_class == c] += _rates(fake, fake_class == c, of_fake[c]) / v
    k = len(ratios)
    return Spread(
        sum(ratios.values()) / k, infinitesimal_jackknife(shared / k), infinitesimal_jackknife(own / k), least=0.0
    )


def _variance(features: Tensor) -> float:
    """The trace of the covariance of features (N, D); 0 of fewer than two."""
    return float(features.var(0).sum()) if len(features) > 1 else 0.0


def _rates(features: Tensor, rows: Tensor, variance: float) -> Tensor:
    """At which the variance of the `rows` (N,) of a class changes with the weight of each among all N: one for each."""
    own = features[rows]
    share = len(own) / len(features)
    return ((own - own.mean(0)).square().sum(1) - variance) / share if len(own) > 1 else own.new_zeros(len(own))


def classifier_of(data: Data) -> FeatureNetwork:
    """The bundled classifier that was trained on these data, and so knows their classes.

    Raises:
        UserError: if there is none.
    """
    own = data.source == data.name and data.name in BUNDLED and data.shape[0] == CHANNELS[data.name]
    network = load_network(BUNDLED[data.name]) if own else None
    if network is None or network.network.config.n_classes != len(data.classes):
        raise UserError(
            f"no bundled classifier knows the classes of {data.name}; there is one for {', '.join(BUNDLED)}"
        )
    return network


def class_counts(run: "Run", n: int) -> dict[str, int]:
    """How many of n images are of each class, as equal as can be: the first classes have one more.

    Raises:
        UserError: if the run's model takes no class, or there is not an image for each.
    """
    classes = run.config["classes"]
    run.require("draw a class that is asked for", Conditional, Samples)
    if n < len(classes):
        raise UserError(f"n={n}: at least one image for each of the {len(classes)} classes is needed")
    return {name: n // len(classes) + (k < n % len(classes)) for k, name in enumerate(classes)}


def draw_classes(
    run: "Run", counts: dict[str, int], *, seed: int = 0, batch: int = 256, keys: Config | None = None
) -> "Iterator[tuple[int, ImageBatch]]":
    """Parts of one class each, with its number; the images are numbered through, so that no two have equal noise.

    Args:
        keys: settings of the sampler that `Run.sampling` has checked; default: its own.
    """
    first = 0
    for label, (name, count) in enumerate(counts.items()):
        for part in run.draw(count, seed=seed, first=first, label=name, batch=batch, keys=keys):
            yield label, part
        first += count
