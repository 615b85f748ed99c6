"""`upscale`: files of any size, held-out images, and what is refused."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import trilemma
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.pictures.png import read_metadata

SHORT: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "batch": 16, "steps": 3, "quiet": True, "device": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> trilemma.Run:
    out = tmp_path_factory.mktemp("upscale") / "run"
    return trilemma.train("diffusion-upscale", "digits", upscale=2, out=out, **SHORT)


def test_a_held_out_image_is_shrunk_first(run: trilemma.Run, tmp_path: Path) -> None:
    result = trilemma.upscale(run, 3, n=2, steps=2, data="digits", out=tmp_path / "u.png")
    original = run.data.held_out[1].images[3:4].float() / 255
    assert result.original is not None and torch.allclose(result.original, original)
    assert torch.allclose(result.small, F.avg_pool2d(original, 2)) and result.images.shape == (2, 1, 8, 8)
    assert [path.name for path in result.files] == ["u-0.png", "u-1.png"]
    assert np.asarray(Image.open(result.files[0])).shape == (8, 8)
    one = trilemma.upscale(run, 3, first=1, steps=2, out=tmp_path / "o.png")
    assert torch.allclose(one.images[0], result.images[1], atol=1e-5)
    receipt = read_metadata(result.files[1])
    assert (receipt["verb"], receipt["first"], receipt["settings"]) == ("upscale", 1, {"steps": 2})
    assert receipt["data"] == "digits"


def test_a_file_keeps_its_size(run: trilemma.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)).save(tmp_path / "in.png")
    result = trilemma.upscale(run, tmp_path / "in.png", steps=2)
    assert result.images.shape == (1, 1, 12, 18) and result.original is None
    assert result.picture == run.path / "upscale-in.png" and result.bicubic.shape == (1, 1, 12, 18)
    assert "6x9 px are enlarged in tiles of 8x8" in capsys.readouterr().err
    both = trilemma.upscale(run, tmp_path / "in.png", n=2, steps=2, out=tmp_path / "b.png").images
    second = trilemma.upscale(run, tmp_path / "in.png", first=1, steps=2, out=tmp_path / "s.png").images
    assert torch.equal(both, torch.cat([result.images, second]))  # tiles are batched alike, whatever n is


def test_progress_is_shown(
    run: trilemma.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("trilemma.progress"), "PLAIN_EVERY_S", 0.0)
    trilemma.upscale(run, 3, n=2, steps=2, out=tmp_path / "u.png")
    lines = [re.sub(r" +\S+ +image", " image", " ".join(line.split())) for line in capsys.readouterr().err.splitlines()]
    shown = ["0% image 1 of 2", "25% image 1 of 2, step 1 of 2", "50% image 1 of 2, step 2 of 2"]
    shown += ["50% image 2 of 2", "75% image 2 of 2, step 1 of 2", "100% image 2 of 2, step 2 of 2"]
    assert lines == [f"drawing {text}" for text in shown]


def test_a_class_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "run"
    classes = trilemma.train("diffusion-upscale", "digits", upscale=2, classes=True, out=out, **SHORT)
    keys: dict[str, Any] = {"steps": 2, "guidance": 2.0}
    one, other = (
        trilemma.upscale(classes, 3, label=label, **keys, out=tmp_path / f"{label}.png").images for label in (1, 7)
    )
    assert not torch.equal(one, other)
    assert read_metadata(tmp_path / "7-0.png")["label"] == 7
    with pytest.raises(UserError, match="guidance=2 leads to a class"):
        trilemma.upscale(classes, 3, **keys)


def test_on_the_command_line(run: trilemma.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["upscale", str(run.path), "0", "steps=2", f"out={tmp_path / 'c.png'}"]) == 0
    assert "c-0.png" in capsys.readouterr().out


def test_a_model_that_enlarges_has_no_codes_and_no_masks(run: trilemma.Run, tmp_path: Path) -> None:
    for verb in (trilemma.invert, trilemma.reconstruct):
        with pytest.raises(UserError, match="draws an image from noise and a smaller image, so that noise alone is no"):
            verb(run, n=1, out=tmp_path / "i.png")
    with pytest.raises(UserError, match="inverted=4: diffusion-upscale draws from smaller images, too"):
        trilemma.evaluate(run, inverted=4)
    with pytest.raises(UserError, match="mask=: this model is shown the whole image"):
        trilemma.edit(run, 0, mask="0,0,4,8", out=tmp_path / "e.png")
    assert not list(tmp_path.iterdir())


def test_what_is_refused(
    run: trilemma.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (3, 9)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match="enlarges images of 1 channels and at least 4x4 px"):
        trilemma.upscale(run, tmp_path / "small.png")
    assert not capsys.readouterr().err  # nothing is enlarged
    Image.new("L", (64, 64)).save(tmp_path / "large.png")
    monkeypatch.setattr(import_module("trilemma.explore.upscaling"), "LARGEST", 1000)
    with pytest.raises(UserError, match="would become 128x128 px, more than 1,000 pixels"):
        trilemma.upscale(run, tmp_path / "large.png")
    with pytest.raises(UserError, match=r"image file .*absent.png not found"):
        trilemma.upscale(run, tmp_path / "absent.png")
    other = trilemma.train("diffusion", "digits", out=tmp_path / "other", **SHORT)
    with pytest.raises(UserError, match=r"does not enlarge images: it was not trained to .*: diffusion-upscale"):
        trilemma.upscale(other, 0)
