"""Comparisons of real models, of which nothing stands in for anything, and faults in what is measured last."""

import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comparison.stand_ins import StandIn, evaluation, finished, make, reference, score

import trilemma
from trilemma.comparison import work
from trilemma.comparison.content import Asked, LearningPoint
from trilemma.comparison.document import further_scores
from trilemma.comparison.entries import Entry
from trilemma.comparison.learning import KEPT
from trilemma.comparison.measured import Measured
from trilemma.comparison.rows import model_row
from trilemma.comparison.trained import usefulness_of
from trilemma.comparison.work import measure_curves
from trilemma.metrics.catalogue import OF_CLASSIFIER
from trilemma.metrics.intervals import Spread
from trilemma.metrics.receipt import write_score

POINT = LearningPoint(1, 2.0, 3.0, [2.0, 4.0], 0.1, 0.2, {"kernel_distance": {"protocol": "kernel_flat_10_test"}})


def test_curves_that_fail_cost_no_scores(monkeypatch):
    """What was measured up to a fault stays, whatever the fault is; the other models are measured."""
    said = []

    def broken(*_):
        yield POINT
        raise RuntimeError("out of memory")

    monkeypatch.setattr(work, "learning_points", broken)
    monkeypatch.setattr(work, "sampler_points", lambda *_: iter([POINT]))
    evaluated = SimpleNamespace(learned_nothing=None, spreads={})
    run = StandIn(summary={"images": 10})
    entries = [Entry(name, run, evaluated) for name in ("one", "other")]
    entries[0].evaluation = None
    progress = SimpleNamespace(say=said.append, done=lambda: said.append("done"))
    nothing_kept = SimpleNamespace(points=lambda run, reference, kind, measure: tuple(measure()[0]))
    work.measure_curves([*entries, Entry("two", run, evaluated)], None, 8, progress, nothing_kept)
    assert [(e.learning, e.samplers) for e in entries] == [((), ()), ((POINT,), (POINT,))]
    assert "other, learning curve: stopped, RuntimeError" in said and said.count("done") == 3
    assert not any("kept no earlier weights" in text for text in said)


def test_a_training_that_kept_no_weights_on_its_way_is_told_so(monkeypatch):
    """The curve is the last point alone."""
    said, run = [], StandIn(summary={"images": POINT.images})
    monkeypatch.setattr(work, "learning_points", lambda *_: iter([POINT]))
    monkeypatch.setattr(work, "sampler_points", lambda *_: iter([]))
    entry = Entry("vae", run, SimpleNamespace(learned_nothing=None, spreads={}))
    progress = SimpleNamespace(say=said.append, done=lambda: None)
    nothing_kept = SimpleNamespace(points=lambda run, reference, kind, measure: tuple(measure()[0]))
    measure_curves([entry], None, 8, progress, nothing_kept)
    assert said[-1] == "vae: no learning curve, as its training kept no earlier weights (train keep_weights=4)"


def test_a_model_that_learned_nothing_has_a_learning_curve_and_no_settings(monkeypatch):
    """A longer training decides about it; under which settings it draws nothing does not matter."""
    said = []
    monkeypatch.setattr(work, "learning_points", lambda *_: iter([POINT]))
    monkeypatch.setattr(work, "sampler_points", lambda *_: pytest.fail("settings were measured"))
    entry = Entry("vae", StandIn(summary={"images": 10}), SimpleNamespace(learned_nothing="nothing", spreads={}))
    progress = SimpleNamespace(say=said.append, done=lambda: None)
    nothing_kept = SimpleNamespace(points=lambda run, reference, kind, measure: tuple(measure()[0]))
    measure_curves([entry], None, 8, progress, nothing_kept)
    assert entry.learning == (POINT,) and entry.samplers == () and said == ["vae: measuring its learning curve"]


def learning_curve(images):
    """2 / s after a share of the training, which is 30 s for 19,200 images."""
    return [LearningPoint(n, s := 30 * n / 19_200, 2 / s, [1.9 / s, 2.1 / s], 0.01 / s, 0.02 / s, {}) for n in images]


@pytest.mark.parametrize(("fails", "ahead"), [(True, None), (False, 120.0)])
def test_a_learning_curve_that_fails_on_its_way_tells_nothing_of_a_longer_training(stage, monkeypatch, fails, ahead):
    """4 times the training is 120 s; 4 times the last point that could be measured is less than it."""

    def points(*_):
        yield from learning_curve([1_200, 2_400, 4_800])
        if fails:
            raise RuntimeError("out of memory")
        yield from learning_curve([9_600, 19_200])

    monkeypatch.setattr(work, "learning_points", points)
    monkeypatch.setattr(work, "sampler_points", lambda *_: iter([]))
    entry = Entry("vae", finished("vae", "runs/vae", stage.data), evaluation("vae"))
    progress = SimpleNamespace(say=lambda text: None, done=lambda: None)
    nothing_kept = SimpleNamespace(points=lambda run, reference, kind, measure: tuple(measure()[0]))
    measure_curves([entry], None, 8, progress, nothing_kept)
    asked = Asked("trilemma compare data=digits", {"minutes": 0.5}, 10, 1, 0, "test")
    row = model_row("vae", [entry], stage.data, asked, ())
    assert len(row.learning) == (3 if fails else 5)
    assert (row.forecast.seconds if row.forecast else None) == ahead


def usefulness(run, name="usefulness", n_fake=500, **changes):
    """As `augment` has measured it of a run."""
    fields = {"weights": run.weights_id, "data_fingerprint": run.config["fingerprint"], "n_real": 30, "n_fake": n_fake}
    protocol = f"{name}_features-digits_25-steps_3-trainings_30_{n_fake}_test"
    return score(name, 0.25, (0.125, 0.375), "higher", protocol=protocol, **(fields | changes))


def test_what_was_measured_by_classifiers_is_read_where_it_is_of_these_weights(tmp_path):
    run = finished("vae", tmp_path, make())
    named = [usefulness(run, name) for name in reversed(OF_CLASSIFIER)]
    others = [
        usefulness(run, weights="other"),
        usefulness(run, data_fingerprint="other"),
        usefulness(run, seed=1),
        usefulness(run, settings={"steps": 5}),
        score("density", 0.5, None, "higher", weights=run.weights_id),
    ]
    assert usefulness_of(run, 0) == []
    for one in [*named, *others]:
        write_score(tmp_path / "metrics", replace(one, protocol=f"{one.protocol}-{one.weights}-{one.data_fingerprint}"))
    (tmp_path / "metrics" / "cut-off.json").write_text('{"name": "usefulness", "protocol"')
    (tmp_path / "metrics" / "list.json").write_text("[]")
    assert [one.name for one in usefulness_of(run, 0)] == list(OF_CLASSIFIER)
    assert [one.seed for one in usefulness_of(run, 1)] == [1]


def test_what_was_measured_by_classifiers_stands_in_the_report(stage, monkeypatch):
    """Of other numbers of images it is another value, which does not keep the models from being compared."""
    numbers = {"vae": 500, "gan-dcgan": 100}
    known = {name: usefulness(finished(name, name, stage.data), n_fake=n) for name, n in numbers.items()}
    monkeypatch.setattr(work, "usefulness_of", lambda run, seed: [known[run.recipe.name]])
    report = trilemma.compare(models=list(numbers), quiet=True).report
    assert [model.error for model in report.models] == [None, None]
    listed = [(model.name, column.title, value.value) for model, column, value in further_scores(report)]
    title = "Gain of a classifier that learns from them, too (30 real and {} generated images)"
    assert [one for one in listed if one[1].startswith("Gain")] == [
        ("vae", title.format(500), 0.25),
        ("gan-dcgan", title.format(100), 0.25),
    ]


@pytest.mark.slow
def test_two_real_models_share_every_column_that_both_have(tmp_path):
    """Nothing stands in: a model that encodes and one that does not, trained and measured, with their curves."""
    out = tmp_path / "c"
    result = trilemma.compare(data="digits", models=["vae", "gan"], images=30_000, n=60, out=out, quiet=True)
    assert not [model.error for model in result.report.models if model.error]
    both = {"path_length", "ms_best_batch", "peak_memory_mb", "parameters", "density", "class_diversity"}
    assert all(both <= model.scores.keys() for model in result.report.models)
    vae = result.report.models[0]
    assert len(vae.learning) == KEPT + 1 and vae.learning[-1].seconds > vae.learning[0].seconds > 0
    receipts = result.document["point_receipts"]
    by_all, by_column = (
        receipts[p["protocols"]["kernel_distance"]] for p in result.document["models"][0]["learning"][-2:]
    )
    assert by_all == by_column and by_all["protocol"] == vae.scores["kernel_distance"].protocol
    assert vae.samplers[0].own and len(vae.samplers) == 4 and any(p.frontier for p in vae.samplers)
    page = result.html.read_text("utf-8")
    assert 'id="samplers"' in page and 'id="learning"' in page
    lines = (out / "report.csv").read_text("utf-8").splitlines()
    assert len(lines) > 60 and lines[0].startswith("model,kind,metric,value,low,high")


@pytest.mark.slow
def test_what_an_interrupted_comparison_measured_is_not_measured_again(tmp_path, monkeypatch):
    """Stopped at its second model, and at its curves: the scores and points in the report are those of the first time,
    and the folder keeps none of them once the report is written. The vae has learned nothing from so few images: the
    settings at which it stops are those of the second model, after the learning curves of both."""
    keys = {"data": "digits", "models": ["vae", "ae-stacked"], "images": 15_000, "n": 60, "quiet": True}
    measured, evaluate, settings = [], trilemma.evaluate, work.sampler_points

    def stopped_at_the_second(run, **settings):
        measured.append(run.recipe.name)
        if measured.count("ae-stacked") == 1 and run.recipe.name == "ae-stacked":
            raise KeyboardInterrupt
        return evaluate(run, **settings)

    def stopped_once(*args):
        monkeypatch.setattr(work, "sampler_points", settings)
        raise KeyboardInterrupt

    monkeypatch.setattr("trilemma.metrics.evaluate", stopped_at_the_second)
    monkeypatch.setattr(work, "sampler_points", stopped_once)
    folder = tmp_path / "c" / "measured"
    for files in (1, 4):
        with pytest.raises(KeyboardInterrupt):
            trilemma.compare(**keys, out=tmp_path / "c")
        assert len(list(folder.iterdir())) == files
    damaged = next(folder.glob("*LearningPoint.json"))
    damaged.write_text("[")
    models = trilemma.compare(**keys, out=tmp_path / "c").report.models
    assert measured == ["vae", "ae-stacked", "ae-stacked"] and not folder.exists()
    assert not any(model.error for model in models) and models[1].learning and models[1].samplers
    assert models[0].learned_nothing and models[0].learning and not models[0].samplers
    first = trilemma.load(models[0].trainings[0].run)
    again = evaluate(first, n=60, batch=60)
    for name in ("density", "coverage", "kernel_distance"):
        assert models[0].scores[name].interval == again[name].interval


def stored(tmp_path, **changes):
    """What is kept of a run under these conditions, and how often it was measured after being asked for twice."""
    run = StandIn(path=tmp_path / "run", weights_id="w", recipe=SimpleNamespace(name="vae"), device="cpu")
    run.config = {"model_config": {"width": 1}}
    by, settings = reference(make(), n=10), {"batch": 5}
    kept, asked = Measured(tmp_path), []

    def points():
        asked.append("points")
        return [POINT], changes.get("complete", True)

    def measure():
        asked.append("scores")
        return replace(evaluation("vae"), reference=by, spreads=changes.get("spreads", {}))

    for _ in range(2):
        first = kept.evaluation(run, by, settings, measure), kept.points(run, by, LearningPoint, points)
        run, by = changes.get("run", lambda x: x)(run), changes.get("reference", lambda x: x)(by)
        settings = changes.get("settings", settings)
    return first, asked


def changed(**values):
    """A run with other values."""
    return lambda run: vars(run).update(values) or run


@pytest.mark.parametrize(
    "changes",
    [
        {"run": changed(weights_id="v")},
        {"run": changed(config={"model_config": {"width": 2}})},
        {"run": changed(path=Path("elsewhere"))},
        {"run": changed(device="cuda")},
        {"reference": lambda by: replace(by, setup=replace(by.setup, n=9))},
        {"reference": lambda by: replace(by, setup=replace(by.setup, seed=1))},
    ],
)
def test_a_measurement_of_another_kind_is_not_taken(tmp_path, changes):
    assert stored(tmp_path, **changes)[1] == ["scores", "points"] * 2


def test_what_is_kept_is_what_was_measured(tmp_path):
    (scores, points), asked = stored(tmp_path)
    assert asked == ["scores", "points"] and points == (POINT,)
    expected = evaluation("vae")
    assert scores.scores == expected.scores and scores.notes == expected.notes
    assert scores.fakes.equal(expected.fakes) and scores.features.equal(expected.features)
    assert stored(tmp_path / "other", settings={"batch": 6})[1] == ["scores", "points", "scores"]
    assert stored(tmp_path / "cut", complete=False)[1] == ["scores", "points", "points"]


def test_how_a_score_scatters_is_kept_whole(tmp_path):
    """With its limits, by which an interval stays one of possible values; another score has the same deviations."""
    parts = {name: torch.arange(n).double() - 1 for name, n in (("shared", 3), ("own", 0), ("cuts", 2))}
    spread = Spread(0.5, **parts, n=5, least=0.25, most=0.75, halves=True)
    other = replace(spread, value=0.625)
    (scores, _), asked = stored(tmp_path, spreads={"coverage": spread, "recall": other})
    again = scores.spreads["coverage"]
    assert scores.spreads["recall"] == other
    assert asked == ["scores", "points"] and again == spread and again is not spread
    assert all(getattr(again, name).equal(part) for name, part in parts.items())
    assert again.estimate().interval == spread.estimate().interval


def test_only_our_files_are_removed_and_none_is_needed(tmp_path):
    """Files of others stay; a damaged file is measured again; one that cannot be written is not kept."""
    stored(tmp_path)
    folder = tmp_path / "measured"
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:20])
    assert stored(tmp_path)[1] == ["scores", "points"]
    (folder / "own.txt").write_text("mine")
    Measured(tmp_path).clear()
    assert [file.name for file in folder.iterdir()] == ["own.txt"]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "measured").write_text("a file")
    assert stored(tmp_path / "taken")[1] == ["scores", "points"] * 2


@pytest.mark.slow
def test_the_same_report_twice_has_the_same_values(tmp_path):
    """Of real models, all but times, energy and peak memory, which are measured anew; and of one without an encoder."""
    keys = {"data": "digits", "models": ["vae", "gan"], "images": 6_000, "n": 60, "inverted": 2, "quiet": True}
    first, second = (trilemma.compare(**keys, out=tmp_path / "c").report for _ in range(2))
    measured = {"ms_per_image", "ms_one_image", "ms_best_batch", "peak_memory_mb", "joules_per_image"}
    for one, other in zip(first.models, second.models, strict=True):
        assert one.scores.keys() == other.scores.keys() and "reconstruction_rmse" in one.scores
        for name in one.scores.keys() - measured:
            assert (one.scores[name].value, one.scores[name].interval) == (
                other.scores[name].value,
                other.scores[name].interval,
            ), name
        assert one.learning == other.learning and one.nearest == other.nearest
        points = [[(p.setting, p.density, p.coverage) for p in model.samplers] for model in (one, other)]
        assert points[0] == points[1]
    assert "inverted=2" in second.again["all"] and "inverted=2" in second.again["measure"]
    vae, gan = (shlex.split(model.commands["evaluate"]) for model in second.models)
    assert "inverted=2" in vae and "inverted=2" in gan
