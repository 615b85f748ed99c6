"""`diffusion-latent` in one command: the autoencoder first, its gates, then the codes; and what works through it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma.errors import UserError
from trilemma.run.checkpoint import list_checkpoints
from trilemma.run.parts import read_parts
from trilemma.training.gates import measure
from trilemma.training.loop import Trainer
from trilemma.training.signals import Stopped

SMALL: dict[str, Any] = {
    "width": 8,
    "multipliers": (1, 2),
    "steps": 30,
    "batch": 32,
    "quiet": True,
    "device": "cpu",
    "autoencoder.batch": 32,
    "autoencoder.feature_loss": 0.0,
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> trilemma.Run:
    out = tmp_path_factory.mktemp("latent") / "run"
    return trilemma.train("diffusion-latent", "digits", out=out, **SMALL, **{"autoencoder.steps": 1500})


def rmse(image: Any, of: Any) -> float:
    return float((image - of).square().mean().sqrt())


def test_one_command_trains_both_and_measures_the_codes(run: trilemma.Run) -> None:
    part = run.path / "parts" / "autoencoder"
    assert (part / "summary.json").exists() and trilemma.load(part).recipe.name == "ae-kl"
    codes = run.encode(run.data.train.images[:500].float() / 255).unflatten(1, run.model.autoencoder.map_shape)
    assert codes.mean(dim=(0, 2, 3)).abs().max() < 0.1 and (codes.std(dim=(0, 2, 3)) - 1).abs().max() < 0.1
    assert run.sample(3, seed=0).shape == (3, 1, 8, 8)


def test_what_was_measured_of_the_autoencoder_stays_with_the_run(run: trilemma.Run, tmp_path: Path) -> None:
    """In config.json and on the card; also where the training is resumed, which measures nothing."""
    expected = measure(run.model.autoencoder, run.data, torch.device("cpu")).to_json()
    assert run.config["parts"]["autoencoder"]["check"] == pytest.approx(expected)
    shutil.copytree(run.path, tmp_path / "run")
    longer = trilemma.train(
        "diffusion-latent", "digits", out=tmp_path / "run", **{**SMALL, "steps": 32}, **{"autoencoder.steps": 1500}
    )
    assert longer.summary["steps"] == 32
    for one in (run, longer):
        check = read_parts(one.config)["autoencoder"].check
        assert check is not None and check.to_json() == run.config["parts"]["autoencoder"]["check"]
        card = (one.path / "README.md").read_text("utf-8")
        assert f"| its reconstructions | at {check.reconstruction:.3g} of the distance of two images (" in card


def test_an_autoencoder_that_is_not_good_enough_stops_it(tmp_path: Path) -> None:
    keys = {**SMALL, "autoencoder.steps": 1}
    with pytest.raises(UserError, match=r"the autoencoder is not good enough: .*or continue with check=false"):
        trilemma.train("diffusion-latent", "digits", out=tmp_path / "run", **keys)
    run = trilemma.train("diffusion-latent", "digits", out=tmp_path / "run", **keys, check=False)
    assert run.summary["steps"] == 30
    card = (run.path / "README.md").read_text("utf-8")
    assert run.config["parts"]["autoencoder"]["check"] is None and "| its reconstructions |" not in card


def test_ends_of_an_interpolation_are_as_near_as_reconstructions(run: trilemma.Run, tmp_path: Path) -> None:
    images = run.data.held_out[1].images[[3, 7]].float() / 255
    own = rmse(run.reconstruct(images), images)
    frames = trilemma.interpolate(run, 3, 7, animate=False, out=tmp_path / "i.png").frames["linear"]
    assert rmse(frames[[0, -1]], images) == pytest.approx(own, rel=1e-3)
    assert own < 0.1  # two digits are 0.4 apart
    edited = trilemma.edit(run, 3, strength=0.0, n=1, out=tmp_path / "e.png").images
    assert rmse(edited, images[:1]) <= own


def test_codes_of_vector_quantisation_serve_as_well(tmp_path: Path) -> None:
    keys = {key: value for key, value in SMALL.items() if key != "autoencoder.feature_loss"}
    run = trilemma.train(
        "diffusion-latent", "digits", autoencoder="vae-vq", out=tmp_path / "run", **keys, **{"autoencoder.steps": 1500}
    )
    assert run.sample(2, seed=0).shape == (2, 1, 8, 8)


BRIEF: dict[str, Any] = {**SMALL, "steps": 4, "check": False, "autoencoder.steps": 4}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> trilemma.Run:
    return trilemma.train("diffusion-latent", "digits", out=tmp_path_factory.mktemp("unbroken") / "run", **BRIEF)


def state(path: Path) -> dict[str, bytes]:
    """The weights to use of both stages, and every tensor of their last checkpoints."""
    folders = {"run": path, "autoencoder": path / "parts" / "autoencoder"}
    folders |= {f"state of {name}": list_checkpoints(at / "checkpoints")[-1] for name, at in folders.items()}
    return {f"{name}: {f.name}": f.read_bytes() for name, at in folders.items() for f in at.glob("*.safetensors")}


@pytest.mark.parametrize("at", [2, 4, 6])  # in the autoencoder; after its last step; in the diffusion of its codes
def test_interrupted_in_either_stage_and_resumed_equals_unbroken(
    at: int, unbroken: trilemma.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, take_step = list[int](), Trainer.take_step

    def counted(trainer: Trainer) -> None:
        take_step(trainer)
        steps.append(trainer.calendar.step)
        if len(steps) == at:
            trainer.signals.stop = 2

    monkeypatch.setattr(Trainer, "take_step", counted)
    with pytest.raises(Stopped):
        trilemma.train("diffusion-latent", "digits", out=tmp_path / "run", **BRIEF)
    run = trilemma.train("diffusion-latent", "digits", out=tmp_path / "run", **BRIEF)
    assert steps == [1, 2, 3, 4, 1, 2, 3, 4] and len(state(run.path)) > 4
    assert state(run.path) == state(unbroken.path)


def test_levels_outside_a_mask_stay_as_they_are_in_colour(tmp_path: Path) -> None:
    keys = {**BRIEF, "steps": 2, "autoencoder.steps": 2}
    run = trilemma.train("diffusion-latent", "shapes:64", size=9, out=tmp_path / "run", **keys)
    edited = trilemma.edit(run, 3, mask="0,0,5,7", n=2, steps=2, rounds=1, out=tmp_path / "e.png")
    source, outside = run.data.held_out[1].images[3].numpy().transpose(1, 2, 0), np.ones((9, 9), bool)
    outside[:7, :5] = False
    assert source.shape == (9, 9, 3) and len(edited.files) == 2
    for file in edited.files:
        levels = np.asarray(Image.open(file))
        assert np.array_equal(levels[outside], source[outside]) and not np.array_equal(levels, source)
