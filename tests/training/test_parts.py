"""A model with a part: two autoencoders, of which the second learns the codes of the first."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.cli import main as cli
from trilemma.comparison.entries import entries_of, rows_of, to_train
from trilemma.comparison.progress import Progress, Step
from trilemma.comparison.request import Budget
from trilemma.comparison.trained import training_of
from trilemma.comparison.work import Plan, train_all
from trilemma.config import ModelConfig
from trilemma.errors import UserError
from trilemma.metrics.features import feature_network
from trilemma.registry import Recipe, create, registered
from trilemma.run.checkpoint import list_checkpoints
from trilemma.training.calendar import Calendar
from trilemma.training.loop import Trainer
from trilemma.training.order import Order, order_of
from trilemma.training.request import request_of
from trilemma.training.signals import Stopped
from trilemma.types import UNCONDITIONAL, Batch, Condition, Encodes, Phase, Player

SHORT: dict[str, Any] = {"batch": 16, "save_every": 32, "sample_every": 10**6}
KEYS: dict[str, Any] = {**SHORT, "steps": 6, "device": "cpu", "quiet": True}
PART: dict[str, Any] = {"first": {**SHORT, "steps": 4}}
STAGES = 4 + 6  # steps of both trainings


class FirstConfig(ModelConfig):
    latent: int = 6


class First(nn.Module):
    """Batch normalisation has statistics that are wrong where a frozen part is not in eval mode."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        self.config = config
        pixels = torch.Size(config.shape).numel()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, config.latent), nn.BatchNorm1d(config.latent))
        self.decoder = nn.Linear(config.latent, pixels)
        self.phases = [Phase("first", Player("first", list(self.parameters())), self.loss)]

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.encoder(image)

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.decoder(z).sigmoid().unflatten(1, self.config.shape)

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.decode(self.encode(batch.image)) - batch.image).square().mean(), {}


class SecondConfig(ModelConfig):
    width: int = 3


class Second(nn.Module):
    def __init__(self, config: SecondConfig, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.config, self.first = config, parts["first"]
        if not isinstance(self.first, Encodes):
            raise UserError("the part first must encode images; choose an autoencoder")
        latent = self.first.config.latent
        self.network = nn.Sequential(nn.Linear(latent, config.width), nn.Tanh(), nn.Linear(config.width, latent))
        self.phases = [Phase("second", Player("second", list(self.network.parameters())), self.loss)]

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.first.decode(self.network(self.first.encode(image)))

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        assert not self.first.training and self.training
        z = self.first.encode(batch.image)
        return (self.network(z) - z).square().mean(), {}


@pytest.fixture(scope="module", autouse=True)
def recipes() -> Iterator[None]:
    words = {"family": "autoencoder", "summary": "a toy", "source": "this test", "training": {"epochs": 1}}
    first = Recipe(name="toy-first", build=First, config=FirstConfig(), **words)
    other = Recipe(name="toy-other", build=First, config=FirstConfig(latent=5), **words)
    whole = Recipe(name="toy", build=Second, config=SecondConfig(), parts={"first": "toy-first"}, **words)
    with registered(first, other, whole):
        yield


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(recipes: None, tmp_path_factory: pytest.TempPathFactory) -> trilemma.Run:
    """A training of both stages that was not interrupted."""
    return train(out=tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def first(recipes: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the first autoencoder."""
    path = tmp_path_factory.mktemp("first") / "run"
    return trilemma.train("toy-first", "digits", out=path, latent=4, **KEYS).path


@pytest.fixture
def finished(first: Path) -> trilemma.Run:
    """A copy of it, here."""
    shutil.copytree(first, "finished")
    return trilemma.load("finished")


def train(**keys: Any) -> trilemma.Run:
    return trilemma.train("toy", "digits", **KEYS | PART | keys)


def state(path: Path) -> dict[str, bytes]:
    """The weights to use of both stages, and every tensor of their last checkpoints."""
    folders = {name: path / name for name in (".", "parts/first")}
    folders |= {f"{name}/checkpoint": list_checkpoints(run / "checkpoints")[-1] for name, run in folders.items()}
    return {
        f"{name}/{file.name}": file.read_bytes()
        for name, folder in folders.items()
        for file in folder.glob("*.safetensors")
    }


class Killed(BaseException):
    """As by the system: nothing is saved."""


def kill(trainer: Trainer) -> None:
    raise Killed


def stop(trainer: Trainer) -> None:
    trainer.signals.stop = 2


def test_the_part_is_trained_first_and_stays_as_it_was(whole: trilemma.Run) -> None:
    run = whole
    part = trilemma.load(run.path / "parts" / "first")
    assert (part.summary["steps"], run.summary["steps"]) == (4, 6)
    kept = run.model.first.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in part.model.state_dict().items())
    assert not any(p.requires_grad for p in run.model.first.parameters())
    fresh = create("toy", shape=(1, 8, 8), seed=0).network.state_dict()
    assert any(not torch.equal(value, fresh[name]) for name, value in run.model.network.state_dict().items())
    assert {key for row in run.log for key in row if key.endswith("/loss")} == {"second/loss"}


@pytest.mark.parametrize("end", [kill, stop])
@pytest.mark.parametrize("at", [2, 4, 7])  # in the part; after its last step; in the main training
def test_interrupted_in_either_stage_and_resumed_equals_unbroken(
    at: int, end: Any, whole: trilemma.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    take_step = Trainer.take_step

    def counted(trainer: Trainer) -> None:
        take_step(trainer)
        steps.append(trainer.calendar.step)
        if len(steps) == at:
            end(trainer)

    monkeypatch.setattr(Trainer, "take_step", counted)
    with pytest.raises((Killed, Stopped)):
        train(out="broken")
    broken = train(out="broken")
    assert state(broken.path) == state(whole.path)
    lost = {2: 2, 4: 2, 7: 1}[at] if end is kill else 0  # steps since a checkpoint, of two steps each
    assert len(steps) == STAGES + lost
    train(out="broken")  # finished: no stage is trained again
    assert len(steps) == STAGES + lost


def test_the_line_that_resumes_is_that_of_the_whole_training(
    whole: trilemma.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take_step = Trainer.take_step
    monkeypatch.setattr(Trainer, "take_step", lambda trainer: (take_step(trainer), stop(trainer)))
    with pytest.raises(Stopped):
        train(quiet=False)
    line = capsys.readouterr().err.splitlines()[-1].partition("Resume with: ")[2]
    words = shlex.split(line)
    assert words[1] == "--import" and words[3:6] == ["train", "toy", "digits"] and "first.steps=4" in words
    monkeypatch.setattr(Trainer, "take_step", take_step)
    assert cli.main(words[3:]) == 0
    assert [path.name for path in Path("runs").iterdir()] == ["toy-digits"]
    assert trilemma.load("runs/toy-digits").weights_id == whole.weights_id


def test_a_moved_run_opens_without_its_parts(whole: trilemma.Run) -> None:
    shutil.copytree(whole.path, "moved")
    shutil.rmtree("moved/parts")
    images = whole.data.valid.images[:4] / 255
    assert torch.equal(trilemma.load("moved").model.reconstruct(images), whole.model.reconstruct(images))


def test_a_part_is_taken_from_a_finished_run(finished: trilemma.Run) -> None:
    run = trilemma.train("toy", "digits", first="finished", **KEYS)
    assert not (run.path / "parts").exists()
    assert run.model.first.config.latent == 4
    weights = finished.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in run.model.first.state_dict().items())
    part = run.config["parts"]["first"]
    assert (part["run"], part["weights"][:16]) == (str(Path("finished").absolute()), finished.weights_id)
    assert run.command == run.config["command"] and f" first={part['run']}" in run.command
    same = trilemma.train("toy", "digits", first=trilemma.load("finished"), **KEYS)
    assert same.path == run.path
    shutil.move("finished", "moved")
    assert trilemma.train("toy", "digits", first="moved", **KEYS | {"steps": 7}).path == run.path


def test_a_part_that_has_changed_is_refused(finished: trilemma.Run) -> None:
    inside, given = train(out="inside"), trilemma.train("toy", "digits", first="finished", out="given", **KEYS)
    for path in (inside.path / "parts" / "first", finished.path):
        trilemma.train(path / "config.json", out=path, steps=9, quiet=True)
    for call in (
        lambda: train(out="inside"),
        lambda: trilemma.train("toy", "digits", first="finished", out="given", **KEYS),
    ):
        with pytest.raises(UserError, match=r"the part first in .* has changed since the training in .* began"):
            call()
    assert trilemma.load("given").weights_id == given.weights_id


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"first": "nowhere"}, "^the part first: run nowhere not found"),
        ({"first": "finished", "first.steps": 5}, "^the part first: finished is a finished run.*leave steps= out"),
        ({"first": {"stepps": 5}}, '^the part first: unknown key "stepps" .did you mean "steps"'),
        ({"first": {"size": 5}}, "^the part first: it is trained on the images of the main training; give size="),
        ({"first": {"latent": 0.5}}, "^the part first: latent=0.5: give a whole number"),
        ({"frist": "finished"}, 'unknown key "frist" .did you mean "first"'),
        ({"first": "gan"}, "^the part first must encode images; choose an autoencoder"),
    ],
)
def test_a_wrong_part_is_refused(keys: dict[str, Any], text: str, finished: trilemma.Run) -> None:
    with pytest.raises(UserError, match=text):
        trilemma.train("toy", "digits", **KEYS | keys)
    assert not Path("runs").exists()


def test_a_part_for_other_images_or_unfinished_is_refused(
    finished: trilemma.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"first=finished is for images of \(1, 8, 8\), and digits has \(1, 12, 12\)"):
        trilemma.train("toy", "digits", size=12, first="finished", **KEYS)
    (finished.path / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"^the part first: finished is not finished: .*; resume its training first"):
        trilemma.train("toy", "digits", first="finished", **KEYS)
    shutil.rmtree(finished.path / "checkpoints")
    with pytest.raises(UserError, match=r"^the part first: finished is not finished"):
        trilemma.train("toy", "digits", first="finished", **KEYS)


def test_another_preset_and_other_keys_of_the_part_make_another_training() -> None:
    runs = [train(), train(first={**PART["first"], "latent": 3}), train(first="toy-other", **{"first.steps": 4})]
    assert [run.path.name for run in runs] == ["toy-digits", "toy-digits-2", "toy-digits-3"]
    assert [run.model.first.config.latent for run in runs] == [6, 3, 5]
    assert " first=toy-other first.steps=4" in str(runs[2].command)


def test_a_config_trains_the_parts_again_but_reads_no_run_that_it_names(
    whole: trilemma.Run, finished: trilemma.Run
) -> None:
    again = trilemma.train(whole.path / "config.json", out="again", quiet=True)
    assert again.weights_id == whole.weights_id
    given = trilemma.train("toy", "digits", first="finished", **KEYS)
    with pytest.raises(UserError, match=r"^the part first: it was taken from the run .*: name it, as first=RUN"):
        trilemma.train(given.path / "config.json", out="b", quiet=True)
    named = trilemma.train(given.path / "config.json", first="finished", out="b", quiet=True)
    assert named.weights_id == given.weights_id


def test_a_part_that_diverges_says_which_key_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "not_finite", ["a weight"])
    with pytest.raises(UserError, match=r"parts.first: the training diverged: .*Try first\.lr=0\.0001$"):
        train()


def test_the_main_model_is_built_after_the_training_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    build, take_step = Second.__init__, Trainer.take_step

    def built(model: Second, *args: Any) -> None:
        build(model, *args)
        events.extend([] if next(model.network.parameters()).is_meta else ["built"])

    monkeypatch.setattr(Second, "__init__", built)
    monkeypatch.setattr(Trainer, "take_step", lambda trainer: (take_step(trainer), events.append("step")))
    train()
    assert events == 4 * ["step"] + ["built"] + 6 * ["step"]


@pytest.mark.slow
def test_the_parts_of_a_compared_model_are_trained_within_its_minutes(tmp_path: Path) -> None:
    """Two trainings for one model, each half as long; they count together, also where a part was finished before."""
    data, minutes = trilemma.load_data("digits"), 0.01
    budget, network = Budget(minutes, None, None, 1), feature_network("auto", data.shape, data.name)
    plan = Plan(to_train(["toy", "toy-first"], 0, 1), data, budget, "valid", 10, 0, True, "", network)
    steps = [Step("training", 1.0) for _ in plan.entries]
    train_all(plan, budget, tmp_path, Progress(steps, lambda text: None, 0.0), quiet=True)
    both, alone = (entry.run for entry in plan.entries)
    assert both is not None and alone is not None
    part = trilemma.load(both.path / "parts" / "first")
    assert part.config["training"]["minutes"] == both.config["training"]["minutes"] == minutes / 2
    assert training_of(both, data).seconds == part.summary["seconds"] + both.summary["seconds"]
    assert training_of(alone, data).seconds == alone.summary["seconds"] >= 60 * minutes
    given = trilemma.train("toy", data, first=part, **KEYS)
    assert given.seconds == given.summary["seconds"] + part.seconds


def test_trainings_with_parts_that_differ_in_their_seed_share_a_row(whole: trilemma.Run) -> None:
    assert len(rows_of(entries_of([whole, train(seed=1)]))) == 1
    assert len(rows_of(entries_of([whole, train(seed=1, first={"steps": 3})]))) == 2


class Wrapped(First):
    """A module that is given as it is: no recipe builds it."""


def test_minutes_are_divided_among_a_training_and_its_parts(finished: trilemma.Run) -> None:
    def minutes(keys: dict[str, Any], **others: Any) -> list[float | None]:
        order = order_of(request_of("toy"), keys, others)
        inner = [part.training.minutes for part in order.parts.values() if isinstance(part, Order)]
        return [order.training.minutes, *inner]

    assert minutes({"minutes": 4}) == [2, 2]
    assert minutes({"minutes": 4}, **{"first.minutes": 1}) == [4, 1]
    assert minutes({"minutes": 4}, **{"first.steps": 10}) == [4, None]
    assert minutes({"minutes": 4}, first="toy-other") == [2, 2]
    assert minutes({"minutes": 4}, first="finished") == [4]
    assert minutes({"steps": 9}) == [None, None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps that take an eighth of a minute each, and nothing besides; which player moved in each."""
    take_step, steps = Trainer.take_step, list[str]()

    def timed(trainer: Trainer) -> None:
        take_step(trainer)
        trainer.calendar.seconds += 7.5
        steps.append(trainer.players.phases[0].name)

    monkeypatch.setattr(Trainer, "take_step", timed)
    monkeypatch.setattr(Calendar, "timed", lambda calendar: nullcontext())
    return steps


TIMED: dict[str, Any] = {**SHORT, "device": "cpu", "quiet": True, "first.batch": 16, "first.save_every": 32}


@pytest.mark.slow
def test_more_minutes_prolong_the_main_training_alone(clock: list[str]) -> None:
    short = trilemma.train("toy", "digits", minutes=1, **TIMED)
    assert clock == 4 * ["first"] + 4 * ["second"]
    part = (short.path / "parts/first/weights.safetensors").read_bytes()
    longer = trilemma.train("toy", "digits", minutes=2, **TIMED)
    assert longer.path == short.path and clock[8:] == 8 * ["second"]  # 2 - 1/2 minutes are 12 steps, 4 of them before
    assert longer.config["training"]["minutes"] == 1.5 and longer.config["parts"]["first"]["keys"]["minutes"] == 0.5
    assert (longer.path / "parts/first/weights.safetensors").read_bytes() == part
    whole = trilemma.train("toy", "digits", out="whole", minutes=1.5, **TIMED, **{"first.minutes": 0.5})
    assert state(whole.path) == state(longer.path)
    assert longer.config["command"] == whole.config["command"]
    trilemma.train("toy", "digits", minutes=2, **TIMED)
    assert len(clock) == 8 + 8 + 16  # finished
    assert trilemma.train("toy", "digits", minutes=2.25, **TIMED).path == short.path and clock[32:] == 2 * ["second"]


def test_minutes_after_another_length_prolong_the_main_training_alone(clock: list[str]) -> None:
    """The part took 5 steps of an eighth of a minute."""
    trilemma.train("toy", "digits", out="run", steps=3, **TIMED, first={"steps": 5})
    with pytest.raises(UserError, match=r"run already holds a different training: first\.steps 5 then, none now"):
        trilemma.train("toy", "digits", out="run", minutes=1, **{**TIMED, "first.minutes": 0.5})
    run = trilemma.train("toy", "digits", out="run", minutes=1.25, **TIMED)
    assert run.config["training"]["minutes"] == 1.25 - 5 / 8 and clock == 5 * ["first"] + 5 * ["second"]


def test_fewer_minutes_than_the_parts_took_are_refused(clock: list[str]) -> None:
    trilemma.train("toy", "digits", out="run", minutes=1, **TIMED)
    with pytest.raises(UserError, match=r"^minutes=0\.5: the training of first took 0\.5 of them already; give more"):
        trilemma.train("toy", "digits", out="run", minutes=0.5, **TIMED)


def test_minutes_that_are_added_in_the_part_are_shared(clock: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the main training has begun, both are prolonged."""
    timed = Trainer.take_step
    monkeypatch.setattr(Trainer, "take_step", lambda trainer: (timed(trainer), stop(trainer)))
    with pytest.raises(Stopped):
        trilemma.train("toy", "digits", minutes=1, **TIMED)
    monkeypatch.setattr(Trainer, "take_step", timed)
    run = trilemma.train("toy", "digits", minutes=2, **TIMED)
    assert run.path == Path("runs/toy-digits") and clock == 8 * ["first"] + 8 * ["second"]


def test_a_run_of_a_module_without_a_recipe_is_refused_as_a_part() -> None:
    module = Wrapped(FirstConfig(shape=(1, 8, 8)))
    run = trilemma.train(module, "digits", out="own", **KEYS)
    for source in ("own", run, trilemma.load("own", model=module)):
        with pytest.raises(UserError, match=r"^the part first: own was trained on a module .* register a recipe"):
            trilemma.train("toy", "digits", first=source, **KEYS)


def test_list_and_card_name_the_parts(
    whole: trilemma.Run, finished: trilemma.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["list", "toy"]) == 0
    assert re.search(r"^parts +first=toy-first$", capsys.readouterr().out, re.MULTILINE)
    card = (whole.path / "README.md").read_text("utf-8")
    assert "| part first | toy-first, trained in `parts/first` |" in card and "- `parts`: " in card
    card = (trilemma.train("toy", "digits", first="finished", **KEYS).path / "README.md").read_text("utf-8")
    assert "| part first | toy-first, from " in card and "- `parts`: " not in card


def test_a_config_of_somebody_else_is_checked(finished: trilemma.Run) -> None:
    run = trilemma.train("toy", "digits", first="finished", **KEYS)
    file = run.path / "config.json"
    config = json.loads(file.read_text())
    for part, text in (
        (3, "in the part first"),
        ({**config["parts"]["first"], "hook": "os.system"}, 'in the part first, unknown key "hook"'),
        ({**config["parts"]["first"], "recipe": "../x"}, 'unknown model "../x"'),
        ({**config["parts"]["first"], "settings": {"latent": "x"}}, "in the settings of the part first, latent=x"),
    ):
        file.write_text(json.dumps({**config, "parts": {"first": part}}))
        with pytest.raises(UserError, match=text):
            _ = trilemma.load(run.path).model
