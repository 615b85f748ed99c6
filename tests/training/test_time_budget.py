"""Pictures, validation and the last step take their share of the time, and no more."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import trilemma
from trilemma.autoencoders.vae import VAE
from trilemma.data.loader import FINISH_IMAGES, VALID_BATCH
from trilemma.progress import UNKNOWN, Display
from trilemma.run.config import TrainConfig
from trilemma.training import calendar, in_use, time_budget
from trilemma.training.calendar import Calendar
from trilemma.training.evaluation import Evaluation
from trilemma.training.in_use import ModelInUse
from trilemma.training.loop import Trainer
from trilemma.training.time_budget import SHARE, TimeBudget
from trilemma.training.validation import Validation


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def clock(monkeypatch: pytest.MonkeyPatch, module: Any, name: str = "perf_counter") -> list[float]:
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(module.time, name, lambda: now[0])
    return now


def test_what_is_done_stays_within_the_share_and_uses_most_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of 3 s, wanted after every second of 300 s of steps."""
    now, budget = clock(monkeypatch, time_budget), TimeBudget(since=50.0)
    budget.costs["picture"] = 3.0
    for second in range(50, 350):
        if budget.allows("picture", second):
            with budget.timed("picture"):
                now[0] += 3.0
        assert budget.spent <= max(time_budget.FREE_S, SHARE * (second - 50))
    assert budget.spent == pytest.approx(SHARE * 300, abs=3.0)


def test_what_is_done_at_the_end_finds_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations of 4 s and pictures of 2 s, wanted after each of 300 s, then one, a fit and 1 s of drawing."""
    now, budget = clock(monkeypatch, time_budget), TimeBudget()
    budget.costs = {"validation": 4.0, "picture": 2.0, "drawing": 1.0}

    def spend(kind: str, seconds: float) -> None:
        with budget.timed(kind):
            now[0] += seconds

    spend("baseline", 1.0)
    for second in range(300):
        for kind, seconds in (("validation", 4.0), ("picture", 2.0)):
            if budget.allows(kind, second):
                spend(kind, seconds)
    spend("validation", 4.0)
    for_fit = budget.left(300, "drawing")
    assert for_fit >= 0
    spend("fit", for_fit)
    spend("drawing", 1.0)
    assert budget.spent == now[0] == pytest.approx(SHARE * 300)


@pytest.mark.slow
@pytest.mark.parametrize("length", [{"minutes": 0.01}, {"steps": 5}])
def test_all_evaluations_are_counted_and_the_last_step_has_what_is_left(
    length: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers, given = [], []
    start, finish = Trainer.run, ModelInUse.finish_within
    monkeypatch.setattr(Trainer, "run", lambda trainer: (trainers.append(trainer), start(trainer)))

    def finish_within(model: ModelInUse, seconds: float | None) -> dict[str, float]:
        budget = trainers[0].evaluation.budget
        kept = sum(budget.costs.get(kind, 0.0) for kind in ("drawing", "checks"))
        given.append(
            (seconds, max(0.0, max(time_budget.FREE_S, SHARE * trainers[0].calendar.seconds) - budget.spent - kept))
        )
        return finish(model, seconds)

    monkeypatch.setattr(ModelInUse, "finish_within", finish_within)
    trilemma.train("ae-stacked", "digits", batch=64, out="r", device="cpu", quiet=True, **length)
    ((seconds, left),) = given
    assert seconds == (pytest.approx(left) if "minutes" in length else None)
    costs = trainers[0].evaluation.budget.costs
    assert {"baseline", "validation", "picture", "checks", "final weights"} <= costs.keys()


def test_a_part_tells_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    now, budget = clock(monkeypatch, time_budget), TimeBudget()
    with budget.timed("picture", times=16):
        now[0] += 0.25
    assert (budget.spent, budget.costs) == (0.25, {"picture": 4.0})
    bar = (0.25 + 4.0) / SHARE
    assert budget.allows("picture", bar + 0.1) and not budget.allows("picture", bar - 0.1)


def slow(monkeypatch: pytest.MonkeyPatch, name: str, seconds: float) -> list[int]:
    """Makes a method of the model slow, and counts its calls."""
    action, calls = getattr(VAE, name), []

    def slowed(model: VAE, *words: Any, **keys: Any) -> Any:
        calls.append(1)
        time.sleep(seconds)
        return action(model, *words, **keys)

    monkeypatch.setattr(VAE, name, slowed)
    monkeypatch.setattr(time_budget, "FREE_S", 0.0)
    return calls


def test_slow_pictures_are_left_out_and_change_nothing_but_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"steps": 60, "batch": 16, "device": "cpu", "quiet": True}
    none = trilemma.train("vae", "digits", out="none", sample_every=10**6, **keys)
    calls = slow(monkeypatch, "sample", 0.02)
    run = trilemma.train("vae", "digits", out="slow", **keys)
    assert len(calls) == 3 and [path.name for path in (run.path / "samples").iterdir()] == ["last.png"]
    rows = [[{**row, "seconds": 0} for row in r.log] for r in (none, run)]
    assert rows[0] == rows[1]
    assert (none.path / "weights.safetensors").read_bytes() == (run.path / "weights.safetensors").read_bytes()
    asked = trilemma.train("vae", "digits", out="asked", sample_every=320, **keys)  # what is asked for is done
    assert len(list((asked.path / "samples").iterdir())) == 3


@pytest.mark.slow
@pytest.mark.parametrize("length", [{"minutes": 0.02}, {"steps": 30}])
def test_slow_validations_are_left_out_where_nothing_depends_on_them(
    length: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)
    calls = slow(monkeypatch, "validation", 0.1)
    run = trilemma.train("vae", "digits", batch=431, out="r", sample_every=10**6, quiet=True, **length)
    epochs = run.summary["steps"] // 3
    if "steps" in length:
        assert len(calls) == epochs
    else:  # the first, whose cost is not known, the last, and what the share has room for
        assert 2 <= len(calls) <= 2 + SHARE * 1.3 / 0.1 < epochs


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, [1.0]), (100.0, [0.05, 1.0]), (4.0, [0.05, 0.35]), (0.5, [0.05]), (-3.0, [0.05])],
)
def test_the_last_step_takes_as_many_images_as_there_is_time_for(
    seconds: float | None, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of the images takes 1 s."""
    now, shown = clock(monkeypatch, in_use), []

    def finish(model: ModelInUse, n: int = FINISH_IMAGES) -> dict[str, float]:
        shown.append(n / FINISH_IMAGES)
        now[0] += 10 * shown[-1]
        return {}

    data = trilemma.load_data("shapes:3000", size=8)
    monkeypatch.setattr(ModelInUse, "finish", finish)
    ModelInUse(trilemma.create("vae", shape=(3, 8, 8)), data, TrainConfig(steps=1)).finish_within(seconds)
    assert shown == pytest.approx(expected)


def test_the_time_left_counts_all_that_takes_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tenth of the training in 10 s, and then a pause of 100 s in which nothing advances."""
    from trilemma import progress as module

    monkeypatch.setattr(module, "PLAIN_EVERY_S", 0.0)
    now, display = clock(monkeypatch, module, "monotonic"), Display("vae")
    for second, progress in ((0, 0.2), (10, 0.3), (110, 0.3), (120, 0.4)):
        now[0] = float(second)
        display.update(progress, "")
    left = [line.split()[2] for line in capsys.readouterr().err.splitlines()]
    seconds = [10 / 0.1 * 0.7, 110 / 0.1 * 0.7, 120 / 0.2 * 0.6]
    expected = [f"{int(s) // 3600}:{int(s) // 60 % 60:02}:{int(s) % 60:02}" for s in map(round, seconds)]
    assert left == [UNKNOWN, *expected]


@pytest.mark.parametrize(
    ("length", "seconds", "expected"),
    [("minutes", 200.0, None), ("minutes", 50.0, 5), ("minutes", 6.0, 1), ("steps", 6.0, None)],
)
def test_the_last_validation_takes_as_many_batches_as_there_is_time_for(
    length: str, seconds: float, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of ten batches takes 1 s."""
    monkeypatch.setattr(Validation, "n_batches", 10)
    monkeypatch.setattr(Validation, "validate", lambda validation, images, most: {"most": most})
    config, data = TrainConfig(**{length: 1}), trilemma.load_data("digits")
    place = Calendar(config, 1000, 100)
    place.seconds = seconds
    model = ModelInUse(trilemma.create("ae-stacked", shape=(1, 8, 8)), data, config)
    evaluation = Evaluation(model, place, Path(), "", print)
    evaluation.budget.costs["validation"] = 10.0
    assert evaluation.validate(over=True)["most"] == expected
    assert evaluation.validate(over=False)["most"] is None


def test_a_validation_of_some_batches_says_of_how_many_images_it_is() -> None:
    data = trilemma.load_data("shapes:3000", size=8, valid=0.4)
    model, config = trilemma.create("vae", shape=(3, 8, 8)), TrainConfig(steps=1)
    validation, n = Validation(ModelInUse(model, data, config), print), len(data.valid)
    whole, part = validation.validate(0), validation.validate(0, most=n // VALID_BATCH)
    assert n % VALID_BATCH and part["valid_images"] == n // VALID_BATCH * VALID_BATCH and "valid_images" not in whole
    first = replace(data, splits={**data.splits, "valid": data.valid.take(torch.arange(int(part["valid_images"])))})
    assert Validation(ModelInUse(model, first, config), print).validate(0) == {
        name: value for name, value in part.items() if name != "valid_images"
    }
