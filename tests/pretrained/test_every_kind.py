"""A pipeline of every kind as a repository of a hub of our own: downloaded and drawn with, and again without a call."""

import json
import socket
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from PIL import Image
from pretrained.films import FILMS, save_adapted
from pretrained.hub import COMMIT, contents, publishing
from pretrained.pipelines import KINDS
from pretrained.solids import SOLIDS

from trilemma import again, compare, edit, evaluate, imagine, interpolate, upscale
from trilemma.metrics import cost
from trilemma.pictures.png import read_metadata
from trilemma.pretrained.embeddings import NAMES, embeddings_of
from trilemma.pretrained.fetch import locate
from trilemma.pretrained.libraries import silence
from trilemma.pretrained.pipeline import load_pipeline

pytestmark = pytest.mark.slow
ORIGIN = ("repository", "commit")
KEYS = {  # of each kind, and what it draws: (images, height, width)
    "tiny": ({}, (1, 64, 64)),
    "sdxl": ({}, (1, 64, 64)),
    "inpainting": ({"image": "photo.png", "mask": "0,0,32,64"}, (1, 64, 64)),
    "animatediff": ({"frames": 3}, (3, 16, 16)),
    "ltx": ({"frames": 9, "size": 32}, (9, 32, 32)),
    "wan": ({"frames": 5, "size": 16}, (5, 16, 16)),
    "cogvideox": ({"frames": 9, "size": 16}, (9, 16, 16)),
    "svd": ({"frames": 3, "image": "photo.png"}, (3, 64, 64)),
    "shap-e": ({"size": 32}, (19, 32, 32)),
    "shap-e-image": ({"size": 32, "image": "photo.png"}, (19, 32, 32)),
}
UNPROMPTED = ("svd", "shap-e-image")


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def published(folder_of, photo, tmp_path, monkeypatch):
    """Publishes a pipeline of a kind; its repository is owner/KIND."""
    with ExitStack() as stack:
        yield lambda kind: stack.enter_context(
            publishing(folder_of(kind), f"owner/{kind}", tmp_path / "home", monkeypatch)
        )


def block(hub, monkeypatch):
    """From now on, a call to any machine fails."""
    hub.asked.clear()

    def blocked(*_):
        raise AssertionError("a call to another machine")

    monkeypatch.setattr(socket.socket, "connect", blocked)


def said(picture):
    """The origin that a picture names."""
    return tuple(read_metadata(picture)[key] for key in ORIGIN)


def test_every_kind_is_here():
    assert set(KEYS) | {"upscaling"} == {*KINDS, *FILMS, *SOLIDS}


@pytest.mark.parametrize("kind", KEYS)
def test_a_kind_is_downloaded_and_drawn_with_and_then_without_a_call(kind, published, folder_of, monkeypatch):
    hub, (keys, shape) = published(kind), KEYS[kind]
    keys = {"model": f"owner/{kind}", "steps": 1, **keys}
    text = "" if kind in UNPROMPTED else "a cat"
    first = imagine(text, out="o.png", **keys)
    assert (len(first.images), *first.images.shape[2:]) == shape
    assert said(first.picture) == (f"owner/{kind}", COMMIT)
    fetched = {path.partition(f"{COMMIT}/")[2] for _, path in hub.asked if "/resolve/" in path}
    assert fetched == set(contents(locate(f"owner/{kind}").folder)) == hub.files[f"owner/{kind}"].keys()
    block(hub, monkeypatch)
    assert again(first.picture).equal and not hub.asked
    if kind not in SOLIDS:  # whose surface takes a minute each time
        for model in (f"owner/{kind}", folder_of(kind)):
            same = imagine(text, out="p.png", **{**keys, "model": model})
            assert torch.equal(same.images, first.images) and not hub.asked


def test_an_upscaler_is_downloaded_and_enlarges(published, photo, monkeypatch):
    hub = published("upscaling")
    Image.open(photo).crop((0, 0, 24, 16)).save(photo)
    first = upscale("pipeline:owner/upscaling", photo, caption="a cat", steps=2, out="u.png")
    assert said(first.picture) == ("owner/upscaling", COMMIT)
    index = json.loads(hub.files["owner/upscaling"]["model_index.json"])
    assert index["low_res_scheduler"] == ["diffusers", "DDPMScheduler"]
    assert (locate("owner/upscaling").folder / "low_res_scheduler/scheduler_config.json").is_file()
    block(hub, monkeypatch)
    second = upscale("pipeline:owner/upscaling", photo, caption="a cat", steps=2, out="v.png")
    assert torch.equal(first.images, second.images) and not hub.asked


def test_a_motion_adapter_and_its_stable_diffusion_are_downloaded(tmp_path, monkeypatch):
    with torch.random.fork_rng(), silence():
        torch.manual_seed(0)
        save_adapted(tmp_path / "made")
    keys = {"frames": 3, "steps": 1}
    with publishing(tmp_path / "made/plain", "owner/plain", tmp_path / "home", monkeypatch) as hub:
        hub.files["owner/motion"] = contents(tmp_path / "made/adapter")
        first = imagine("a cat", model="owner/plain", adapter="owner/motion", out="o.png", **keys)
        assert read_metadata(first.picture)["adapter_origin"] == {"repository": "owner/motion", "commit": COMMIT}
        block(hub, monkeypatch)
        second = imagine("a cat", model="owner/plain", adapter="owner/motion", out="p.png", **keys)
        assert again(first.picture).equal and not hub.asked
    assert torch.equal(first.images, second.images)


def test_two_text_encoders_are_taken_by_every_verb(published, photo, monkeypatch):
    """Four embeddings, and pooled ones among them."""
    monkeypatch.setattr(cost, "BUDGET_S", 0.1)  # few repeats
    monkeypatch.setattr("trilemma.run.text_to_image.defaults_of", lambda name: {"steps": 1})
    hub, name = published("sdxl"), "pipeline:owner/sdxl"
    edited = edit(name, photo, caption="a cat", strength=0.5, steps=2, n=1, out="e.png")
    masked = edit(name, photo, caption="a cat", mask="0,0,32,64", steps=2, n=1, out="m.png")
    assert torch.equal(masked.images[..., 32:], masked.source[..., 32:])
    assert said(edited.picture) == said(masked.picture) == ("owner/sdxl", COMMIT)
    keys = {"steps": 2, "guidance": 3, "negative": "blue"}
    (way,) = interpolate(name, "a cat", "two dogs", frames=3, animate=False, out="i.png", **keys).frames.values()
    for k, text in ((0, "a cat"), (1, "two dogs")):
        end = imagine(text, model="owner/sdxl", first=k, out=f"{k}.png", **keys).images[0]
        torch.testing.assert_close(way[2 * k], end, rtol=0, atol=1e-4)
    assert set(embeddings_of(load_pipeline(locate("owner/sdxl")), "a cat", keys)) == set(NAMES)
    result = evaluate(name, against="digits", n=12, guidance=3)
    assert result["calls_per_image"].value == 2
    report = compare(name, against="digits", n=12, quiet=True, out="compared").report
    assert [(model.kind, model.error) for model in report.models] == [("pipeline", None)]
    block(hub, monkeypatch)
    for picture in ("e.png", "m.png", "i.png"):
        assert again(picture).equal and not hub.asked
