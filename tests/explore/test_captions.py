"""Captions from the data to the picture: training, sampling, receipts, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma import tokeniser
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.pictures.png import read_metadata
from trilemma.types import Condition, ReadsCaptions

SMALL: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "text_width": 32, "text_depth": 1}
SHORT: dict[str, Any] = {"batch": 16, "steps": 3, "quiet": True, "device": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> trilemma.Run:
    out = tmp_path_factory.mktemp("captions") / "run"
    result = trilemma.train("diffusion-text", "shapes:40", size=8, out=out, **SMALL, **SHORT)
    for parameter in result.model.parameters():  # three steps teach it no words
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    return result


@pytest.mark.slow
def test_the_words_of_the_data_are_kept_with_the_model(run: trilemma.Run, tmp_path: Path) -> None:
    config = run.model_config
    assert {"red", "circle", "large", "left"} <= set(config.words) and 20 < len(config.examples) <= 40
    assert isinstance(run.model, ReadsCaptions) and trilemma.load(run.path).model_config == config
    command = run.config["command"]
    assert "words" not in command and "examples" not in command  # the data have them
    again = trilemma.train(run.path / "config.json", out=tmp_path / "again", quiet=True)
    assert again.model_config == config and again.config["command"] == command


def test_captions_are_drawn_in_turns(run: trilemma.Run) -> None:
    both = run.sample(4, caption="a large red circle | a small blue square", steps=2)
    listed = run.sample(4, caption=["a large red circle", "a small blue square"], steps=2)
    assert torch.equal(both, listed)
    later = run.sample(2, first=2, caption="a large red circle | a small blue square", steps=2)
    assert torch.allclose(later, both[2:], atol=1e-5)
    one = run.sample(4, caption="a large red circle", steps=2)
    assert torch.allclose(one[::2], both[::2], atol=1e-5) and (one[1] - both[1]).abs().max() > 1e-4
    nothing = run.sample(4, caption="", steps=2)
    assert (nothing[0] - one[0]).abs().max() > 1e-4


def test_without_a_caption_those_of_the_training_are_drawn(run: trilemma.Run) -> None:
    examples = run.model_config.examples
    assert torch.equal(run.sample(3, steps=2), run.sample(3, caption=list(examples[:3]), steps=2))


def test_unknown_words_are_named(run: trilemma.Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.sample(1, caption="a PURPEL circle", steps=1)
    assert 'unknown words: "purpel"; they have no token, and are spelled' in capsys.readouterr().err
    run.sample(1, caption="a large red circle", steps=1)
    assert not capsys.readouterr().err
    run.sample(2, caption="a large red circle | " + "a large red circle " * 12, steps=1)
    assert "1 caption is longer than the model reads, and cut" in capsys.readouterr().err


def test_words_beyond_the_vocabulary_are_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokeniser, "MOST_WORDS", 3)
    keys = {**SMALL, **SHORT, "quiet": False}
    run = trilemma.train("diffusion-text", "shapes:40", size=8, out=tmp_path / "run", **keys)
    words = {word for caption in run.data.train.captions for word in caption.split()}
    spelled = words - {*run.model_config.words}
    assert len(spelled) == len(words) - 3
    counted = f"{len(spelled)} of the {len(words)} words of the training captions have no token, and are spelled"
    assert counted in capsys.readouterr().err
    run.sample(1, caption=max(spelled), steps=1)
    assert f'unknown words: "{max(spelled)}"; they have no token, and are spelled' in capsys.readouterr().err


@pytest.mark.parametrize("caption", ["\udcff", "a circle | \ud83d", ["a circle", "\ud83d"]])
def test_a_caption_that_is_not_unicode_is_refused(run: trilemma.Run, caption: str | list[str]) -> None:
    with pytest.raises(UserError, match="give a text"):
        run.sample(1, caption=caption, steps=1)


def test_a_byte_of_the_command_line_that_is_not_unicode_is_refused(
    run: trilemma.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sample", str(run.path), "caption=\udcff", "n=1"]) == 2
    error = capsys.readouterr().err
    assert "give a text" in error and "defect" not in error


@pytest.mark.slow
def test_the_picture_says_its_caption_and_is_made_again(tmp_path: Path) -> None:
    run = trilemma.train("diffusion-text", "shapes:40", size=8, out=tmp_path / "run", **SMALL, **SHORT)
    result = trilemma.sample(run, n=2, caption="a large red circle | a cyan triangle", steps=2)
    assert "caption-a-large-red-circle" in result.grid.name
    assert read_metadata(result.images[1])["caption"] == "a large red circle | a cyan triangle"
    assert trilemma.again(result.images[1], out=tmp_path / "again.png").equal
    assert "caption" not in read_metadata(trilemma.sample(run, n=1, steps=2, seed=9).grid)
    nothing = trilemma.sample(run, n=2, caption="", steps=2)
    assert read_metadata(nothing.grid)["caption"] == ""
    assert trilemma.again(nothing.grid, out=tmp_path / "nothing.png").equal


def test_guidance_leads_away_from_no_caption(run: trilemma.Run) -> None:
    plain, strong = (run.sample(2, caption="a large red circle", steps=2, guidance=w) for w in (1.0, 4.0))
    assert (plain - strong).abs().max() > 1e-4


@pytest.mark.slow
def test_a_folder_with_a_text_for_each_image(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(24):
        Image.new("RGB", (8, 8), (10 * k, 0, 0)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text("ein Bild" if k % 2 else "zwei Bilder")
    run = trilemma.train("diffusion-text", folder, out=tmp_path / "run", **SMALL, **SHORT)
    assert set(run.model_config.words) == {"ein", "bild", "zwei", "bilder"}


@pytest.mark.slow
def test_captions_that_have_changed_are_those_of_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two are exchanged, which changes neither the words nor the examples that are kept with the model."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(24):
        Image.new("RGB", (8, 8), (10 * k, 0, 0)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text("ein Bild" if k % 2 else "zwei Bilder")
    run = trilemma.train("diffusion-text", folder, **SMALL, **SHORT)
    assert trilemma.train("diffusion-text", folder, **SMALL, **SHORT).path == run.path
    last = dict(zip(run.data.train.captions, run.data.train.names, strict=True))
    for caption, name in zip(last, reversed(last.values()), strict=True):
        (folder / name).with_suffix(".txt").write_text(caption)
    with pytest.raises(UserError, match=r"^the captions in .*images have changed since .* was trained"):
        _ = trilemma.load(run.path).data
    with pytest.raises(UserError, match="already holds a different training: its captions differ; choose another out="):
        trilemma.train("diffusion-text", folder, out=run.path, **SMALL, **SHORT)
    other = trilemma.train("diffusion-text", folder, **SMALL, **SHORT)
    assert other.path != run.path and other.model_config == run.model_config
    capsys.readouterr()
    trilemma.train(run.path / "config.json", out="again")
    assert "note: the captions are not the same as in" in capsys.readouterr().err
    config = json.loads((run.path / "config.json").read_text())
    del config["captions_fingerprint"]  # as an earlier version wrote it
    (run.path / "config.json").write_text(json.dumps(config))
    assert trilemma.train("diffusion-text", folder, out=run.path, **SMALL, **SHORT).path == run.path
    assert len(trilemma.load(run.path).data.train) == len(run.data.train)


@pytest.mark.slow
def test_what_is_refused(run: trilemma.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^digits has no captions, and diffusion-text learns to draw what they say"):
        trilemma.train("diffusion-text", "digits", out=tmp_path / "no", **SHORT)
    with pytest.raises(UserError, match=r"^digits has no captions, .* into metadata\.csv, or leave captions=true out$"):
        trilemma.train("diffusion", "digits", captions=True, out=tmp_path / "no", **SHORT)
    other = trilemma.train("diffusion", "digits", width=8, multipliers=(1, 2), out=tmp_path / "other", **SHORT)
    with pytest.raises(UserError, match=r"does not take a caption: it was trained without captions; .*diffusion-text"):
        other.sample(1, caption="a 3")
    with pytest.raises(UserError, match="label= and caption= were both given"):
        run.sample(1, label=1, caption="a circle")
    assert cli.main(["sample", str(other.path), "caption=a 3", "n=1"]) == 2
    assert "trained without captions" in capsys.readouterr().err
    with pytest.raises(UserError, match="a model takes one of them"):
        trilemma.train("diffusion-text", "shapes:40", classes=True, out=tmp_path / "two", **SHORT)


def test_an_image_is_drawn_again_by_a_caption(run: trilemma.Run, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"strength": 0.8, "n": 1, "steps": 2}
    red, blue = (
        trilemma.edit(run, 0, caption=f"a large {colour} circle", out=tmp_path / f"{colour}.png", **keys).images
        for colour in ("red", "blue")
    )
    assert (red - blue).abs().max() > 1e-4


@pytest.mark.slow
def test_codes_are_those_under_the_caption(run: trilemma.Run, tmp_path: Path) -> None:
    images, out = run.data.held_out[1].images[:2].float() / 255, {"out": tmp_path / "o.png"}
    texts = ["a large red circle", "a small blue square"]
    asked, caption = Condition(caption=texts), " | ".join(texts)
    codes = run.model.invert(images, asked)
    drawn = run.model.generate(codes, asked)
    inverted = trilemma.invert(run, 0, 1, caption=caption, **out)
    torch.testing.assert_close(inverted.codes, codes, rtol=0, atol=1e-4)
    torch.testing.assert_close(inverted.images, drawn, rtol=0, atol=1e-4)
    assert (trilemma.invert(run, 0, 1, **out).codes - codes).abs().max() > 1e-2  # without one
    reconstructed = trilemma.reconstruct(run, n=2, caption=caption, **out).images
    torch.testing.assert_close(reconstructed, drawn, rtol=0, atol=1e-4)
    walk: dict[str, Any] = {"frames": 3, "how": "linear", "animate": False}
    frames = trilemma.interpolate(run, 0, 1, caption=caption, **walk, **out).frames["linear"]
    torch.testing.assert_close(frames[[0, 2]], drawn, rtol=0, atol=1e-4)
    np.save(tmp_path / "v.npy", np.zeros(codes.shape[1], np.float32))
    edited = trilemma.edit(run, 0, towards=tmp_path / "v.npy", caption=texts[0], steps=2, **out)
    torch.testing.assert_close(edited.images, drawn[:1].expand(2, -1, -1, -1), rtol=0, atol=1e-4)
    assert read_metadata(edited.picture)["caption"] == texts[0]


@pytest.mark.parametrize("verb", ["edit", "traverse"])
def test_several_captions_are_refused_where_there_is_one_image(run: trilemma.Run, tmp_path: Path, verb: str) -> None:
    np.save(tmp_path / "v.npy", np.zeros(3 * 8 * 8, np.float32))
    out, text = (
        {"out": tmp_path / "o.png"},
        r"caption=a circle \| a square: one image has one caption; leave out \| and",
    )
    asked = {"edit": {"image": 0, "towards": tmp_path / "v.npy"}, "traverse": {"axes": "noise"}}[verb]
    with pytest.raises(UserError, match=text):
        getattr(trilemma, verb)(run, **asked, caption="a circle | a square", **out)
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


def test_a_guide_reads_the_caption_too(run: trilemma.Run) -> None:
    """A model that guides itself leads nowhere: with the caption on both sides, guidance changes nothing."""
    run.guide_runs["itself"] = run
    keys: dict[str, Any] = {"caption": "a large red circle", "steps": 2}
    plain, led = run.sample(2, **keys), run.sample(2, **keys, guidance=3.0, guide="itself")
    assert torch.allclose(plain, led, atol=1e-5)
    assert (run.sample(2, **keys, guidance=3.0) - plain).abs().max() > 1e-4
