"""Sample files: the pixels are the run's images, and each file carries how it was made."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma.arguments import word
from trilemma.config import make
from trilemma.errors import UserError
from trilemma.explore import sample
from trilemma.explore.sample import GRID_LIMIT, Receipt
from trilemma.pictures.grid import grid, tiled
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import read_metadata


@pytest.fixture(scope="module")
def run(folder):
    return trilemma.load(folder, device="cpu")


def test_files_hold_the_images_of_the_run(run):
    samples = sample(run, n=5, seed=3, first=2)
    assert samples.grid == run.path / "samples" / "seed-3.png"
    assert [path.name for path in samples.images] == [f"0000{k}.png" for k in range(2, 7)]
    images = to_uint8(run.sample(5, seed=3, first=2))
    for path, image in zip(samples.images, images, strict=True):
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), image[0].numpy())
    with Image.open(samples.grid) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(grid(images)))


def test_a_grid_alone(run, tmp_path):
    samples = sample(run.path, n=3, out=tmp_path / "drawn", singles=False)
    assert samples.images == [] and list(tmp_path.iterdir()) == [samples.grid] == [tmp_path / "drawn.png"]


def test_a_name_that_ends_in_png_is_that_of_the_grid(run, tmp_path):
    samples = sample(run, n=2, out=tmp_path / "drawn.PNG")
    assert samples.grid == tmp_path / "drawn.PNG" and samples.grid.exists()
    assert samples.images == [tmp_path / "drawn" / f"0000{k}.png" for k in range(2)]


def test_metadata_say_how_each_file_was_made(run, tmp_path):
    samples = sample(run, n=5, seed=3, first=2, batch=3, out=tmp_path, temperature=0.5)
    common = {
        "format": 1, "trilemma": trilemma.__version__, "torch": torch.__version__, "device": "cpu",
        "threads": torch.get_num_threads(), "precision": "float32", "model": "vae", "run": str(run.path.resolve()),
        "weights": run.weights_id, "seed": 3, "label": None, "exact": False, "settings": {"temperature": 0.5},
    }  # fmt: skip
    batches = [[2, 3], [5, 2]]
    assert read_metadata(samples.grid) == {**common, "first": 2, "n": 5, "grid": True, "batches": batches}
    for k, path in enumerate(samples.images, start=2):
        own = {"first": k, "n": 1, "grid": False, "batches": [batches[k >= 5]]}
        assert read_metadata(path) == {**common, **own}


def test_a_receipt_survives_json(run, tmp_path):
    result = read_metadata(sample(run, n=1, out=tmp_path, exact=True).grid)
    receipt = make(Receipt, result)
    assert receipt.batches == ((0, 64),) and receipt.exact
    assert json.loads(json.dumps(receipt.to_json())) == result
    for key in set(result) - {"format"}:
        with pytest.raises(UserError, match=key):
            make(Receipt, {k: v for k, v in result.items() if k != key})


def test_files_are_written_as_they_are_drawn_and_the_grid_is_bounded(run, tmp_path, monkeypatch):
    """When the drawing stops in the middle, what was drawn is there; a grid of very many would show nothing."""
    n, compute = GRID_LIMIT + 30, run.model.sample

    def stops(count, *, first=0, **keys):
        if first >= 20:
            raise KeyboardInterrupt
        return compute(count, first=first, **keys)

    monkeypatch.setattr(run.model, "sample", stops)
    with pytest.raises(KeyboardInterrupt):
        sample(run, n=40, batch=10, out=tmp_path / "stopped")
    assert len(list((tmp_path / "stopped").glob("*.png"))) == 20
    monkeypatch.undo()
    samples = sample(run, n=n, batch=n - 7, out=tmp_path, singles=False)
    receipt = read_metadata(samples.grid)
    assert receipt["n"] == GRID_LIMIT and receipt["batches"] == [[0, n - 7]]
    with Image.open(samples.grid) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(grid(run.sample(GRID_LIMIT))))


def test_nothing_is_written_for_a_mistake(run, tmp_path):
    for keys in ({"n": 0}, {"label": 3}, {"temperatur": 1}, {"temperature": float("nan")}):
        with pytest.raises(UserError):
            sample(run, out=tmp_path / "out", **keys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["drawn.png", "drawn/00003.png"])
def test_pictures_of_others_are_refused_before_anything_is_drawn(run, tmp_path, name):
    photo = tmp_path / name
    photo.parent.mkdir(exist_ok=True)
    Image.new("L", (2, 2)).save(photo)
    before = photo.read_bytes()
    with pytest.raises(UserError, match="not written by trilemma"):
        sample(run, n=5, out=tmp_path / "drawn")
    assert photo.read_bytes() == before and list(tmp_path.rglob("*.png")) == [photo]


def test_keys_vary_over_a_picture_of_the_same_images(run, tmp_path):
    """Each cell has what a call with its values draws, and the files of that call."""
    samples = sample(run, n=3, seed=9, x="temperature:0.5,1", y="seed:3,4", out=tmp_path / "o", first=1)
    cells = [(seed, temperature) for seed in (3, 4) for temperature in (0.5, 1.0)]
    images = [to_uint8(run.sample(3, seed=seed, first=1, temperature=t)) for seed, t in cells]
    texts = [f"temperature={word(t)}, seed={seed}" for seed, t in cells]
    expected = grid(torch.stack([tiled(part) for part in images]), 2, scale=1, pad=4, texts=texts)
    with Image.open(samples.grid) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(expected))
    names = [f"{row}-{column}/0000{k}.png" for row in range(2) for column in range(2) for k in (1, 2, 3)]
    assert [path.relative_to(tmp_path / "o").as_posix() for path in samples.images] == names
    receipt = read_metadata(tmp_path / "o" / "1-0" / "00002.png")
    assert (receipt["seed"], receipt["settings"], receipt["first"]) == (4, {"temperature": 0.5}, 2)
    assert "x" not in receipt and read_metadata(samples.grid)["x"] == "temperature:0.5,1"
    with Image.open(tmp_path / "o" / "1-0" / "00002.png") as picture:
        assert np.array_equal(np.asarray(picture), images[2][1, 0].numpy())


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"y": "seed:1"}, "y= needs x="),
        ({"x": "seed"}, "x=seed: give a key and its values"),
        ({"x": "tempreture:1"}, 'did you mean "temperature"'),
        ({"x": "n:1,2"}, "key of x="),
        ({"x": "seed:1", "y": "seed:2"}, "both vary seed"),
        ({"x": "temperature:1", "temperature": 1.0}, "leave temperature= out"),
        ({"x": "temperature:1,-1"}, "temperature"),
        ({"x": "seed:1,a"}, "seed"),
        ({"x": "seed:1,2", "y": "temperature:1,2", "n": 101}, "give n=100 or less"),
    ],
)
def test_axes_that_do_not_fit_are_refused_before_anything_is_drawn(run, tmp_path, keys, what):
    with pytest.raises(UserError, match=what):
        sample(run, **{"n": 1, "out": tmp_path / "o", **keys})
    assert not list(tmp_path.iterdir())
