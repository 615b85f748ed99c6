"""Pictures, validation and the last step take their share of the time, and no more."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import trilemma
from trilemma.data.loader import FINISH_IMAGES, VALID_BATCH
from trilemma.progress import UNKNOWN, Display
from trilemma.run.config import TrainConfig
from trilemma.training import calendar, loop, observe, pace
from trilemma.training.looks import Looks
from trilemma.training.observe import Observer
from trilemma.training.pace import SHARE, Pace


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def clock(monkeypatch: pytest.MonkeyPatch, module: Any, name: str = "perf_counter") -> list[float]:
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(module.time, name, lambda: now[0])
    return now


def test_what_is_done_stays_within_the_share_and_uses_most_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks of 3 s, wanted after every second of 300 s of steps."""
    now, looks = clock(monkeypatch, pace), Pace(since=50.0)
    looks.costs["picture"] = 3.0
    for second in range(50, 350):
        if looks.allows("picture", second):
            with looks.timed("picture"):
                now[0] += 3.0
        assert looks.spent <= max(pace.FREE_S, SHARE * (second - 50))
    assert looks.spent == pytest.approx(SHARE * 300, abs=3.0)


def test_what_is_done_at_the_end_finds_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations of 4 s and pictures of 2 s, wanted after each of 300 s, then one, a fit and 1 s of drawing."""
    now, looks = clock(monkeypatch, pace), Pace()
    looks.costs = {"validation": 4.0, "picture": 2.0, "drawing": 1.0}

    def look(kind: str, seconds: float) -> None:
        with looks.timed(kind):
            now[0] += seconds

    look("baseline", 1.0)
    for second in range(300):
        for kind, seconds in (("validation", 4.0), ("picture", 2.0)):
            if looks.allows(kind, second):
                look(kind, seconds)
    look("validation", 4.0)
    for_fit = looks.left(300, "drawing")
    assert for_fit >= 0
    look("fit", for_fit)
    look("drawing", 1.0)
    assert looks.spent == now[0] == pytest.approx(SHARE * 300)


@pytest.mark.parametrize("length", [{"minutes": 0.01}, {"steps": 5}])
def test_all_looks_are_counted_and_the_last_step_has_what_is_left(
    length: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers, given = [], []
    resume, take = loop.Trainer.resume, Observer.take_final_weights
    monkeypatch.setattr(loop.Trainer, "resume", lambda trainer: (trainers.append(trainer), resume(trainer)))

    def take_final_weights(observer: Observer, seconds: float | None = None) -> None:
        looks = trainers[0].looks.pace
        kept = sum(looks.costs.get(kind, 0.0) for kind in ("drawing", "judgement"))
        given.append((seconds, max(0.0, max(pace.FREE_S, SHARE * trainers[0].calendar.seconds) - looks.spent - kept)))
        take(observer, seconds)

    monkeypatch.setattr(Observer, "take_final_weights", take_final_weights)
    trilemma.train("ae-stacked", "digits", batch=64, out="r", device="cpu", quiet=True, **length)
    ((seconds, left),) = given
    assert seconds == (pytest.approx(left) if "minutes" in length else None)
    assert {"baseline", "validation", "picture", "judgement", "final weights"} <= trainers[0].looks.pace.costs.keys()


def test_a_part_tells_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = clock(monkeypatch, pace), Pace()
    with looks.timed("picture", times=16):
        now[0] += 0.25
    assert (looks.spent, looks.costs) == (0.25, {"picture": 4.0})
    bar = (0.25 + 4.0) / SHARE
    assert looks.allows("picture", bar + 0.1) and not looks.allows("picture", bar - 0.1)


def slow(monkeypatch: pytest.MonkeyPatch, name: str, seconds: float) -> list[int]:
    """Makes a method of the observer slow, and counts its calls."""
    action, calls = getattr(Observer, name), []

    def slowed(observer: Observer, *words: Any, **keys: Any) -> Any:
        calls.append(1)
        time.sleep(seconds)
        return action(observer, *words, **keys)

    monkeypatch.setattr(Observer, name, slowed)
    monkeypatch.setattr(pace, "FREE_S", 0.0)
    return calls


def test_slow_pictures_are_left_out_and_change_nothing_but_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"steps": 60, "batch": 16, "device": "cpu", "quiet": True}
    none = trilemma.train("vae", "digits", out="none", sample_every=10**6, **keys)
    calls = slow(monkeypatch, "_draw", 0.02)
    run = trilemma.train("vae", "digits", out="slow", **keys)
    assert len(calls) == 3 and [path.name for path in (run.path / "samples").iterdir()] == ["last.png"]
    rows = [[{**row, "seconds": 0} for row in r.log] for r in (none, run)]
    assert rows[0] == rows[1]
    assert (none.path / "weights.safetensors").read_bytes() == (run.path / "weights.safetensors").read_bytes()
    asked = trilemma.train("vae", "digits", out="asked", sample_every=320, **keys)  # what is asked for is done
    assert len(list((asked.path / "samples").iterdir())) == 3


@pytest.mark.parametrize("length", [{"minutes": 0.02}, {"steps": 30}])
def test_slow_validations_are_left_out_where_nothing_depends_on_them(
    length: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)
    calls = slow(monkeypatch, "_validate", 0.1)
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
    now, shown = clock(monkeypatch, observe), []

    def finish(observer: Observer, n: int = FINISH_IMAGES) -> dict[str, float]:
        shown.append(n / FINISH_IMAGES)
        now[0] += 10 * shown[-1]
        return {}

    data = trilemma.load_data("shapes:3000", size=8)
    config = loop.TrainConfig(steps=1)
    observer = Observer(trilemma.create("vae", shape=(3, 8, 8)), data, config, Path(), None, print)
    monkeypatch.setattr(Observer, "finish", finish)
    observer.take_final_weights(seconds)
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
    length: str, seconds: float, expected: int | None
) -> None:
    """Each of ten batches takes 1 s."""
    calendar = SimpleNamespace(seconds=seconds, images=0, config=TrainConfig(**{length: 1}))
    observer = SimpleNamespace(valid_batches=10, validate=lambda _, most: {"most": most}, active_units=dict)
    took = Pace()
    took.costs["validation"] = 10.0
    looks: Any = Looks(observer, calendar, took, print)  # type: ignore[arg-type]
    assert looks.validate(over=True)["most"] == expected
    assert looks.validate(over=False)["most"] is None


def test_a_validation_of_some_batches_says_of_how_many_images_it_is() -> None:
    data = trilemma.load_data("shapes:3000", size=8, valid=0.4)
    observer = Observer(trilemma.create("vae", shape=(3, 8, 8)), data, TrainConfig(steps=1), Path(), None, print)
    n = len(data.valid)
    whole, part = observer.validate(0), observer.validate(0, most=n // VALID_BATCH)
    assert n % VALID_BATCH and part["valid_images"] == n // VALID_BATCH * VALID_BATCH and "valid_images" not in whole
    first = replace(data, splits={**data.splits, "valid": data.valid.take(torch.arange(int(part["valid_images"])))})
    observer = Observer(observer.model, first, TrainConfig(steps=1), Path(), None, print)
    assert observer.validate(0) == {name: value for name, value in part.items() if name != "valid_images"}
