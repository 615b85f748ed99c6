"""A name in the folder is a path to the command line of a job: never an option, a key, a home, or a run of the hub."""

import json
from pathlib import Path

import pytest
from PIL import Image

from trilemma.cli.arguments import normalise, take_imports

NAMES = ("--import=evil.py", "--debug", "-h", "--", "-x", "n=4", "=4", "~root", "hf:a", "pipeline:sd-turbo", "digits")


@pytest.fixture(params=NAMES)
def place(request, studio, monkeypatch):
    """A folder of that name, in the folder in which the jobs work; the queue starts none."""
    studio.queue.pause(True)
    monkeypatch.chdir(studio.folder)
    (studio.folder / request.param).mkdir()
    return studio.folder / request.param


def check(studio, location, *verb, keys=()):
    """That the words of a job are a verb, places in the folder that exist, and these keys."""
    job = studio.queue.job(location.removeprefix("/jobs/"))
    places = [word for word in job.words[len(verb) :] if word not in keys]
    assert job.words[: len(verb)] == [*verb] and take_imports(job.words) == ([], job.words)
    assert normalise(job.words)[-len(places) - 1 :] == ["--", *places]
    assert not any(word.startswith(("-", "~", "hf:", "pipeline:")) or word == "digits" for word in places[-1:])
    assert (studio.folder / places[-1]).exists()
    return job, places


@pytest.mark.parametrize("inner", ["", "inner"])
def test_a_run(browser, studio, place, inner):
    (place / inner).mkdir(exist_ok=True)
    (place / inner / "config.json").write_text(json.dumps({"model": "vae", "data": "digits"}))
    (run,) = studio.library.runs()
    browser.post(f"/runs/{run.id}/rename", {"title": "--import=evil.py"})
    for verb, page in (("sample", "/sample"), ("evaluate", "/measure")):
        job, _ = check(studio, browser.post(page, {"run": run.id, "verb": verb}).headers["location"], verb)
        assert studio.run_of(job) == run
    assert browser.post(f"/runs/{run.id}/remove").status_code == 303
    (ident,) = studio.marks.in_bin()
    assert studio.marks.restore(ident) == run.name and studio.library.runs() == [run]


def test_data(browser, studio, place):
    Image.new("L", (8, 8)).save(place / "a.png")
    (studio.folder / "data" / "others").mkdir(parents=True)
    Image.new("L", (8, 8)).save(studio.folder / "data" / "others" / "a.png")
    own, other = studio.library.id_of(place), studio.library.id_of(studio.folder / "data" / "others")
    check(studio, browser.post("/data/show/run", {"source": own}).headers["location"], "data", "show")
    check(studio, browser.post("/train", {"model": "vae", "data": own}).headers["location"], "train")
    answer = browser.post("/compare", {"images": [other, own], "against": own})
    key = f"against=./{place.name}"
    job, places = check(studio, answer.headers["location"], "compare", keys=[key])
    assert places[-1] == f"./{place.name}" and job.words[-1] == key


def test_names_that_are_paths_as_they_stand_are_kept(studio):
    for name in ("runs/vae-digits", "a b (1)/x=1", "runs/--import=x", "é.zip", "runs/hf:a"):
        assert studio.library.name_of(studio.folder / name) == Path(name).as_posix()
