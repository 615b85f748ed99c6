"""What several processes decide together: two trainers in step, each with a clock, a memory and numbers of its own."""

import errno
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from threads import SELF, Threads, in_threads

import trilemma
from trilemma.autoencoders.vae import VAE
from trilemma.data import Data
from trilemma.errors import UserError
from trilemma.progress import Display
from trilemma.run import tensor_files
from trilemma.run.config import TrainConfig
from trilemma.run.state import Checkpoint
from trilemma.team import ALONE, smallest
from trilemma.training import calendar, saving, time_budget
from trilemma.training.guard import unless_full
from trilemma.training.loop import Trainer
from trilemma.training.outcome import LastingJump, NoMemory, NotFinite, Outcome, agree
from trilemma.training.players import Players
from trilemma.training.shards import Shards
from trilemma.training.signals import Stopped
from trilemma.training.spikes import WINDOW
from trilemma.training.state import Parts

BAD_STEP = 3


@pytest.fixture(scope="module")
def digits() -> Data:
    return trilemma.load_data("digits")


def train(data: Data, path: Path, **keys: Any) -> list[Trainer]:
    """Two trainers after their training, in step, each with a run folder of its own."""

    def run(team: Threads) -> Trainer:
        trainer = trainer_of(data, path / str(team.rank), team, **keys)
        trainer.run()
        return trainer

    return in_threads(2, run, all_write=True)


def trainer_of(data: Data, folder: Path, team: Threads, **keys: Any) -> Trainer:
    """A trainer at its start, in a new folder."""
    folder.mkdir()
    config = TrainConfig(**{"batch": 16, "sample_every": 10**6, "save_every": 10**6, **keys})
    model = trilemma.create("vae", shape=(1, 8, 8))
    return Trainer(model, data, config, folder, Display("x", quiet=True), bf16=False, team=team)


def in_rank_1(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[Trainer], None]) -> None:
    """Something that happens once, in one of the trainers, after a step is taken and before it is decided on."""
    take_step, actions = Trainer.take_step, [action]

    def patched(trainer: Trainer) -> None:
        take_step(trainer)
        if SELF.rank == 1 and trainer.calendar.step == step + 1 and actions:
            actions.pop()(trainer)

    monkeypatch.setattr(Trainer, "take_step", patched)


def assert_alike(trainers: list[Trainer]) -> None:
    """The weights, to the bit, and the place of the training."""
    one, other = (trainer.parts.state() for trainer in trainers)
    for key in ("step", "images", "seconds", "progress", "reported", "skipped", "slowed", "pieces", "plateau", "best"):
        assert one.values[key] == other.values[key], key
    for group, tensors in one.tensors.items():
        assert all(torch.equal(tensor, other.tensors[group][name]) for name, tensor in tensors.items()), group


def test_one_process_agrees_with_itself() -> None:
    for fault in (None, NotFinite(3, "a"), LastingJump(0, "b"), NoMemory(7, "c")):
        own = Outcome(fault, in_doubt=True, seconds=1.5, save=True, stop=15)
        assert agree(ALONE, own) == own
    assert smallest(ALONE, -2.5) == -2.5


def test_the_first_kind_of_fault_and_the_latest_step_are_agreed_on() -> None:
    """Another process met faults at step 5, a longer time and a signal."""

    class Other:
        size = 2

        def agree(self, numbers: Sequence[float]) -> list[float]:
            return [max(pair) for pair in zip(numbers, [-1.0, 5.0, 5.0, 0.0, 9.0, 1.0, 2.0], strict=True)]

    outcome = agree(Other(), Outcome(None, in_doubt=False, seconds=3.0))
    assert type(outcome.fault) is NotFinite and outcome.fault.step == 5 and "another process" in str(outcome.fault)
    assert (outcome.seconds, outcome.save, outcome.stop) == (9.0, True, 2)
    own = NotFinite(5, "here")
    assert agree(Other(), Outcome(own, in_doubt=False)).fault is own
    assert agree(Other(), Outcome(NotFinite(4, "here"), in_doubt=False)).fault is not own
    memory = NoMemory(2, "here")
    assert agree(Other(), Outcome(memory, in_doubt=False)).fault is memory


class Clock:
    """Time passes with every look at it, slower in one trainer than in the other."""

    def __init__(self) -> None:
        self.now = [0.0, 0.0]

    def perf_counter(self) -> float:
        self.now[SELF.rank] += (0.001, 2.0)[SELF.rank]
        return self.now[SELF.rank]

    monotonic = perf_counter


def test_different_clocks_end_report_validate_draw_and_save_at_the_same_steps(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, evaluations, saves = Clock(), SimpleNamespace(perf_counter=Clock().perf_counter), ([], [])
    monkeypatch.setattr(calendar, "time", clock)
    monkeypatch.setattr(saving, "time", clock)
    monkeypatch.setattr(time_budget, "time", evaluations)
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)
    save = saving.save_checkpoint

    def noted(folder: Path, images: int, *rest: Any) -> Path:
        saves[SELF.rank].append(images)
        return save(folder, images, *rest)

    monkeypatch.setattr(saving, "save_checkpoint", noted)
    trainers = train(digits, tmp_path, minutes=1, batch=512, sample_every=None, save_every=None)
    assert_alike(trainers)
    steps = trainers[0].calendar.step
    assert clock.now[0] < 1 and trainers[0].calendar.seconds >= 60 and steps < 30
    assert saves[0] == saves[1] and 1 < len(saves[0]) < steps
    rows = [(tmp_path / rank / "log.jsonl").read_text().splitlines() for rank in "01"]
    assert rows[0] == rows[1]
    pictures = [sorted(path.name for path in (tmp_path / rank / "samples").glob("*")) for rank in "01"]
    assert pictures[0] == pictures[1]
    validations = sum("valid_rmse" in row for row in rows[0])
    assert 1 <= validations < steps // 3  # the slower one has no time for all of them


def spoil(trainer: Trainer) -> None:
    with torch.no_grad():
        next(trainer.model.parameters()).view(-1)[0] = math.nan


def test_a_number_that_one_loses_is_rolled_back_and_skipped_by_both(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_rank_1(monkeypatch, BAD_STEP, spoil)
    trainers = train(digits, tmp_path, steps=8)
    assert_alike(trainers)
    assert trainers[0].incidents.skipped == [BAD_STEP + 1]  # its loss is the first that is not finite
    texts = [trainer.incidents.events["skipped"] for trainer in trainers]
    assert "the loss part" in texts[0] and "the weight" in texts[1]  # where it lies, and what follows from it


@pytest.mark.parametrize("save_every", [16 * (BAD_STEP + 1), 10**6])
def test_a_state_that_is_spoilt_in_one_is_saved_by_none(
    save_every: int, digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the last step before a checkpoint, or by the last one of all."""
    last = BAD_STEP if save_every < 10**6 else 7
    in_rank_1(monkeypatch, last, spoil)
    trainers = train(digits, tmp_path, steps=8, save_every=save_every)
    assert_alike(trainers)
    assert trainers[0].incidents.skipped == [last]
    assert all(p.isfinite().all() for trainer in trainers for p in trainer.model.parameters())


def test_memory_that_runs_out_in_one_divides_the_batch_of_both(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradient = Players.gradient

    def scarce(players: Players, *args: Any) -> Any:
        if SELF.rank == 1 and players.pieces == 1:
            raise torch.OutOfMemoryError("full")
        return gradient(players, *args)

    monkeypatch.setattr(Players, "gradient", scarce)
    trainers = train(digits, tmp_path, steps=4)
    assert_alike(trainers)
    assert [trainer.players.pieces for trainer in trainers] == [2, 2]


def checkpoints(path: Path) -> list[list[int]]:
    """The images of each checkpoint, of both trainers."""
    return [sorted(int(folder.name) for folder in (path / rank / "checkpoints").iterdir()) for rank in "01"]


def test_memory_that_runs_out_for_the_state_of_one_skips_the_checkpoint_of_both(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is tried, and no decision of the one is taken for another decision of the other."""
    state_of, skipped = Parts.state, 16 * (BAD_STEP + 1)

    def scarce(parts: Parts) -> Checkpoint:
        state = state_of(parts)
        if state.values["images"] == skipped and SELF.rank == 1:
            raise torch.OutOfMemoryError("full")
        return state

    monkeypatch.setattr(Parts, "state", scarce)
    trainers = train(digits, tmp_path, steps=8, save_every=skipped)
    assert checkpoints(tmp_path) == [[16 * 8], [16 * 8]]
    assert_alike(trainers)


@pytest.mark.slow
def test_memory_that_runs_out_for_the_files_of_one_is_no_matter_of_the_other(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, skipped = saving.save_checkpoint, 16 * (BAD_STEP + 1)

    def scarce(folder: Path, images: int, *rest: Any) -> Path:
        if SELF.rank == 1 and images == skipped:
            raise MemoryError("full")
        return save(folder, images, *rest)

    monkeypatch.setattr(saving, "save_checkpoint", scarce)
    trainers = train(digits, tmp_path, steps=8, save_every=skipped)
    assert checkpoints(tmp_path) == [[skipped, 16 * 8], [16 * 8]]
    assert_alike(trainers)


def test_a_disk_that_is_full_for_one_ends_both_with_the_reason(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is for the process that writes: the other one does not take it for lost."""
    save_file = tensor_files.save_file

    def full(tensors: Any, path: Path) -> None:
        if SELF.rank == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(tensor_files, "save_file", full)

    def run(team: Threads) -> str:
        trainer = trainer_of(digits, tmp_path / str(team.rank), team, steps=8, save_every=32)
        with pytest.raises(UserError) as error:
            trainer.run()
        return f"{trainer.calendar.step}: {type(error.value).__name__}: {error.value}"

    first, second = in_threads(2, run, all_write=True)
    assert first.startswith(f"2: UserError: cannot write {tmp_path / '0'}")
    assert second == "2: ReportedElsewhere: process 0 of 2 reports an error"


def test_what_others_take_part_in_is_not_tried_again() -> None:
    """With weights that are divided over processes: in one process it is, and is skipped with a warning then."""
    tries, warnings = [], []

    def action() -> None:
        tries.append(1)
        raise torch.OutOfMemoryError("full")

    assert not unless_full("a picture", action, warnings.append)
    assert len(tries) == 2 and warnings == ["out of memory (full): a picture is skipped"]
    with pytest.raises(UserError, match=r"out of memory \(full\).*the other processes wait for this one"):
        unless_full("a picture", action, warnings.append, cast(Shards, SimpleNamespace(team=ALONE)))
    assert len(tries) == 3 and len(warnings) == 1


@pytest.mark.slow
def test_a_loss_that_stays_up_in_one_is_rolled_back_by_both(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmed = WINDOW + 9

    def harm(trainer: Trainer) -> None:
        with torch.no_grad():
            list(trainer.model.parameters())[3].add_(2.0)  # mu and logvar: the mean of both losses rises far enough

    in_rank_1(monkeypatch, harmed, harm)
    trainers = train(digits, tmp_path, steps=harmed + WINDOW + 4, lr=1e-5)
    assert_alike(trainers)
    assert trainers[0].incidents.slowed == [harmed + 1 - WINDOW]


def test_a_jump_is_not_rolled_back_to_different_states(digits: Data, tmp_path: Path) -> None:
    """One process does not see the checkpoint that the others return to, as on a disk that is not shared."""

    def run(team: Threads) -> str:
        trainer = trainer_of(digits, tmp_path / str(team.rank), team, steps=8)
        trainer.model.train()
        for _ in range(2):
            trainer.advance()
        trainer.saver.save(trainer.guard.sound_state())
        if team.rank == 1:
            shutil.rmtree(tmp_path / "1" / "checkpoints")
        with pytest.raises(UserError) as error:
            trainer.guard.recover(Outcome(LastingJump(WINDOW + 2, "a loss jumped"), in_doubt=True))
        return str(error.value)

    texts = in_threads(2, run, all_write=True)
    assert all(text.startswith("the processes of this training see different checkpoints in ") for text in texts)


def test_a_signal_to_one_stops_both_after_the_same_step(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(trainer: Trainer) -> None:
        trainer.signals.stop = 15

    trainers: list[Trainer] = []
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda trainer: (trainers.append(trainer), run(trainer)))
    in_rank_1(monkeypatch, BAD_STEP, stop)
    with pytest.raises(Stopped) as stopped:
        train(digits, tmp_path, steps=8)
    assert stopped.value.code == 128 + 15
    assert [trainer.saver.saved for trainer in trainers] == [16 * (BAD_STEP + 1)] * 2


def test_a_signal_that_asks_one_for_a_save_saves_both(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_rank_1(monkeypatch, BAD_STEP, lambda trainer: setattr(trainer.signals, "save", True))
    train(digits, tmp_path, steps=8)
    names = [sorted(path.name for path in (tmp_path / rank / "checkpoints").iterdir()) for rank in "01"]
    assert names[0] == names[1] == [f"{16 * step:012d}" for step in (BAD_STEP + 1, 8)]


def test_the_rate_on_a_plateau_follows_the_value_that_both_agree_on(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation of one gets better from pass to pass, that of the other does not."""
    values = [iter([4.0, 3.0, 2.0, 1.0]), iter([5.0, 5.0, 5.0, 5.0])]

    def validation(model: Any, batch: Any, rng: torch.Generator) -> dict[str, torch.Tensor]:
        return {"mse": torch.full((len(batch.image),), next(values[SELF.rank]))}

    monkeypatch.setattr(VAE, "validation", validation)
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)
    keys = {"schedule": "plateau", "monitor": "valid_mse", "batch": len(digits.train)}
    trainers = train(digits, tmp_path, steps=4, **keys)
    assert [trainer.validation.plateau.factor for trainer in trainers] == [0.5, 0.5]
    assert [trainer.validation.best["images"] for trainer in trainers] == [len(digits.train)] * 2
