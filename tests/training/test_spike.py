"""A loss that jumps and does not come back: the training goes on from before it, with a lower rate, once."""

from pathlib import Path

import pytest
import torch

import trilemma
from trilemma.run.checkpoint import list_checkpoints, read_checkpoint
from trilemma.run.run import Run
from trilemma.training.guard import SLOWER, Guard
from trilemma.training.loop import Trainer
from trilemma.training.signals import Stopped
from trilemma.training.spikes import LASTING, RISE, SPIKE, WINDOW, LossJump, LossSpikeDetector

HARMED = 120  # the step after which a toy's weights are harmed
STEPS = 240


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def jumps(losses: list[float], detector: LossSpikeDetector | None = None, phase: str = "p") -> dict[int, LossJump]:
    """The jumps that are reported of losses, by their number."""
    detector = detector or LossSpikeDetector([phase])
    return {step: jump for step, loss in enumerate(losses) for jump in detector.check(step, {phase: loss})}


STEADY = [1.0 + 0.001 * (k % 7) for k in range(WINDOW + 10)]  # median 1.003


@pytest.mark.parametrize(("height", "stays"), [(1.01 * RISE, True), (0.99 * RISE, False), (1.5 * SPIKE, True)])
def test_a_loss_that_stays_up_is_said_after_a_window(height: float, stays: bool) -> None:
    jumped_at = jumps([*STEADY, *[height] * WINDOW])
    last = len(STEADY) + WINDOW - 1
    assert {step for step, jump in jumped_at.items() if jump.stays} == ({last} if stays else set())
    assert not stays or jumped_at[last].step == len(STEADY)


@pytest.mark.parametrize(("up", "stays"), [(WINDOW // 2 + 1, True), (WINDOW // 2 - 1, False)])
def test_a_loss_has_come_back_if_half_of_the_window_did(up: int, stays: bool) -> None:
    jumped_at = jumps([*STEADY, *[1.5 * SPIKE] * up, *STEADY])
    assert [jump.stays for jump in jumped_at.values()] == ([False, True] if stays else [False])


def test_the_state_is_in_doubt_from_the_first_loss_that_stands_out_until_it_is_decided() -> None:
    detector = LossSpikeDetector("p")
    assert jumps(STEADY, detector) == {} and not detector.in_doubt
    jumps([1.5], detector)
    assert detector.in_doubt
    jumps([1.0] * (LASTING - 1), detector)  # one batch
    assert not detector.in_doubt
    jumps([3.0] * LASTING, detector)
    assert detector.in_doubt
    jumps([1.0] * (WINDOW - LASTING), detector)
    assert not detector.in_doubt


def test_a_phase_that_ends_in_doubt_leaves_none() -> None:
    detector = LossSpikeDetector(["first", "second"])
    jumps([*STEADY, 3.0], detector, "first")
    jumps([1.0] * (len(STEADY) + WINDOW + 2), detector, "second")
    assert not detector.in_doubt


def harmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training whose loss jumps at the full rate, by weights that a tiny rate cannot mend, and not at a lower one."""
    one_step = Trainer.take_step

    def step(trainer: Trainer) -> None:
        one_step(trainer)
        if trainer.calendar.step == HARMED + 1 and trainer.guard.lr_factor == 1:
            with torch.no_grad():
                list(trainer.model.parameters())[-1].add_(4.0)

    monkeypatch.setattr(Trainer, "take_step", step)


def train(out: str, **keys: object) -> Run:
    keys = {"steps": STEPS, "batch": 16, "lr": 1e-5, "sample_every": 10**6, **keys}
    return trilemma.train("ae-stacked", "digits", out=out, quiet=True, device="cpu", **keys)


def weights(run: Run) -> bytes:
    return (run.path / "weights.safetensors").read_bytes()


@pytest.mark.slow
def test_a_jump_that_stays_is_rolled_back_with_a_lower_rate_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SLOWER == 0.5  # "half" in the text
    begin = HARMED + 1 - WINDOW  # the jump is seen in the step after the harm
    with monkeypatch.context() as patch:
        patch.setattr(Guard, "lr_factor", property(lambda guard: SLOWER if guard.calendar.step >= begin else 1.0))
        expected = weights(train("slower"))
    plain = weights(train("plain"))
    harmed(monkeypatch)
    run = train("harmed")
    assert weights(run) == expected != plain
    (text,) = (text for text in run.warnings if "jumped" in text)
    assert text.startswith(f"step {HARMED + 1}: ") and f"Resumed from step {begin} with half the learning rate" in text
    assert text in (run.path / "README.md").read_text("utf-8").replace("\\", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "every"),
    [
        (130, 10**6),
        *(pytest.param(at, 16 * 20, marks=pytest.mark.slow) for at in (60, 100, 130, 160)),
        *(pytest.param(at, 10**6, marks=pytest.mark.slow) for at in (60, 100, 160)),
    ],
)
def test_it_is_the_same_wherever_the_training_was_stopped(at: int, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the lower rate, between it and the jump, while it is not known if the loss comes back, and afterwards."""
    harmed(monkeypatch)
    whole = train("whole", save_every=every)
    one_step = Trainer.take_step
    stopped: list[int] = []

    def stopping(trainer: Trainer) -> None:
        one_step(trainer)
        if trainer.calendar.step == at and (at < 150 or trainer.incidents.slowed) and not stopped:
            trainer.signals.stop = 2
            stopped.append(at)

    monkeypatch.setattr(Trainer, "take_step", stopping)
    with pytest.raises(Stopped):
        train("parts", save_every=every)
    run = train("parts", save_every=every)
    states = [read_checkpoint(list_checkpoints(r.path / "checkpoints")[-1]) for r in (whole, run)]
    for state in states:
        state.values.pop("seconds")
    assert states[0].values == states[1].values and states[0].values["slowed"] == [HARMED + 1 - WINDOW]
    assert weights(run) == weights(whole) and run.warnings == whole.warnings


@pytest.mark.slow
def test_a_second_jump_is_said_and_not_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    one_step = Trainer.take_step

    def step(trainer: Trainer) -> None:
        one_step(trainer)
        if trainer.calendar.step == HARMED + 1:
            with torch.no_grad():
                list(trainer.model.parameters())[-1].add_(4.0)

    monkeypatch.setattr(Trainer, "take_step", step)
    run = train("r")
    assert run.summary["steps"] == STEPS
    assert [("Resumed from" in text) for text in run.warnings if "did not come back" in text] == [True, False]
