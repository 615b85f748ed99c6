"""Sliders: the pictures are those of the codes, from a process that is there when it is needed."""

import io
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma import UserError
from trilemma.explore.sliders import Sliders, sliders_of
from trilemma.studio import decoder, painter
from trilemma.studio.decoder import answer
from trilemma.studio.routes.sliders import values_of
from trilemma.types import Condition


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A VAE and a GAN of a few steps."""
    place = tmp_path_factory.mktemp("trained")
    trilemma.train("vae", "digits", steps=12, hidden=(8,), latent=3, batch=64, out=place / "vae", quiet=True)
    trilemma.train("gan", "digits", steps=2, batch=64, out=place / "gan", quiet=True)
    trilemma.train("diffusion", "digits", steps=1, batch=16, out=place / "diffusion", quiet=True)
    return place


def test_the_mean_and_one_unit_moved_are_the_images_of_these_codes(trained):
    run = trilemma.load(trained / "vae")
    sliders = sliders_of(run)
    codes = run.encode(torch.as_tensor(run.data.held_out[1].images[:2000]).float() / 255)
    mean = codes.mean(0)
    torch.testing.assert_close(sliders.image({}), run.decode(mean[None])[0])
    for axis in sliders.axes:
        column = codes[:, axis.unit]
        low, high = float(column.min()), float(column.max())
        assert (axis.low, axis.high) == pytest.approx((low, high)) and axis.low < axis.mean < axis.high
        moved = mean.clone()
        moved[axis.unit] = high
        torch.testing.assert_close(sliders.image({axis.unit: 1e9}), run.decode(moved[None])[0])
        torch.testing.assert_close(sliders.image({axis.unit: float(high)}), run.decode(moved[None])[0])
    stds = [axis.std for axis in sliders.axes]
    assert stds == sorted(stds, reverse=True)


def test_a_gan_has_directions_and_a_denoiser_is_refused(trained):
    sliders = sliders_of(trained / "gan")
    assert sliders.directions is not None and sliders.image({0: 1.0}).shape == (1, 8, 8)
    with pytest.raises(UserError, match="diffusion"):
        sliders_of(trained / "diffusion")


def test_an_answer_is_a_line_and_the_bytes_of_a_png(trained):
    held = {}
    head, content = answer({"run": str(trained / "vae")}, held)
    assert len(head["axes"]) == 3 and content == b"" and head["directions"] is False
    head, content = answer({"run": str(trained / "vae"), "values": {"0": 1.0}}, held)
    assert head == {"bytes": len(content)}
    wanted = held[str(trained / "vae")].sliders.image({0: 1.0})
    with Image.open(io.BytesIO(content)) as image:
        assert (np.asarray(image) == (wanted[0] * 255).round().numpy()).all()


def test_a_run_that_was_trained_further_is_loaded_again(tmp_path, monkeypatch):
    """A stand-in for the run: its sum is read when the stamp of a file changed, its model when the sum did."""
    file, loads = tmp_path / "weights.safetensors", []
    (tmp_path / "config.json").write_text("{}")

    class Stored:
        def __init__(self, _):
            self.weights_id = file.read_text()

    def load(name):
        loads.append(file.read_text())
        return Sliders(Stored(name), (), torch.zeros(1), None, Condition())

    monkeypatch.setattr(decoder, "as_run", Stored)
    monkeypatch.setattr(decoder, "sliders_of", load)
    held = {}
    for content, changed_s in [("one", 1), ("one", 1), ("one", 2), ("two", 3), ("two", 3), ("one", 4)]:
        file.write_text(content)
        os.utime(file, (changed_s, changed_s))
        answer({"run": str(tmp_path)}, held)
        assert held[str(tmp_path)].sliders.run.weights_id == content
    assert loads == ["one", "two", "one"]


@pytest.mark.slow
def test_the_page_draws_by_a_process_of_its_own(browser, studio, trained):
    shutil.copytree(trained / "vae", studio.folder / "runs" / "vae")
    (run,) = studio.library.runs()
    try:
        assert browser.get(f"/explore/sliders?run={run.id}").status_code == 200
        assert browser.get(f"/explore/sliders/axes?run={run.id}").text.count('type="range"') == 3
        here = browser.get(f"/explore/sliders/picture?run={run.id}&u0=0.5")
        assert here.headers["content-type"] == "image/png" and here.content[:4] == b"\x89PNG"
        assert here.content != browser.get(f"/explore/sliders/picture?run={run.id}&u0=-0.5").content
        begin = time.perf_counter()
        for k in range(20):
            browser.get(f"/explore/sliders/picture?run={run.id}&u0={k / 20}")
        assert (time.perf_counter() - begin) / 20 < 0.1  # ten a second
        studio.painter._process.kill()
        studio.painter._process.wait()
        assert browser.get(f"/explore/sliders/picture?run={run.id}&u0=0.5").content == here.content
    finally:
        studio.painter.close()


@pytest.mark.parametrize("text", ["nan", "inf", "x", "", "1;2"])
def test_a_value_is_a_finite_number(text):
    with pytest.raises(UserError):
        values_of({"u0": text})
    assert values_of({"u0": "1.5", "run": "x", "u": "1", "ux": "2"}) == {0: 1.5}


def test_the_process_ends_when_it_rests_or_does_not_answer(tmp_path, monkeypatch):
    """A stand-in for the process: it answers the first question, and is silent for ever after."""
    code = "import sys, time; sys.stdin.readline(); print('{\"axes\": []}', flush=True); time.sleep(600)"

    def start(module, *, folder, **pipes):
        return subprocess.Popen([sys.executable, "-c", code], cwd=folder, **pipes)

    monkeypatch.setattr(painter, "start", start)
    monkeypatch.setattr(painter, "LONGEST_S", 1.0)
    one = painter.Painter(tmp_path)
    assert one.axes("runs/x") == {"axes": []}
    with pytest.raises(UserError, match="has ended; try again"):
        one.axes("runs/x")
    monkeypatch.setattr(painter, "RESTS_S", 0.2)
    assert one.axes("runs/x") == {"axes": []}
    process = one._process
    assert process.wait(10) != 0 and one._process is None
