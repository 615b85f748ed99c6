"""Settings that follow the data: each rule's law, the recipe's own data, and keys that the user gave."""

from pathlib import Path
from typing import Any

import pytest
import torch

import trilemma
from trilemma.registry import build, get_recipe, list_models
from trilemma.training.fit import LEAST_STEPS, fit_batch, fit_model, fit_training
from trilemma.training.session import _training

MANY = 50_000


def fitted(model: str, shape: tuple[int, int, int], n_train: int, **given: Any):
    """The training and the model's settings for images of a shape, and all notes."""
    recipe = get_recipe(model)
    length = {name: given.pop(name, None) for name in ("epochs", "minutes")}
    config, of_model = fit_model(recipe, recipe.config.with_(shape=shape), ())
    with torch.device("meta"):
        module = build(recipe, config)
    names = {*given, *(name for name, value in length.items() if value)}
    training, notes = fit_training(recipe, _training(recipe, length, given), names, module, n_train)
    return training, config, of_model + notes


@pytest.mark.parametrize("model", list_models())
def test_on_the_data_of_the_recipe_nothing_changes(model: str) -> None:
    recipe = get_recipe(model)
    training, config, notes = fitted(model, recipe.config.shape, MANY)
    assert (training, config, notes) == (_training(recipe, {}, {}), recipe.config, ())


@pytest.mark.parametrize(
    ("n_train", "batch"), [(50_000, 256), (2_048, 256), (2_047, 128), (177, 16), (20, 16), (1, 16)]
)
def test_a_pass_over_few_images_has_several_batches(n_train: int, batch: int) -> None:
    assert fit_batch(256, n_train) == batch
    assert fit_batch(4, n_train) == 4  # a batch that is small already


def test_a_step_of_a_training_in_minutes_takes_no_more_pixels_than_the_recipes() -> None:
    assert [fit_batch(256, MANY, growth) for growth in (0.1, 1, 4, 3072 / 784, 100)] == [256, 256, 64, 64, 16]
    for length, batch in (({"minutes": 0.5}, 64), ({"epochs": 1}, 256)):
        assert fitted("ae-stacked", (3, 32, 32), MANY, **length)[0].batch == batch


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 32, 32), (1, 56, 28)])
def test_the_rate_of_layers_that_see_pixels_falls_as_their_number(shape: tuple[int, int, int]) -> None:
    factor = 28 * 28 / (shape[0] * shape[1] * shape[2])
    training, _, notes = fitted("ae-stacked", shape, MANY)
    assert training.lr == pytest.approx(0.006 * factor, rel=0.05)  # in two digits
    assert notes == (f"learning rate {training.lr:g} (0.006 for images of the recipe's size)",)
    rates = fitted("gan", shape, MANY)[0].lr
    assert isinstance(rates, dict) and rates["generator"] == 0.001  # sees none
    assert rates["critic"] == pytest.approx(0.0005 * factor, rel=0.05)


def test_rates_of_small_images_and_of_convolutions_stay() -> None:
    assert fitted("ae-stacked", (1, 8, 8), MANY)[0].lr == 0.006
    for model in ("ae-conv", "gan-dcgan", "diffusion-small"):
        assert fitted(model, (3, 64, 64), MANY)[0].lr == get_recipe(model).training["lr"]


def test_a_default_length_has_enough_steps() -> None:
    training, _, notes = fitted("ae-stacked", (1, 28, 28), 177)
    images = training.total_images(177, training.batch)
    assert images is not None
    steps = images / training.batch
    assert LEAST_STEPS <= steps < LEAST_STEPS + 177 / training.batch + 1
    assert any("epochs" in note for note in notes)
    assert fitted("ae-stacked", (1, 28, 28), 177, epochs=3)[0].epochs == 3


def test_keys_that_the_user_gave_stay() -> None:
    training, _, notes = fitted("vae", (3, 64, 64), 177, batch=256, lr=0.01, epochs=1)
    assert (training.batch, training.lr, training.epochs) == (256, 0.01, 1)
    assert not any("batch" in note or "rate" in note or "epochs" in note for note in notes)


@pytest.mark.parametrize("model", ["vae", "vae-conv", "vae-discrete"])
def test_the_divergence_weighs_the_same_against_images_of_any_size(model: str) -> None:
    """2 s^2 beta / D of the loss, with s^2 = 1/2 at the recipe's 784 pixels."""
    for shape in ((1, 8, 8), (3, 64, 64)):
        pixels = shape[0] * shape[1] * shape[2]
        config = fitted(model, shape, MANY)[1]
        assert 2 * config.to_json()["variance"] / pixels == pytest.approx(1 / 784, rel=1e-12)
    recipe = get_recipe(model)
    for key in ("beta", "variance"):
        config = recipe.config.with_(shape=(1, 8, 8))
        assert fit_model(recipe, config, {key}) == (config, ())


@pytest.mark.parametrize("model", ["vae-mnist", "vae-beta", "ae-stacked", "vae-hierarchical"])
def test_other_likelihoods_stay(model: str) -> None:
    recipe = get_recipe(model)
    config = recipe.config.with_(shape=(1, 8, 8))
    assert fit_model(recipe, config, ()) == (config, ())


def test_a_training_says_what_changed_and_its_command_says_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trilemma.train("vae", "digits", steps=2, out=tmp_path / "run")
    said = capsys.readouterr()
    assert "batch 128 (256 for" in said.out + said.err and "variance of a pixel 0.0408" in said.out + said.err
    assert run.config["model_config"]["variance"] == 0.5 * 64 / 784
    for word in ("batch=128", "lr=0.01", "variance=0.0408"):
        assert word in run.config["command"]
    assert (run.sample(64, seed=0).isfinite()).all()
