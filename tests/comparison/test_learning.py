"""Learning curves: laws that are known, and weights that a training keeps on its way."""

import math
import random
import statistics
from dataclasses import replace

import pytest
import torch

import trilemma
from trilemma.comparison import learning
from trilemma.comparison.answer import longer_trainings
from trilemma.comparison.content import Asked, LearningPoint, Model, receipt_of
from trilemma.comparison.learning import FACTOR, fit, forecast, learning_points
from trilemma.metrics.evaluate import reference_by
from trilemma.run.earlier import earlier_runs

TIMES = (2.0, 4.0, 8.0, 16.0, 32.0)


def points(
    power: float, scatter: float = 0.0, seed: int = 0, width: float = 0.02, common: float = 0.0
) -> list[LearningPoint]:
    """2 s**-power, with own errors of a relative standard deviation `scatter`, said to be `width`, and one error that
    all have in common, `common`."""
    source = random.Random(seed)
    alike = math.exp(common * source.gauss(0, 1))
    values = [2 * alike * s**-power * math.exp(scatter * source.gauss(0, 1)) for s in TIMES]
    half = 2 * math.hypot(width, common)
    return [
        LearningPoint(0, s, v, [v * (1 - half), v * (1 + half)], common * v, width * v, {})
        for s, v in zip(TIMES, values, strict=True)
    ]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.5])
def test_a_power_law_is_continued(power: float) -> None:
    ahead = forecast(points(power))
    assert ahead is not None
    assert ahead.seconds == FACTOR * TIMES[-1] and ahead.power == pytest.approx(power, abs=1e-9)
    assert ahead.value == pytest.approx(2 * ahead.seconds**-power)
    assert ahead.interval[0] < ahead.value < ahead.interval[1] < 1.3 * ahead.value


@pytest.mark.parametrize(
    ("scatter", "width", "common"), [(0.05, 0.05, 0.0), (0.2, 0.05, 0.0), (0.05, 0.05, 0.2), (0.0, 0.01, 0.2)]
)
def test_the_interval_holds_what_follows(scatter: float, width: float, common: float) -> None:
    """Of 300 curves with the noise of their intervals, with four times as much, and with one error in common: the law
    at FACTOR times the length lies in 92% of the intervals or more, which are not wider than they must be: of a
    straight line through five points at equal distances d = log 2, at 4 d from their middle, the variance is
    (1/5 + 16/10) that of a point. Student's t with 3 degrees of freedom is 3.2."""
    hits, halves = 0, []
    for seed in range(300):
        ahead = forecast(points(0.7, scatter, seed, width, common))
        assert ahead is not None
        halves.append(math.log(ahead.interval[1] / ahead.interval[0]) / 2)
        hits += ahead.interval[0] <= 2 * (FACTOR * TIMES[-1]) ** -0.7 <= ahead.interval[1]
    spread = max(scatter, width) * math.sqrt(1 / 5 + 16 / 10)
    assert hits / 300 >= 0.92 and statistics.median(halves) < 1.7 * math.hypot(3.2 * spread, 2 * common)


def test_what_says_nothing_is_not_said() -> None:
    """Three points of which one is far from the law: the interval would span many powers of ten."""
    values = [1.0, 1e-5, 1.0]
    wild = [LearningPoint(0, s, v, [0.9 * v, 1.1 * v], 0.0, 0.05 * v, {}) for s, v in zip(TIMES, values, strict=False)]
    assert fit(wild) is not None and forecast(wild) is None


def test_few_points_have_no_law() -> None:
    assert forecast(points(0.5)[:2]) is None
    assert fit([LearningPoint(0, s, -0.1, [-0.2, 0.1], 0.05, 0.05, {}) for s in TIMES]) is None
    assert fit(3 * points(0.5)[:1]) is None and fit(points(0.5)[:2] + points(0.5)[:1]) is None


def test_who_would_be_nearest_is_said() -> None:
    models = [
        Model(name, learning=curve, forecast=forecast(curve))
        for name, curve in (("slow", points(0.1)), ("fast", points(1.0)))
    ]
    asked = Asked("trilemma compare data=digits minutes=0.5 n=360 seed=0", {"minutes": 0.5}, 360, 64, 0, "test")
    (item,) = longer_trainings(models, asked)
    assert "fast would be nearest to real images" in item.text and item.models == ["slow", "fast"]
    assert item.command == "trilemma compare data=digits n=360 seed=0 minutes=2"
    assert not list(longer_trainings([Model("one")], asked))
    (finished,) = longer_trainings(models, replace(asked, length={}))  # runs that were trained elsewhere
    assert finished.text == item.text and finished.command is None
    unfitted = Model("other", scores={"density": None})  # type: ignore[dict-item]
    (item,) = longer_trainings([*models, unfitted], asked)
    assert "nearest" not in item.text  # of the other nothing is known
    grey = replace(unfitted, learned_nothing="learned nothing yet")
    (item,) = longer_trainings([*models, grey], asked)
    assert "nearest" not in item.text  # nor of one that may learn yet
    falling = points(2.0)
    (item,) = longer_trainings([*models, replace(grey, learning=falling, forecast=forecast(falling))], asked)
    assert "other would be nearest to real images" in item.text and item.models == ["slow", "fast", "other"]
    flat = Model("flat", learning=points(0.0), forecast=forecast(points(0.0)))
    (item,) = longer_trainings([flat], asked)
    assert "no change shown" in item.text and "nearest" not in item.text


def test_weights_on_the_way_are_those_of_a_shorter_training(tmp_path) -> None:
    keys = {"batch": 32, "schedule": "constant", "monitor": None, "warmup_images": 0, "quiet": True, "device": "cpu"}
    whole = trilemma.train("vae", "digits", steps=16, keep_weights=3, out=tmp_path / "whole", **keys)
    earlier = earlier_runs(whole)
    assert [one.images for one in earlier] == [64, 128, 256]
    assert 0 < earlier[0].seconds < earlier[1].seconds < earlier[2].seconds < whole.summary["seconds"]
    half = trilemma.train("vae", "digits", steps=8, out=tmp_path / "half", **keys)
    assert earlier[-1].run.weights_id != whole.weights_id
    for (name, kept), short in zip(
        earlier[-1].run.model.state_dict().items(), half.model.state_dict().values(), strict=True
    ):
        assert torch.equal(kept, short), name
    assert torch.equal(earlier[-1].run.sample(4, seed=1), half.sample(4, seed=1))
    assert not torch.equal(whole.sample(4, seed=1), half.sample(4, seed=1))


@pytest.mark.slow
def test_the_curve_ends_with_the_last_weights(tmp_path, monkeypatch) -> None:
    """Earlier points have fewer images than the last one, which is a score of the evaluation; their receipts say so."""
    monkeypatch.setattr(learning, "FEWER", 100)
    run = trilemma.train("vae", "digits", steps=8, batch=32, keep_weights=2, out=tmp_path / "run", quiet=True)
    reference = reference_by(run.data, "test", 360, own=True)
    evaluation = trilemma.evaluate(run, reference=reference, n=360)
    last = evaluation.spreads["kernel_distance"]
    curve = list(learning_points(run, reference, last, batch=64))
    assert [p.images for p in curve] == [64, 128, 256] and curve[-1].value == last.value
    *receipts, of_last = [p.receipts["kernel_distance"] for p in curve]
    assert of_last == receipt_of(evaluation["kernel_distance"])
    assert {(r["protocol"], r["n_real"], r["n_fake"]) for r in receipts} == {
        ("kernel_digits-cnn_100-against-360_test", 360, 100)
    }
    assert all(p.interval[0] <= p.value <= p.interval[1] for p in curve)
    plain = trilemma.train("vae", "digits", steps=2, batch=32, out=tmp_path / "plain", quiet=True)
    assert not earlier_runs(plain)


def test_a_file_that_is_no_weights_is_refused(tmp_path) -> None:
    run = trilemma.train("vae", "digits", steps=4, batch=32, keep_weights=1, out=tmp_path / "run", quiet=True)
    file = next((run.path / "earlier").iterdir())
    other = trilemma.train("ae-conv", "digits", steps=1, batch=32, out=tmp_path / "other", quiet=True)
    file.write_bytes((other.path / "weights.safetensors").read_bytes())
    with pytest.raises(trilemma.UserError, match="does not hold the weights of vae"):
        earlier_runs(run)[0].run.sample(1)
