"""Learning rates: the plateau rule, the cosine, the warm-up."""

import math

import pytest

from trilemma.config import make
from trilemma.errors import UserError
from trilemma.run.config import TrainConfig
from trilemma.training.optim import Plateau, learning_rate, lr_factor
from trilemma.types import Player


def test_plateau_halves_after_two_validations_without_improvement() -> None:
    plateau, factors = Plateau(), []
    for figure in (1.0, 0.9, 0.95, 0.91, 0.8, 0.8, 0.8):
        plateau.update(figure)
        factors.append(plateau.factor)
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_plateau_survives_json() -> None:
    fresh, seen = Plateau(), Plateau()
    for figure in (1.0, 2.0):
        seen.update(figure)
    for plateau in (fresh, seen):
        other = Plateau()
        other.load(plateau.state())
        assert other == plateau


def test_cosine_goes_from_one_to_zero() -> None:
    config = TrainConfig(steps=10, schedule="cosine")
    values = [lr_factor(config, p, 10**6, Plateau()) for p in (0, 0.25, 0.5, 1)]
    assert values == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])


def test_linear_goes_from_one_to_zero() -> None:
    config = TrainConfig(steps=10, schedule="linear")
    assert [lr_factor(config, p, 10**6, Plateau()) for p in (0, 0.25, 0.5, 1)] == pytest.approx([1, 0.75, 0.5, 0])


def test_warmup_is_linear_in_images() -> None:
    config = TrainConfig(steps=10, schedule="constant", warmup_images=400)
    assert [lr_factor(config, 0, seen, Plateau()) for seen in (0, 100, 400, 500)] == [0, 0.25, 1, 1]


def test_warmup_is_over_after_a_tenth_of_a_short_training() -> None:
    config = TrainConfig(minutes=1, schedule="constant", warmup_images=10**9)
    assert [lr_factor(config, p, 1000, Plateau()) for p in (0.05, 0.1, 0.7)] == pytest.approx([0.5, 1, 1], rel=1e-5)


def test_a_warmup_without_a_share_has_its_images_however_short_the_training_is() -> None:
    config = TrainConfig(minutes=1, schedule="constant", warmup_images=4000, warmup_share=None)
    assert [lr_factor(config, p, 1000, Plateau()) for p in (0.05, 0.7)] == [0.25, 0.25]


def test_a_player_without_a_rate_is_named() -> None:
    config = TrainConfig(steps=1, lr={"critic": 0.1})
    assert learning_rate(Player("critic", []), config) == 0.1
    with pytest.raises(UserError, match='no value for "generator"'):
        learning_rate(Player("generator", []), config)


@pytest.mark.parametrize("length", [{}, {"steps": 1, "minutes": 1.0}])
def test_one_length_is_asked_for(length: dict[str, float]) -> None:
    with pytest.raises(UserError, match="exactly one of steps, epochs, images, minutes"):
        make(TrainConfig, length)


def test_lengths_in_images() -> None:
    assert TrainConfig(steps=7).total_images(100, 32) == 7 * 32
    assert TrainConfig(epochs=2).total_images(100, 10) == 200
    assert TrainConfig(images=1000).total_images(100, 300) == 900  # the nearest whole number of steps
    assert TrainConfig(minutes=1).total_images(100, 10) is None
