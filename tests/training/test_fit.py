"""Settings that follow the data: each rule's law, the recipe's own data, and keys that the user gave."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import trilemma
from trilemma.arguments import parse_rate, parse_settings
from trilemma.data import load_data
from trilemma.data.config import config_of_data
from trilemma.registry import Blueprint, build, get_recipe, list_models, without_memory
from trilemma.run.command import train_command
from trilemma.run.migration import stated_variance
from trilemma.training.fit import LEAST_STEPS, fit_batch, fit_model, fit_training, too_narrow
from trilemma.training.order import order_of
from trilemma.training.prepare import config_for, plan_of
from trilemma.training.request import request_of, split_keys, training_config
from trilemma.types import Batch, flags

MANY = 50_000


def fitted(model: str, shape: tuple[int, int, int], n_train: int, **given: Any):
    """The training and the model's settings for images of a shape, and all notes."""
    recipe = get_recipe(model)
    config, of_model = fit_model(recipe, recipe.config.with_(shape=shape))
    with torch.device("meta"):
        module = build(recipe, config)
    training = training_config(recipe.training, given)
    training, notes = fit_training(recipe, training, given, module, n_train)
    return training, config, of_model + notes


@pytest.mark.parametrize("model", list_models())
def test_on_the_data_of_the_recipe_nothing_changes(model: str) -> None:
    recipe = get_recipe(model)
    training, config, notes = fitted(model, recipe.config.shape, MANY)
    assert (training, notes) == (training_config(recipe.training, {}), ())
    own, same = (stated_variance(c.to_json()) for c in (recipe.config, config))
    assert same == own


@pytest.mark.parametrize(
    ("n_train", "batch"), [(50_000, 256), (2_048, 256), (2_047, 128), (177, 16), (20, 16), (1, 16)]
)
def test_a_pass_over_few_images_has_several_batches(n_train: int, batch: int) -> None:
    assert fit_batch(256, n_train) == batch
    assert fit_batch(4, n_train) == 4  # a batch that is small already


@pytest.mark.parametrize(
    ("group", "n_train", "batch", "said"),
    [
        (4, 138, 16, ["batch 16 (32 for more training images, or smaller ones)"]),
        (32, 138, 32, []),
        (24, 138, 24, ["batch 24 (48 for more training images, or smaller ones)"]),
        (3, MANY, 33, ["batch 33 (32 is not a multiple of 3)"]),
    ],
)
def test_a_batch_that_nobody_gave_has_whole_groups(group: int, n_train: int, batch: int, said: list[str]) -> None:
    recipe = get_recipe("gan-style")
    module = without_memory(recipe, recipe.config.with_(deviation_group=group))
    training, notes = fit_training(recipe, training_config(recipe.training, {}), {}, module, n_train)
    assert training.batch == batch and [note for note in notes if note.startswith("batch")] == said
    flags(module).check_batch(batch)


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
    for model in ("ae-conv", "gan-dcgan", "gan-dcgan-28", "gan-wgan", "gan-wgan-gp", "diffusion-small"):
        for shape in ((3, 64, 64), (3, 32, 32)):  # at 32 px the last layer of a critic has more inputs than an image
            assert fitted(model, shape, MANY)[0].lr == get_recipe(model).training["lr"]


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


@pytest.mark.parametrize("model", ["vae", "vae-conv", "vae-discrete"])
def test_beta_weighs_the_divergence_as_fitted(model: str) -> None:
    """The gradient of the loss by the divergence, 2 s^2 beta / D, is beta times that of beta=1 at 784 pixels."""
    recipe = get_recipe(model)
    for beta in (0.3, 1.0, 4.0):
        config, _ = fit_model(recipe, recipe.config.with_(shape=(1, 8, 8), beta=beta))
        network, batch = build(recipe, config), Batch(torch.rand(5, 1, 8, 8, generator=torch.manual_seed(0)))
        loss, parts = network.phases[0].loss(batch, torch.manual_seed(1))  # type: ignore[union-attr]
        assert float((loss.detach() - parts["mse"]) / parts["kl_nats"]) == pytest.approx(beta / 784, rel=1e-4)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("vae-mnist", {}),
        ("vae-beta", {}),
        ("vae-beta", {"reconstruction": "mse"}),  # of variance 0.02
        ("ae-stacked", {}),
        ("vae-hierarchical", {}),
        ("vae", {"variance": 0.5}),
        ("vae", {"variance": 0.03}),
        ("vae", {"reconstruction": "gaussian"}),
    ],
)
def test_other_likelihoods_and_given_variances_stay(model: str, settings: dict[str, Any]) -> None:
    recipe = get_recipe(model)
    config = recipe.config.with_(shape=(1, 8, 8), **settings)
    assert fit_model(recipe, config) == (config, ())


def test_beside_a_capacity_the_variance_is_the_published_one() -> None:
    recipe = get_recipe("vae")
    config = recipe.config.with_(shape=(1, 8, 8), capacity_nats=5)
    assert fit_model(recipe, config) == (config.with_(variance=0.5), ())


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("vae", {"beta": 1}),  # keys that are equal to the recipe's
        ("vae", {"reconstruction": "mse"}),
        ("vae", {"beta": 0.3}),
        ("vae", {"capacity_nats": 5, "beta": 2}),
        ("vae", {"variance": 0.5}),
        ("vae-conv", {"beta": 0.001, "variance": 0.2}),
        ("vae-discrete", {"beta": 1, "epochs": 1}),
        ("vae-mnist", {"reconstruction": "mse"}),
        ("vae", {"reconstruction": "gaussian"}),
        ("vae", {"batch": 256, "lr": 0.01}),
        ("gan", {"optimizer": "rmsprop", "clip": None, "ema_halflife_images": None}),
        (
            "vae",
            {"optimizer": "adamw", "betas": (0.5, 0.9), "weight_decay": 1e-5, "monitor": None, "schedule": "cosine"},
        ),
        ("vae", {"warmup_images": 0, "clip": 0.5, "channels_last": True, "hidden": ()}),
        ("diffusion-small", {"schedule": "linear", "lr_schedule": "constant", "warmup_images": 5}),
    ],
)
def test_the_recorded_command_is_the_same_training(model: str, given: dict[str, Any]) -> None:
    recipe, data, both = get_recipe(model), trilemma.load_data("shapes:300", size=8), []
    for _ in range(2):
        keys, settings = split_keys(recipe, given, ())
        config, _ = fit_model(recipe, config_for(recipe, data, settings))
        training = training_config(recipe.training, keys)
        training, _ = fit_training(recipe, training, keys, build(recipe, config), len(data.train))
        command = train_command(recipe, data.source, config, config_of_data(data), training)
        both.append((config, training, command))
        words = parse_settings(typed := shlex.split(command)[4:])
        words["lr"] = parse_rate(next(word[3:] for word in typed if word.startswith("lr=")))
        given = {key: value for key, value in words.items() if key not in ("size", "channels")}
    assert both[0] == both[1]
    if hasattr(both[0][0], "variance") and getattr(both[0][0], "reconstruction", "mse") == "mse":
        assert f" variance={both[0][0].variance}" in both[0][2]


def test_a_training_says_what_changed_and_its_command_says_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trilemma.train("vae", "digits", steps=2, out=tmp_path / "run")
    output = capsys.readouterr()
    assert "batch 128 (256 for" in output.out + output.err and "variance of a pixel 0.0408" in output.out + output.err
    assert run.config["model_config"]["variance"] == 0.5 * 64 / 784
    for word in ("batch=128", "lr=0.01", "variance=0.0408"):
        assert word in run.config["command"]
    assert (run.sample(64, seed=0).isfinite()).all()


def test_a_network_that_is_narrower_than_a_place_of_codes_is_noted() -> None:
    latent, part = get_recipe("diffusion-latent"), get_recipe("ae-kl")
    parts = {"autoencoder": Blueprint(part, part.config.with_(dim=8), {})}
    narrow, wide = (latent.config.with_(width=width) for width in (7, 8))
    assert too_narrow(without_memory(latent, wide, parts), wide) is None
    note = too_narrow(without_memory(latent, narrow, parts), narrow)
    assert note is not None and note.startswith("a place of the codes has 8 numbers and the network 7 channels: ")
    assert note.endswith("; give width=8 or more")
    vae = get_recipe("vae")
    assert too_narrow(without_memory(vae), vae.config) is None


@pytest.mark.parametrize(
    ("keys", "numbers", "advice"),
    [
        ({"shape": (1, 28, 28), "patch": 8}, 64, "64 or more, or a smaller patch="),
        ({"shape": (3, 32, 32), "patch": 4}, 48, "48 or more, or a smaller patch="),
        ({"shape": (3, 32, 32), "width": 2, "multipliers": (1,)}, 3, "3 or more"),
        ({"shape": (3, 8, 8), "network": "dit", "width": 32, "patch": 4}, 48, "48 or more, or a smaller patch="),
        ({"shape": (1, 28, 28), "patch": 4}, 16, None),  # as many channels
        ({"shape": (3, 128, 128)}, 12, None),  # the patch follows
    ],
    ids=str,
)
def test_a_network_that_is_narrower_than_a_patch_of_pixels_is_noted(
    keys: dict[str, Any], numbers: int, advice: str | None
) -> None:
    recipe = get_recipe("diffusion")
    config = recipe.config.with_(**keys)
    model = without_memory(recipe, config)
    has = f"a place of the images has {numbers} numbers and the network {config.get('width')} channels: "
    expected = f"{has}noise that they cannot hold stays in the images; give width={advice}"
    assert flags(model).place_numbers == numbers
    assert too_narrow(model, config) == (expected if advice else None)


def test_a_training_with_a_patch_that_its_network_cannot_hold_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"width": 4, "multipliers": (1,), "attention_px": 0, "patch": 4}
    trilemma.train("diffusion", "digits", steps=1, batch=8, out=tmp_path / "run", **small)
    output = capsys.readouterr()
    assert "note: a place of the images has 16 numbers and the network 4 channels" in output.out + output.err


@pytest.mark.parametrize(
    ("model", "keys", "noted"),
    [
        ("diffusion", {"density": "uniform", "density_mean": -1.0}, ["density_mean"]),
        ("diffusion-dit", {"density_std": 2.0, "density_mean": 0.5}, ["density_mean", "density_std"]),
        ("diffusion", {"density": "uniform"}, []),  # its density_mean is the preset's
        ("diffusion", {"density_mean": -1.0}, []),
        ("diffusion-flow", {"density_std": 2.0}, []),
    ],
    ids=str,
)
def test_a_key_without_effect_is_noted(model: str, keys: dict[str, Any], noted: list[str]) -> None:
    notes: list[str] = []
    plan_of(order_of(request_of(model), {"steps": 1}, keys), load_data("digits"), notes.append)
    said = [note for note in notes if "no effect" in note]
    assert said == [f"  note: {key}= has no effect with density=uniform" for key in noted]
