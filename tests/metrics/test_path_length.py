"""The length of the way between codes: generators for which it is known, and models of every kind."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trilemma.classifiers.bundled import FeatureNetwork, load_network
from trilemma.data import load_data
from trilemma.interpolation import linear, spherical
from trilemma.metrics.path_length import STEP, Ends, of_moves, path_length, path_scores
from trilemma.metrics.quality import Setup
from trilemma.metrics.reals import real_images
from trilemma.registry import create
from trilemma.types import UNCONDITIONAL, Model

SHAPE = (1, 8, 8)


class Pixels(nn.Module):
    """The features are the pixels."""

    def features(self, image: Tensor) -> Tensor:
        return image.flatten(1)


class Rotation(Model):
    """Draws codes of 64 numbers, and makes an image of them by an orthogonal matrix."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.linalg.qr(torch.randn(64, 64, generator=start)).Q)

    def draw_codes(self, n: int, *, seed: int, condition: Any = UNCONDITIONAL) -> Tensor:
        return torch.randn(n, 64, generator=torch.Generator().manual_seed(seed))

    def invert(
        self, image: Tensor, condition: Any = UNCONDITIONAL, *, steps: int | None = None, seed: int = 0
    ) -> Tensor:
        return image.flatten(1) @ self.matrix.T

    def generate(self, z: Tensor, condition: Any = UNCONDITIONAL) -> Tensor:
        return (z @ self.matrix).view(-1, *SHAPE)

    def in_z(self) -> "Rotation":
        return self


class Coder(Rotation):
    """The same as an autoencoder."""

    draw_codes = invert = generate = in_z = None  # type: ignore[assignment]

    def encode(self, image: Tensor, condition: Any = UNCONDITIONAL) -> Tensor:
        return image.flatten(1) @ self.matrix.T

    def decode(self, z: Tensor, condition: Any = UNCONDITIONAL) -> Tensor:
        return (z @ self.matrix).view(-1, *SHAPE)


@pytest.fixture(scope="module")
def setup() -> Setup:
    return Setup(load_data("digits"), "test", True, FeatureNetwork("pixels", Pixels(), SHAPE), 100, 0)


def between(setup: Setup, n: int) -> float:
    """E|x - x'|**2 of the real images that a length of n pairs is measured by."""
    pixels = real_images(setup.data, "test", 4 * n, setup.seed).double().flatten(1) / 255
    return 2 * pixels.var(0).sum().item()


def test_an_arc_between_orthogonal_codes_turns_by_half_a_pi(setup: Setup) -> None:
    one, other = torch.eye(64)[:10], torch.eye(64)[10:20]
    value = path_length(Rotation(), setup, Ends(one, other, UNCONDITIONAL, spherical))
    assert not isinstance(value, str)
    assert value.value == pytest.approx((math.pi / 2) ** 2 / between(setup, 10), rel=1e-3)
    assert value.interval[1] - value.interval[0] < 0.01 * value.value  # all pairs are alike


def test_on_a_line_every_step_has_one_length(setup: Setup) -> None:
    codes = Rotation().draw_codes(40, seed=3)
    one, other = codes.chunk(2)
    value = path_length(Rotation(), setup, Ends(one, other, UNCONDITIONAL, linear))
    assert not isinstance(value, str)
    assert value.value == pytest.approx(
        float((one - other).double().square().sum(1).mean()) / between(setup, 20), rel=1e-3
    )


def test_images_as_codes_have_the_length_1(setup: Setup) -> None:
    """Pixels that change evenly from one real image to another: E|x - x'|**2 over itself."""
    scores, notes = path_scores(Coder(), setup, n=180)
    (score,) = scores
    assert not notes and score.name == "path_length" and score.interval is not None
    assert score.interval[0] < 1 < score.interval[1] and score.value == pytest.approx(1, abs=0.1)
    assert score.protocol == "path-length_pixels_180_test" and score.n_fake == 360


def test_a_cliff_makes_the_way_longer() -> None:
    """A way of which a tenth changes all has ten times the length of one that changes evenly."""
    real = torch.randn(2_000, 4, generator=torch.Generator().manual_seed(0)).double()
    even = torch.full((1_000, 4), STEP).double()
    cliff = torch.where(torch.arange(1_000)[:, None] % 10 == 0, 10 * even, 0 * even)
    values = [of_moves(torch.zeros(1_000, 4).double(), moves, real=real) for moves in (even, cliff)]
    assert not any(isinstance(value, str) for value in values)
    assert values[1].value == pytest.approx(10 * values[0].value)  # type: ignore[union-attr]
    assert values[0].value == pytest.approx(4 / 8, rel=0.1)  # type: ignore[union-attr]


def test_nothing_is_said_of_equal_images_or_of_numbers_that_are_none(setup: Setup) -> None:
    x = torch.randn(5, 4).double()
    assert of_moves(x, x, real=x[:1].expand(5, -1)) == "all real images have the same features"
    one, other = torch.eye(64)[:2], torch.full((2, 64), torch.nan)
    text = path_length(Rotation(), setup, Ends(one, other, UNCONDITIONAL, linear))
    assert isinstance(text, str) and "4 of 4 features by pixels hold NaN or infinite values" in text


@pytest.mark.parametrize("name", ["ae-conv", "vae", "gan-dcgan-28", "gan-style", "vae-conditional"])
def test_models_with_codes_have_a_length(name: str) -> None:
    data = load_data("digits")
    settings = {"n_classes": 10} if name == "vae-conditional" else {}
    model = create(name, shape=SHAPE, **settings).eval()
    scores, notes = path_scores(model, Setup(data, "test", True, load_network("digits-cnn"), 100, 0), n=20)
    assert [score.name for score in scores] == ["path_length"] and not notes
    assert scores[0].value is not None and scores[0].value > 0


@pytest.mark.parametrize("name", ["diffusion-small", "vae-vq"])
def test_models_without_a_continuous_code_in_one_call_have_none(name: str) -> None:
    setup = Setup(load_data("digits"), "test", True, load_network("digits-cnn"), 100, 0)
    assert path_scores(create(name, shape=SHAPE).eval(), setup, n=20) == ([], [])


def test_a_conditional_model_on_other_data_has_a_note() -> None:
    setup = Setup(load_data("digits"), "test", False, load_network("digits-cnn"), 100, 0)
    scores, notes = path_scores(create("vae-conditional", shape=SHAPE, n_classes=10).eval(), setup, n=20)
    assert not scores and notes == ["no path length: the model takes labels, and the labels of digits are not its own"]
