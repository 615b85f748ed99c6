"""Sliders: the pictures are those of the codes, from a process that is there when it is needed."""

import io
import os
import re
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma import UserError
from trilemma.explore.code_axes import MeasuredCodes
from trilemma.explore.sliders import Sliders, sliders_of
from trilemma.studio import painter, slider_worker
from trilemma.studio.routes.sliders import values_of
from trilemma.studio.slider_worker import answer
from trilemma.types import Condition


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A VAE and a GAN of a few steps."""
    place = tmp_path_factory.mktemp("models")
    trilemma.train("vae", "digits", steps=12, hidden=(8,), latent=3, batch=64, out=place / "vae", quiet=True)
    trilemma.train("gan", "digits", steps=2, batch=64, out=place / "gan", quiet=True)
    trilemma.train("diffusion", "digits", steps=1, batch=16, out=place / "diffusion", quiet=True)
    return place


def test_the_mean_and_one_unit_moved_are_the_images_of_these_codes(models):
    run = trilemma.load(models / "vae")
    sliders = sliders_of(run)
    assert not sliders.by_effect
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


def test_a_gan_has_directions_and_a_denoiser_noise(models):
    sliders = sliders_of(models / "gan")
    assert sliders.kinds == ["directions", "units"] and sliders.image({0: 1.0}).shape == (1, 8, 8) and sliders.by_effect
    sliders = sliders_of(models / "diffusion")
    assert sliders.kinds == ["noise"] and sliders.image({0: 45.0}).shape == (1, 8, 8)
    assert (sliders.image({0: 45.0}) - sliders.image({})).abs().max() > 0.01


def test_an_answer_is_a_line_and_the_bytes_of_a_png(models):
    held = {}
    head, content = answer({"run": str(models / "vae")}, held)
    assert len(head["axes"]) == 3 and content == b""
    assert (head["kind"], head["kinds"], head["classes"]) == ("units", ["units", "directions"], ())
    head, content = answer({"run": str(models / "vae"), "values": {"0": 1.0}}, held)
    assert head == {"bytes": len(content)}
    wanted = held[str(models / "vae")].sliders.image({0: 1.0})
    with Image.open(io.BytesIO(content)) as image:
        assert (np.asarray(image) == (wanted[0] * 255).round().numpy()).all()
    one, other = held[str(models / "vae")], {"run": str(models / "vae"), "how": {"axes": "directions"}}
    assert answer(other, held)[0]["kind"] == "directions" and held[str(models / "vae")] is one  # not loaded again
    with pytest.raises(UserError, match="image 99999 not found"):
        answer({**other, "how": {"start": "99999"}}, held)
    assert answer(other, held)[0]["kind"] == "directions"


def test_a_run_that_was_trained_further_is_loaded_again(tmp_path, monkeypatch):
    """A stand-in for the run: its sum is read when the stamp of a file changed, its model when the sum did."""
    file, loads = tmp_path / "weights.safetensors", []
    (tmp_path / "config.json").write_text("{}")

    class Stored:
        model = torch.nn.Identity()

        def __init__(self, _):
            self.weights_id = file.read_text()

    def load(run):
        loads.append(run.weights_id)
        return Sliders(run, "units", (), (), MeasuredCodes(torch.zeros(1, 1), torch.zeros(1), None), Condition())

    monkeypatch.setattr(slider_worker, "as_run", Stored)
    monkeypatch.setattr(slider_worker, "sliders_of", load)
    held = {}
    for content, changed_s in [("one", 1), ("one", 1), ("one", 2), ("two", 3), ("two", 3), ("one", 4)]:
        file.write_text(content)
        os.utime(file, (changed_s, changed_s))
        answer({"run": str(tmp_path)}, held)
        assert held[str(tmp_path)].run.weights_id == content
    assert loads == ["one", "two", "one"]


def test_the_last_three_runs_stay_loaded(tmp_path, monkeypatch):
    loads = []

    def load(run):
        loads.append(run.name)
        return Sliders(run, "units", (), (), MeasuredCodes(torch.zeros(1, 1), torch.zeros(1), None), Condition())

    stored = lambda path: SimpleNamespace(name=os.path.basename(path), model=torch.nn.Identity())  # noqa: E731
    monkeypatch.setattr(slider_worker, "as_run", stored)
    monkeypatch.setattr(slider_worker, "sliders_of", load)
    loaded = {}
    for name in "abcabcdbca":
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.json").touch()
        answer({"run": str(tmp_path / name)}, loaded)
        assert len(loaded) <= 3
    assert loads == ["a", "b", "c", "d", "a"]


@pytest.mark.slow
def test_the_page_draws_by_a_process_of_its_own(browser, studio, models):
    shutil.copytree(models / "vae", studio.folder / "runs" / "vae")
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


AXIS = {"low": -1.0, "mean": 0.25, "high": 2.0, "std": 0.5, "start": 0.5}
FACTS = {
    "axes": [{"unit": 4, **AXIS}, {"unit": 0, **AXIS}],
    "kind": "directions",
    "kinds": ["directions", "units"],
    "classes": ["cat", "<b>dog"],
    "reads_captions": False,
    "calls": None,
    "layers": 6,
    "by_effect": False,
}


@pytest.fixture
def asked(studio, monkeypatch):
    """What the process is asked for, with answers in its place; its last element is the newest."""
    requests = []

    def ask(request):
        requests.append(request)
        return ({}, b"\x89PNG") if "values" in request else (FACTS, b"")

    monkeypatch.setattr(studio.painter, "_ask", ask)
    return requests


def test_the_page_offers_what_the_process_says(browser, run, asked):
    query = f"run={run.id}&axes=directions&label=cat&start=seed:3"
    page = browser.get(f"/explore/sliders?{query}").text
    assert (
        f'data-once="/explore/sliders/axes?run={run.id}&amp;axes=directions&amp;start=seed%3A3&amp;label=cat"' in page
    )
    assert not asked  # the process is not waited for
    page = browser.get(f"/explore/sliders/axes?{query}").text
    how = {"axes": "directions", "start": "seed:3", "label": "cat"}
    assert asked[-1] == {"run": "runs/vae-digits", "how": how}
    assert re.findall(r'axes=(\w+)"( aria-current="page")?>', page) == [
        ("directions", ' aria-current="page"'),
        ("units", ""),
    ]
    assert "<option selected>cat</option><option>&lt;b&gt;dog</option>" in page
    assert 'id="u4" name="u4" min="-1.0" max="2.0" step="any" value="0.5" data-start="0.5" data-mean="0.25"' in page
    assert page.count('type="range"') == 3 and 'name="mix_from" min="0" max="5"' in page and "data-plane" in page
    assert "trilemma traverse runs/vae-digits axes=directions image=seed:3 label=cat units=4,0" in page
    call = 'trilemma.traverse("runs/vae-digits", axes="directions", image="seed:3", label="cat", units=(4, 0))'
    assert call.replace('"', "&#34;") in page
    assert "Cắt cụt" in browser.get(f"/explore/sliders/axes?{query}", headers={"accept-language": "vi"}).text


def test_the_page_says_what_directions_are(browser, run, asked, monkeypatch):
    ask = lambda **headers: browser.get(f"/explore/sliders/axes?run={run.id}", headers=headers).text  # noqa: E731
    assert ">direction 4<" in ask()
    assert "The principal components of the codes" in ask() and "thành phần chính" in ask(**{"accept-language": "vi"})
    monkeypatch.setitem(FACTS, "by_effect", True)
    assert "Directions of the codes along which the images change most." in ask()


def test_a_page_has_only_what_a_model_can_do(browser, run, asked, monkeypatch):
    few = {**FACTS, "axes": FACTS["axes"][:1], "kind": "noise", "kinds": ["noise"], "classes": [], "layers": None}
    monkeypatch.setitem(globals(), "FACTS", {**few, "calls": 8, "reads_captions": True})
    page = browser.get(f"/explore/sliders/axes?run={run.id}").text
    assert asked[-1]["how"] == {} and "takes 8 calls of the network" in page and 'name="caption"' in page
    for absent in ("data-plane", 'name="label"', "mix", "truncation", 'class="tabs"'):
        assert absent not in page


def test_a_picture_is_asked_for_with_all_that_was_chosen(browser, run, asked):
    begin = f"/explore/sliders/picture?run={run.id}&u4=1.5&u0=-2"
    assert browser.get(f"{begin}&axes=units&truncation=0.7&mix=3&mix_from=2").content == b"\x89PNG"
    styles = {"truncation": 0.7, "mix": 3, "mix_from": 2}
    assert asked[-1] == {
        "run": "runs/vae-digits", "how": {"axes": "units"}, "values": {"4": 1.5, "0": -2.0}, "styles": styles
    }  # fmt: skip
    browser.get(f"{begin}&mix_from=2&label=")
    assert (asked[-1]["how"], asked[-1]["styles"]) == ({}, {})  # a layer has no effect without a second seed
    count = len(asked)
    for bad in ("truncation=x", "mix=nan", "u1=inf", "start=../x", "start=photo.png", "start=image:0123456789abcdef"):
        assert browser.get(f"{begin}&{bad}").status_code in (400, 404)
    assert len(asked) == count


def test_sliders_begin_at_an_image_that_was_brought(browser, studio, run, asked):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 90).save(buffer, "png")
    fields = {"run": run.id, "verb": "sliders", "key": "start", "axes": "units", "label": ""}
    answer = browser.send("POST", "/edit/image", data=fields, files={"picture": ("a.png", buffer.getvalue())})
    place = answer.headers["location"]
    assert place.startswith(f"/explore/sliders?run={run.id}&verb=sliders&axes=units&start=image%3A")
    browser.get(place.replace("sliders?", "sliders/axes?"))
    start = asked[-1]["how"]["start"]
    assert start.startswith(".studio/images/") and (studio.folder / start).is_file()
    assert sliders_of(studio.folder / run.name, start=studio.folder / start).image({}).shape == (1, 8, 8)
