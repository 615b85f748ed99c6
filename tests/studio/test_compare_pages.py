"""The page of comparisons: what becomes of what is ticked, and the report as far as it is known."""

import json
import os
import re
import shutil
import time
from dataclasses import replace

import pytest
from PIL import Image

from trilemma.studio.jobs import State
from trilemma.studio.live_report import live_report, partial_file
from trilemma.studio.routes import jobs

EVIL = "<script>alert(1)</script>"
METRICS = [
    {"name": "density", "title": "Fidelity: density", "unit": "1 for real images", "better": "higher"},
    {"name": "ms_per_image", "title": EVIL, "unit": "ms", "better": "lower"},
]


def score(value, interval=None, refused=None):
    return {"value": value, "interval": interval, "refused": refused}


def content(**other):
    """A comparison of four, of which two are measured."""
    rows = [
        {"label": "vae", "state": "measured", "error": None, "run": "runs/vae", "scores": {
            "density": score(0.5, [0.4, 0.6]), "ms_per_image": score(2.0)}},
        {"label": "gan", "state": "measured", "error": None, "run": "/etc", "scores": {
            "density": score(0.75), "ms_per_image": score(None, None, "too few")}},
        {"label": EVIL, "state": "failed", "error": EVIL, "run": None, "scores": {}},
        {"label": "diffusion", "state": "training", "error": None, "run": None, "scores": {}},
    ]  # fmt: skip
    return {
        "format": 1, "process": os.getpid(), "began": time.time(), "elapsed_s": 61.0, "total_s": 181.0,
        "metrics": METRICS, "rows": rows, **other,
    }  # fmt: skip


@pytest.fixture
def runs(studio):
    for name in ("vae", "gan"):
        (studio.folder / "runs" / name).mkdir(parents=True)
        (studio.folder / "runs" / name / "config.json").write_text(json.dumps({"model": name, "data": "digits"}))
    return {run.model: run for run in studio.library.runs()}


@pytest.fixture
def images(studio):
    for name in ("samples", "others"):
        (studio.folder / "data" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(studio.folder / "data" / name / "a.png")
    return {name: studio.library.id_of(studio.folder / "data" / name) for name in ("samples", "others")}


@pytest.fixture
def job(studio, runs):
    """A comparison whose process is this one."""
    studio.queue.pause(True)
    ident = studio.queue.add(["compare", "runs/vae", "runs/gan"])
    one = studio.queue.job(ident)
    (one.place / "start.json").write_text(json.dumps({"time": time.time() - 1, "process": os.getpid()}))
    return studio.queue.job(ident)


def write(studio, **other):
    path = studio.folder / "runs" / "compare-digits" / "partial.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content(**other)))
    return path


@pytest.mark.parametrize(
    ("ticked", "pictures", "against", "words"),
    [
        (["vae", "gan"], [], "", "runs/vae runs/gan"),
        (["vae"], ["samples"], "", "runs/vae data/samples"),
        ([], ["samples", "others"], "digits", "data/samples data/others against=digits"),
        ([], ["samples", "others"], "samples", "data/samples data/others against=data/samples"),
    ],
)
def test_what_is_ticked_is_compared(browser, studio, runs, images, ticked, pictures, against, words):
    studio.queue.pause(True)
    fields = {"run": [runs[name].id for name in ticked], "images": [images[name] for name in pictures]}
    answer = browser.post("/compare", {**fields, "against": images.get(against, against)})
    assert answer.status_code == 303
    assert studio.queue.jobs()[0].words == ["compare", *words.split()]


@pytest.mark.parametrize(
    ("ticked", "pictures", "against", "message"),
    [
        (["vae"], [], "", "choose two runs or sets of images"),
        ([], ["samples", "others"], "", "compared with real images"),
        (["vae", "gan"], [], "digits", "choose no other real images"),
        (["vae"], ["digits"], "", "data not found; choose others"),
        ([], ["samples", "others"], "/etc", "data not found; choose others"),
    ],
)
def test_what_cannot_be_compared_is_said(browser, studio, runs, images, ticked, pictures, against, message):
    fields = {"run": [runs[name].id for name in ticked], "images": [images.get(name, name) for name in pictures]}
    answer = browser.post("/compare", {**fields, "against": against})
    assert answer.status_code == 400 and message in answer.text and not studio.queue.jobs()
    assert answer.text.count(" checked") >= len(ticked) + len([name for name in pictures if name in images])


def test_the_page_of_the_job_shows_the_report_as_it_grows(browser, studio, runs, job):
    assert "The report so far" not in browser.get(f"/jobs/{job.id}/live").text
    write(studio)
    text = browser.get(f"/jobs/{job.id}/live").text
    assert "3 of 4 measured or failed, 61 s of about 3 min" in text.replace("seconds", "s").replace("minutes", "min")
    assert EVIL not in text and "&lt;script&gt;" in text and f'href="/runs/{runs["vae"].id}"' in text
    cells = re.findall(r'<td class="number( best)?">([\d.]*)(?:<span class="interval">([^<]*))?', text)
    assert cells[:4] == [("", "0.500", "0.400 to 0.600"), ("", "2", ""), (" best", "0.750", ""), ("", "", "")]
    assert 'title="too few"' in text
    assert "đã đo hoặc thất bại 3 trên 4" in browser.get(f"/jobs/{job.id}/live", headers={"accept-language": "vi"}).text
    for path in ("/compare", "/compare/live"):
        assert f"/jobs/{job.id}" in browser.get(path).text


def test_the_file_is_that_of_the_process_of_the_job(studio, job):
    path = write(studio)
    assert partial_file(studio.library, job) == path
    write(studio, process=os.getpid() + 1)
    assert partial_file(studio.library, job) is None
    write(studio, began=job.started - 60)  # of an earlier process that had the same number
    assert partial_file(studio.library, job) is None


@pytest.mark.parametrize(
    "other",
    [
        {"format": 2}, {"rows": None}, {"rows": [1]}, {"metrics": "x"}, {"metrics": [METRICS[0]] * 41},
        {"rows": [{}] * 501},
    ],
)  # fmt: skip
def test_a_file_of_another_form_shows_nothing(browser, studio, job, other):
    write(studio, **other)
    answer = browser.get(f"/jobs/{job.id}/live")
    assert answer.status_code == 200 and "The report so far" not in answer.text


def test_a_metric_of_any_name_is_shown(browser, studio, job):
    write(studio, metrics=[{**METRICS[0], "name": name} for name in ([], {}, None, 1)])
    answer = browser.get(f"/jobs/{job.id}/live")
    assert answer.status_code == 200 and "The report so far" in answer.text


@pytest.mark.parametrize("scores", [None, [], {"density": 1}, {"density": score("1", ["a", "b"], 3)}])
def test_values_of_other_kinds_are_left_out(studio, job, scores):
    path = write(studio, rows=[{"label": 1, "state": "x", "run": 3, "scores": scores}], elapsed_s="x")
    report = live_report(studio.library, path)
    assert [(row.label, row.state, row.run) for row in report.rows] == [("1", "waiting", None)]
    assert [cell.value for cell in report.rows[0].cells] == [None, None] and report.elapsed_s == 0


def test_time_passes_between_the_steps_of_a_comparison_that_runs(studio, job):
    write(studio, written=time.time() - 100)
    assert studio.live_report(job).elapsed_s == 61.0  # no process holds its lock
    assert studio.live_report(replace(job, state=State.RUNNING)).elapsed_s == pytest.approx(161.0, abs=10)
    for written in (time.time() + 100, None, "x"):
        write(studio, written=written)
        assert studio.live_report(replace(job, state=State.RUNNING)).elapsed_s == pytest.approx(61.0, abs=1e-6)


def test_a_step_of_a_comparison_is_news(studio, job, monkeypatch):
    running = replace(job, state=State.RUNNING)  # as while its process holds the lock
    monkeypatch.setattr(jobs, "NEWS_S", 0.0)
    monkeypatch.setattr(jobs, "GROWTH_S", 0.0)
    monkeypatch.setattr(studio.queue, "jobs", lambda: [running])
    news, path = jobs.News(studio), write(studio)
    before = news.get()
    assert news.get() == before
    os.utime(path, (1, 1))
    assert news.get() != before


@pytest.mark.slow
def test_a_comparison_is_seen_from_its_first_step_to_its_report(browser, studio, trained):
    for name in ("one", "two"):
        shutil.copytree(trained, studio.folder / "runs" / name)
    runs = studio.library.runs()
    answer = browser.post("/compare", {"run": [run.id for run in runs]})
    ident, seen = answer.headers["location"].removeprefix("/jobs/"), []
    studio.queue.open()
    until = time.monotonic() + 240
    while not studio.queue.job(ident).has_ended and time.monotonic() < until:
        if (report := studio.live_report(studio.queue.job(ident))) is not None:
            states = {row.label: row.state for row in report.rows}
            seen += [states] if states not in seen[-1:] else []
        time.sleep(0.1)
    studio.queue.close()
    job = studio.queue.job(ident)
    assert job.state is State.FINISHED and seen[-1] == {"one": "measured", "two": "measured"}
    assert any(sorted(states.values()) == ["measured", "measuring"] for states in seen)  # one before the other
    assert not list(studio.folder.rglob("partial.json"))
    (page,) = [k for k, result in enumerate(studio.results(job)) if result.kind == "page"]
    text = browser.get(f"/jobs/{ident}/live").text
    assert "The report so far" not in text and f"/jobs/{ident}/results/{page}" in text
    assert f"/jobs/{ident}/results/{page}" in browser.get("/compare").text
    assert browser.get(f"/jobs/{ident}/results/{page}").text.startswith("<!DOCTYPE html>")
