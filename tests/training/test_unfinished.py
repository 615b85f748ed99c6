"""A training that is not finished can be used by its newest checkpoint, and everything made so says it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trilemma
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.files import sha256_of
from trilemma.pictures.png import read_metadata
from trilemma.run.checkpoint import list_checkpoints
from trilemma.run.run import Run
from trilemma.run.unfinished import Snapshot, is_sound, newest_snapshot
from trilemma.types import Batch, Phase, Player

STEPS, BATCH = 6, 16
RESULTS = ("weights.safetensors", "summary.json", "README.md", "curves.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "vae")


def trained(out: Path, model: str = "vae", **keys: Any) -> Path:
    words = {"steps": STEPS, "batch": BATCH, "save_every": BATCH, "device": "cpu", "quiet": True} | keys
    return trilemma.train(model, "digits", out=out, **words).path


def cut(path: Path, to: Path, checkpoint: int = -1) -> Path:
    """The folder as it was when a checkpoint, by default the last, was the newest."""
    shutil.copytree(path, to)
    for name in RESULTS:
        (to / name).unlink(missing_ok=True)
    kept = list_checkpoints(to / "checkpoints")[checkpoint]
    for other in list_checkpoints(to / "checkpoints"):
        if other.name > kept.name:
            shutil.rmtree(other)
    return to


@pytest.fixture
def halfway(finished: Path, tmp_path: Path) -> Path:
    return cut(finished, tmp_path / "halfway", -2)


LONG = [pytest.param(model, marks=pytest.mark.slow) for model in ("vae-vq", "diffusion-small", "vae-ladder")]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "ae-stacked", "gan", *LONG])
def test_the_last_checkpoint_gives_what_the_training_ends_with(model: str, tmp_path: Path) -> None:
    """The best weights, the averaged or the last, and a density over codes that is fitted only then."""
    whole = Run(trained(tmp_path / "whole", model, sample_every=10**6))
    part = Run(cut(whole.path, tmp_path / "part"))
    expected = whole.model.state_dict()
    assert part.unfinished is not None and whole.unfinished is None
    assert expected.keys() == part.model.state_dict().keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in part.model.state_dict().items())


def test_what_is_made_says_how_far_the_training_was(halfway: Path, tmp_path: Path, capsys: Any) -> None:
    images = (STEPS - 1) * BATCH
    text = f"not finished: {images} of {STEPS * BATCH} images; from its newest checkpoint"
    run = Run(halfway)
    picture = trilemma.sample(run, n=2, out=tmp_path / "out").images[1]
    assert capsys.readouterr().err == f"{halfway}: {text}\n"
    assert read_metadata(picture)["unfinished"] == text
    assert read_metadata(trilemma.reconstruct(run, n=2, out=tmp_path / "r.png").picture)["unfinished"] == text
    assert run.warnings[0] == text and run.summary["images"] == images and run.summary["steps"] == STEPS - 1
    result = trilemma.evaluate(run, n=20, bound_samples=0)
    assert text in result.notes and {score.unfinished for score in result.scores} == {text}
    again = trilemma.again(picture, run=halfway, out=tmp_path / "again.png")
    assert again.equal and read_metadata(again.picture) == read_metadata(picture)


def test_a_finished_run_says_nothing_of_it(finished: Path, tmp_path: Path, capsys: Any) -> None:
    picture = trilemma.sample(finished, n=1, out=tmp_path / "out").grid
    assert "unfinished" not in read_metadata(picture) and capsys.readouterr().err == ""


def test_again_finds_an_earlier_checkpoint_or_says_that_it_is_gone(
    finished: Path, halfway: Path, tmp_path: Path
) -> None:
    picture = trilemma.sample(halfway, n=1, out=tmp_path / "out").grid
    assert trilemma.again(picture, run=finished, out=tmp_path / "a.png").equal  # it has the checkpoint still
    went_on = cut(finished, tmp_path / "on")
    shutil.rmtree(list_checkpoints(went_on / "checkpoints")[0])
    with pytest.raises(
        UserError, match=r"no longer has the checkpoint .*80 of 96 images.* further training replaced it"
    ):
        trilemma.again(picture, run=went_on, out=tmp_path / "b.png")


def test_a_broken_checkpoint_is_passed_over_and_left_as_it_is(finished: Path, tmp_path: Path) -> None:
    run = cut(finished, tmp_path / "run")
    newest = list_checkpoints(run / "checkpoints")[-1]
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (newest / "model.safetensors").write_bytes(bytes(content))
    there = sorted(run.rglob("*"))
    assert Run(run).unfinished == f"not finished: {(STEPS - 1) * BATCH} of {STEPS * BATCH} images; " + (
        "from its newest checkpoint"
    )
    assert sorted(run.rglob("*")) == there


def test_a_checkpoint_of_another_network_is_refused(halfway: Path) -> None:
    config = json.loads((halfway / "config.json").read_text())
    config["model_config"]["latent"] = 7
    (halfway / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"does not hold the weights of this run: .* is F32 .*, not F32"):
        Run(halfway).sample(1)


def test_minutes(finished: Path, tmp_path: Path) -> None:
    run = cut(trained(tmp_path / "whole", steps=None, minutes=0.001, save_every=None), tmp_path / "run")
    assert Run(run).unfinished == (
        f"not finished: {Run(tmp_path / 'whole').summary['images']:,} images, 100% of 0.001 minutes; "
        "from its newest checkpoint"
    )


def test_the_command_line_uses_it(halfway: Path, tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["sample", str(halfway), "n=1", f"out={tmp_path / 'x'}"]) == 0
    assert "not finished: 80 of 96 images" in capsys.readouterr().err


def snapshot_with(**values: Any) -> Snapshot:
    return Snapshot(Path(), "0" * 16, {"images": 80, "progress": 0.5, **values}, ())


@pytest.mark.parametrize(("progress", "whole"), [(0.5, "160"), (1, "80"), (0, "?"), (1e-320, "?")])
def test_a_length_that_cannot_be_told_is_a_question_mark(progress: float, whole: str) -> None:
    assert snapshot_with(progress=progress).reached(None) == f"80 of {whole} images"


@pytest.mark.parametrize(("progress", "sound"), [(0, True), (1.0, True), (1.01, False), (-0.1, False), ("1", False)])
def test_progress_is_a_share(halfway: Path, progress: Any, sound: bool) -> None:
    snapshot = newest_snapshot(halfway)
    assert snapshot is not None and is_sound(snapshot.values)
    assert is_sound({**snapshot.values, "progress": progress}) == sound


def test_a_checkpoint_that_the_training_removes_meanwhile_gives_way_to_the_newest(
    finished: Path, tmp_path: Path
) -> None:
    run, later = Run(cut(finished, tmp_path / "run", -2)), list_checkpoints(finished / "checkpoints")[-1]
    before = run.weights_id
    for old in list_checkpoints(run.path / "checkpoints"):
        shutil.rmtree(old)
    shutil.copytree(later, run.path / "checkpoints" / later.name)
    expected = Run(finished).model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in run.model.state_dict().items())
    assert run.weights_id != before and run.summary["steps"] == STEPS
    gone = Run(run.path)
    assert gone.snapshot is not None
    shutil.rmtree(run.path / "checkpoints" / later.name)
    with pytest.raises(FileNotFoundError):
        _ = gone.model


def test_again_refuses_a_checkpoint_that_is_replaced_while_it_draws(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(cut(finished, tmp_path / "run", -2))
    picture = trilemma.sample(run, n=1, out=tmp_path / "out").grid
    later = list_checkpoints(finished / "checkpoints")[-1]
    draw = Run.sample

    def replaced(self: Run, *args: Any, **keys: Any) -> torch.Tensor:
        for old in list_checkpoints(run.path / "checkpoints"):
            shutil.rmtree(old)
        shutil.copytree(later, run.path / "checkpoints" / later.name)
        self.__dict__.pop("model", None)  # it was loaded to look at the size
        return draw(self, *args, **keys)

    monkeypatch.setattr(Run, "sample", replaced)
    with pytest.raises(UserError, match="further training replaced it"):
        trilemma.again(picture, run=run.path, out=tmp_path / "again.png")


def test_an_earlier_checkpoint_keeps_the_module_and_the_data_of_its_run(tmp_path: Path) -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.phases = [Phase("own", Player("own", [self.scale]), self.loss)]

        def loss(self, batch: Batch, g: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss = (self.scale * batch.image - batch.image.roll(1, -1)).square().mean()
            return loss, {"loss": loss.detach()}

    module, images = Own(), np.random.default_rng(0).random((40, 8, 8), np.float32)
    keys: dict[str, Any] = {"steps": 2, "batch": 8, "save_every": 8, "device": "cpu", "quiet": True}
    path = trilemma.train(module, images, out=tmp_path / "own", **keys).path
    run = Run(path, model=module, data=images)
    first, last = (find_id(checkpoint) for checkpoint in list_checkpoints(path / "checkpoints"))
    scales = [earlier.model.scale.item() for earlier in map(run.at, (first, last)) if earlier is not None]
    assert len(set(scales)) == 2 and scales[1] == run.model.scale.item()
    earlier = run.at(first)
    assert earlier is not None and earlier.data.fingerprint == run.data.fingerprint
    assert run.at("0" * 16) is None and run.snapshot is None


def find_id(checkpoint: Path) -> str:
    return sha256_of(checkpoint / "manifest.json")[:16]


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ({"steps": STEPS - 1}, True),
        ({"steps": STEPS - 2, "diverged": True}, False),  # the training was resumed since
        ({"steps": STEPS, "diverged": True}, True),  # it diverged after its last checkpoint
        ({"steps": STEPS}, False),
        ({}, False),
    ],
)
def test_a_summary_of_another_state_is_not_that_of_the_checkpoint(halfway: Path, written: Any, taken: bool) -> None:
    counts = {"images": 1, "seconds": 1.0, "images_per_second": 1.0, "parameters": 1}
    (halfway / "summary.json").write_text(json.dumps({**counts, **written, "warnings": ["the training diverged"]}))
    run = Run(halfway)
    assert ("the training diverged" in run.warnings) == taken
    assert run.summary["images"] == (1 if taken else (STEPS - 1) * BATCH)
