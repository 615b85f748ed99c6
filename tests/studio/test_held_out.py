"""A held-out image as a PNG: the pixels are those of the data, and what goes wrong is said."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import trilemma
from trilemma import UserError
from trilemma.studio import held_out
from trilemma.studio.held_out import held_out_png, main


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
    content = held_out_png(trained.parent, trained.name, "3")
    assert content == answer(str(trained), "3")[1]
    with pytest.raises(UserError, match="image 100000 not found"):
        held_out_png(trained.parent, trained.name, "100000")


@pytest.mark.parametrize("code", ["print('no JSON')", "import time; time.sleep(600)", ""])
def test_a_process_that_gives_no_answer_is_ended_and_said(tmp_path, monkeypatch, code):
    def start(module, *words, folder, **pipes):
        return subprocess.Popen([sys.executable, "-c", code], cwd=folder, **pipes)

    monkeypatch.setattr(held_out, "start", start)
    monkeypatch.setattr(held_out, "LONGEST_S", 0.2)
    with pytest.raises(UserError, match="image 3 could not be read; try again"):
        held_out_png(tmp_path, "runs/x", "3")
