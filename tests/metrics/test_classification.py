"""Whether what was asked for is drawn: shares counted by hand, real images, and models that cannot be judged."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn

import trilemma
from trilemma.classifiers.bundled import FeatureNetwork, read_card
from trilemma.data import load_data
from trilemma.errors import UserError
from trilemma.metrics.classification import (
    class_agreement,
    class_counts,
    class_diversity,
    class_scores,
    classifier_of,
    draw_classes,
    f_score,
)
from trilemma.metrics.intervals import wilson
from trilemma.metrics.quality import _class_diversity
from trilemma.registry import create, models_that
from trilemma.types import UNCONDITIONAL, Conditional


class Looks(nn.Module):
    """The class of an image of 3 pixels is its brightest pixel."""

    def features(self, image):
        return image.flatten(1)

    def classify(self, features):
        return features


class Gallery(nn.Module):
    """Draws held-out digits of the class asked for. Without labels, k % 10."""

    n_classes = 10

    def __init__(self, split):
        super().__init__()
        self.sampling_network = nn.Linear(1, 1)
        self.images = [split.images[split.labels == c].float() / 255 for c in range(10)]

    def sample(self, n, *, seed, first=0, condition=UNCONDITIONAL):
        labels = torch.arange(first, first + n) if condition.label is None else condition.label
        own = [self.images[int(c) % 10] for c in labels]
        return torch.stack([images[(first + k) % len(images)] for k, images in enumerate(own)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("classes") / "run"
    return trilemma.train("vae", "digits", steps=2, batch=16, out=out, device="cpu", quiet=True).path


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def run_of(folder):
    run = trilemma.load(folder)
    run.model = Gallery(run.data.held_out[1])
    return run


def test_shares_are_counted():
    """Five of eight are what they were asked to be."""
    seen = torch.tensor([0, 0, 1, 1, 1, 2, 0, 2])
    asked = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    images = torch.eye(3)[seen][:, None, None, :]
    network = FeatureNetwork("digits-cnn", Looks(), (1, 1, 3))
    assert class_agreement(network, images, asked) == wilson(5, 8)


def test_real_images_obey_as_often_as_the_card_says(digits):
    """Every held-out digit about once: the share is the classifier's accuracy, within 4 standard errors."""
    (score, _) = class_scores(
        digits, Gallery(digits.held_out[1]).sample(360, seed=0), 10, classifier=classifier_of(digits)
    )
    stated = read_card("digits-cnn")["test"]["accuracy"]
    assert abs(score.value - stated) <= 4 * math.sqrt(stated * (1 - stated) / 360)


def test_numbers_go_through_the_classes(folder):
    run = run_of(folder)
    counts = class_counts(run, 23)
    assert counts == {str(c): 3 if c < 3 else 2 for c in range(10)}
    drawn = [(label, part.first, len(part.images)) for label, part in draw_classes(run, counts, seed=0, batch=2)]
    assert sum(count for *_, count in drawn) == 23
    assert [first for _, first, _ in drawn] == [sum(c for *_, c in drawn[:k]) for k in range(len(drawn))]
    assert drawn[:4] == [(0, 0, 2), (0, 2, 1), (1, 3, 2), (1, 5, 1)]


def test_the_score_of_images_drawn_without_labels(digits):
    """Image k was of class k % 10."""
    images = Gallery(digits.held_out[1]).sample(200, seed=0)
    (score, f) = class_scores(
        digits, images, 10, classifier=classifier_of(digits), seed=3, settings={"temperature": 0.5}
    )
    assert score.value > 0.9 and score.interval == wilson(round(score.value * 200), 200).interval
    assert (score.protocol, score.n_fake, score.seed) == ("classes_digits-cnn_200", 200, 3)
    assert score.settings == {"temperature": 0.5} and score.data_fingerprint == digits.fingerprint
    assert f.name == "class_f_score" and abs(f.value - score.value) < 0.02 and f.interval[0] < f.value < f.interval[1]
    (other, f) = class_scores(digits, images.roll(1, 0), 10, classifier=classifier_of(digits))
    assert other.value < 0.05 and f.value < 0.05


def test_the_score_is_refused_where_no_classifier_knows_the_classes(digits):
    for score in class_scores(digits, torch.zeros(20, 1, 8, 8), 10, classifier="nothing tells them apart"):
        assert score.value is None and score.refused == "nothing tells them apart"


def test_the_f_score_by_hand():
    """Class 0: 2 of 3 drawn right, none beside; class 1: both right, and one more; class 2: none asked for."""
    asked, taken = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 1])
    estimate = f_score(taken, asked, 3)
    assert estimate.value == pytest.approx((4 / 5 + 4 / 5) / 2)
    values = [f_score(taken[keep], asked[keep], 3).value for keep in (torch.arange(5) != k for k in range(5))]
    spread = math.sqrt(4 / 5 * sum((value - sum(values) / 5) ** 2 for value in values))
    t = stats.t.ppf(0.975, 4)  # of five values less their mean
    for end, sign in zip(estimate.interval, (-1, 1), strict=True):  # on the logit scale
        assert math.log(end / (1 - end) / 4) * 0.8 * 0.2 / spread == pytest.approx(sign * t, rel=1e-6)


@pytest.mark.parametrize("n", [2, 12, 30])
def test_an_f_score_of_all_or_none_is_no_certainty(n):
    """30 images as asked for leave room for a model of which a tenth are not: 0.9**30 = 0.04."""
    asked = torch.arange(n) % 2
    for taken, right in ((asked, n), (1 - asked, 0)):
        assert f_score(taken, asked, 2) == (right / n, wilson(right, n).interval)
    low, high = f_score(asked, asked, 2).interval
    assert low < 0.9 and high == 1


def test_the_interval_of_an_f_score_near_one_stays_below_it():
    asked = torch.arange(12) % 2
    value, (low, high) = f_score(asked.index_fill(0, torch.tensor([5]), 0), asked, 2)
    assert 0 < low < value == pytest.approx((12 / 13 + 10 / 11) / 2) and value < high < 1


def test_the_interval_of_the_f_score_holds_the_truth():
    """Two classes, of which 80% and 60% are drawn as asked."""
    generator, held = torch.Generator().manual_seed(0), 0
    truth = (1.6 / (1.6 + 0.2 + 0.4) + 1.2 / (1.2 + 0.4 + 0.2)) / 2
    asked = torch.arange(300) % 2
    for _ in range(300):
        right = torch.rand(300, generator=generator) < torch.tensor([0.8, 0.6])[asked]
        low, high = f_score(torch.where(right, asked, 1 - asked), asked, 2).interval
        held += low <= truth <= high
    assert 0.91 < held / 300 < 0.985


def test_only_the_data_it_was_trained_on_have_its_classes(digits):
    assert classifier_of(digits).name == "digits-cnn"
    for other in (replace(digits, name="cats", source="cats"), replace(digits, classes=("a", "b"))):
        with pytest.raises(UserError, match="there is one for digits, mnist"):
            classifier_of(other)


def test_what_is_refused(folder):
    assert all(isinstance(create(name), Conditional) for name in models_that(Conditional))
    with pytest.raises(
        UserError, match="vae does not draw a class that is asked for: it was trained without labels; models that do: "
    ):
        class_counts(trilemma.load(folder), 10)
    with pytest.raises(UserError, match="n=9: at least one image for each of the 10 classes"):
        class_counts(run_of(folder), 9)


def clusters(
    scale: float, n: int, seed: int, classes: tuple[int, ...] = (0, 1, 2)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of n images around the corners of classes, each with the variance scale**2 in 4 directions."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.tensor(classes)[torch.arange(n) % len(classes)]
    return 10 * labels[:, None] + scale * torch.randn(n, 4, generator=source).double(), labels


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_diversity_within_classes_is_the_ratio_of_variances(scale: float) -> None:
    (real, of_real), (fake, of_fake) = clusters(1.0, 3_000, 0), clusters(scale, 3_000, 1)
    result = class_diversity(real=real, fake=fake, real_class=of_real, fake_class=of_fake)
    assert not isinstance(result, str)
    assert result.value == pytest.approx(scale**2, rel=0.1)
    low, high = result.estimate().interval
    assert low <= scale**2 <= high and high - low < 0.2 * scale**2 + 1e-12


def test_diversity_within_classes_says_why_it_is_missing() -> None:
    network = SimpleNamespace(sha256="a", name="pixels")
    setup: Any = SimpleNamespace(data=SimpleNamespace(classes=("one", "other")), network=network)
    nothing: Any = {"real": None, "fake": None}
    assert _class_diversity(setup, "no classifier", **nothing) == {"class_diversity": "no classifier"}
    other: Any = SimpleNamespace(sha256="b", name="mnist-cnn")
    (why,) = _class_diversity(setup, other, **nothing).values()
    assert why == "classes are told by mnist-cnn, and the features are those of pixels; give features=mnist-cnn"
    setup.data.classes = ()
    assert _class_diversity(setup, "no classifier", **nothing) == {}


def test_a_class_that_is_never_drawn_counts_nothing() -> None:
    (real, of_real), (fake, of_fake) = clusters(1.0, 3_000, 0), clusters(1.0, 3_000, 1, classes=(0, 1))
    result = class_diversity(real=real, fake=fake, real_class=of_real, fake_class=of_fake)
    assert not isinstance(result, str) and result.value == pytest.approx(2 / 3, rel=0.1)
    one = class_diversity(real=real[:1], fake=fake, real_class=of_real[:1], fake_class=of_fake)
    assert one == "no class has 10 real images that differ"


def test_the_interval_of_diversity_covers() -> None:
    """Of 200 draws of 150 images, 92% to 98% of the 95% intervals hold the truth, 1."""
    hits = 0
    for seed in range(200):
        (real, of_real), (fake, of_fake) = clusters(1.0, 150, 2 * seed), clusters(1.0, 150, 2 * seed + 1)
        result = class_diversity(real=real, fake=fake, real_class=of_real, fake_class=of_fake)
        assert not isinstance(result, str)
        low, high = result.estimate().interval
        hits += low <= 1 <= high
    assert 0.92 <= hits / 200 <= 0.98
