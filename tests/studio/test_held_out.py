"""A held-out image as a PNG: the pixels are those of the data, and what goes wrong is said."""

import io
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import trilemma
from trilemma import UserError
from trilemma.studio import held_out, processes
from trilemma.studio.held_out import HeldOut, main


def answer(*words):
    """The head of an answer of the process, and the bytes after it."""
    answers = io.BytesIO()
    main(words, answers)
    line, _, content = answers.getvalue().partition(b"\n")
    return json.loads(line), content


def test_the_pixels_are_those_of_the_held_out_image(trained):
    head, content = answer(str(trained), "3")
    assert head == {"bytes": len(content)}
    with Image.open(io.BytesIO(content)) as image:
        assert (np.asarray(image) == trilemma.load(trained).data.held_out[1].images[3, 0].numpy()).all()
    assert "image 100000 not found" in answer(str(trained), "100000")[0]["error"]
    other, _ = answer(str(trained), "3", "shapes:9")
    assert other != head


@pytest.mark.slow
def test_it_is_read_by_a_process_of_its_own(trained):
    held_out = HeldOut(trained.parent)
    assert held_out.png(trained.name, "3") == answer(str(trained), "3")[1]
    with pytest.raises(UserError, match="image 100000 not found"):
        held_out.png(trained.name, "100000")


def stands_in(monkeypatch, code):
    """A process with this code, in place of the one that reads; those that were started."""
    started = []

    def start(module, *words, folder, **pipes):
        started.append(subprocess.Popen([sys.executable, "-S", "-c", code], cwd=folder, **pipes))
        return started[-1]

    monkeypatch.setattr(processes, "start", start)
    return started


@pytest.mark.parametrize("code", ["print('no JSON')", "import time; time.sleep(600)", ""])
def test_a_process_that_gives_no_answer_is_ended_and_said(tmp_path, monkeypatch, code):
    started, one = stands_in(monkeypatch, code), HeldOut(tmp_path)
    monkeypatch.setattr(held_out, "LONGEST_S", 0.2)
    for _ in range(2):  # the second finds its turn
        with pytest.raises(UserError, match="image 3 could not be read; try again"):
            one.png("runs/x", "3")
    assert [process.poll() is None for process in started] == [False, False]


def test_one_image_is_read_at_a_time_and_none_once_the_studio_closes(studio, monkeypatch):
    started, one = stands_in(monkeypatch, "import time; time.sleep(600)"), studio.held_out
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(one.png, "runs/x", "3")
        while not started:
            time.sleep(0.001)
        with pytest.raises(UserError, match="another held-out image is being read"):
            one.png("runs/x", "4")
        studio.close()
        with pytest.raises(UserError, match="image 3 could not be read"):
            reading.result(20)
    with pytest.raises(UserError, match="the studio is being closed"):
        one.png("runs/x", "5")
    assert len(started) == 1 and started[0].poll() is not None
