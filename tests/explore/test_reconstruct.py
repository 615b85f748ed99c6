"""Reconstructions: the figures are those of the model, and the picture holds originals over results."""

import json

import numpy as np
import pytest
import torch
from explore.stand_ins import Shaded
from PIL import Image
from torch import nn

import trilemma
from trilemma.errors import UserError
from trilemma.explore import reconstruct
from trilemma.pictures.grid import TEXT
from trilemma.pictures.png import read_metadata
from trilemma.pictures.table import GAP


class Halves(nn.Module):
    """Reconstructs every value as its half, so the error of an image x is sqrt(mean(x^2)) / 2."""

    def reconstruct(self, image, condition=None):
        return image / 2


@pytest.fixture
def halves(folder):
    run = trilemma.load(folder)
    run.model = Halves()
    return run


def test_errors_are_root_mean_squares(halves, tmp_path):
    result = reconstruct(halves, n=5, out=tmp_path / "pairs.png")
    images = halves.data.held_out[1].images[:5].double() / 255
    squared = (images / 2).square().flatten(1).mean(1)
    torch.testing.assert_close(result.errors.double(), squared.sqrt(), rtol=1e-5, atol=0)
    assert result.rmse == pytest.approx(float(squared.mean().sqrt()), rel=1e-5)


def test_the_picture_holds_originals_over_results(halves, tmp_path):
    """20 images in rows of 16: 64 px of the original, a white line, 64 px of the result, and 13 px for the error."""
    picture = reconstruct(halves, n=20, out=tmp_path / "pairs.png").picture
    images = halves.data.held_out[1].images[:20, 0].numpy()
    page = np.asarray(Image.open(picture))
    left = page.shape[1] - (1 + 16 * 65)
    sheet = page[GAP + TEXT + GAP :, left:]  # beside the names of the rows, under what the numbers are
    assert page[: GAP + TEXT + GAP].min() < 128 and page[GAP + TEXT + GAP :, :left].min() < 128
    high, wide = 64 + 1 + 64 + 13 + 1, 64 + 1
    assert sheet.shape == (1 + 2 * high, 1 + 16 * wide)
    tiles = sheet[1:, 1:].reshape(2, high, 16, wide).transpose(0, 2, 1, 3).reshape(32, high, wide)[:, :, :64]
    assert np.array_equal(tiles[:20, :64:8, ::8], images)
    assert np.abs(tiles[:20, 65:129:8, ::8] - images / 2).max() <= 0.5
    assert (tiles[:20, 64] == 255).all() and (tiles[20:] == 255).all()
    assert (tiles[:20, 129:].min((1, 2)) < 128).all()  # a number under each


def test_labels_come_from_the_data(halves, tmp_path):
    halves.model = Shaded()
    split = halves.data.held_out[1]
    result = reconstruct(halves, n=6, out=tmp_path / "pairs.png")
    squared = (split.images[:6].double() / 255 - split.labels[:6].double()[:, None, None, None] / 9).square()
    torch.testing.assert_close(result.errors.double(), squared.flatten(1).mean(1).sqrt(), rtol=1e-5, atol=0)
    np.save(tmp_path / "images.npy", split.images.numpy()[:, 0])
    with pytest.raises(UserError, match="needs the class of each image or code; give label="):
        reconstruct(halves, data=tmp_path / "images.npy", out=tmp_path / "pairs.png")
    for label in ("9", 9):  # the constant 1
        result = reconstruct(halves, data=tmp_path / "images.npy", n=2, label=label, out=tmp_path / "pairs.png")
        assert torch.equal(result.images, torch.ones(2, 1, 8, 8))
    assert torch.equal(reconstruct(halves, n=2, label=0).images, torch.zeros(2, 1, 8, 8))  # whatever the data say


def test_results_and_errors_are_at_hand(halves, tmp_path):
    result = reconstruct(halves, n=5, out=tmp_path / "pairs.png")
    split = halves.data.held_out[1]
    torch.testing.assert_close(result.images, split.images[:5].float() / 255 / 2, rtol=0, atol=1e-7)
    assert result.file == tmp_path / "pairs.json"
    document = json.loads(result.file.read_text())
    assert (document["verb"], document["split"], document["rmse"]) == (
        "reconstruct",
        halves.data.held_out[0],
        result.rmse,
    )
    expected = [
        {"index": k, "class": halves.config["classes"][split.labels[k]], "rmse": float(result.errors[k])}
        for k in range(5)
    ]
    assert document["images"] == expected


def test_metadata_say_how_it_was_made(halves, tmp_path):
    result = reconstruct(halves, n=3, split="train", out=tmp_path / "pairs.png")
    receipt = read_metadata(result.picture)
    assert (receipt["verb"], receipt["n"], receipt["split"]) == ("reconstruct", 3, "train")
    assert receipt["rmse"] == result.rmse and receipt["weights"] == halves.weights_id


def test_the_model_of_the_run_is_used(folder):
    run = trilemma.load(folder)
    result = reconstruct(folder, n=3)
    images = run.data.held_out[1].images[:3].float() / 255
    with torch.no_grad():
        expected = (run.model.reconstruct(images) - images).square().flatten(1).mean(1).sqrt()
    torch.testing.assert_close(result.errors, expected, rtol=1e-5, atol=1e-7)
    assert result.picture == folder / "reconstructions.png" and result.picture.is_file()


def test_other_images_are_brought_to_the_size_of_the_run(halves, tmp_path):
    images = np.full((12, 16, 16), 100, np.uint8)
    images[:, 4:, :] = 60
    np.save(tmp_path / "images.npy", images)
    result = reconstruct(halves, data=tmp_path / "images.npy", n=1, out=tmp_path / "pairs.png")
    assert 60 / 255 / 2 <= result.rmse <= 100 / 255 / 2


def test_other_images_are_all_passed_through(halves, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    result = reconstruct(halves, data=tmp_path / "images.npy", n=100, out=tmp_path / "pairs.png")
    expected = np.sqrt(np.square(images / 255 / 2).mean((1, 2)))
    assert sorted(result.errors.tolist()) == pytest.approx(sorted(expected), rel=1e-5)
    assert json.loads(result.file.read_text())["split"] == "all"


def test_fewer_images_than_asked_for_are_all_there_are(halves, tmp_path):
    there = len(halves.data.held_out[1])
    assert len(reconstruct(halves, n=there + 5, out=tmp_path / "pairs.png").errors) == there


def test_what_is_refused(folder, halves):
    with pytest.raises(UserError, match="at least 1"):
        reconstruct(halves, n=0)
    halves.model = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"does not reconstruct: it has no encoder; models that do: .*vae"):
        reconstruct(halves)
    with pytest.raises(UserError, match=r"run .* not found"):
        reconstruct(folder / "nowhere")


def test_random_states_are_untouched(folder, tmp_path):
    before = torch.get_rng_state()
    reconstruct(folder, n=2, out=tmp_path / "pairs.png")
    assert torch.equal(before, torch.get_rng_state())
