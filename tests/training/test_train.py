"""`train` from words to a run folder, on tiny budgets."""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import trilemma
from trilemma.autoencoders.autoencoder import Autoencoder
from trilemma.cli import main as cli
from trilemma.data import Split
from trilemma.errors import Diverged, UserError
from trilemma.files import sha256_of
from trilemma.progress import Display
from trilemma.registry import get_recipe
from trilemma.run.config import TrainConfig
from trilemma.run.log import read_log
from trilemma.run.record import HASH
from trilemma.training import calendar, request, samples, time_budget
from trilemma.training.calendar import SNAPSHOTS
from trilemma.training.card import files_of, model_card
from trilemma.training.in_use import ModelInUse
from trilemma.training.loop import Trainer
from trilemma.training.validation import Validation, mean_values
from trilemma.types import Batch

FILES = {
    "README.md",
    "batch.png",
    "config.json",
    "curves.png",
    "environment.json",
    "log.jsonl",
    "summary.json",
    "weights.safetensors",
}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("curves")
def test_a_run_folder_has_everything() -> None:
    run = trilemma.train("vae", "digits", steps=40, batch=32, lr=0.002, latent=3, quiet=True)
    assert run.path == Path("runs/vae-digits")
    assert {path.name for path in run.path.iterdir()} >= FILES
    assert (run.path / "samples" / "last.png").exists()
    assert run.summary["images"] == 40 * 32 and run.summary["steps"] == 40
    assert run.model_config.latent == 3
    assert run.config["command"] == (
        "trilemma train vae digits steps=40 batch=32 lr=0.002 seed=0 size=8x8 channels=1 latent=3 "
        f"variance={0.5 * 64 / 784}"  # of digits, which have 64 pixels where the recipe has 784
    )
    assert not list(run.path.rglob("*.tmp*"))


def test_the_card_says_the_figures_of_the_summary() -> None:
    run = trilemma.train("ae-stacked", "digits", steps=20, sample_every=10**6, quiet=True)
    card = (run.path / "README.md").read_text("utf-8")
    assert f"| valid_rmse | {run.summary['valid_rmse']:.4g} |" in card
    assert run.config["command"] in card


def test_the_card_of_the_recipes_own_data_says_the_figure_to_reach_and_what_it_names_is_there() -> None:
    run = trilemma.train("ae-stacked", "digits", steps=2, out="a folder", quiet=True)
    words = (run.config, run.recipe, run.summary, json.loads((run.path / "environment.json").read_text()))
    assert "to reach" not in model_card(str(run.path), "digits", *words, files_of(run.path))
    run.config["data"], run.config["notes"] = "fashion-mnist", ["a [link](x) of\nthe data", "b"]
    card = model_card(str(run.path), "fashion-mnist", *words, files_of(run.path))
    assert f"| valid_rmse | {run.summary['valid_rmse']:.4g} (to reach: 0.12) |" in card
    assert card.startswith("# ae-stacked on fashion-mnist\n") and "\n    trilemma sample 'a folder' n=64" in card
    assert "\n- a \\[link\\](x) of the data\n- b\n" in card
    named = set(re.findall("^- `(.*)`: ", card, re.MULTILINE))
    assert named == {path.name for path in run.path.iterdir()} - {"README.md", "lock"}


def test_valid_rmse_is_the_root_of_the_mean_squared_error_of_the_split() -> None:
    run = trilemma.train("ae-stacked", "digits", steps=20, sample_every=10**6, quiet=True)
    images = run.data.valid.images.float() / 255
    with torch.no_grad():
        expected = (run.model.reconstruct(images) - images).double().square().mean().sqrt()
    assert run.summary["valid_rmse"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("first", [0.5, float("nan"), float("inf")])
def test_the_weights_are_those_of_the_best_validation(first: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)
    values = iter([first, 0.2, 0.9, 0.8])
    seen: list[tuple[float, list[torch.Tensor]]] = []

    def validation(model: Autoencoder, batch: Any, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """Of all held-out images, which are one batch."""
        seen.append((next(values), [p.detach().clone() for p in model.parameters()]))
        return {"mse": torch.full((len(batch.image),), seen[-1][0] ** 2)}

    monkeypatch.setattr(Autoencoder, "validation", validation)
    run = trilemma.train("ae-stacked", "digits", epochs=4, batch=1293, sample_every=10**6, quiet=True)
    assert run.summary["valid_rmse"] == pytest.approx(0.2) and run.summary["best"]["images"] == 2 * 1293
    best = next(weights for value, weights in seen if value == 0.2)
    assert all(torch.equal(p, q) for p, q in zip(run.model.parameters(), best, strict=True))


def test_a_value_of_some_images_is_their_mean() -> None:
    """Of every third image of a batch, here of batches of 4 and 3 images: numbers 0, 3 and 4."""

    class OfSome(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anything = torch.nn.Parameter(torch.zeros(()))

        def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
            brightness = batch.image.flatten(1).mean(1)
            return {"all": brightness, "some": brightness[::3]}

    images = torch.randint(256, (7, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    brightness = images.double().div(255).flatten(1).mean(1)
    expected = {"valid_all": float(brightness.mean()), "valid_some": float(brightness[[0, 3, 4]].mean())}
    assert mean_values(OfSome(), Split(images), 4, seed=0) == pytest.approx(expected)


def test_the_log_has_every_part_and_the_seconds_grow() -> None:
    run = trilemma.train("gan-dcgan", "digits", steps=30, batch=32, quiet=True)
    rows = run.log
    assert {"critic/loss", "critic/d_real", "critic/d_fake", "generator/loss"} <= set(rows[0])
    assert [row["images"] for row in rows] == sorted(row["images"] for row in rows)
    assert all(a["seconds"] <= b["seconds"] for a, b in itertools.pairwise(rows))


@pytest.mark.slow
@pytest.mark.parametrize("length", [pytest.param({"minutes": 0.03}, marks=pytest.mark.slow), {"images": 33_333}])
def test_ten_sample_pictures_in_a_training_of_any_kind_of_length(
    length: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_budget, "FREE_S", float("inf"))  # there is time for all of them
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)  # a report after every step, however slow they are
    run = trilemma.train("vae", "digits", batch=64, **length, quiet=True)
    at = sorted(int(path.stem) for path in (run.path / "samples").glob("0*.png"))
    assert len(at) == SNAPSHOTS - 1  # the tenth is last.png
    shares = torch.tensor(at, dtype=torch.float64) / run.summary["images"]
    expected = torch.arange(1, SNAPSHOTS) / SNAPSHOTS
    assert length.get("minutes") or ((shares >= expected) & (shares < expected + 0.03)).all()


@pytest.mark.slow
def test_minutes_are_kept() -> None:
    run = trilemma.train("ae-stacked", "digits", minutes=0.02, quiet=True)
    assert 1.2 <= run.summary["seconds"] < 1.2 + 1.0  # one step more than asked at most


def test_repeating_the_command_does_nothing_and_a_longer_one_goes_on() -> None:
    first = trilemma.train("vae", "digits", steps=10, quiet=True)
    again = trilemma.train("vae", "digits", steps=10, quiet=True)
    assert again.path == first.path and again.summary["steps"] == 10
    longer = trilemma.train("vae", "digits", steps=15, quiet=True)
    assert longer.path == first.path and longer.summary["steps"] == 15
    other = trilemma.train("vae", "digits", steps=10, seed=1, quiet=True)
    assert other.path == Path("runs/vae-digits-2")


@pytest.mark.slow
def test_results_that_went_missing_are_written_again(capsys: pytest.CaptureFixture[str]) -> None:
    """The state they come from is in the checkpoint, so they are what they were; nothing else is written."""
    words = {"model": "ae-stacked", "steps": 3, "batch": 16, "device": "cpu"}
    path = trilemma.train(**words).path
    there = sorted(path.rglob("*"))
    weights, summary = (path / "weights.safetensors").read_bytes(), trilemma.load(path).summary
    for name in ("weights.safetensors", "curves.png", "README.md", "samples/last.png"):
        (path / name).unlink()
        trilemma.train(**words)
        assert "already trained" not in capsys.readouterr().err
        assert sorted(path.rglob("*")) == there
        assert (path / "weights.safetensors").read_bytes() == weights and trilemma.load(path).summary == summary
    trilemma.train(**words)
    assert "already trained" in capsys.readouterr().err


@pytest.fixture
def animations(tmp_path: Path) -> Path:
    """A folder of 40 GIF files in colour, of three frames each, no two alike."""
    folder = tmp_path / "animations"
    folder.mkdir()
    for k in range(40):
        frames = [Image.new("RGB", (10, 8), (6 * k, 80 * frame, 255 - 6 * k)) for frame in range(3)]
        frames[0].save(folder / f"{k}.gif", save_all=True, append_images=frames[1:])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "options", "loaded"),
    [
        ("animations", {}, True),
        pytest.param("animations", {"size": (12, 9)}, False, marks=pytest.mark.slow),
        pytest.param("animations", {"channels": 1}, True, marks=pytest.mark.slow),
        pytest.param("animations", {"valid": 0.3}, False, marks=pytest.mark.slow),
        pytest.param("animations", {"seed": 3}, True, marks=pytest.mark.slow),
        pytest.param("animations", {"frames": "all"}, False, marks=pytest.mark.slow),
        ("animations", {"size": (12, 9), "channels": 1, "valid": 0.3, "seed": 3, "frames": "all"}, True),
        ("animations", {"size": (12, 9), "channels": 1, "valid": 0.3, "seed": 3, "frames": "all"}, False),
        ("shapes:60", {"size": (12, 9), "channels": 1, "valid": 0.3, "seed": 3}, True),
        ("shapes:60", {"size": (12, 9), "channels": 1, "valid": 0.3, "seed": 3}, False),
    ],
    ids=str,
)
def test_a_run_loads_its_data_as_it_was_trained_on_them(
    animations: Path, source: str, options: dict[str, Any], loaded: bool
) -> None:
    """Each option of `load_data`: in a Data or as a key of `train`, in Run.data and in the recorded command."""
    data = trilemma.load_data(source, **options)
    assert not options or data.fingerprint != trilemma.load_data(source).fingerprint
    keys = {{"seed": "split_seed"}.get(key, key): value for key, value in options.items()}
    words = {"steps": 2, "batch": 8, "quiet": True}
    run = trilemma.train("vae", data, **words) if loaded else trilemma.train("vae", source, **keys, **words)
    result = trilemma.load(run.path).data
    assert (result.fingerprint, result.shape) == (data.fingerprint, data.shape)
    assert torch.equal(result.valid.images, data.valid.images)
    assert trilemma.evaluate(run.path, n=12, bound_samples=0).scores
    line = shlex.split(run.config["command"])
    assert cli.main([*line[1:], "quiet=true", "out=other"]) == 0
    other = trilemma.load("other")
    assert other.config == run.config
    assert other.data.fingerprint == data.fingerprint
    assert cli.main([*line[1:], "quiet=true"]) == 0  # continues the run, which is done
    assert [path.name for path in Path("runs").iterdir()] == [run.path.name]


def test_a_key_is_stronger_than_how_the_data_were_loaded() -> None:
    data = trilemma.load_data("shapes:60", size=12, channels=1, valid=0.3, seed=3)
    run = trilemma.train("vae", data, steps=2, channels=3, valid=0.4, split_seed=0, quiet=True)
    expected = trilemma.load_data("shapes:60", size=12, valid=0.4)
    assert run.data.fingerprint == run.config["fingerprint"] == expected.fingerprint
    assert "split_seed" not in run.config["command"]


def as_format_1(run: trilemma.Run, *left_out: str) -> None:
    """Write the config.json of a run as versions with format 1 did, the first of them without some keys."""
    config = {key: value for key, value in run.config.items() if key not in ("data_config", "parts")}
    training = {**run.config["training"], **run.config["data_config"]}
    for key in left_out:
        del training[key]
    (run.path / "config.json").write_text(json.dumps({**config, "format": 1, "training": training}))


def test_a_run_whose_config_has_the_keys_of_the_data_among_those_of_the_training() -> None:
    """It is read as it was written, continued under the same name, and written anew."""
    keys: dict[str, Any] = {"steps": 2, "size": 12, "channels": 3, "valid": 0.3, "split_seed": 3, "quiet": True}
    run = trilemma.train("vae", "shapes:60", precision="float32", **keys)
    now = json.loads((run.path / "config.json").read_text())
    as_format_1(run)
    old = trilemma.load(run.path)
    assert (old.config, old.command, old.data.fingerprint) == (now, now["command"], now["fingerprint"])
    again = trilemma.train(run.path / "config.json", quiet=True)
    assert again.path != run.path and again.weights_id == run.weights_id
    same = trilemma.train("vae", "shapes:60", precision="float32", out=run.path, **keys)
    longer = trilemma.train("vae", "shapes:60", precision="float32", out=run.path, **keys | {"steps": 3})
    assert same.path == longer.path == run.path
    assert json.loads((run.path / "config.json").read_text())["data_config"] == now["data_config"]


def test_a_run_of_a_version_that_did_not_write_all_keys() -> None:
    """It is read, and continued: channels are those of the model, the images held out those of seed 0."""
    run = trilemma.train("vae", "shapes:60", steps=2, channels=1, quiet=True)
    as_format_1(run, "channels", "split_seed", "frames", "warmup_share")
    assert trilemma.load(run.path).data.shape == (1, 32, 32)
    assert trilemma.train("vae", "shapes:60", steps=3, channels=1, quiet=True).path == run.path
    assert trilemma.train("vae", "shapes:60", steps=2, channels=1, split_seed=1, quiet=True).path != run.path


@pytest.fixture
def thirty(tmp_path: Path) -> Path:
    """Thirty grey images of 8 x 8, of which earlier versions held out 3 and now 10 are."""
    for k in range(30):
        path = tmp_path / "thirty" / f"{k:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 8 * k).save(path)
    return tmp_path / "thirty"


def earlier_run(data: Path, **keys: Any) -> trilemma.Run:
    """A run as earlier versions left it: a tenth held out, and no word of the rule in its config."""
    loaded = trilemma.load_data(data, rule="tenth")
    run = trilemma.train("vae", loaded, steps=2, quiet=True, **keys)
    assert run.config["data_config"]["split_rule"] == "tenth"
    as_format_1(run, "split_rule")
    return run


@pytest.mark.parametrize("keys", [{}, {"out": "there"}])
def test_a_run_of_an_earlier_version_keeps_its_split(thirty: Path, keys: dict[str, Any]) -> None:
    old = earlier_run(thirty, **keys)
    for run in (trilemma.load(old.path), trilemma.train("vae", thirty, steps=3, quiet=True, **keys)):
        assert run.path == old.path
        assert (len(run.data.train), len(run.data.valid)) == (27, 3)
        assert run.data.fingerprint == run.config["fingerprint"] == old.config["fingerprint"]
    assert trilemma.train("vae", thirty, steps=4, quiet=True, **keys).path == old.path  # its config has the rule now
    new = trilemma.train("vae", thirty, steps=2, out="new", quiet=True)
    assert (len(new.data.train), len(new.data.valid)) == (20, 10)
    assert trilemma.load(new.path).data.fingerprint == new.config["fingerprint"] != old.config["fingerprint"]


def test_a_run_of_other_images_does_not_change_the_rule(thirty: Path) -> None:
    old = earlier_run(thirty)
    Image.new("L", (8, 8), 255).save(thirty / "30.png")
    run = trilemma.train("vae", thirty, steps=2, quiet=True)
    assert run.path != old.path
    assert (len(run.data.train), len(run.data.valid)) == (21, 10)


def test_a_word_stays_a_word_beside_a_folder_of_that_name() -> None:
    Path("digits").mkdir()
    assert trilemma.train("vae", "digits", steps=2, quiet=True).config["data"] == "digits"


def test_a_model_with_labels_refuses_data_without_classes_before_it_writes(animations: Path) -> None:
    with pytest.raises(UserError, match=f"{animations} has no classes.*one folder per class.*such as vae"):
        trilemma.train("vae-conditional", animations, steps=2, quiet=True)
    assert not Path("runs").exists()
    with pytest.raises(UserError, match="ellipse has no classes"):
        trilemma.train("vae-conditional", "ellipse", steps=2, out="there", quiet=True)
    assert not Path("there").exists()


def test_a_learning_rate_for_each_phase() -> None:
    rates = {"critic": 5e-4, "generator": 1e-3}
    run = trilemma.train("gan-dcgan", "digits", steps=2, lr=rates, quiet=True)
    assert run.config["training"]["lr"] == rates
    assert " lr=critic:0.0005,generator:0.001 " in run.config["command"]
    with pytest.raises(UserError, match="lr"):
        trilemma.train("gan-dcgan", "digits", steps=2, lr={"critics": 1e-3}, quiet=True)


@pytest.mark.parametrize(("key", "expected"), [({}, "bf16"), ({"precision": "float32"}, "float32")])
def test_a_preset_has_its_own_precision_unless_one_is_given(
    key: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = get_recipe("ae-stacked")
    own = replace(recipe, training={**recipe.training, "precision": "bf16"})
    monkeypatch.setattr(request, "get_recipe", lambda name: own)
    run = trilemma.train("ae-stacked", "digits", steps=2, batch=8, device="cpu", quiet=True, **key)
    assert run.config["training"]["precision"] == expected and f" precision={expected} " in run.config["command"]
    used = json.loads((run.path / "environment.json").read_text("utf-8"))["precision"]
    assert used.split()[0] == expected  # "bf16 autocast" of the one


def test_training_is_a_function_of_the_seed_and_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    runs = [trilemma.train("vae", "digits", steps=5, seed=s, out=f"r{i}", quiet=True) for i, s in enumerate((4, 4, 5))]
    assert torch.equal(before, torch.get_rng_state())
    weights = [(run.path / "weights.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1] != weights[2]


def test_a_loss_that_is_not_finite_ends_the_training_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"did not help\. Try lr=0\.006"):
        trilemma.train("ae-stacked", "digits", steps=400, lr=1e30, quiet=True)
    assert not Path("runs/ae-stacked-digits/weights.safetensors").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"latnet": 3}, 'unknown key "latnet".*did you mean "latent"'),
        ({"stpes": 3}, 'unknown key "stpes".*did you mean "steps"'),
        ({"latent": 0}, "latent=0"),
        ({"steps": 3, "epochs": 1}, "exactly one of"),
        ({"device": "tpu"}, "tpu"),
        ({"precision": "int4"}, "precision=int4: give one of auto, float32, bf16"),
    ],
)
def test_wrong_keys_are_named_and_leave_nothing(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trilemma.train("vae", "digits", quiet=True, **keys)
    assert not Path("runs").exists()


def test_a_failing_sample_picture_never_stops_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(samples, "save_png", refuse)
    assert trilemma.train("vae", "digits", steps=5, quiet=True).summary["steps"] == 5


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are sent another way on Windows")
@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_saves_within_ten_seconds_and_says_how_to_go_on(tmp_path: Path, signum: int) -> None:
    argv = [sys.executable, "-m", "trilemma", "train", "vae", "digits", "minutes=10", "out=r"]
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = tmp_path / "r" / "log.jsonl"
    while process.poll() is None and len(read_log(log)) < 2:
        time.sleep(0.02)
    begin = time.monotonic()
    process.send_signal(signum)
    output = process.communicate(timeout=60)[0]
    assert time.monotonic() - begin < 10
    assert process.returncode == 128 + signum, output
    assert "Resume with: trilemma train vae digits minutes=10" in output and "Traceback" not in output
    step = json.loads((next((tmp_path / "r" / "checkpoints").iterdir()) / "state.json").read_text())["step"]
    assert step >= read_log(log)[-1]["step"] > 0


@pytest.mark.parametrize("columns", [80, 120])
def test_a_bar_is_whole_beside_figures_of_any_length(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    display = Display("gan-dcgan-28")
    display.update(0.5, "1,920 images, " + ", ".join(f"critic/part{k} 0.5" for k in range(9)))
    display.close()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err).splitlines()[-1].split("\r")[-1]
    assert len(last) <= columns
    assert re.match(r"gan-dcgan-28 \S{20}  50% \S{7} 1,920 images, critic/part0 ", last), last


def strict(path: Path) -> dict[str, Any]:
    """A JSON file by the standard, which has no NaN."""
    return json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("model", "keys", "advice"),
    [
        ("vae", {"lr": 1e30, "steps": 2}, "lr=0.01"),  # the figures are not finite; the recipe's own rate
        ("ae-stacked", {"lr": 1e12, "steps": 2}, "lr=0.006"),  # nor are its codes, on which a density is fitted
        ("ae-stacked", {"lr": 1e30, "steps": 30}, "lr=0.006"),  # the loss is not finite, for good
    ],
)
def test_a_diverged_training_ends_with_1_valid_json_and_the_rate_to_try(
    model: str, keys: dict[str, Any], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", model, "digits", "batch=32", "device=cpu", *(f"{key}={value}" for key, value in keys.items())]
    path = Path(f"runs/{model}-digits")
    for _ in range(2):  # the same command again comes to the same end
        assert cli.main(words) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"error: {path}: the training diverged: ") and last.endswith(f"Try {advice}")
        summary = strict(path / "summary.json")
        assert summary["warnings"][0].startswith("the training diverged: ")
        assert all(value is None for name, value in summary.items() if name.startswith("valid_"))
        assert not (path / "weights.safetensors").exists()
    for state in path.glob("checkpoints/*/state.json"):
        strict(state)


def test_a_lengthened_training_that_diverged_is_not_done_and_its_weights_stay_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys: dict[str, Any] = {"batch": 16, "device": "cpu", "quiet": True}
    path = trilemma.train("vae", "digits", steps=2, **keys).path
    written = strict(path / "summary.json")[HASH]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "not_finite", ["a weight"])
        for _ in range(2):  # the second time its checkpoint is at the end
            with pytest.raises(Diverged, match="a weight is not finite"):
                trilemma.train("vae", "digits", steps=4, **keys)
            summary = strict(path / "summary.json")
            assert (summary["steps"], summary["diverged"], summary[HASH]) == (4, True, written)
    trilemma.train("vae", "digits", steps=4, **keys)  # not called done: it writes its results
    summary = strict(path / "summary.json")
    assert "diverged" not in summary and summary[HASH] == sha256_of(path / "weights.safetensors") != written


def test_a_validation_that_is_nan_once_does_not_keep_its_weights() -> None:
    nan = float("nan")
    model, data = trilemma.create("ae-stacked", shape=(1, 8, 8)), trilemma.load_data("digits")
    validation = Validation(ModelInUse(model, data, TrainConfig(steps=1, monitor="valid_rmse")), print)
    best = []
    for images, value in enumerate([nan, 0.3, nan, 0.2, float("inf"), 0.25, nan]):
        result = {"rmse": torch.tensor([value]).expand(len(data.valid)), "other": torch.full((len(data.valid),), nan)}
        model.validation = lambda batch, rng, result=result: result
        validation.validate(images)
        best.append(validation.best.get("images"))
    assert best == [None, 1, 1, 3, 3, 3, 3] and validation.best["valid_rmse"] == pytest.approx(0.2, rel=1e-6)
