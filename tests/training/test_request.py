"""What `train` takes: every training key, a config.json, a module, an array."""

import importlib
import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.arguments import typed
from trilemma.cli import main as cli
from trilemma.data.config import DataConfig
from trilemma.errors import UserError
from trilemma.registry import get_recipe, list_models, registered
from trilemma.run.command import command_keys, own_keys
from trilemma.training.request import FIELDS, further_keys, request_of, split_keys, training_config
from trilemma.types import (
    UNCONDITIONAL,
    Batch,
    Condition,
    DenoisesOnAnySchedule,
    DrawsCodes,
    Finishes,
    HasStyles,
    Inverts,
    JudgesRealness,
    Phase,
    Player,
    Validates,
)

PAGE = Path(__file__).parents[2] / "docs" / "own-model.md"
SHORT: dict[str, Any] = {"steps": 2, "batch": 8, "sample_every": 10**6, "quiet": True, "device": "cpu"}
KNOBS: dict[str, Any] = {
    "optimizer": "adamw",
    "betas": (0.8, 0.99),
    "weight_decay": 0.01,
    "clip": None,
    "schedule": "constant",
    "warmup_images": 12,
    "ema_halflife_images": 100,
    "monitor": "valid_mse",
    "channels_last": True,
}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> trilemma.Run:
    """A training with all the keys that the recipe does not have by itself."""
    return trilemma.train("ae-stacked", "digits", out=tmp_path_factory.mktemp("a") / "run", latent=3, **KNOBS, **SHORT)


class Module(nn.Module):
    """Scales an image by one number."""

    def __init__(self, factor: float = 0.5, power: int = 2) -> None:
        super().__init__()
        self.factor, self.power = nn.Parameter(torch.tensor([factor])), power
        self.phases: Any = [Phase("model", Player("model", [self.factor]), self.loss)]

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return (self.factor * image).clamp(0, 1)

    def loss(self, batch: Batch, rng: torch.Generator) -> Any:
        loss = (self.factor * batch.image - batch.image).abs().pow(self.power).mean()
        return loss, {"loss": loss.detach()}


# --- keys -------------------------------------------------------------------------------------------------------------


def test_every_training_key_reaches_the_training(run: trilemma.Run) -> None:
    training = run.config["training"]
    assert {key: training[key] for key in KNOBS} == KNOBS | {"betas": [0.8, 0.99]}
    keys = dict(word.split("=") for word in run.config["command"].split()[4:])
    assert {key: keys[key] for key in ("betas", "clip", "warmup_images")} == {
        "betas": "0.8,0.99",
        "clip": "none",
        "warmup_images": "12",
    }


def test_a_warm_up_that_is_given_is_not_cut_short() -> None:
    recipe = get_recipe("vae")
    assert training_config(recipe.training, {}).warmup_share == 0.1
    given = training_config(recipe.training, {"warmup_images": 500})
    assert given.warmup_share is None
    assert "warmup_share" not in command_keys(recipe, recipe.config, DataConfig(), given)


def test_a_key_of_the_model_goes_before_one_of_the_training() -> None:
    keys = {"schedule": "linear", "lr_schedule": "constant", "clip": 2.0}
    expected = ({"schedule": "constant", "clip": 2.0}, {"schedule": "linear"})
    assert split_keys(get_recipe("diffusion-small"), keys, ()) == expected
    assert split_keys(get_recipe("vae"), {"schedule": "linear"}, ()) == ({"schedule": "linear"}, {})
    listed = [key for key, *_ in further_keys(get_recipe("diffusion-small"), lambda *, size: None)]
    assert "lr_schedule" in listed and "schedule" not in listed and {*FIELDS} - {*listed} == {"schedule", "size"}


@pytest.mark.parametrize("name", [name for name in trilemma.list_models() if get_recipe(name).published])
def test_published_settings_can_be_given_to_train_and_are_listed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = get_recipe(name)
    published = recipe.published
    assert published and published.source and published.data
    keys, settings = split_keys(recipe, published.settings)
    assert training_config(recipe.training, {key: keys[key] for key in keys if key != "valid"})
    assert recipe.config.with_(**settings)
    assert cli.main(["list", name]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in typed({**published.settings, **published.values}))


def test_every_training_key_says_what_it_is() -> None:
    assert all(field.description for field in FIELDS.values())


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"optimiser": "adam"}, 'unknown key "optimiser" .did you mean "optimizer"'),
        ({"latent": "5"}, "^latent='5': give a whole number of at least 1, not a text$"),
        ({"steps": "5"}, "^steps='5': give a whole number"),
        ({"betas": (0.9,)}, "^betas=0.9: give 2 values"),
        (
            {"optimizer": "rmsprop", "betas": (0.5, 0.9)},
            "^betas=0.5,0.9 is for optimizer=nadam, adam, adamw or muon",
        ),
        ({"lr": float("inf")}, "^lr=inf: give a finite number"),
        (
            {"reconstruction": "msee"},
            "^reconstruction=msee: give one of mse, bce ",
        ),
    ],
)
def test_wrong_keys_are_refused_before_the_data_are_read(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        trilemma.train("ae-stacked", "no/such/folder", **keys)


def test_a_figure_that_the_model_does_not_have_is_not_followed() -> None:
    with pytest.raises(UserError, match=r'monitor: unknown value "valid_rmes".*did you mean "valid_rmse"'):
        trilemma.train("ae-stacked", "digits", monitor="valid_rmes", **SHORT)
    assert not Path("runs").exists()


def test_rates_are_for_the_phases_that_there_are() -> None:
    with pytest.raises(UserError, match=r'unknown player in lr "critc".*did you mean "critic"'):
        trilemma.train("gan", "digits", lr={"critic": 1e-3, "generator": 1e-3, "critc": 1e-3}, **SHORT)


# --- config.json ------------------------------------------------------------------------------------------------------


def test_a_config_trains_the_same_again_in_a_new_folder(run: trilemma.Run) -> None:
    copied = shutil.copy(run.path / "config.json", "somewhere.json")
    again = trilemma.train(copied, **{k: v for k, v in SHORT.items() if k not in ("steps", "batch")})
    assert again.path == Path("runs/ae-stacked-digits") and again.config["command"] == run.config["command"]
    assert (again.path / "weights.safetensors").read_bytes() == (run.path / "weights.safetensors").read_bytes()
    changed = trilemma.train(copied, epochs=0.01, latent=2, seed=3, quiet=True, sample_every=10**6)
    assert changed.path == Path("runs/ae-stacked-digits-2")
    training = changed.config["training"]
    assert (changed.model_config.latent, training["seed"], training["epochs"], training["steps"]) == (2, 3, 0.01, None)
    assert training["betas"] == [0.8, 0.99] and training["batch"] == 8
    same = trilemma.train(run.path / "config.json", out=run.path, quiet=True)
    assert same.path == run.path


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"training": {"clip": "x", "steps": 1}}, "clip=x: give a number above 0 or none"),
        ({"training": {"steps": 1, "hook": "os.system"}}, 'unknown key "hook"'),
        ({"model_config": {"latent": -1}}, "latent=-1: give a whole number of at least 1"),
        ({"model_config": 3}, "model_config must be an object"),
        ({"model": "../x"}, "unknown model"),
        ({"data": ["a"]}, "data must be text"),
        ({"format": 99}, "has format 99"),
        ({"model_config": {"shape": [1, 8, 8], "module": "os.X", "start": ""}}, "call trilemma.train.module"),
    ],
)
def test_a_config_of_somebody_else_is_checked(run: trilemma.Run, change: dict[str, Any], text: str) -> None:
    Path("c.json").write_text(json.dumps(run.config | change))
    with pytest.raises(UserError, match=text):
        request_of("c.json")


def test_a_run_or_a_file_that_is_not_there_is_no_model(run: trilemma.Run) -> None:
    with pytest.raises(UserError, match=r"is a run; to train the same again give .*config.json"):
        request_of(run.path)
    with pytest.raises(UserError, match=r"file x\.json not found"):
        request_of("x.json")


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_a_run_of_an_array_is_opened_with_it() -> None:
    images = np.random.default_rng(0).random((40, 8, 8), np.float32)
    labels = ["a", "b"] * 20
    run = trilemma.train("ae-stacked", (images, labels), **SHORT)
    assert run.path == Path("runs/ae-stacked-array") and run.data.classes == ("a", "b")
    assert trilemma.train("ae-stacked", (images, labels), **SHORT).path == run.path
    with pytest.raises(UserError, match=r"^array:\w+ was an array in memory: give .*load\(path, data=ARRAY\)"):
        _ = trilemma.load(run.path).data
    opened = trilemma.load(run.path, data=(images, labels))
    assert torch.equal(opened.data.valid.images, run.data.valid.images)
    with pytest.raises(UserError, match="have changed since"):
        _ = trilemma.load(run.path, data=(images / 2, labels)).data
    shown = trilemma.reconstruct(run.path, data=(images, labels), n=2).images
    assert torch.equal(shown, trilemma.reconstruct(run, n=2).images)


def test_images_given_to_a_run_are_floats_up_to_one(run: trilemma.Run) -> None:
    for verb in (run.reconstruct, run.encode):
        with pytest.raises(UserError, match=r"values from 0 to 255; give floats in \[0, 1\]"):
            verb(torch.tensor([0.0, 255.0]).repeat(32).view(1, 1, 8, 8))
        with pytest.raises(UserError, match=r"images=\(ndarray of shape \(1, 1, 8, 8\)\): give a tensor"):
            verb(np.zeros((1, 1, 8, 8)))


# --- modules ----------------------------------------------------------------------------------------------------------


def test_a_copy_of_a_module_is_trained_and_the_same_call_resumes() -> None:
    module = Module()
    run = trilemma.train(module, "digits", **SHORT)
    assert run.path == Path("runs/module-digits") and module.factor.item() == 0.5 < run.model.factor.item()
    assert trilemma.train(Module(), "digits", **SHORT).path == run.path
    for other in (Module(0.4), Module(power=3)):
        assert trilemma.train(other, "digits", **SHORT).path != run.path
    with pytest.raises(UserError, match=r"a module of your own, .*Module: open it in Python with"):
        trilemma.load(run.path)
    assert trilemma.load(run.path, model=Module(0.1)).model.factor.item() == run.model.factor.item()


other = Module()


def moving(parameter: Any, loss: Any, after_step: Any = None, start: Any = None) -> list[Phase]:
    return [Phase("a", Player("a", [parameter], after_step=after_step), loss, start=start)]


def method(module: Module, loss: Callable[..., Any]) -> list[Phase]:
    """Phases whose loss is a method of a module."""
    return moving(module.factor, MethodType(loss, module))


@pytest.mark.parametrize(
    ("phases", "text"),
    [
        (lambda module: None, "does not say how it is trained: give it phases"),
        (lambda module: ["model"], "does not say how it is trained"),
        (lambda module: moving(other.factor, module.loss), 'player "a" of Module must move parameters of Module'),
        (lambda module: method(module, lambda _, *given: other.loss(*given)), 'phase "a" of Module moves none'),
        (lambda module: method(module, lambda *_: torch.zeros(())), r"must return \(loss, parts\)"),
        (lambda module: method(module, lambda *_: (torch.zeros(()), {})), "depend on any parameter"),
        (
            lambda module: moving(module.factor, lambda *given: module.loss(*given)),
            "loss of .* must be a method of Module",
        ),
        (lambda module: moving(module.factor, other.loss), "loss of .* must be a method of Module"),
        (lambda module: moving(module.factor, module.loss, start=print), 'start of the phase "a" of Module must be'),
        (lambda module: moving(module.factor, module.loss, after_step=lambda: None), 'after_step of the player "a" of'),
        (lambda module: 2 * moving(module.factor, module.loss), 'Module: two phases are named "a"'),
    ],
)
def test_a_module_that_cannot_be_trained_is_refused(phases: Any, text: str) -> None:
    module = Module()
    module.phases = phases(module)
    with pytest.raises(UserError, match=text):
        trilemma.train(module, "digits", **SHORT)
    assert not Path("runs").exists()


def test_phases_may_be_a_property() -> None:
    class Anew(nn.Module):
        def __init__(self, every: int = 1) -> None:
            super().__init__()
            self.module, self.every = Module(), every

        @property
        def phases(self) -> list[Phase]:
            return [Phase("a", Player("a", self.parameters()), self.module.loss, every=self.every)]

    assert trilemma.train(Anew(), "digits", **SHORT).model.module.factor.item() > 0.5
    with pytest.raises(UserError, match=r'^Anew: every=0 of the phase "a": give a whole number of at least 1'):
        trilemma.train(Anew(every=0), "digits", **SHORT)


def test_a_state_that_is_no_tensor_is_refused() -> None:
    class Stateful(Module):
        def get_extra_state(self) -> Any:
            return {"count": 3}

    with pytest.raises(UserError, match='the state of Stateful has "_extra_state", which is not a tensor'):
        trilemma.train(Stateful(), "digits", **SHORT)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_training_with_a_parameter_that_is_not_used_is_resumed(frozen: bool) -> None:
    class More(Module):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Parameter(torch.zeros(3), requires_grad=not frozen)
            self.phases = [Phase("model", Player("model", self.parameters()), self.loss)]

    factors = []
    for out, lengths in (("apart", (2, 4)), ("whole", (4,))):
        for steps in lengths:
            run = trilemma.train(More(), "digits", out=out, schedule="constant", **SHORT | {"steps": steps})
        factors.append(run.model.factor.item())
    assert factors[0] == factors[1]


def test_tied_weights_are_kept() -> None:
    class Tied(Module):
        def __init__(self) -> None:
            super().__init__()
            self.also = self.factor

    run = trilemma.train(Tied(), "digits", **SHORT)
    loaded = trilemma.load(run.path, model=Tied()).model
    assert loaded.also is loaded.factor and loaded.factor.item() > 0.5


@pytest.fixture
def page_module() -> Iterator[Path]:
    """The file of the page, in the current folder: short enough to be read at once."""
    block = re.search(r"```python\n(# my_model\.py\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert block and len(block[1].splitlines()) <= 30
    Path("my_model.py").write_text(block[1])
    with registered():
        yield Path("my_model.py")
    sys.modules.pop("my_model", None)


LINES = [line.split() for line in re.findall(r"^trilemma (--import .*)$", PAGE.read_text("utf-8"), re.MULTILINE)]
BRIEF = {"train": ["steps=3", "quiet=true"], "sample": ["n=2"], "compare": ["minutes=0.002", "n=64", "quiet=true"]}


def test_the_page_works(page_module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its lines for the command line and for Python, on few steps."""
    assert [words[2] for words in LINES] == [*BRIEF]
    for words in LINES[:2]:
        assert cli.main([*words, *BRIEF[words[2]]]) == 0, capsys.readouterr().err
    recorded = json.loads(Path("runs/my-model-digits/config.json").read_text())["command"]
    assert recorded.startswith("trilemma --import my_model train my-model digits")
    mine = importlib.import_module("my_model")
    module = mine.MyModel(mine.ModelConfig(shape=(1, 8, 8)))
    run = trilemma.train(module, "digits", **SHORT)
    assert trilemma.load(run.path, model=module).sample(2).shape == (2, 1, 8, 8)


def test_the_gan_of_the_page_is_trained(page_module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(
        r"```python\n(from torch.nn import functional as F\n+class MyGAN.*?)```", PAGE.read_text("utf-8"), re.DOTALL
    )
    assert block
    monkeypatch.syspath_prepend(".")
    names = vars(importlib.import_module("my_model"))
    exec(block[1], names)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    generator = nn.Sequential(nn.Linear(16, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    run = trilemma.train(names["MyGAN"](critic, generator), "digits", **SHORT)
    assert {"critic/loss", "penalty/loss", "generator/loss"} <= set(run.log[-1])
    assert run.model.critic[1].weight.abs().max() <= 1


PROMISED: dict[str, type] = {
    **{"validation": Validates, "finish": Finishes, "realness": JudgesRealness, "denoiser": DenoisesOnAnySchedule},
    **{"invert": Inverts, "generate": Inverts, "draw_codes": DrawsCodes, "to_w": HasStyles, "from_w": HasStyles},
}


def form_of(method: Callable[..., Any]) -> tuple[int, set[str]]:
    """How many positional parameters a method has beside self, and the names of those that are keywords alone."""
    own = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
    keywords = {p.name for p in own if p.kind is p.KEYWORD_ONLY}
    return len(own) - len(keywords), keywords


@pytest.mark.parametrize("method", PROMISED)
def test_a_method_of_the_page_takes_what_its_protocol_says(method: str) -> None:
    stated = re.search(rf"`{method}\(([^`]*)\)`", PAGE.read_text("utf-8"))
    assert stated
    names: dict[str, Any] = {}
    exec(f"def stated({stated[1]}): ...", names)
    assert form_of(names["stated"]) == form_of(getattr(PROMISED[method], method))


@pytest.mark.slow
def test_the_model_of_the_page_is_compared(page_module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LINES[2], *BRIEF["compare"]]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("model", list_models())
def test_no_key_of_a_model_is_one_of_how_images_are_read(model: str) -> None:
    """It could not be given: `channels` is that of the images."""
    assert not {*own_keys(get_recipe(model))} & {*DataConfig.model_fields}
