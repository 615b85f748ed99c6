"""The pages of jobs: what they say and show, what they do, and when they have news."""

import json
import os
import re

import pytest
from PIL import Image

from trilemma.files import lock
from trilemma.healthy import EXPLODED, LEAST_ROWS, NO_BETTER, SURE
from trilemma.studio.curves import EDGE, HEIGHT, WIDTH, RangeInputs, plots_of
from trilemma.studio.jobs import END, JOB, OUTPUT, START, State, open_lock, read_job
from trilemma.studio.logs import series_of
from trilemma.studio.routes import jobs as jobs_routes

EVIL = "<script>alert(1)</script>"


def test_what_a_job_says_is_text_and_its_results_lie_in_the_folder(browser, studio, run):
    ident = studio.queue.add(["sample", "runs/vae-digits"])
    place = studio.queue.job(ident).place
    outside = studio.folder.parent / "outside.png"
    Image.new("L", (3, 3)).save(outside)
    (studio.folder / "page.html").write_text(EVIL)
    lines = [
        EVIL,
        f"grid     {outside}",
        "grid     ../outside.png",
        "picture  runs/vae-digits/samples/seed-0.png",
        "page     page.html",
    ]
    (place / OUTPUT).write_text("\n".join(lines))
    for name, values in ((START, {"time": 1.0}), (END, {"time": 2.0, "code": 0})):
        (place / name).write_text(json.dumps(values))
    job = read_job(place)
    assert [result.name for result in studio.results(job)] == ["runs/vae-digits/samples/seed-0.png", "page.html"]
    text = browser.get(f"/jobs/{ident}").text
    assert EVIL not in text and "&lt;script&gt;" in text
    report = browser.get(f"/jobs/{ident}/results/1")
    policy = report.headers["content-security-policy"]
    assert report.text == EVIL and policy.startswith("sandbox allow-scripts;") and "allow-same-origin" not in policy
    assert "script-src 'sha256-" in policy
    assert browser.get(f"/jobs/{ident}/results/2").status_code == 404


def test_a_job_is_run_stopped_and_repeated_by_its_page(browser, studio):
    studio.queue.pause(True)
    ident = studio.queue.add(["list", "vae"])
    assert ">queued<" in browser.get(f"/jobs/{ident}/live").text
    browser.post(f"/jobs/{ident}/cancel")
    assert studio.queue.job(ident).state is State.CANCELLED
    answer = browser.post(f"/jobs/{ident}/again")
    assert studio.queue.job(answer.headers["location"].removeprefix("/jobs/")).words == ["list", "vae"]
    assert browser.post(f"/jobs/{ident}/shout").status_code == 404
    browser.post("/jobs/pause")
    assert not studio.queue.paused


def test_jobs_are_moved_started_and_stopped_from_their_page(browser, studio, monkeypatch):
    begun = []
    monkeypatch.setattr(studio.queue, "_start", lambda job: begun.append(job.id))
    studio.queue.pause(True)
    a, b, c = (studio.queue.add(["list", name]) for name in "abc")
    order = lambda: [job.id for job in studio.queue.waiting()]  # noqa: E731
    page = browser.get("/jobs").text
    assert page.count("/up") == page.count("/down") == 2 and page.count("/now") == 3
    for action, ident, wanted in [("up", c, [a, c, b]), ("down", a, [c, a, b]), ("first", b, [b, c, a])]:
        assert browser.post(f"/jobs/{ident}/{action}", {"back": "jobs"}).headers["location"] == "/jobs"
        assert order() == wanted
    browser.post(f"/jobs/{a}/now")
    assert begun == [a] and "/now" in browser.get(f"/jobs/{a}/live").text
    assert browser.post("/jobs/stop").headers["location"] == "/jobs" and 'action="/jobs/stop"' in page
    assert {job.state for job in studio.queue.jobs()} == {State.CANCELLED}


def test_a_job_of_somebody_else_is_started_from_its_page(browser, studio):
    place = studio.queue.jobs_folder / "00000001-0123456789abcdef"
    place.mkdir(parents=True)
    (place / JOB).write_text(json.dumps({"words": ["no-verb", EVIL], "created": 1e300}))
    for path in ("/", "/jobs", "/jobs/live", "/jobs/0123456789abcdef"):
        text = browser.get(path).text
        assert ">not yours<" in text and "were not created by you" in text and EVIL not in text
    answer = browser.post("/jobs/0123456789abcdef/start")
    (new,) = studio.queue.waiting()
    assert answer.headers["location"] == f"/jobs/{new.id}" and new.words == ["no-verb", EVIL]
    assert browser.post(f"/jobs/{new.id}/start").status_code == 404


def test_a_job_of_somebody_else_that_seems_interrupted_warns_before_it_is_resumed(browser, studio):
    place = studio.queue.jobs_folder / "00000001-0123456789abcdef"
    place.mkdir(parents=True)
    (place / JOB).write_text(json.dumps({"words": ["train", "vae", "--import=evil.py"], "created": 1.0}))
    (place / START).write_text(json.dumps({"time": 1.0, "process": 12345}))
    own = studio.queue.add(["train", "vae", "digits"])
    (studio.queue.job(own).place / START).write_text(json.dumps({"time": 1.0, "process": 12345}))
    for ident, warns in (("0123456789abcdef", True), (own, False)):
        text = browser.get(f"/jobs/{ident}/live").text
        assert ">interrupted<" in text and "Resume" in text and ("were not created by you" in text) is warns


def test_what_is_wrong_with_the_queue_is_said_on_its_pages(browser, studio, monkeypatch):
    def refuse():
        raise OSError(5, "Input/output error")

    before, studio.queue.fault = jobs_routes.News(studio).get(), "the disk is <full>"
    for path in ("/", "/jobs", "/jobs/live"):
        text = browser.get(path).text
        assert "No job can be started at the moment" in text and "the disk is &lt;full&gt;" in text
    assert jobs_routes.News(studio).get() != before
    monkeypatch.setattr(studio.queue, "jobs", refuse)
    for path in ("/", "/jobs", "/jobs/live"):
        answer = browser.get(path)
        assert answer.status_code == 200 and "Input/output error" in answer.text
    assert jobs_routes.News(studio).get()


def test_plots_stay_in_their_box_and_leave_out_what_is_no_number():
    rows = [
        {"step": k, "images": 10 * k, "seconds": 1.0, "vae/loss": value}
        for k, value in enumerate([3.0, float("nan"), 1.0, 2.0])
    ]
    (plot,) = plots_of(series_of(rows))
    points = [tuple(map(float, point.split(","))) for point in plot.points.split()]
    assert len(points) == 3 and (plot.low, plot.high, plot.last, plot.images) == (1.0, 3.0, 2.0, 30)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert points[0][1] < points[2][1] < points[1][1]  # upwards is less in SVG: 3 is above 2 is above 1
    assert plots_of(series_of(rows[:1])) == []


@pytest.fixture
def training(studio, run):
    """A job that trains the run, and runs for as long as its lock is held: its id, and the lock."""
    ident = studio.queue.add(["train", "vae", "digits"])
    place = studio.queue.job(ident).place
    (place / OUTPUT).write_text("run      runs/vae-digits\n")
    (place / START).write_text(json.dumps({"time": 0.0, "process": 12345}))
    with open_lock(place) as held:
        lock(held)
        yield ident, held


def test_warnings_of_a_training_are_shown_while_it_runs(browser, studio, run, training):
    rows = [{"step": 10 * k, "images": 9, "seconds": 1.0, "warning": f"warning {k} {EVIL}"} for k in range(1, 132)]
    with (run.path / "log.jsonl").open("a") as file:
        file.write("".join(f"{json.dumps(row)}\n" for row in rows))
    text = browser.get(f"/jobs/{training[0]}/live").text
    assert text.count('<p class="warning" lang="en">') == jobs_routes.LATEST and EVIL not in text
    assert '<p class="warning" lang="en">step 1,310: warning 131 &lt;script&gt;' in text
    assert "step 1,310" not in browser.get(f"/runs/{run.id}").text  # it has ended: its summary says what is wrong
    (run.path / "weights.safetensors").unlink()
    with (run.path / "lock").open("r+") as held:
        lock(held)
        assert '<p class="warning" lang="en">step 1,310: warning 131' in browser.get(f"/runs/{run.id}").text


def test_samples_of_a_training_are_shown_in_the_order_of_time(browser, studio, run, training):
    sample = (run.path / "samples" / "last.png").read_bytes()
    for k in range(23):  # last.png is of a shorter training that is continued
        path = run.path / "samples" / f"{64 * k:012d}.png"
        path.write_bytes(sample)
        os.utime(path, (2e9 + k, 2e9 + k))
    text = browser.get(f"/jobs/{training[0]}/live").text
    shown = re.findall(r"<figcaption>(.*?)</figcaption></figure>\n", text.partition("Samples through time")[2])
    assert shown[:2] == ["samples/last.png", f"samples/{64:012d}.png"] and shown[-1] == f"samples/{64 * 22:012d}.png"
    assert len(shown) == jobs_routes.LATEST and shown[1:] == sorted(shown[1:])  # not batch.png, nor seed-0.png
    for source in re.findall(r'<img loading="lazy" src="([^"]*)"', text):
        assert browser.get(source).headers["content-type"] == "image/png"


def test_a_training_is_paused_and_resumed_by_its_page(browser, training):
    ident, held = training
    text = browser.get(f"/jobs/{ident}/live").text
    assert "<button>Pause</button>" in text and "A checkpoint is saved" in text and "Resume</button>" not in text
    assert ">Pause</button>" in browser.get("/jobs/live").text
    held.close()
    text = browser.get(f"/jobs/{ident}/live").text
    assert "<button>Resume</button>" in text and "Pause" not in text


def test_what_a_running_job_writes_is_looked_at_less_often_than_its_state(studio, run, monkeypatch):
    monkeypatch.setattr(jobs_routes, "NEWS_S", 0.0)
    monkeypatch.setattr(jobs_routes, "GROWTH_S", 1e6)
    news, place = jobs_routes.News(studio), studio.queue.job(studio.queue.add(["train", "vae", "digits"])).place
    held = open_lock(place)
    lock(held)
    (place / START).write_text(json.dumps({"time": 0.0, "process": 12345}))
    before = news.get()
    (place / OUTPUT).write_text("step 1")
    assert news.get() == before
    held.close()
    assert news.get() != before


def test_news_come_when_a_job_or_the_log_of_its_run_changes(studio, run, monkeypatch):
    monkeypatch.setattr(jobs_routes, "NEWS_S", 0.0)
    monkeypatch.setattr(jobs_routes, "GROWTH_S", 0.0)
    news = jobs_routes.News(studio)
    seen = [news.get()]

    def changed():
        seen.append(news.get())
        assert news.get() == seen[-1]
        return seen[-1] not in seen[:-1]

    place = studio.queue.job(studio.queue.add(["train", "vae", "digits"])).place
    assert changed()
    held = open_lock(place)
    lock(held)
    (place / START).write_text(json.dumps({"time": 0.0, "process": 12345}))
    assert changed()
    (run.path / "lock").write_text("process 12345 on a machine")
    news.get()
    with (run.path / "log.jsonl").open("a") as file:
        file.write("{}\n")
    seen = [*seen, news.get()]
    with (run.path / "log.jsonl").open("a") as file:
        file.write("{}\n")
    assert changed()
    (place / OUTPUT).write_text("hello")
    assert changed()
    held.close()
    assert changed()


def test_plots_shade_the_range_in_which_no_rule_warns():
    def log(name, values):
        return [{"step": k, "images": k, "seconds": 1.0, name: value} for k, value in enumerate(values)]

    def plot(name, values, **inputs):
        return plots_of(series_of(log(name, values)), RangeInputs(**inputs))[0]

    real = plot("critic/d_real", [0.5, 1.0])
    top, height = real.band
    assert top + height == HEIGHT  # whatever is lower is healthy
    assert top == pytest.approx(EDGE + (HEIGHT - 2 * EDGE) * (1.0 - SURE) / 0.5, abs=0.05)
    assert plot("critic/d_real", [1.0, 1.0]).band is None and plot("critic/d_real", [1.0, 1.0]).has_range
    norms = [1.0] * LEAST_ROWS
    assert plot("critic/gradient_norm", norms[1:]).band is None  # what is usual is not known yet
    top, height = plot("critic/gradient_norm", [*norms, 2 * EXPLODED]).band
    assert top == pytest.approx(HEIGHT / 2, abs=0.1) and top + height == HEIGHT
    assert not plot("valid_active_units", [1.0, 9.0]).has_range
    assert plot("valid_active_units", [1.0, 4.0], units=30).band == pytest.approx((0.0, HEIGHT - EDGE - 204 / 3), abs=1)
    assert plot("valid_rmse", [0.2, 0.1], mean_image_rmse=0.25).band == (0.0, HEIGHT)
    assert not plot("valid_noise_rmse", [0.2, 0.1], mean_image_rmse=0.25).has_range
    rows = [
        row | {"valid_linear_denoising_rmse": linear}
        for row, linear in zip(log("valid_denoising_rmse", [0.9, 0.7]), (0.3, 0.8), strict=True)
    ]
    (denoising,) = plots_of(series_of(rows))  # its last limit counts
    top, height = denoising.band
    assert denoising.rmse == 0.8 and top + height == HEIGHT
    assert top == pytest.approx(EDGE + (HEIGHT - 2 * EDGE) * (0.9 - NO_BETTER * 0.8) / 0.2, abs=0.05)


def test_the_page_of_a_run_says_what_is_healthy(browser, run):
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"step": 13, "images": 900, "seconds": 1.0, "valid_rmse": 0.1, "valid_active_units": 2}\n')
    rmse = f"{run.summary['mean_image_rmse']:.3g}"
    text = browser.get(f"/runs/{run.id}").text
    assert f"Healthy: below {NO_BETTER:g} times the error of the mean training image, which is {rmse}." in text
    assert '<rect class="healthy"' in text and "by the limits at which a training warns" in text
    text = browser.get(f"/runs/{run.id}", headers={"accept-language": "vi"}).text
    assert "Phần tô màu" in text and "Healthy" not in text
