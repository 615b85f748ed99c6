"""A linear classifier of one's own classes: Bayes' rule where that is linear, and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.data import Data, Split, load_data
from trilemma.errors import UserError
from trilemma.metrics.classification import class_agreement
from trilemma.metrics.features import feature_network
from trilemma.metrics.probe import SHRINK, balanced_accuracy, discriminants, probe_of


@pytest.fixture(scope="module")
def labelled() -> Data:
    """Digits that no bundled network is known to have seen."""
    return replace(load_data("digits"), name="mine", source="mine")


def test_it_is_bayes_rule_for_gaussians_of_one_round_covariance() -> None:
    """log p_c N(f; m_c, s^2 I) up to what all classes share; shrinking a round covariance changes nothing."""
    means, shares, std, n = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0]]).double(), (0.5, 0.3, 0.2), 0.7, 200_000
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor(shares), n, replacement=True, generator=generator)
    features = means[labels] + std * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    weight, bias = discriminants(features, labels)
    f = torch.tensor([[1.5, 0.3], [0.4, 1.1], [-1.0, 2.0]]).double()
    exact = torch.tensor(shares).double().log() - (f[:, None] - means).square().sum(2) / (2 * std**2)
    logits = f @ weight.mT + bias
    assert torch.allclose(logits - logits[:, :1], exact - exact[:, :1], atol=0.1)


def test_the_covariance_is_shrunk_towards_a_round_one() -> None:
    """Two classes at +-e_1 with the variances 4 and 1: S = diag of (1 - SHRINK) (4, 1) + SHRINK 2.5."""
    unit = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double() * torch.tensor([2.0, 1.0])
    centre = torch.tensor([[1.0, 0.0]]).double()
    features, labels = torch.cat([unit + centre, unit - centre]), torch.tensor([0] * 4 + [1] * 4)
    weight, bias = discriminants(features, labels)
    expected = 1 / ((1 - SHRINK) * 4 + SHRINK * 2.5)
    assert torch.allclose(weight, torch.tensor([[expected, 0.0], [-expected, 0.0]]).double())
    assert torch.allclose(bias, torch.full((2,), -expected / 2 - torch.tensor(2.0).log().item()).double())


def test_classes_of_a_folder_are_told_by_the_features(labelled: Data) -> None:
    probe = probe_of(labelled, feature_network("digits-cnn", labelled.shape, labelled.name))
    assert probe.name == "digits-cnn-probe" and probe.note.endswith("(on average over the classes)")
    held_out = labelled.held_out[1]
    assert held_out.labels is not None
    shares = [class_agreement(probe, held_out.images, (held_out.labels + k) % 10).value for k in (0, 1)]
    assert shares[0] > 0.9 and shares[1] < 0.05


def test_every_class_counts_alike() -> None:
    """Nine of ten images are of class 0: to call all of them that is right about half of the classes."""
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert balanced_accuracy(torch.zeros(100, dtype=torch.int64), labels) == 0.5
    assert balanced_accuracy(labels, labels) == 1


def test_a_run_with_classes_of_its_own_is_scored_by_them(labelled: Data, tmp_path) -> None:
    keys = {"steps": 5, "batch": 32, "quiet": True, "device": "cpu"}
    trilemma.train("vae-conditional", labelled, out=tmp_path / "run", **keys)
    run = trilemma.load(tmp_path / "run", data=labelled)
    result = trilemma.evaluate(run, n=100, bound_samples=0)
    assert result["class_obeyed"].features == "digits-cnn-probe"
    assert result["class_diversity"].value is not None
    assert [note for note in result.notes if note.startswith("classes: told by a classifier on the features of digits")]


class Pixels(nn.Module):
    """Features that need no training: the pixels."""

    def features(self, image: Tensor) -> Tensor:
        return image.flatten(1)


def test_held_out_images_that_lie_class_after_class_are_taken_at_random() -> None:
    """1,500 dark images, then 1,500 of the bright class that are dark, too: the first 1,000 alone would be right."""
    train = torch.randint(0, 50, (200, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(200) % 2
    bright = train + 200 * labels[:, None, None, None].to(torch.uint8)
    held_out = Split(train.repeat(15, 1, 1, 1), torch.arange(3_000) // 1_500)
    splits = {"train": Split(bright, labels), "test": held_out}
    data = Data("made-up", "made-up", (1, 2, 2), ("dark", "bright"), splits, (), (), "fingerprint")
    with pytest.raises(UserError, match="classifies 50% of 1000 held-out images of made-up correctly"):
        probe_of(data, FeatureNetwork("pixels", Pixels(), (1, 2, 2)))


def test_what_is_refused(labelled: Data) -> None:
    network = feature_network("digits-cnn", labelled.shape, labelled.name)
    noise = labelled.train.labels
    assert noise is not None
    shuffled = replace(
        labelled.train, labels=noise[torch.randperm(len(noise), generator=torch.Generator().manual_seed(0))]
    )
    with pytest.raises(UserError, match=r"classifies \d+% of 360 held-out images of mine correctly"):
        probe_of(replace(labelled, splits={**labelled.splits, "train": shuffled}), network)
    rare = replace(labelled.train, labels=torch.where(noise == 3, 4, noise))
    with pytest.raises(UserError, match="class 3 has fewer than 2 images among"):
        probe_of(replace(labelled, splits={**labelled.splits, "train": rare}), network)
    bare = replace(labelled.train, labels=None)
    with pytest.raises(UserError, match="mine has no classes to tell apart"):
        probe_of(replace(labelled, splits={**labelled.splits, "train": bare}), network)
    with pytest.raises(UserError, match="within each class all images have the same features"):
        discriminants(torch.tensor([[0.0], [0.0], [1.0], [1.0]]), torch.tensor([0, 0, 1, 1]))
