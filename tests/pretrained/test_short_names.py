"""A short name of the table, whose repository a hub of our own has: its defaults in every verb, no call once it was
downloaded, and an interruption between two steps."""

import functools
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pretrained.hub import COMMIT, publishing

from trilemma import again, compare, edit, evaluate, imagine, interpolate, upscale
from trilemma.cli.main import main
from trilemma.pictures.png import read_metadata
from trilemma.pretrained.libraries import LIBRARIES, load_diffusers
from trilemma.pretrained.table import CHECKPOINTS

pytestmark = pytest.mark.slow
NAME, REPOSITORY = "sd-turbo", "stabilityai/sd-turbo"
ORIGIN = {"repository": REPOSITORY, "commit": COMMIT}


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch):
    with publishing(tiny, REPOSITORY, tmp_path / "home", monkeypatch) as hub:
        yield hub


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def said(picture, *keys):
    """What a picture says of how it was made, if that names the repository at its commit."""
    entry = read_metadata(picture)
    assert {key: entry[key] for key in ORIGIN} == ORIGIN
    return tuple(entry[key] for key in keys)


def test_a_text_is_drawn_in_the_steps_of_the_table(hub, tiny):
    result = imagine("a cat", model=NAME, out="o.png")
    assert said(result.picture, "steps", "guidance") == (1, 0)
    same = imagine("a cat", model=tiny, steps=1, guidance=0, out="p.png")
    assert torch.equal(result.images, same.images)
    assert not torch.equal(imagine("a cat", model=tiny, steps=1, out="q.png").images, same.images)  # which is guided
    asked = len(hub.asked)
    assert again(result.picture).equal and len(hub.asked) == asked
    grid = imagine("a cat", model=NAME, x="guidance:0,3", y="steps:1,2", out="r.png")
    assert [said(path, "steps", "guidance") for path in grid.files] == [(1, 0), (1, 3), (2, 0), (2, 3)]


@pytest.mark.parametrize(
    ("keys", "steps", "strength"),
    [
        ({}, 2, 0.5),
        ({"strength": 0.3}, 4, 0.3),
        ({"steps": 4, "strength": 0.5}, 4, 0.5),
        ({"mask": "0,0,32,64"}, 1, 1.0),
    ],
)
def test_an_image_is_drawn_again_in_as_many_steps_as_leave_one(hub, tiny, photo, keys, steps, strength):
    result = imagine("a cat", model=NAME, image=photo, out="o.png", **keys)
    assert said(result.picture, "steps", "guidance", "strength") == (steps, 0, strength)
    asked = {**keys, "steps": steps, "guidance": 0, "strength": strength}
    assert torch.equal(result.images, imagine("a cat", model=tiny, image=photo, out="p.png", **asked).images)
    assert (result.images - torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1) / 255).abs().max() > 0.05
    assert again(result.picture).equal


def test_cells_of_several_strengths_have_the_steps_of_the_least(hub, photo):
    result = imagine("a cat", model=NAME, image=photo, x="strength:1,0.3", out="o.png")
    assert [said(path, "steps", "strength") for path in result.files] == [(4, 1), (4, 0.3)]


def test_verbs_of_a_run_take_the_name(hub, photo):
    edited = edit(f"pipeline:{NAME}", photo, caption="a cat", strength=0.5, n=2, out="e.png")
    assert said(edited.picture, "steps", "guidance", "strength") == (2, 0, 0.5)
    assert again(edited.files[1]).equal
    way = interpolate(f"pipeline:{NAME}", "a cat", "a dog", frames=2, animate=False, out="i.png")
    assert said(way.picture, "steps", "guidance") == (1, 0)
    result = evaluate(f"pipeline:{NAME}", against="digits", n=12)
    assert result["calls_per_image"].value == 1  # one step, which is not guided
    assert (result["density"].settings["steps"], result["density"].settings["guidance"]) == (1, 0)
    assert any(f"repository {REPOSITORY}, commit {COMMIT}" in text for text in result.notes)
    report = compare(f"pipeline:{NAME}", against="digits", n=12, quiet=True, out="compared").report
    assert [(model.kind, model.error) for model in report.models] == [("pipeline", None)]
    assert report.models[0].scores["calls_per_image"].value == 1


def test_an_upscaler_of_the_table_takes_its_name(folder_of, photo, tmp_path, monkeypatch):
    repository = CHECKPOINTS["stable-diffusion-x4"].repository
    Image.open(photo).crop((0, 0, 24, 16)).save(photo)
    with publishing(folder_of("upscaling"), repository, tmp_path / "home", monkeypatch) as hub:
        large = upscale("pipeline:stable-diffusion-x4", photo, caption="a cat", steps=1, out="u.png")
        entry = read_metadata(large.picture)
        assert (entry["repository"], entry["commit"]) == (repository, COMMIT)
        assert large.images.shape == (1, 3, 32, 48)
        hub.asked.clear()
        assert again(large.files[0]).equal and not hub.asked


CLOSED = """
import socket, sys
tried = []
def refuse(*args, **keys):
    tried.append(args)
    raise OSError("there is no network")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse
from trilemma.cli.main import main
for words in (["imagine", "a cat", "model=sd-turbo", "out=o.png"], ["again", "o.png"]):
    code = main(words)
    assert code == 0 and not tried, (code, tried)
"""


def test_a_checkpoint_that_is_here_is_drawn_with_without_a_socket(hub, tmp_path):
    imagine("a cat", model=NAME, out="first.png")
    hub.asked.clear()
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", CLOSED], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not hub.asked and said(Path("o.png"), "steps") == (1,)


def test_an_interruption_between_two_steps_ends_cleanly(tiny, monkeypatch, capsys):
    scheduler, logs = load_diffusers().DDIMScheduler, load_diffusers().utils.logging
    step, count = scheduler.step, []

    @functools.wraps(step)
    def interrupted(*args, **keys):
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        return step(*args, **keys)

    def shown():
        loggers = map(logging.getLogger, LIBRARIES)
        return logs.is_progress_bar_enabled(), [(one.handlers[:], one.propagate, one.level) for one in loggers]

    before = shown()
    words = ["imagine", "a cat", f"model={tiny}", "steps=3", "out=o.png"]
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "step", interrupted)
        assert main(words) == 130 and len(count) == 2
    assert "Traceback" not in capsys.readouterr().err and not list(Path().glob("*.png*"))
    assert shown() == before
    assert main(words) == 0 and again("o.png").equal
