"""Controls on images whose quality is known, and who is said to have learned nothing."""

from dataclasses import replace

import pytest
import torch

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.data import Data, Split
from trilemma.errors import UserError
from trilemma.metrics.controls import _images, learned_nothing, reference_of, spreads_of
from trilemma.metrics.features import extract
from trilemma.metrics.quality import Setup, quality
from trilemma.metrics.reals import real_images

SHAPE = (1, 4, 4)


class Pixels:
    """Features that are the pixels."""

    def eval(self):
        return self

    def features(self, image):
        return image.flatten(1)


PIXELS = FeatureNetwork("pixels", Pixels(), SHAPE)


def blobs(n, seed):
    """Images with one bright quarter each, in noise: uint8 (n, 1, 4, 4)."""
    generator = torch.Generator().manual_seed(seed)
    images = 20 * torch.rand(n, *SHAPE, generator=generator)
    place = torch.randint(0, 4, (n,), generator=generator)
    for k in range(4):
        row, column = 2 * (k // 2), 2 * (k % 2)
        images[place == k, :, row : row + 2, column : column + 2] += 200
    return images.round().to(torch.uint8)


def data_of(train=400, valid=100, test=None):
    splits = {"train": Split(blobs(train, 1)), "valid": Split(blobs(valid, 2))}
    if test:
        splits["test"] = Split(blobs(test, 3))
    return Data("blobs", "blobs", SHAPE, (), splits, (), (), "fingerprint")


def setup_of(data, split="valid", n=100, *, own=True):
    return Setup(data, split, own, PIXELS, n, 0)


def judged(setup, fakes, reference=None):
    reference = reference_of(setup, reference)
    spreads = spreads_of(quality(real=reference.real, fake=extract(PIXELS, fakes)))
    return learned_nothing(spreads, reference.controls), {c.name: c for c in reference.controls}


def value(control, name):
    return next(score.value for score in control.scores if score.name == name)


def test_the_mean_image_is_that_of_all_chosen_training_images():
    """More of them than are added up at a time."""
    data = data_of(train=1_300)
    images = dict(_images(setup_of(data)))
    expected = data.train.images.double().mean(0).round()
    assert torch.equal(images["mean"][0].double(), expected) and images["mean"].dtype == torch.uint8


def test_real_images_are_good_and_static_and_the_mean_are_not():
    _, controls = judged(setup_of(data_of(test=300), "test"), blobs(100, 9))
    assert set(controls) == {"real", "training", "mean", "static", "one"}
    for name in ("real", "training"):
        assert value(controls[name], "density") == pytest.approx(1, abs=0.25)
        assert value(controls[name], "coverage") > 0.9
    for name in ("mean", "static"):
        assert value(controls[name], "density") == value(controls[name], "coverage") == 0


def test_each_control_has_a_receipt_by_the_same_protocol():
    _, controls = judged(setup_of(data_of()), blobs(100, 9))
    for control in controls.values():
        assert [s.protocol for s in control.scores] == [s.protocol for s in controls["mean"].scores]
        assert all(s.n_real == s.n_fake == 100 for s in control.scores)


def test_a_model_that_draws_the_data_has_learned_something():
    assert judged(setup_of(data_of()), blobs(100, 9))[0] is None


@pytest.mark.parametrize("level", [0, 60, 128, 255])
def test_flat_images_have_learned_nothing(level):
    text, _ = judged(setup_of(data_of()), torch.full((100, *SHAPE), level, dtype=torch.uint8))
    assert text.startswith("learned nothing yet: its samples")


def test_one_real_image_over_and_over_has_learned_nothing():
    """It is near the real images, but covers no more of them than one does."""
    text, _ = judged(setup_of(data_of()), blobs(1, 9).expand(100, *SHAPE))
    assert "learned nothing yet" in text


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 20, 33, 66])
def test_few_images_condemn_no_good_model(n):
    """Real images judged as a model's, 3 times each; and flat grey is told where there are enough."""
    for seed in range(3):
        splits = {"train": Split(blobs(200, 1)), "valid": Split(blobs(n, 40 + seed))}
        setup = setup_of(Data("b", "b", SHAPE, (), splits, (), (), "f"), n=n)
        reference = reference_of(setup)
        assert judged(setup, blobs(n, 90 + seed), reference)[0] is None
        if n >= 33:
            assert judged(setup, torch.full((n, *SHAPE), 128, dtype=torch.uint8), reference)[0] is not None


def test_real_controls_are_images_that_nobody_has_seen():
    """The rest of the split that is measured by; or another held-out split; never the training images of a run."""
    data = data_of(train=400, valid=120, test=100)
    images = dict(_images(setup_of(data, "test")))
    assert images["real"].equal(real_images(data, "valid", 100, 0))
    images = dict(_images(setup_of(data, "test", 50)))
    measured, control = (
        {tuple(x.flatten().tolist()) for x in part} for part in (real_images(data, "test", 50, 0), images["real"])
    )
    assert not measured & control
    assert "real" not in dict(_images(setup_of(data_of(), "valid")))
    assert "training" not in dict(_images(setup_of(data_of(), "all", own=False)))


def test_a_reference_is_used_again_for_the_same_images_only():
    data = data_of()
    first = reference_of(setup_of(data))
    assert reference_of(setup_of(data), first) is first
    with pytest.raises(
        UserError, match=r"made with n=100, and this is with n=50; give the same, or leave reference= out"
    ):
        reference_of(setup_of(data, n=50), first)
    other = replace(setup_of(data, split="train"), network=replace(PIXELS, name="other", sha256="0123456789abcdef"))
    made, now = "split=valid, features=pixels", r"split=train, features=other \(weights 0123456789ab\)"
    with pytest.raises(UserError, match=f"made with {made}, and this is with {now}; give the same"):
        reference_of(other, first)
    with pytest.raises(
        UserError, match=r"made with against=blobs \(fingerprint fingerprint\), .*against=blobs \(fingerprint f\)"
    ):
        reference_of(setup_of(replace(data, fingerprint="f")), first)
