"""How near images come back: closed forms, and structural similarity against its definition and another library."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.data import Data, Split
from trilemma.errors import UserError
from trilemma.metrics import frechet
from trilemma.metrics.features import extract
from trilemma.metrics.likelihood import some_images
from trilemma.metrics.quality import Setup
from trilemma.metrics.reals import real_images
from trilemma.metrics.reconstruction import (
    C_1,
    C_2,
    code_map_scores,
    feature_distance,
    reconstruction_values,
    ssim,
)
from trilemma.types import UNCONDITIONAL, Condition


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_errors_of_known_size() -> None:
    image = 0.5 + 0 * images(4, 1, 12, 12)
    off = torch.tensor([0.1, 0.2, 0.1, 0.2])[:, None, None, None]
    values = reconstruction_values(image, image + off)
    assert values["reconstruction_rmse"].value == pytest.approx(math.sqrt((0.01 + 0.04) / 2), rel=1e-6)
    assert values["reconstruction_psnr"].value == pytest.approx((20 - 10 * math.log10(0.04)) / 2, rel=1e-6)
    low, high = values["reconstruction_rmse"].interval
    assert low < values["reconstruction_rmse"].value < high and low >= 0


def test_exact_images_have_no_psnr() -> None:
    image = images(3, 1, 12, 12)
    values = reconstruction_values(image, image)
    assert values["reconstruction_psnr"] == "3 of 3 images are reconstructed exactly, with an infinite PSNR"
    assert values["reconstruction_rmse"].value == 0 and values["reconstruction_ssim"].value == pytest.approx(
        1, abs=1e-12
    )


def test_similarity_of_constant_images_is_that_of_their_means() -> None:
    x, y = torch.full((2, 1, 16, 16), 0.2), torch.full((2, 1, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + C_1) / (0.2**2 + 0.6**2 + C_1)
    assert ssim(x, y).tolist() == pytest.approx([expected] * 2, rel=1e-6)


def test_similarity_in_one_window_is_the_formula() -> None:
    """At 11 x 11 pixels there is one window, with the weights of a Gaussian."""
    x, y = images(1, 1, 11, 11), images(1, 1, 11, 11, seed=1)
    w = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    w = torch.from_numpy(np.outer(w, w) / w.sum() ** 2)
    m_x, m_y = (w * x).sum(), (w * y).sum()
    v_x, v_y, v_xy = (w * (x - m_x) ** 2).sum(), (w * (y - m_y) ** 2).sum(), (w * (x - m_x) * (y - m_y)).sum()
    expected = (2 * m_x * m_y + C_1) * (2 * v_xy + C_2) / ((m_x**2 + m_y**2 + C_1) * (v_x + v_y + C_2))
    assert float(ssim(x, y)) == pytest.approx(float(expected), rel=1e-9)
    assert float(ssim(x, 1 - x)) < 0 < float(ssim(x, 0.5 * x + 0.25)) < 1


@pytest.mark.slow
def test_similarity_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="needs scikit-image")
    x, y = images(3, 3, 28, 33), images(3, 3, 28, 33, seed=1)
    keys = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [
        metrics.structural_similarity(a.numpy(), b.numpy(), channel_axis=0, **keys) for a, b in zip(x, y, strict=True)
    ]
    assert ssim(x, y).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 7), (1, 8, 8)])
def test_small_images_have_smaller_windows(shape: tuple[int, int, int]) -> None:
    x = images(2, *shape)
    assert ssim(x, x).tolist() == pytest.approx([1, 1]) and (ssim(x, 1 - x) < 1).all()


def test_another_image_is_at_distance_1() -> None:
    real = torch.randn(4_000, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    estimate = feature_distance(real=real, fake=real[torch.randperm(4_000, generator=torch.Generator().manual_seed(1))])
    assert estimate.interval[0] < 1 < estimate.interval[1] and feature_distance(real=real, fake=real).value == 0
    half = feature_distance(real=real, fake=real + 1)  # |1|**2 = 8 over 2 x 8
    assert half.value == pytest.approx(0.5, rel=0.05)
    assert feature_distance(real=real[:1].expand(5, -1), fake=real[:5]) == "all images have the same features"


@pytest.mark.slow
def test_a_gan_comes_back_through_codes_that_are_searched(tmp_path: Path) -> None:
    run = trilemma.train("gan", "digits", steps=3, batch=32, out=tmp_path / "gan", quiet=True, device="cpu")
    plain = trilemma.evaluate(run, n=100)
    assert not [score for score in plain.scores if score.name.startswith("reconstruction")]
    scores = trilemma.evaluate(run, n=100, inverted=3)
    image, _ = some_images(run.model, run.data.splits["test"], 3, 0)
    expected = reconstruction_values(image, run.reconstruct(image))
    assert scores["reconstruction_rmse"].value == pytest.approx(expected["reconstruction_rmse"].value, rel=1e-3)
    assert scores["reconstruction_rmse"].n_real == 3
    assert [note for note in scores.notes if note.startswith("the codes of 3 images were searched: ")]
    with pytest.raises(UserError, match="inverted=1: an interval takes at least 2 images"):
        trilemma.evaluate(run, n=100, inverted=1)
    with pytest.raises(UserError, match="images have no codes; give a run"):
        trilemma.evaluate(torch.rand(30, 1, 8, 8), against="digits", inverted=3)


class Pixels(nn.Module):
    """Features that need no training: the pixels."""

    def features(self, image: Tensor) -> Tensor:
        return image.flatten(1)


class Brighter(nn.Module):
    """Codes that are the pixels, and images a fifth brighter."""

    map_shape = (1, 2, 2)

    def to_map(self, image: Tensor) -> Tensor:
        return image

    def from_map(self, code: Tensor) -> Tensor:
        return code + 0.2

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return image.flatten(1)

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return z.unflatten(1, self.map_shape) + 0.2


class OfCodes(nn.Module):
    """A model that draws codes."""

    checks_autoencoder = True

    def __init__(self) -> None:
        super().__init__()
        self.autoencoder, self.anything = Brighter(), nn.Parameter(torch.zeros(()))


@pytest.mark.parametrize("n", [2048, 100])
def test_the_distance_of_an_autoencoder_is_that_of_the_same_images(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shift of 51 levels in each of 4 pixels is one of the mean alone: 4 x 0.2**2. As it is the same for each pair of
    an image and its reconstruction, the distance does not scatter. All reconstructions lie in memory as levels."""
    kept: list[torch.dtype] = []
    module = "trilemma.metrics.reconstruction.extract"
    monkeypatch.setattr(module, lambda network, images, **keys: kept.append(images.dtype) or extract(network, images))
    levels = torch.randint(0, 205, (2100, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = Data("made-up", "made-up", (1, 2, 2), (), {"test": Split(levels)}, (), (), "fingerprint")
    network = FeatureNetwork("pixels", Pixels(), (1, 2, 2))
    setup = Setup(data, "test", True, network, n, 0)
    real = frechet.gaussian(extract(network, real_images(data, "test", n, 0)))
    (score,) = code_map_scores(OfCodes(), setup, real)
    assert score.protocol == f"frechet-reconstructed_pixels_{n}_test" and score.n_real == n
    if n < frechet.MINIMUM:
        assert score.value is None and "the Frechet distance is mostly bias" in str(score.refused)
        return
    assert score.value == pytest.approx(0.16, rel=1e-5)
    assert score.interval == pytest.approx((0.16, 0.16), rel=1e-4) and "pairs" in score.interval_is
    assert kept == [torch.uint8]
    assert not code_map_scores(Brighter(), setup, real)
