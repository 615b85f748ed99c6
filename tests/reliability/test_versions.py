"""What earlier versions wrote: run folders are opened and sampled, checkpoints resumed and pictures made again, bit for
bit. The files of commit fb66719, and what it computed with them, are in tests/fixtures/fb66719 (see its README)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import trilemma
from trilemma.files import sha256_of
from trilemma.hardware import describe
from trilemma.run.checkpoint import FORMAT, list_checkpoints, read_checkpoint
from trilemma.training.loop import Trainer

SLOW = pytest.mark.slow
FAMILIES: dict[str, dict[str, Any]] = {
    "ae-stacked": {},
    "vae": {},
    "vae-vq": {},
    "gan-dcgan": {"width": 4, "latent": 8},
    "diffusion-small": {"widths": (8, 16), "embedding": 16, "T": 50},
}
STEPS = 8
WARNED = ("since", "earlier", "overfits")
NEW = (("reported",), ("distances",), ("slowed", "events", "current"), ("started",), WARNED)  # of the formats 2, 3, ...


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(model: str, out: str) -> trilemma.Run:
    keys = {"batch": 16, "save_every": 48, "sample_every": 10**6, "device": "cpu", **FAMILIES[model]}
    return trilemma.train(model, "digits", steps=STEPS, out=out, quiet=True, **keys)


def as_format(number: int, path: Path) -> None:
    """Make of a checkpoint what the versions before NEW wrote."""
    state = json.loads((path / "state.json").read_text())
    for key in [key for keys in NEW[number - 1 :] for key in keys]:
        del state[key]
    if number < 3:
        state["said"] = sorted(state["said"])
    (path / "state.json").write_text(json.dumps(state))
    files = {f.name: {"bytes": f.stat().st_size, "sha256": sha256_of(f)} for f in path.iterdir()}
    del files["manifest.json"]
    (path / "manifest.json").write_text(json.dumps({"format": number, "files": files}))


@pytest.mark.parametrize(
    ("number", "model"),
    [
        *(pytest.param(1, model, marks=[] if model == "vae" else SLOW) for model in FAMILIES),
        (2, "gan-dcgan"),
        (3, "vae"),
    ],
)
def test_a_checkpoint_of_an_earlier_format_is_continued_bit_for_bit(
    number: int, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(model, "whole")
    shutil.copytree("whole", "run")
    Path("run/summary.json").unlink()
    last, before = list_checkpoints(Path("run/checkpoints"))[::-1]
    shutil.rmtree(last)
    as_format(number, before)
    steps: list[int] = []
    one_step = Trainer.take_step
    monkeypatch.setattr(
        Trainer, "take_step", lambda trainer: (steps.append(trainer.calendar.step), one_step(trainer))[1]
    )
    run = train(model, "run")
    assert steps == [6, 7]
    assert (run.path / "weights.safetensors").read_bytes() == (whole.path / "weights.safetensors").read_bytes()
    ends = [read_checkpoint(last_of(r)) for r in (run, whole)]
    quiet = [end.values.pop("said") for end in ends]  # since when, the earlier formats do not know
    assert quiet[0].keys() == quiet[1].keys()
    for end in ends:  # nor what was before
        assert all(end.values.pop(key) is not None for key in WARNED)
    assert {**ends[0].values, "seconds": 0} == {**ends[1].values, "seconds": 0}
    assert all(
        (last_of(run) / file.name).read_bytes() == file.read_bytes() for file in last_of(whole).glob("*.safetensors")
    )
    assert json.loads((last_of(run) / "manifest.json").read_text())["format"] == FORMAT


def last_of(run: trilemma.Run) -> Path:
    return list_checkpoints(run.path / "checkpoints")[-1]


@pytest.mark.parametrize(
    ("settings", "stated"),
    [({"variance": 0.5}, 0.5), ({"reconstruction": "gaussian"}, None), ({"capacity_nats": 3}, 0.5)],
)
def test_a_run_whose_config_says_optimal_for_a_variance_that_was_not_given_is_continued(
    settings: dict[str, Any], stated: float | None
) -> None:
    keys = {"batch": 16, "sample_every": 10**6, "device": "cpu", "quiet": True, **settings}
    run = trilemma.train("vae", "digits", steps=2, **keys)
    config = json.loads((run.path / "config.json").read_text())
    config["model_config"]["variance"] = "optimal"
    config |= {"format": 1, "training": {**config["training"], **config.pop("data_config")}}
    del config["parts"]
    (run.path / "config.json").write_text(json.dumps(config))
    assert trilemma.load(run.path).model_config == run.model_config
    assert run.model_config.variance == stated
    longer = trilemma.train("vae", "digits", steps=3, **keys)
    assert (longer.path, longer.summary["steps"]) == (run.path, 3)


FIXTURES = Path(__file__).parents[1] / "fixtures" / "fb66719"
SETTINGS: dict[str, dict[str, Any]] = json.loads((FIXTURES / "models.json").read_text())
DRAWINGS: dict[str, dict[str, Any]] = json.loads((FIXTURES / "drawings.json").read_text())
QUICK = ("vae-conditional", "diffusion-small")
MODELS = [model if model in QUICK else pytest.param(model, marks=pytest.mark.slow) for model in SETTINGS]
GIVEN = {"batch": 16, "sample_every": 10**6, "device": "cpu", "precision": "float32", "quiet": True}
SAMPLES, WEIGHTS = 1e-6, 1e-5  # largest differences elsewhere; with plain SSE instructions 4e-7 and 4e-6 were measured


def is_machine_of_fixtures() -> bool:
    """Whether sums are rounded here as they were there: only then are equal bits promised."""
    processor = f"{describe()['device_name']}, {torch.backends.cpu.get_cpu_capability()}"
    machine = json.loads((FIXTURES / "machine.json").read_text())
    return machine == {"torch": torch.__version__, "processor": processor, "threads": torch.get_num_threads()}


@pytest.fixture
def threads_of_fixtures():
    """As many threads as the fixtures were made with, because sums depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(json.loads((FIXTURES / "machine.json").read_text())["threads"])
    yield
    torch.set_num_threads(before)


def assert_same(now: dict[str, Tensor], then: dict[str, Tensor], tolerance: float) -> None:
    for name, value in then.items():
        torch.testing.assert_close(
            now[name], value, atol=0 if is_machine_of_fixtures() else tolerance, rtol=0, msg=name
        )
    assert now.keys() == then.keys()


def copy_of(model: str, state: str) -> Path:
    shutil.copytree(FIXTURES / model / state, state)
    return Path(state)


@pytest.mark.usefixtures("threads_of_fixtures")
@pytest.mark.parametrize("model", MODELS)
def test_a_run_of_fb66719_draws_the_same_images(model: str) -> None:
    run, then = trilemma.load(FIXTURES / model / "finished"), load_file(FIXTURES / model / "samples.safetensors")
    assert_same({name: run.sample(**DRAWINGS[name]) for name in then}, then, SAMPLES)


@pytest.mark.usefixtures("threads_of_fixtures")
@pytest.mark.parametrize("model", MODELS)
def test_an_unfinished_training_of_fb66719_is_resumed_to_the_same_weights(model: str) -> None:
    path, before = copy_of(model, "unfinished"), list_checkpoints(Path("unfinished/checkpoints"))[-1]
    assert read_checkpoint(before).values["step"] == (7 if model == "vae-vq" else 6)
    variance = {"variance": 0.5} if model in ("vae", "vae-discrete") else {}  # was the default; follows the images now
    settings = SETTINGS[model] | variance
    run = trilemma.train(model, "digits", steps=9, out=path, **GIVEN, **settings)
    log = [row["step"] for row in run.log]
    assert (run.summary["steps"], log[-1]) == (9, 9)
    now, then = (load_file(folder / "weights.safetensors") for folder in (path, FIXTURES / model / "finished"))
    kept = {name: value for name, value in then.items() if not name.startswith("critic.")}  # it is not averaged now
    later = {"vector_mean", "vector_std"} if model == "vae-vq" else set()  # which that version did not write
    assert kept and now.keys() == then.keys() | later
    assert_same({name: now[name] for name in kept}, kept, WEIGHTS)


@pytest.mark.usefixtures("threads_of_fixtures")
@pytest.mark.parametrize("model", MODELS)
def test_pictures_of_fb66719_are_made_again(model: str) -> None:
    pictures = sorted(copy_of(model, "finished").glob("samples/**/*.png"))
    assert len(pictures) == (10 if model in ("vae-conditional", "vae-vq", "diffusion-small") else 7)
    for k, picture in enumerate(pictures):
        copy = trilemma.again(picture, out=f"again-{k}.png")
        assert copy.equal if is_machine_of_fixtures() else copy.difference is not None and copy.difference <= 1


@pytest.mark.slow
def test_a_run_of_fb66719_is_evaluated() -> None:
    scores = {
        score.name: score
        for score in trilemma.evaluate(copy_of("vae-conditional", "finished"), n=100, bound_images=8).scores
    }
    assert scores["coverage"].n_fake == 100
    assert 0 <= (scores["coverage"].value or 0) < 0.5  # after nine steps


def test_settings_of_diffusion_are_called_as_now():
    """A U-Net had the heads of a transformer among its settings, and a weighting was called "soft"."""
    from trilemma.config import make
    from trilemma.diffusion.config import PixelDiffusionConfig
    from trilemma.run.migration import with_present_names

    written = {"shape": [1, 8, 8], "network": "unet", "heads": 4, "weighting": "soft", "multipliers": [1, 2]}
    settings = with_present_names(written)
    assert make(PixelDiffusionConfig, settings).weighting == "soft-min-snr" and "heads" not in settings
    transformer = {"shape": [1, 8, 8], "network": "dit", "heads": 4, "weighting": "edm", "width": 16}
    assert with_present_names(transformer) == transformer and with_present_names({"latent": 3}) == {"latent": 3}
