"""A training that was interrupted is the training that was not: leaf by leaf, wherever it stopped."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import trilemma
from trilemma.run import checkpoint
from trilemma.run.checkpoint import list_checkpoints, read_checkpoint, save_checkpoint, why_broken
from trilemma.run.folder import open_run_folder
from trilemma.run.run import Run
from trilemma.run.state import Checkpoint
from trilemma.training import calendar, results, saving
from trilemma.training.calendar import Calendar
from trilemma.training.diagnosis import Diagnosis
from trilemma.training.health import PlayerStep, StepMonitor
from trilemma.training.loop import Trainer
from trilemma.training.outcome import NotFinite
from trilemma.training.samples import SamplePictures
from trilemma.training.signals import Stopped
from trilemma.training.validation import Validation
from trilemma.types import Batch, Phase, Player

STEPS = 10
TMP = f".tmp-{0:032x}"  # of a process that was killed
TINY: dict[str, dict[str, Any]] = {
    "vae": {},
    "gan-dcgan": {"width": 4, "latent": 8},
    "diffusion-small": {"widths": (8, 16), "embedding": 16, "T": 50},
}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(model: str, out: str | None, steps: int = STEPS, **keys: Any) -> Run:
    keys = {"batch": 16, "sample_every": 10**6, "device": "cpu", **TINY[model], **keys}
    return trilemma.train(model, "digits", steps=steps, out=out, quiet=True, **keys)


def stop_after(step: int, patch: pytest.MonkeyPatch) -> None:
    one_step = Trainer.take_step

    def stopping(trainer: Trainer) -> None:
        one_step(trainer)
        if trainer.calendar.step == step:
            trainer.signals.stop = 2

    patch.setattr(Trainer, "take_step", stopping)


def leaves(state: Checkpoint) -> dict[str, Any]:
    """Every value and every tensor by its path, without the clock."""
    plain = {f"values/{name}": value for name, value in state.values.items() if name != "seconds"}
    return plain | {f"{file}/{name}": t for file, group in state.tensors.items() for name, t in group.items()}


def differing(one: Checkpoint, other: Checkpoint) -> list[str]:
    a, b = leaves(one), leaves(other)
    same = torch.equal, lambda x, y: x == y
    return [k for k in {**a, **b} if k not in a or k not in b or not same[k.startswith("values/")](a[k], b[k])]


def last_state(run: Path) -> Checkpoint:
    return read_checkpoint(list_checkpoints(run / "checkpoints")[-1])


@pytest.mark.slow
@pytest.mark.parametrize("model", TINY)
def test_no_leaf_differs_wherever_it_stopped(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(model, "whole")
    for step in (1, 2, 5, 9):
        with monkeypatch.context() as patch:
            stop_after(step, patch)
            with pytest.raises(Stopped):
                train(model, f"stopped-{step}")
        assert last_state(Path(f"stopped-{step}")).values["step"] == step
        run = train(model, f"stopped-{step}")
        assert differing(last_state(whole.path), last_state(run.path)) == []
        assert (whole.path / "weights.safetensors").read_bytes() == (run.path / "weights.safetensors").read_bytes()
        assert figures(run) == figures(whole)


def test_what_samples_were_judged_by_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples of so short a training are far from the data, and get no nearer: that is said, once."""
    keys = {"steps": 8, "sample_every": 32}  # a picture after every second step
    whole = train("gan-dcgan", "whole", **keys)
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        with pytest.raises(Stopped):
            train("gan-dcgan", "parts", **keys)
    run = train("gan-dcgan", "parts", **keys)
    states = [last_state(r.path).values for r in (whole, run)]
    assert len(states[0]["distances"]) == 3 and states[0]["said"].keys() >= {"collapse"}
    assert [states[1][key] for key in ("distances", "said")] == [states[0][key] for key in ("distances", "said")]
    assert figures(run) == figures(whole)


def figures(run: Run) -> list[dict[str, Any]]:
    """The log without the clock."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.log]


@pytest.mark.slow
@pytest.mark.parametrize("where", [(Validation, "validate"), (Diagnosis, "check_row"), (SamplePictures, "snapshot")])
@pytest.mark.parametrize("model", [pytest.param("vae", marks=pytest.mark.slow), "diffusion-small"])
def test_a_report_that_a_signal_interrupts_is_made_on_going_on(
    model: str, where: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)
    keys = {"steps": 7, "batch": 431, "sample_every": 1293}  # an epoch is three steps
    whole = train(model, "whole", **keys)
    for at in (3, 6, 7):
        with monkeypatch.context() as patch:
            interrupt(where, at, patch)
            if where[1] == "snapshot" and at == 7:
                continue  # the last picture is drawn with the results
            with pytest.raises(Stopped) as stopped:
                train(model, "run", **keys)
        assert stopped.value.code == 130 and last_state(Path("run")).values["unreported"]
    run = train(model, "run", **keys)
    assert differing(last_state(whole.path), last_state(run.path)) == [] and figures(run) == figures(whole)
    assert sorted(p.name for p in (run.path / "samples").iterdir()) == [
        "000000001293.png",
        "000000002586.png",
        "last.png",
    ]


def interrupt(where: tuple[type, str], at: int, patch: pytest.MonkeyPatch) -> None:
    """SIGINT within a part of the report after step `at`."""
    run, action = Trainer.run, getattr(*where)

    def patched(trainer: Trainer) -> None:
        def act(*args: Any, **keys: Any) -> Any:
            if trainer.calendar.step == at:
                with trainer.evaluation.in_use.weights():
                    signal.raise_signal(signal.SIGINT)
                raise AssertionError("the signal was to end the report")
            return action(*args, **keys)

        patch.setattr(*where, act)
        run(trainer)

    patch.setattr(Trainer, "run", patched)


def test_a_difference_would_be_seen() -> None:
    one = Checkpoint({"step": 1}, {"model": {"w": torch.zeros(2)}})
    assert differing(one, Checkpoint({"step": 2}, {"model": {"w": torch.zeros(2)}})) == ["values/step"]
    assert differing(one, Checkpoint({"step": 1}, {"model": {"w": torch.ones(2)}})) == ["model/w"]
    assert differing(one, Checkpoint({"step": 1}, {})) == ["model/w"]


def test_what_is_taken_from_a_checkpoint_is_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    train("gan-dcgan", "run")
    taken: list[Checkpoint] = []
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda trainer: (taken.append(trainer.parts.state()), run(trainer)))
    train("gan-dcgan", "run", steps=STEPS + 1)
    saved = read_checkpoint(Path(f"run/checkpoints/{STEPS * 16:012d}"))
    shares = ["values/progress", "values/reported"]  # of a training that is longer now
    assert differing(taken[0], saved) == shares
    assert (saved.values["progress"], taken[0].values["progress"]) == (1, STEPS / (STEPS + 1))


def test_saves_are_made_at_every_multiple_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(
        saving,
        "save_checkpoint",
        lambda folder, images, *rest: (saved.append(images), save_checkpoint(folder, images, *rest)),
    )
    train("vae", "run", save_every=40)
    assert saved == [48, 80, 128, 160]  # the first step at or after 40, 80, 120 and 160 images


@pytest.mark.slow
@pytest.mark.parametrize("model", TINY)
def test_the_clock_saves_between_reports_too_and_changes_nothing(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)
    keys = {"steps": 8, "batch": 431}  # an epoch, and its report, is every three steps
    monkeypatch.setattr(Calendar, "report_every", property(lambda calendar: [3 * 431]))
    whole = train(model, "whole", **keys)
    saved: list[int] = []
    one_step = Trainer.take_step

    def killed(trainer: Trainer) -> None:
        if trainer.calendar.step == 5:
            raise KeyboardInterrupt
        one_step(trainer)

    def noted(folder: Path, images: int, *rest: Any) -> Path:
        saved.append(images // 431)
        return save_checkpoint(folder, images, *rest)

    monkeypatch.setattr(calendar, "SAVE_EVERY_S", 0)
    monkeypatch.setattr(saving, "save_checkpoint", noted)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(model, "run", **keys)
    assert saved == [1, 2, 3, 4, 5]
    run = train(model, "run", **keys)
    assert saved == [1, 2, 3, 4, 5, 6, 7, 8]
    assert differing(last_state(whole.path), last_state(run.path)) == [] and figures(run) == figures(whole)
    assert (whole.path / "weights.safetensors").read_bytes() == (run.path / "weights.safetensors").read_bytes()


def test_every_epoch_is_validated_whatever_the_size_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)
    run = train("vae", "run", steps=130, batch=50)
    n = len(run.data.train)
    validated = [row["images"] for row in run.log if "valid_rmse" in row]
    assert n % 20 and validated == [-(-k * n // 50) * 50 for k in range(1, 6)]


def test_a_longer_training_killed_before_its_results_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    train("vae", "whole")
    whole = train("vae", "whole", steps=15)
    train("vae", "run")
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_tensors", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train("vae", "run", steps=15)
    run = train("vae", "run", steps=15)
    assert run.summary["steps"] == 15
    assert (run.path / "weights.safetensors").read_bytes() == (whole.path / "weights.safetensors").read_bytes()


def test_a_kill_between_save_and_removal_leaves_whole_ones_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(step: int) -> Checkpoint:
        return Checkpoint({"step": step}, {"model": {"w": torch.zeros(3)}, "ema": {"w": torch.ones(3)}})

    for step in (1, 2):
        save_checkpoint(tmp_path, step, state(step))

    def killed(path: Path, **_: object) -> None:
        next(iter(path.iterdir())).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 3, state(3))
    there = list_checkpoints(tmp_path)
    assert [int(path.name) for path in there] == [2, 3]
    assert [why_broken(path) for path in there] == [None, None]
    result = checkpoint.load_checkpoint(tmp_path, print)
    assert result is not None and result.values == {"step": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in there]


@pytest.mark.parametrize("left", [[], ["lock"], ["lock", TMP]])
def test_a_start_killed_before_its_config_is_taken_up(left: list[str]) -> None:
    for folder in (Path("runs/vae-digits"), Path("mine")):
        folder.mkdir(parents=True)
        for name in left:
            (folder / name).touch()
    assert train("vae", None, steps=1).path == Path("runs/vae-digits")
    assert train("vae", "mine", steps=1).path == Path("mine")
    assert not Path("mine", TMP).exists()


def test_leftovers_in_the_run_folder_are_removed_at_the_next_start() -> None:
    path = train("vae", "run", steps=2).path
    clean = sorted(path.rglob("*"))
    shutil.copytree(path / "checkpoints" / f"{32:012d}", path / "checkpoints" / f".{48:012d}.77.tmp")
    for name in (TMP, ".weights.safetensors.77.tmp", f"samples/{TMP}"):
        (path / name).write_bytes(b"half")
    train("vae", "run", steps=2)
    assert sorted(path.rglob("*")) == clean


def test_a_second_process_on_one_run_is_refused_by_name() -> None:
    config = train("vae", "run", steps=1).config
    held = open_run_folder("vae-digits", config, "run")
    with pytest.raises(trilemma.UserError, match=r"run is being trained by process \d+ on "):
        train("vae", "run", steps=1)
    held.close()
    train("vae", "run", steps=1)


def test_two_states_of_one_step_are_told_apart_and_the_later_is_taken(tmp_path: Path) -> None:
    for unreported in (True, False, False):
        save_checkpoint(tmp_path, 16, Checkpoint({"unreported": unreported}, {}))
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"{16:012d}", f"{16:012d}.2"]
    result = checkpoint.load_checkpoint(tmp_path, print)
    assert result is not None and result.values == {"unreported": False}


class Late:
    """Numbers as they lie on a GPU."""

    is_cuda = True

    def __init__(self, *values: float) -> None:
        self.values = values

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.tensor(self.values[number])


@pytest.fixture
def monitor() -> StepMonitor:
    def copy(late: Any) -> Any:
        return lambda: list(late.values)

    return StepMonitor(torch.nn.Identity(), copy=copy)


def player_step(step: int, *values: float) -> PlayerStep:
    phase = Phase("p", Player("p", []), lambda batch, rng: (torch.zeros(()), {}))
    return PlayerStep(step, [phase], Batch(torch.zeros(1, 1, 1, 1)), [{}], Late(*values))  # type: ignore[arg-type]


def test_what_is_pending_on_a_gpu_is_checked_before_a_state_is_trusted(monitor: StepMonitor) -> None:
    assert not monitor.check(player_step(3, float("inf"), 1.0))
    with pytest.raises(NotFinite, match="the loss is not finite"):
        monitor.flush()
    assert not monitor.flush()


@pytest.mark.parametrize("by", ["the next step", "a state"])
def test_averaged_weights_on_a_gpu_are_checked_within_a_step_under_its_number(monitor: StepMonitor, by: str) -> None:
    assert not monitor.check(player_step(3, 1.0, 1.0))
    monitor.check_average(3, Late())  # type: ignore[arg-type]  # an empty list, which is as false as False
    with pytest.raises(NotFinite, match="averaged weights are not finite") as error:
        monitor.flush() if by == "a state" else monitor.check(player_step(4, 1.0, 1.0))
    assert error.value.step == 3 and not monitor.flush()
