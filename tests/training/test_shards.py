"""Weights that are divided over processes (shard=true): the same training, and the same files, as with whole ones."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distance import assert_near
from presets import small
from processes import start_all, torchrun
from safetensors.torch import load_file
from threads import Threads
from torch import Tensor

import trilemma
from trilemma.errors import UserError
from trilemma.progress import Display
from trilemma.ranks import current_team
from trilemma.registry import create
from trilemma.run.config import TrainConfig
from trilemma.team import ALONE
from trilemma.training.loop import Trainer
from trilemma.training.shards import check_shards
from trilemma.types import Batch

MODELS: dict[str, dict[str, Any]] = {
    "vae": {},
    "gan-r3": {},  # whose penalty has a gradient of a gradient
    "gan-dcgan": {"settings": {"loss": "wasserstein", "weight_clip": 0.02}},  # with batch norm, and what follows a step
    "diffusion": {},  # moved by muon
    "gan": {"optimizer": "nadam"},
    "ae-conv": {"optimizer": "adamw", "weight_decay": 0.1},
}
ADVANCE = """
import json, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_shards import advance
from trilemma.ranks import connected_ranks

torch.set_num_threads(1)
with connected_ranks():
    for name, folder, steps, shard in json.loads(sys.argv[2]):
        advance(name, Path(folder), steps, shard=shard)
"""


def advance(name: str, folder: Path, steps: int, *, shard: bool) -> None:
    """More steps in float64, in the processes that there are; what is saved is then the state."""
    folder.mkdir(exist_ok=True)
    keys = dict(MODELS[name])
    model = create(name, shape=(1, 8, 8), seed=0, **{**small(name), **keys.pop("settings", {})}).double()
    config = TrainConfig(batch=7, steps=60, ema_halflife_images=100, shard=shard, **keys)
    data, display = trilemma.load_data("digits"), Display("x", quiet=True)
    trainer = InDouble(model, data, config, folder, display, bf16=False, team=current_team())
    trainer.model.train()
    for _ in range(steps):
        assert trainer.advance().fault is None
    trainer.saver.save(trainer.guard.sound_state())


class InDouble(Trainer):
    """A trainer whose images are float64."""

    def batch_at(self, position: int) -> Batch:
        batch = super().batch_at(position)
        return Batch(batch.image.double(), batch.condition, batch.index, batch.progress)


def in_two(*words: str) -> None:
    """A script in two processes."""
    processes = start_all(2, "-c", *words)
    outputs = [process.communicate(timeout=500) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [text[-2500:] for _, text in outputs]


def advance_in_two(*trainings: tuple[str, Path, int, bool]) -> None:
    asked = json.dumps([(name, str(folder), steps, shard) for name, folder, steps, shard in trainings])
    in_two(ADVANCE, str(Path(__file__).parent), asked)


def saved(folder: Path) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint, by file and name."""
    files = sorted(max((folder / "checkpoints").iterdir()).glob("*.safetensors"))
    return {f"{file.stem}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def assert_same_training(one: Path, other: Path) -> None:
    """The same names, shapes and types, and numbers to 1e-12 of each kind of them, as vectors."""
    states = [saved(folder) for folder in (one, other)]
    forms = [{name: (tensor.shape, tensor.dtype) for name, tensor in state.items()} for state in states]
    assert forms[0] == forms[1]
    assert_near(*states, 1e-12)


@pytest.mark.slow
def test_divided_weights_are_those_of_one_process(tmp_path: Path) -> None:
    """Five steps, in float64: weights, averages and optimisers as they are saved."""
    advance_in_two(*((name, tmp_path / name, 5, True) for name in MODELS))
    for name in MODELS:
        advance(name, tmp_path / "one", 5, shard=False)
        assert_same_training(tmp_path / "one", tmp_path / name)
        (tmp_path / "one").rename(tmp_path / f"one-{name}")


@pytest.mark.slow
def test_a_run_is_resumed_with_whole_and_with_divided_weights(tmp_path: Path) -> None:
    """2 steps with divided weights, 2 with whole ones in two processes, 2 in one, and 2 with divided ones."""
    name, folder = "gan-r3", tmp_path / "changing"
    advance_in_two((name, folder, 2, True), (name, folder, 2, False))
    advance(name, folder, 2, shard=False)
    advance_in_two((name, folder, 2, True))
    advance(name, tmp_path / "one", 8, shard=False)
    assert_same_training(tmp_path / "one", folder)


@pytest.mark.slow
def test_the_run_folder_is_that_of_one_process(tmp_path: Path) -> None:
    """With validations, pictures, averages, the best weights and earlier ones; one process without shard=true finds it
    trained."""
    words = ["train", "ae-conv", "digits", "steps=12", "batch=15", "sample_every=60", "save_every=60", "keep_weights=1"]
    words += ["monitor=valid_rmse", "ema_halflife_images=100", "lr=1e-4", "device=cpu"]
    command = [sys.executable, "-m", "trilemma", *words]
    subprocess.run([*command, f"out={tmp_path / 'one'}"], check=True, capture_output=True)
    done = torchrun(*words, "shard=true", f"out={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr[:2000]
    files = [sorted(str(p.relative_to(run)) for p in run.rglob("*")) for run in (tmp_path / "one", tmp_path / "two")]
    assert files[0] == files[1] and any(name.startswith("earlier/") for name in files[0])
    for name in (name for name in files[0] if name.endswith(".safetensors")):
        tensors, others = (load_file(run / name) for run in (tmp_path / "one", tmp_path / "two"))
        assert {key: (t.shape, t.dtype) for key, t in tensors.items()} == {
            key: (t.shape, t.dtype) for key, t in others.items()
        }
        if not Path(name).stem.startswith("optimizer"):
            assert_near(*({f"{name}/{key}": t for key, t in group.items()} for group in (tensors, others)), 1e-5)
    again = subprocess.run([*command, f"out={tmp_path / 'two'}"], capture_output=True, check=False)
    assert again.returncode == 0 and b"is already trained" in again.stderr


def test_one_process_has_nothing_to_divide_weights_over() -> None:
    parameters = list(create("vae", shape=(1, 8, 8)).parameters())
    check_shards(parameters, TrainConfig(steps=1), ALONE)
    check_shards(parameters, TrainConfig(steps=1, shard=True), Threads(2))
    with pytest.raises(UserError, match="this is one; start them with torchrun"):
        check_shards(parameters, TrainConfig(steps=1, shard=True), ALONE)


def test_weights_of_several_types_are_not_divided() -> None:
    model = create("vae", shape=(1, 8, 8))
    parameters = [*model.parameters(), torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))]
    with pytest.raises(UserError, match="of several types \\(float32, float64\\)"):
        check_shards(parameters, TrainConfig(steps=1, shard=True), Threads(2))
