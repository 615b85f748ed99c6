"""A picture is made again, pixel by pixel, wherever its run has gone, or it is said why not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma import again
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.explore import sample
from trilemma.pictures.png import read_metadata, save_png


@pytest.fixture
def run(folder, elsewhere, tmp_path):
    """A run in a folder of its own, which a test may move or spoil."""
    shutil.copytree(folder, tmp_path / "home" / "run")
    return trilemma.load(tmp_path / "home" / "run")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The current folder, beside the run's."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def own(metadata):
    return {key: value for key, value in metadata.items() if key != "run"}


@pytest.mark.parametrize("keys", [{}, {"batch": 3}, {"exact": True}, {"temperature": 0.5, "first": 60, "exact": True}])
def test_single_and_grid_are_made_again(run, tmp_path, keys):
    samples = sample(run, n=7, seed=5, out=tmp_path / "out", **keys)
    for picture in (samples.grid, samples.images[0], samples.images[5]):
        result = again(picture)
        assert result.equal and result.difference == 0 and result.changed == ()
        assert result.picture == Path(f"{picture.stem}-again.png")
        assert result.run.samefile(run.path)
        assert np.array_equal(pixels(result.picture), pixels(picture))
        assert read_metadata(result.picture) == read_metadata(picture)


@pytest.mark.parametrize("n", [1, 3])
def test_a_picture_over_two_keys_is_made_again(run, tmp_path, n):
    samples = sample(run, n=n, x="seed:1,2,3", y="temperature:0.5,1", out=tmp_path / "out", batch=2)
    for picture in (samples.grid, samples.images[-1]):
        result = again(picture)
        assert result.equal and np.array_equal(pixels(result.picture), pixels(picture))
        assert read_metadata(result.picture) == read_metadata(picture)
    receipt = {**read_metadata(samples.grid), "n": 100}
    with Image.open(samples.grid) as picture:
        save_png(picture, tmp_path / "many.png", receipt)
    with pytest.raises(UserError):
        again(tmp_path / "many.png")


def test_an_image_is_computed_in_the_batch_it_was_drawn_in(run, tmp_path, monkeypatch):
    samples = sample(run, n=10, first=1, batch=4, out=tmp_path / "out")
    computed, compute = [], run.model.sample

    def spied(n: int, *, first: int = 0, **keys):
        computed.append((first, n))
        return compute(n, first=first, **keys)

    monkeypatch.setattr(run.model, "sample", spied)
    again(samples.images[5], run=run)
    assert computed == [(5, 4)]  # image 6 was the second of the batch 5 ... 8
    again(samples.grid, run=run)
    assert computed[1:] == [(1, 4), (5, 4), (9, 2)]


def test_out_is_where_it_is_written_and_random_states_stay(run, tmp_path):
    samples = sample(run, n=1, out=tmp_path / "out")
    before = torch.get_rng_state()
    assert again(str(samples.grid), out=tmp_path / "new" / "x.png").picture == tmp_path / "new" / "x.png"
    assert (tmp_path / "new" / "x.png").is_file() and torch.equal(before, torch.get_rng_state())
    assert not list((tmp_path / "out").glob("*again*"))


# --- where the run is looked for ------------------------------------------------------------------------------------


def test_a_run_that_moved_with_its_pictures(run, elsewhere):
    picture = sample(run, n=2).images[1].relative_to(run.path)
    moved = run.path.rename(elsewhere / "moved")
    result = again(moved / picture)
    assert result.equal and result.run == moved
    assert own(read_metadata(result.picture)) == own(read_metadata(moved / picture))


@pytest.mark.parametrize("place", ["pictures/run", "runs/other-name", "deep/runs/run"])
def test_a_run_that_moved_without_its_pictures(run, elsewhere, place):
    inside = "deep/pictures" if place.startswith("deep") else "pictures"
    picture = sample(run, n=2, out=elsewhere / inside).images[1]
    (elsewhere / place).parent.mkdir(parents=True, exist_ok=True)
    run.path.rename(elsewhere / place)
    result = again(picture)
    assert result.equal and result.run == elsewhere / place


def test_a_run_that_is_nowhere(run, elsewhere):
    picture = sample(run, n=1, out=elsewhere / "out").images[0]
    moved = run.path.rename(elsewhere / "away")
    with pytest.raises(UserError, match=r"was not found: .*home.run, a vae with weights .*give its folder with run="):
        again(picture)
    assert again(picture, run=moved).equal
    assert again(picture, run=str(moved)).equal


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "loop"])
def test_a_place_that_no_file_system_has_is_passed_over(run, elsewhere, name):
    (elsewhere / "loop").symlink_to("loop")
    picture = sample(run, n=1, out=elsewhere / "runs" / "out").images[0]
    with Image.open(picture) as image:
        save_png(image.copy(), picture, {**read_metadata(picture), "run": name})
    with pytest.raises(UserError, match="was not found"):
        again(picture)
    run.path.rename(elsewhere / "runs" / "moved")
    assert again(picture).equal


def test_a_run_with_other_weights_is_refused(run, elsewhere):
    picture = sample(run, n=1, out=elsewhere / "out").grid
    keys = {"steps": 2, "batch": 16, "device": "cpu", "quiet": True}
    other = trilemma.train("vae", "digits", out=elsewhere / "other", seed=1, **keys)
    with pytest.raises(UserError, match="other has other weights"):
        again(picture, run=other)
    shutil.copy(other.path / "weights.safetensors", run.path)
    with pytest.raises(UserError, match=r"was not found.*run has other weights .*trained longer"):
        again(picture)
    assert not list((elsewhere / "out").glob("*again*"))


# --- what is no picture of ours -------------------------------------------------------------------------------------


def test_files_that_do_not_say_how_they_were_made(run, tmp_path):
    white = Image.new("L", (8, 8))
    own = read_metadata(sample(run, n=1, out=tmp_path / "out").grid)
    white.save(tmp_path / "plain.png")
    white.save(tmp_path / "photo.jpg")
    spoiled = {
        "foreign": {"trilemma": "0.1.0", "prompt": "a cat"},
        "text": {**own, "seed": "many"},
        "none": {**own, "batches": []},
        "outside": {**own, "first": 500},
        "empty": {**own, "n": 0},
        "more": {**own, "code": "import os"},
    }
    for name, metadata in spoiled.items():
        save_png(white, tmp_path / f"{name}.png", metadata)
    for name in ("nowhere.png", "plain.png", "photo.jpg", *(f"{name}.png" for name in spoiled)):
        with pytest.raises(UserError, match=name):
            again(tmp_path / name)
    save_png(white, tmp_path / "later.png", {"format": 2, "trilemma": "9.9", "new": "things"})
    with pytest.raises(UserError, match=r"later\.png has format 2 of trilemma 9\.9; .*update"):
        again(tmp_path / "later.png")
    assert not list(tmp_path.glob("*again*"))


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_in_a_new_process_after_a_move(run, elsewhere):
    samples = sample(run, n=3, batch=2)
    moved = run.path.rename(elsewhere / "moved")
    picture = moved / samples.images[2].relative_to(run.path)
    words = [sys.executable, "-m", "trilemma", "again", str(picture)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=elsewhere, env=dict(os.environ), timeout=120)
    assert done.returncode == 0, done.stderr
    assert "picture  00002-again.png\n" in done.stdout and (elsewhere / "00002-again.png").exists()
    assert "equal    yes\n" in done.stdout and done.stderr == ""


def test_a_picture_that_was_changed_leaves_with_1(run, elsewhere, capsys):
    picture = sample(run, n=1, singles=True, out=elsewhere / "out").images[0]
    metadata = {**read_metadata(picture), "torch": "1.0"}
    image = torch.tensor(pixels(picture))
    image[2, 3] += 7 if image[2, 3] < 128 else -7
    save_png(image[None], picture, metadata)
    assert cli.main(["again", f"image={picture}", f"run={run.path}"]) == 1
    output = capsys.readouterr()
    assert "equal    no, by up to 7 of 255 levels" in output.out
    assert "error: " in output.err and f"torch 1.0 then, {torch.__version__} now" in output.err
    save_png(image[None, :5], picture, metadata)
    assert again(picture, run=run).difference is None
    assert cli.main(["again", str(picture)]) == 1
    assert "the size" in capsys.readouterr().out


def test_mistakes_leave_with_2(elsewhere, capsys):
    for words, hint in ((["again"], "IMAGE"), (["again", "no.png"], "no.png"), (["again", "no.png", "ruhn=x"], "run")):
        assert cli.main(words) == 2
        assert hint in capsys.readouterr().err


def test_exact_is_a_key_of_sample(run, elsewhere):
    assert cli.main(["sample", str(run.path), "n=2", "exact=true", "out=drawn"]) == 0
    assert read_metadata("drawn/00001.png")["batches"] == [[0, 64]]
