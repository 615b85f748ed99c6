"""Time and memory of a training before it begins: measured on its own steps, or said to be not known."""

import errno
import io
import json
import subprocess
import sys
import threading
import time

import pytest

import trilemma
from trilemma import hardware
from trilemma.errors import UserError
from trilemma.studio import estimate, processes
from trilemma.studio.forms import values_of
from trilemma.training.pace import Pace, measure_pace
from trilemma.verbs import find
from trilemma.words import duration

PACE = {
    "name": "", "images": 60_000, "minutes": None, "rate": 500.0, "before_s": 0.0, "steps": 20, "seconds": 5.0,
    "device": "cpu", "memory_bytes": 750_000_000, "gpu_bytes": None,
}  # fmt: skip
MEASURED = {"paces": [PACE]}
FORM = {"model": "vae", "data": "digits", "epochs": "40", "hidden": "8"}


def stands_in(monkeypatch, answer, *, code="print({answer!r})"):
    """A process that answers at once, in place of the one that measures; the words that each was given."""
    asked = []

    def start(module, *words, folder, stdin, stdout):
        asked.append([module, *words[1:]])
        line = code.format(answer=json.dumps(answer))
        return subprocess.Popen([sys.executable, "-S", "-c", line], stdin=stdin, stdout=stdout)

    monkeypatch.setattr(processes, "start", start)
    return asked


def test_the_estimate_is_that_of_the_keys_in_the_form(browser, studio, monkeypatch):
    asked = stands_in(monkeypatch, MEASURED)
    text = browser.post("/train/estimate", FORM).text
    assert asked == [["pacer", "vae", "digits", "epochs=40", "hidden=8"]]
    assert f"about {duration(60_000 / 500)} of training, for 60,000 images" in text
    assert "Memory: about 750 MB." in text and "20 steps in 5 seconds on cpu" in text and "This is an estimate" in text
    assert 'name="epochs" value="40"' in text and not studio.queue.jobs()
    assert not list(studio.own.glob("pace-*"))
    text = browser.post("/train/estimate", FORM, headers={"accept-language": "vi"}).text
    assert "Bộ nhớ: khoảng 750 MB." in text and "Measured" not in text


def test_a_length_in_minutes_is_the_time_and_what_is_not_known_is_said(browser, monkeypatch):
    stands_in(monkeypatch, {"paces": [{**PACE, "images": None, "minutes": 3.0, "memory_bytes": None}]})
    text = browser.post("/train/estimate", FORM).text
    assert f"Time: {duration(180)} of training, as asked, about 90,000 images" in text
    assert "Memory: not known" in text
    stands_in(monkeypatch, {"error": "it has <parts>"})
    text = browser.post("/train/estimate", FORM).text
    assert "Time and memory are not known: it has &lt;parts&gt;" in text and "Measured with" not in text


def test_the_time_of_parts_is_counted(browser, monkeypatch):
    """1,000 images at 100 a second, then 30 seconds for the codes and 6,000 images at 200 a second."""
    part = {**PACE, "name": "autoencoder", "images": 1_000, "rate": 100.0, "memory_bytes": 900_000_000}
    own = {**PACE, "images": 6_000, "rate": 200.0, "before_s": 30.0}
    stands_in(monkeypatch, {"paces": [part, own]})
    text = browser.post("/train/estimate", FORM).text
    assert f"about {duration(10 + 30 + 30)} of training, for 6,000 images" in text
    assert f"Of these, {duration(10)} for the part autoencoder" in text and "about 900 MB" in text
    assert "40 steps in 10 seconds" in text
    halves = [{**pace, "images": None, "minutes": 2.0} for pace in (part, own)]
    stands_in(monkeypatch, {"paces": halves})
    text = browser.post("/train/estimate", FORM).text
    assert f"Time: {duration(240)} of training, as asked, about {200 * 120:,} images" in text


def test_a_measurement_ends(browser, studio, monkeypatch):
    monkeypatch.setattr(estimate, "LONGEST_S", 0.05)
    stands_in(monkeypatch, {}, code="import time; time.sleep(60)")
    assert "take longer than 0 seconds" in browser.post("/train/estimate", FORM).text
    stands_in(monkeypatch, {}, code="")
    monkeypatch.setattr(estimate, "LONGEST_S", 20)
    assert "the process that measures has ended" in browser.post("/train/estimate", FORM).text
    with studio.estimator._turn, pytest.raises(UserError, match="another training is being measured"):
        studio.estimator.estimate(["vae", "digits"], busy=False)


def test_a_studio_that_closes_ends_a_measurement(studio, monkeypatch):
    started, answers = [], []
    monkeypatch.setattr(processes, "start", lambda *words, **keys: started.append(sleeper()) or started[0])

    def sleeper():
        return subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], stdout=subprocess.PIPE)

    def measure():
        try:
            studio.estimator.estimate(["vae", "digits"], busy=False)
        except UserError as error:
            answers.append(str(error))

    thread = threading.Thread(target=measure)
    thread.start()
    while not started:
        time.sleep(0.001)
    assert list(studio.own.glob("pace-*"))
    studio.estimator.close()
    assert not list(studio.own.glob("pace-*"))
    thread.join(20)
    assert started[0].poll() is not None and "the process that measures has ended" in answers[0]
    measure()
    assert len(started) == 1 and "is being closed" in answers[1]
    studio.estimator.close()


def test_files_of_a_measurement_whose_studio_was_killed_are_removed(studio):
    (studio.own / "pace-abc" / "run").mkdir(parents=True)
    (studio.own / "pace-link").symlink_to(studio.folder)
    (studio.own / "marks.json").write_text("{}")
    studio.estimator.remove_unfinished()
    assert {path.name for path in studio.own.iterdir()} == {"marks.json", "pace-link"} and studio.own.is_dir()


def test_a_full_disk_is_said(browser, monkeypatch):
    def refuse(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(estimate.tempfile, "TemporaryDirectory", refuse)
    answer = browser.post("/train/estimate", FORM)
    assert answer.status_code == 200 and "the disk is full" in answer.text


def test_what_is_free_is_what_a_process_can_have(studio, monkeypatch):
    """The system would give up files that it keeps in memory, which are not free."""
    texts = ["MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable: 5242880 kB\n", "", "MemFree: 1 kB\n", "MemAvailable:\n"]
    monkeypatch.setattr(hardware, "open", lambda path: io.StringIO(texts.pop(0)), raising=False)
    assert [studio.machine().memory_free for _ in texts[:]] == [5.0, None, None, None]


def test_nothing_is_measured_that_a_training_refuses(browser, monkeypatch):
    asked = stands_in(monkeypatch, MEASURED)
    for fields in ({"epochs": "-1"}, {"out": "x"}, {"data": "/etc"}, {"hidden": "../x"}):
        text = browser.post("/train/estimate", {**FORM, **fields}).text
        assert asked == [] and "Measured with" not in text and '<div id="estimate" role="status"><p lang="en">' in text
    assert browser.post("/train/estimate", {**FORM, "model": "x"}).status_code == 404


@pytest.mark.slow
def test_some_steps_of_the_training_are_measured(tmp_path):
    keys = values_of(find("train"), ["epochs=40", "hidden=8", "batch=64", "seed=1", "precision=float32"])
    (pace,) = measure_pace("vae", "digits", keys, tmp_path, seconds=1.0)
    assert isinstance(pace, Pace) and pace.minutes is None and pace.steps > 5 and pace.device == "cpu"
    assert pace.images % 64 == 0 and pace.seconds == pytest.approx(1.0, abs=0.5)
    assert pace.rate == pytest.approx(pace.steps * 64 / pace.seconds, rel=0.5)
    assert pace.memory_bytes is None or 10**8 < pace.memory_bytes < 10**10
    (minutes,) = measure_pace("vae", "digits", {"minutes": 2.0, "hidden": (8,)}, tmp_path / "other", seconds=0.2)
    assert (minutes.images, minutes.minutes) == (None, 2.0)


@pytest.mark.slow
def test_parts_are_measured_before_the_model(tmp_path):
    keys = {"minutes": 2.0, "autoencoder": {"epochs": 3}, "width": 8}
    part, own = measure_pace("diffusion-latent", "digits", keys, tmp_path / "trained", seconds=0.2)
    assert (part.name, own.name) == ("autoencoder", "") and part.minutes is None and own.minutes == 2.0
    assert part.images >= 3 * 1_000 and part.before_s < own.before_s and own.steps > 0  # which waits for the codes
    run = trilemma.train("ae-kl", "digits", steps=1, quiet=True, out=tmp_path / "ae")
    (own,) = measure_pace("diffusion-latent", "digits", {"autoencoder": run.path, "steps": 9}, tmp_path / "given", 0.2)
    assert own.name == "" and own.minutes is None and own.images % 9 == 0


@pytest.mark.slow
def test_a_process_measures_for_the_page(browser, studio):
    text = browser.post("/train/estimate", FORM).text
    assert "Measured with these keys" in text and not list(studio.own.glob("pace-*"))
