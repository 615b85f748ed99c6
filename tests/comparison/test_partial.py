"""What a comparison writes on its way: the state of each model, and the scores of those that were measured."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from comparison.stand_ins import FIGURES, evaluation, finished, make

import trilemma
from trilemma.comparison import partial
from trilemma.comparison.entries import Entry
from trilemma.comparison.partial import Partial
from trilemma.errors import UserError

KEYS = {"data": "digits", "models": ["ae-stacked", "vae", "gan-dcgan"], "curves": False, "out": "c", "quiet": True}


def content():
    return json.loads(Path("c/partial.json").read_text("utf-8"))


@pytest.fixture
def seen(stage):
    """What the file says while each model is measured; the VAE fails in its training."""
    files = []

    def measured(name, n):
        files.append(content())
        return evaluation(name, n=n)

    stage.evaluation, stage.broken["vae"] = measured, UserError("no memory")
    return files


def test_states_and_scores_are_there_as_they_come(seen):
    trilemma.compare(**KEYS)
    states = [{row["label"]: row["state"] for row in file["rows"]} for file in seen]
    assert states == [
        {"ae-stacked": "measuring", "vae": "failed", "gan-dcgan": "trained"},
        {"ae-stacked": "measured", "vae": "failed", "gan-dcgan": "measuring"},
    ]
    first, second = seen
    assert [row["error"] for row in first["rows"]] == [None, "no memory", None]
    assert not any(row["scores"] for row in first["rows"]) and first["metrics"] == []
    scores = second["rows"][0]["scores"]
    density, coverage, *_ = FIGURES["ae-stacked"]
    assert (scores["density"]["value"], scores["coverage"]["value"]) == (density, coverage)
    assert scores["density"]["interval"] == [0.95 * density, 1.05 * density]
    assert scores["frechet_distance"] == {"value": None, "interval": None, "refused": "10 images are too few"}
    assert {metric["name"] for metric in second["metrics"]} == set(scores)
    assert first["process"] == os.getpid() and second["began"] == first["began"]
    assert 0 <= first["elapsed_s"] <= second["elapsed_s"] <= second["total_s"]


def test_what_is_finished_waits_to_be_measured_and_a_model_may_be_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c").mkdir()
    entries = [Entry("vae", finished("vae", "runs/mine", make())), Entry("gan-dcgan")]
    progress = SimpleNamespace(total=lambda: 60.0, elapsed=lambda: 45.0)
    before = time.time()
    for trains, first in ((False, "waiting"), (True, "trained")):
        Partial(Path("c"), entries, progress, trains=trains).write("gan-dcgan", "training" if trains else "")
        rows = content()["rows"]
        assert content()["elapsed_s"] == 45.0 and before <= content()["written"] <= time.time()
        assert [row["state"] for row in rows] == [first, "training" if trains else "waiting"]
        assert [row["run"] for row in rows] == ["runs/mine", "c/runs/gan-dcgan" if trains else None]


def test_the_report_takes_its_place(seen):
    trilemma.compare(**KEYS)
    assert Path("c/report.html").is_file() and not Path("c/partial.json").exists()


def test_it_stays_where_the_comparison_was_stopped(stage):
    def stopped(name, n):
        raise KeyboardInterrupt

    stage.evaluation = stopped
    with pytest.raises(KeyboardInterrupt):
        trilemma.compare(**KEYS)
    assert [row["state"] for row in content()["rows"]] == ["measuring", "trained", "trained"]


def test_a_file_that_cannot_be_written_costs_nothing(stage, monkeypatch):
    def refused(path, value):
        raise OSError("no space left")

    monkeypatch.setattr(partial, "write_json", refused)
    assert trilemma.compare(**KEYS).html.is_file()
