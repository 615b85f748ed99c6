"""A classifier for classes that no network was trained on: linear discriminant analysis of the features of one (Fisher
1936, "The use of multiple measurements in taxonomic problems"; with a covariance that is shrunk, Friedman 1989,
"Regularized discriminant analysis", eq. 18).

    logit of class c = f' S^-1 m_c - m_c' S^-1 m_c / 2 + log p_c,    S = (1 - SHRINK) C + SHRINK tr(C) / D I

f are the features of an image, m_c and p_c the mean features and the share of class c, and C the covariance within the
classes, of training images. It is used where it classifies LEAST of the held-out images correctly, on average over the
classes.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.data import Data
from trilemma.errors import UserError
from trilemma.metrics.feature_cache import cached_features
from trilemma.metrics.reals import choice

SHRINK = 0.1
MOST, HELD_OUT = 2_000, 1_000  # training and held-out images, at most
LEAST = 0.7  # share of the held-out images of a class that it has to classify correctly, on average over the classes


class Probe(nn.Module):
    """A network, and a linear classifier on its features.

    Args:
        weight, bias: (K, D) and (K,).
    """

    def __init__(self, network: nn.Module, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def features(self, image: Tensor) -> Tensor:
        """Those of the network."""
        return self.network.features(image)  # type: ignore[operator]

    def classify(self, features: Tensor) -> Tensor:
        """(N, D) -> logits (N, K)."""
        return nn.functional.linear(features, self.weight, self.bias)  # type: ignore[arg-type]


def probe_of(data: Data, network: FeatureNetwork, seed: int = 0) -> FeatureNetwork:
    """The classifier of the classes of some data, on the features of a network; its note says how often it is right.

    Raises:
        UserError: the data has no classes, too few images of one, or the classifier is wrong too often.
    """
    name, held_out = data.held_out
    if data.train.labels is None or held_out.labels is None or len(data.classes) < 2 or name == "train":
        raise UserError(f"{data.name} has no classes to tell apart")
    rows = choice(len(data.train), MOST, seed)
    labels = data.train.labels[rows]
    if fewest := [data.classes[c] for c in (torch.bincount(labels, minlength=len(data.classes)) < 2).nonzero()[:, 0]]:
        raise UserError(
            f"class {fewest[0]} has fewer than 2 images among {len(rows):,} training images, too few to tell it apart; "
            "add images of it, or leave it out"
        )
    weight, bias = discriminants(cached_features(network, data.train.images[rows]), labels)
    probe = Probe(network.network, weight, bias).to(network.device).eval()
    classifier = replace(network, name=f"{network.name}-probe", network=probe)
    some = choice(len(held_out), HELD_OUT, seed)
    n, taken = len(some), classifier.classify(cached_features(network, held_out.images[some])).argmax(1)
    correct = balanced_accuracy(taken, held_out.labels[some])
    if correct < LEAST:
        raise UserError(
            f"a classifier on the features of {network.name} classifies {correct:.0%} of {n} held-out images of "
            f"{data.name} correctly (on average over the classes), too few to tell whether classes are drawn as asked; "
            "another features= may tell them apart"
        )
    note = (
        f"classes: told by a classifier on the features of {network.name}, which classifies {correct:.1%} of {n} "
        "held-out images correctly (on average over the classes)"
    )
    return replace(classifier, note=note)


def balanced_accuracy(taken: Tensor, labels: Tensor) -> float:
    """The share of images of a class that are taken for it, on average over the classes there are; both int64 (N,)."""
    return float(torch.stack([(taken[labels == c] == c).double().mean() for c in labels.unique()]).mean())


def discriminants(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) of the logits of K classes, float64, from features (N, D) and their labels.

    Raises:
        UserError: within each class all features are equal.
    """
    features, n_classes = features.double(), int(labels.max()) + 1
    means = torch.stack([features[labels == c].mean(0) for c in range(n_classes)])
    within = features - means[labels]
    covariance = within.mT @ within / len(features)
    d = len(covariance)
    if covariance.trace() == 0:
        raise UserError("within each class all images have the same features, so nothing tells how far classes reach")
    shrunk = (1 - SHRINK) * covariance + (SHRINK * covariance.trace() / d) * torch.eye(d, dtype=torch.float64)
    weight = torch.linalg.solve(shrunk, means.mT).mT
    shares = torch.bincount(labels, minlength=n_classes).double() / len(labels)
    return weight, shares.log() - (weight * means).sum(1) / 2
