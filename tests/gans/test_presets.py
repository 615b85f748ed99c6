"""The constants of the presets: those of the papers, and where a preset differs, those of the paper in `published`."""

import re
from pathlib import Path
from typing import Any

import pytest

from trilemma.arguments import typed
from trilemma.gans.gan import GAN
from trilemma.registry import create, get_recipe, list_models
from trilemma.run.config import TrainConfig
from trilemma.training.optim import make_optimizer
from trilemma.training.request import split_keys

RESULTS = Path(__file__).parents[2] / "docs" / "results.md"
EACH = [("critic", 1, 1), ("generator", 1, 1)]  # phases: every so many steps, so often in one
FIVE = [("critic", 1, 5), ("generator", 1, 1)]
UNBOUNDED = {"penalty": "none", "weight_clip": None, "spectral_norm": False}

OWN: dict[str, tuple[list[tuple[str, int, int]], dict[str, Any]]] = {
    # Goodfellow et al. 2014, algorithm 1 with k = 1, and the generator's loss of section 3
    "gan": (EACH, {"network": "mlp", "loss": "non-saturating", **UNBOUNDED}),
    "gan-dcgan-28": (EACH, {"network": "dcgan-28", "loss": "non-saturating", **UNBOUNDED}),
    # Radford et al. 2016, section 4
    "gan-dcgan": (
        EACH,
        {"network": "dcgan", "loss": "non-saturating", "optimizer": "adam", "betas": (0.5, 0.999), **UNBOUNDED},
    ),
    # Arjovsky et al. 2017, algorithm 1
    "gan-wgan": (
        FIVE,
        {
            **UNBOUNDED,
            "loss": "wasserstein",
            "weight_clip": 0.01,
            "network": "plain",
            "optimizer": "rmsprop",
            "lr": 5e-5,
            "batch": 64,
        },
    ),
    # Gulrajani et al. 2017, algorithm 1
    "gan-wgan-gp": (
        FIVE,
        {
            **UNBOUNDED,
            "loss": "wasserstein",
            "penalty": "gradient",
            "optimizer": "adam",
            "lr": 1e-4,
            "betas": (0.0, 0.9),
            "batch": 64,
        },
    ),
    # Huang et al. 2024, section 3: R1 and R2 in every step, no norm
    "gan-r3": (
        EACH,
        {
            **UNBOUNDED,
            "loss": "relativistic",
            "penalty": "r1r2",
            "network": "plain",
            "optimizer": "adam",
            "betas": (0.0, 0.99),
        },
    ),
    # Karras et al. 2020, appendix B, and 2019, section 3.1; the mapping network of Karras et al. 2020 (limited data)
    "gan-style": (
        [("critic", 1, 1), ("penalty", 16, 1), ("generator", 1, 1), ("path", 4, 1)],
        {
            **UNBOUNDED,
            "loss": "non-saturating",
            "penalty": "r1",
            "mapping_layers": 2,
            "mixing": 0.9,
            "path_weight": 2.0,
            "optimizer": "adam",
            "lr": 0.0025,
            "betas": (0.0, 0.99),
        },
    ),
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "gan-dcgan": {"optimizer": "adam", "lr": 2e-4, "betas": (0.5, 0.999), "batch": 128, "width": 64},
    # algorithm 1, as both papers' code for 64x64 images has it
    "gan-wgan": {"optimizer": "rmsprop", "lr": 5e-5, "batch": 64, "critic_steps": 5, "weight_clip": 0.01},
    "gan-wgan-gp": {
        "optimizer": "adam",
        "lr": 1e-4,
        "betas": (0.0, 0.9),
        "batch": 64,
        "critic_steps": 5,
        "penalty": "gradient",
        "penalty_weight": 10.0,
    },
    "gan-r3": {  # for CIFAR-10; of images in [-1, 1] the weight is 0.05, and falls to 0.005
        "network": "r3",
        "group": 8,
        "width": 768,
        "latent": 64,
        "loss": "relativistic",
        "penalty": "r1r2",
        "penalty_weight": 0.05 / 4,
        "penalty_end": 0.1,
        "optimizer": "adam",
        "lr": 2e-4,
        "betas": (0.0, 0.99),
        "batch": 512,
        "ema_halflife_images": 5_000_000,
    },
    "gan-style": {  # limited data, for CIFAR-10; of images in [-1, 1] the weight is 0.01
        "mapping_layers": 2,
        "deviation_group": 32,
        "penalty": "r1",
        "penalty_weight": 0.01 / 4,
        "penalty_every": 16,
        "mixing": 0.0,
        "path_weight": 0.0,
        "critic_augment": "adaptive",
        "optimizer": "adam",
        "lr": 0.0025,
        "betas": (0.0, 0.99),
        "batch": 64,
        "ema_halflife_images": 500_000,
    },
}


def built(preset: str) -> GAN:
    model = create(preset, shape=(1, 8, 8), width=4)
    assert isinstance(model, GAN)
    return model


def training_of(preset: str) -> TrainConfig:
    return TrainConfig(**get_recipe(preset).training)


@pytest.mark.parametrize("preset", OWN)
def test_a_preset_has_the_constants_of_its_paper(preset: str) -> None:
    phases, constants = OWN[preset]
    values = {**get_recipe(preset).config.model_dump(), **training_of(preset).model_dump()}
    assert {name: values[name] for name in constants} == constants
    assert [(phase.name, phase.every, phase.repeats) for phase in built(preset).phases] == phases


@pytest.mark.parametrize("preset", PUBLISHED)
def test_what_is_published_of_a_preset_is_in_its_recipe(preset: str) -> None:
    published = get_recipe(preset).published
    assert published is not None and dict(published.settings) == PUBLISHED[preset]


def test_settings_are_named_with_the_data_that_they_are_of() -> None:
    """For MNIST the code of Gulrajani et al. has betas of 0.5 and 0.9 and batches of 50."""
    for preset, data in {"gan-wgan": "LSUN bedrooms, 64x64", "gan-wgan-gp": "ImageNet, 64x64"}.items():
        assert (published := get_recipe(preset).published) and published.data == data


def differing(preset: str) -> tuple[set[str], set[str]]:
    """The settings of a preset that are others than the published ones, and those, as they are typed."""
    recipe, model = get_recipe(preset), built(preset)
    assert recipe.published is not None
    training, network = split_keys(recipe, recipe.published.settings)
    own = {**training_of(preset).model_dump(), **recipe.config.model_dump()}
    if model.config.penalty != "none":
        own["penalty_weight"] = model.penalty_weight(0.0)
    published = {key: value for key, value in {**training, **network}.items() if value != own[key]}
    return set(typed({key: own[key] for key in published})), set(typed(published))


def test_the_page_of_results_says_where_a_preset_differs_from_what_is_published_and_why() -> None:
    table = RESULTS.read_text("utf-8").partition("| preset | here | published | why |\n| --- | --- | --- | --- |\n")[2]
    said, preset = {name: (set[str](), set[str]()) for name in OWN}, ""
    for row in table.partition("\n\n")[0].splitlines():
        name, here, published, why = (cell.strip() for cell in row.split("|")[1:-1])
        preset = name.strip("`") or preset
        assert why
        for words, cell in zip(said[preset], (here, published), strict=True):
            words.update(re.findall(r"`([^`]+)`", cell))
    assert said == {name: differing(name) for name in OWN}


@pytest.mark.parametrize(("preset", "weight"), [("gan-wgan-gp", 10.0), ("gan-style", 0.01 / 4)])
def test_a_penalty_has_the_weight_of_its_paper(preset: str, weight: float) -> None:
    """R1's for images in [0, 1], where it is four times that in [-1, 1]; the weight stays for the whole training."""
    assert [built(preset).penalty_weight(progress) for progress in (0.0, 1.0)] == [weight, weight]


@pytest.mark.parametrize("preset", OWN)
def test_optimisers_have_the_constants_that_no_key_sets(preset: str) -> None:
    """Kingma & Ba 2015, algorithm 1: 1e-8; of RMSProp those of torch, which Arjovsky et al. took, without momentum."""
    for player in built(preset).players:
        constants = make_optimizer(player, training_of(preset)).defaults
        assert constants["eps"] == 1e-8 and constants.get("weight_decay", 0) == 0
        if preset == "gan-wgan":
            assert (constants["alpha"], constants["momentum"], constants["centered"]) == (0.99, 0, False)


def test_every_preset_is_here() -> None:
    assert set(OWN) == {name for name in list_models() if get_recipe(name).family == "gan"}
