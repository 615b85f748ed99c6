"""Arrays: which keys, which layouts, which types; everything else is refused with what to do."""

import numpy as np
import pytest
import torch

from trilemma.data import load_data
from trilemma.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (30, 7, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (30, 7, 9, 3), dtype=np.uint8)


def load(tmp_path, *args, options=None, **arrays):
    np.savez(tmp_path / "My Data.npz", *args, **arrays)
    return load_data(tmp_path / "My Data.npz", **(options or {}))


def all_images(data):
    """Every image of the train and valid splits, as a set of bytes."""
    return {image.numpy().tobytes() for split in data.splits.values() for image in split.images}


@pytest.mark.parametrize("key", ["images", "x", "x_train", "train_images", "X_TRAIN"])
def test_keys(tmp_path, key):
    data = load(tmp_path, **{key: GREY})
    assert data.name == "my-data"
    assert data.shape == (1, 7, 9)
    assert (len(data.train), len(data.valid)) == (27, 3)
    assert all_images(data) == {image.tobytes() for image in GREY}


def test_splits_and_labels(tmp_path):
    labels = RNG.integers(0, 4, 30)
    labels[:4] = range(4)
    data = load(
        tmp_path, x_train=COLOUR, y_train=labels, x_val=COLOUR[:5], y_val=labels[:5, None], x_test=COLOUR, y_test=labels
    )
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 30, "valid": 5, "test": 30}
    assert data.classes == ("0", "1", "2", "3")
    assert data.train.labels.tolist() == labels.tolist()
    assert data.valid.labels.tolist() == labels[:5].tolist()
    assert torch.equal(data.train.images, torch.from_numpy(COLOUR).permute(0, 3, 1, 2))


def test_names_of_classes(tmp_path):
    labels = np.arange(30) % 2
    assert load(tmp_path, x=GREY, y=labels, classes=np.array(["cat", "dog", "eel"])).classes == ("cat", "dog", "eel")
    text = load(tmp_path, x=GREY, labels=np.array(["dog", "cat"])[labels])
    assert text.classes == ("cat", "dog")
    assert {len(text.train.labels[text.train.labels == k]) for k in (0, 1)} <= set(range(12, 16))
    assert load(tmp_path, x=GREY, y=10 * labels).classes == ("0", "10")


def test_layouts(tmp_path):
    grey = all_images(load(tmp_path, GREY))  # (N, H, W)
    assert all_images(load(tmp_path, GREY[..., None])) == grey
    assert all_images(load(tmp_path, GREY[:, None])) == grey
    assert all_images(load(tmp_path, COLOUR)) == all_images(load(tmp_path, COLOUR.transpose(0, 3, 1, 2)))


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", COLOUR)
    assert load_data(str(tmp_path / "a.npy")).shape == (3, 7, 9)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_between_0_and_1(tmp_path, kind):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(2, 0)
    found = load(tmp_path, x=(levels / 255).astype(kind))
    assert all_images(found) == {levels[0].tobytes()}
    assert any(kind.__name__ in note for note in found.notes)


def test_transparency_lies_over_white(tmp_path):
    pixels = np.full((2, 8, 8, 4), 100, np.uint8)
    pixels[..., 3] = 51  # 1/5
    assert (load(tmp_path, x=pixels).train.images == 255 * 4 // 5 + 100 // 5).all()


def test_size_and_channels(tmp_path):
    assert load(tmp_path, x=COLOUR, options={"size": "12x10", "channels": 1}).shape == (1, 12, 10)
    assert load(tmp_path, x=GREY, options={"channels": 3}).shape == (3, 7, 9)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": GREY.astype(np.float32)}, "floats from 0 to 255; scale them"),
        ({"x": np.full((3, 8, 8), np.nan)}, "floats from nan"),
        ({"x": GREY.astype(np.int32)}, "type int32"),
        ({"x": GREY.reshape(30, -1)}, r"shape \(30, 63\)"),
        ({"x": GREY[..., None].repeat(2, -1)}, "C of 1, 3 or 4"),
        ({"x": GREY[:1]}, "too few"),
        ({"x": GREY[:0]}, "too few"),
        ({"pictures": GREY}, "keys are pictures"),
        ({"x": GREY, "y": np.zeros(29, int)}, r"labels of shape \(29,\)"),
        ({"x": GREY, "y": np.zeros(30)}, "float64"),
        ({"x": GREY, "y": np.arange(30), "classes": np.array(["a", "b"])}, "do not fit the 2 class names"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, **arrays)


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_objects_are_never_unpickled(tmp_path):
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    with pytest.raises(UserError, match="plain arrays"):
        load(tmp_path, x=trap)
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    with pytest.raises(UserError, match="plain arrays"):
        load_data(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_truncated(tmp_path, name):
    path = tmp_path / name
    np.savez_compressed(path, x=GREY) if name.endswith("z") else np.save(path, GREY)
    whole = path.read_bytes()
    for length in (0, 3, 60, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cannot be read"):
            load_data(path)
