"""Attribute vectors with a code that is the image itself, so that every edit is known."""

import numpy as np
import pytest
import torch
from explore.stand_ins import WithClasses
from PIL import Image
from torch import nn

import trilemma
from trilemma.errors import UserError
from trilemma.explore.edit import edit
from trilemma.pictures.png import save_png


def means(run):
    """Mean image of each class, and of all others than it: (10, 64) each."""
    train = run.data.train
    x = train.images.double().flatten(1) / 255
    inside = torch.stack([x[train.labels == k].mean(0) for k in range(10)])
    return inside, torch.stack([x[train.labels != k].mean(0) for k in range(10)])


def test_the_vector_is_the_difference_of_the_means(run):
    inside, outside = means(run)
    result = edit(run, 3, towards="7")
    torch.testing.assert_close(result.vector.double(), inside[7] - outside[7], rtol=0, atol=1e-6)
    labels = run.data.train.labels
    assert result.counts == (int((labels == 7).sum()), int((labels != 7).sum()))
    between = edit(run, 3, towards=7, away=1)
    torch.testing.assert_close(between.vector.double(), inside[7] - inside[1], rtol=0, atol=1e-6)


def test_each_picture_has_its_shift(run):
    result = edit(run, 5, towards="0", shift=2.0, steps=5)
    original = run.data.held_out[1].images[5].float() / 255
    assert result.shifts == (0, 0.5, 1, 1.5, 2)
    for shift, image in zip(result.shifts, result.images, strict=True):
        expected = (original + shift * result.vector.unflatten(0, (1, 8, 8))).clamp(0, 1)
        torch.testing.assert_close(image, expected)
    back = edit(run, 5, towards="0", shift=-1.0, steps=2)
    torch.testing.assert_close(back.images[1], (original - result.vector.unflatten(0, (1, 8, 8))).clamp(0, 1))


def test_the_row_shows_the_image_and_the_edits(run):
    result = edit(run, 5, towards="0", steps=3)
    assert result.picture == run.path / "edit-5-0.png"
    sheet = np.asarray(Image.open(result.picture))
    original = run.data.held_out[1].images[5, 0].numpy()
    step = (sheet.shape[1] - 1) // 4
    scale = (step - 1) // 8
    tiles = [sheet[1 : 1 + 8 * scale : scale, 1 + k * step : k * step + 8 * scale : scale] for k in range(4)]
    assert np.array_equal(tiles[0], original) and np.array_equal(tiles[1], original)
    expected = [(image[0] * 255).round().to(torch.uint8).numpy() for image in result.images]
    assert all(np.array_equal(tile, image) for tile, image in zip(tiles[1:], expected, strict=True))


def test_a_group_may_be_a_folder(run, tmp_path):
    """All its images, against the training images where nothing else is said, or against another folder."""
    for name, level in (("bright", 200), ("dark", 50)):
        for k in range(6):  # 2 ** k apart, so that the mean of any five differs from that of all
            save_png(torch.full((1, 8, 8), level + 2**k, dtype=torch.uint8), tmp_path / name / f"{k}.png")
    bright = (200 + (2**6 - 1) / 6) / 255
    train = run.data.train.images.double().flatten(1).mean(0) / 255
    result = edit(run, 0, towards=tmp_path / "bright")
    torch.testing.assert_close(result.vector.double(), bright - train, rtol=0, atol=1e-6)
    assert result.counts == (6, min(2000, len(run.data.train)))
    result = edit(run, 0, towards=str(tmp_path / "bright"), away=tmp_path / "dark")
    torch.testing.assert_close(result.vector, torch.full((64,), 150 / 255))
    assert result.counts == (6, 6)


def test_classes_of_other_data(run, tmp_path):
    """Their means are taken over all images, of which none was trained on; those of the run's own over the training
    images, whichever way the source is given."""
    for name, level in (("bright", 200), ("dark", 50)):
        for k in range(6):
            save_png(torch.full((1, 8, 8), level + 2**k, dtype=torch.uint8), tmp_path / "photos" / name / f"{k}.png")
    result = edit(run, 0, towards="bright", data=tmp_path / "photos")
    assert result.counts == (6, 6)
    torch.testing.assert_close(result.vector, torch.full((64,), 150 / 255))
    own = edit(run, 3, towards="7")
    named = edit(run, 3, towards="7", data="digits")
    assert torch.equal(named.vector, own.vector) and named.counts == own.counts


def test_an_image_file_and_a_saved_vector(run, tmp_path):
    image = run.data.held_out[1].images[9]
    save_png(image, tmp_path / "nine.png")
    first = edit(run, 9, towards="3", out=tmp_path / "first.png")
    assert first.file == tmp_path / "first.npy"
    again = edit(run, tmp_path / "nine.png", towards=first.file, out=tmp_path / "again.png")
    assert torch.equal(again.vector, first.vector) and again.counts is None
    torch.testing.assert_close(again.images, first.images)


def test_a_code_in_place_of_an_image(run):
    code = [0.25] * 64
    result = edit(run, torch.tensor(code), towards="3", steps=2)
    assert (result.images[0] == 0.25).all()


def test_the_data_of_the_run_are_read_only_where_they_are_needed(run, tmp_path, monkeypatch):
    def gone(run):
        raise UserError("the data are gone")

    for name in ("one", "other"):
        for k in range(3):
            level = torch.full((1, 8, 8), k + len(name), dtype=torch.uint8)
            save_png(level, tmp_path / name / f"{k}.png")
    np.save(tmp_path / "vector.npy", np.full(64, 0.5))
    monkeypatch.setattr(trilemma.Run, "data", property(gone))
    code = torch.full((64,), 0.25)
    for out in (None, tmp_path / "o.png"):
        result = edit(run, code, towards=tmp_path / "vector.npy", steps=2, out=out)
        assert (result.images[1] == 0.75).all()
        groups = edit(run, code, towards=tmp_path / "other", away=tmp_path / "one", steps=2, out=out)
        torch.testing.assert_close(groups.vector, torch.full((64,), 2 / 255))
        with pytest.raises(UserError, match="the data are gone"):
            edit(run, code, towards="3", out=out)


def test_a_model_with_classes_keeps_that_of_the_image(run):
    """Its codes carry the label, which cancels in the picture and is part of the vector."""
    plain = edit(run, 4, towards="2", steps=2)
    run.model = WithClasses()
    result = edit(run, 4, towards="2", steps=2)
    labels = run.data.train.labels
    shift = 2 - labels[labels != 2].double().mean()
    torch.testing.assert_close(result.vector.double(), plain.vector.double() + shift, rtol=0, atol=1e-5)
    torch.testing.assert_close(result.images[0], plain.images[0], rtol=0, atol=1e-6)


def test_vectors_of_another_shape_are_refused(run, tmp_path):
    np.save(tmp_path / "short.npy", np.zeros(7, np.float32))
    with pytest.raises(UserError, match=r"holds 7 values of type float32; a code of this model is 64 finite numbers"):
        edit(run, 0, towards=tmp_path / "short.npy")
    np.save(tmp_path / "nan.npy", np.full(64, np.nan))
    with pytest.raises(UserError, match="64 finite numbers"):
        edit(run, 0, towards=tmp_path / "nan.npy")
    np.save(tmp_path / "good.npy", np.zeros(64))
    with pytest.raises(UserError, match="leave away out"):
        edit(run, 0, towards=tmp_path / "good.npy", away="1")
    (tmp_path / "broken.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cannot be read"):
        edit(run, 0, towards=tmp_path / "broken.npy")
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"cannot be read"):
        edit(run, 0, towards=tmp_path / "objects.npy")


def test_what_is_refused(run, tmp_path):
    with pytest.raises(UserError, match='"12" is neither a class'):
        edit(run, 0, towards="12")
    with pytest.raises(UserError, match='"smile" is neither a class'):
        edit(run, 0, towards="smile")
    with pytest.raises(UserError, match="at least 2"):
        edit(run, 0, towards="1", steps=1)
    with pytest.raises(UserError, match="image 100000 not found"):
        edit(run, 100_000, towards="1")
    with pytest.raises(UserError, match="64"):
        edit(run, torch.zeros(7), towards="1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError):
        edit(run, 0, towards=tmp_path / "empty")
    run.model = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"does not change images by their codes: .*ae-stacked"):
        edit(run, 0, towards="1")


def test_random_states_are_untouched(run):
    before = torch.get_rng_state()
    edit(run, 0, towards="1")
    assert torch.equal(before, torch.get_rng_state())


def test_a_code_of_many_numbers_names_a_file_that_can_be_written(run):
    width = len(edit(run, 5, towards="0", steps=2).vector)
    code = ",".join(["0.12345678"] * width)
    result = edit(run, code, towards="0", steps=2)
    assert result.picture.exists() and len(result.picture.name) < 100
