"""Arrays: which keys, which layouts, which types; everything else is refused with what to do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data.memory import WATCH

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
    assert (len(data.train), len(data.valid)) == (20, 10)
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
    assert {len(text.train.labels[text.train.labels == k]) for k in (0, 1)} <= set(range(5, 16))
    assert load(tmp_path, x=GREY, y=10 * labels).classes == ("0", "10")


def test_layouts(tmp_path):
    grey = all_images(load(tmp_path, GREY))  # (N, H, W)
    assert all_images(load(tmp_path, GREY[..., None])) == grey
    assert all_images(load(tmp_path, GREY[:, None])) == grey
    assert all_images(load(tmp_path, COLOUR)) == all_images(load(tmp_path, COLOUR.transpose(0, 3, 1, 2)))


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", COLOUR)
    assert all_images(load_data(str(tmp_path / "a.npy"))) == all_images(load(tmp_path, COLOUR))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_between_0_and_1(tmp_path, kind):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(2, 0)
    result = load(tmp_path, x=(levels / 255).astype(kind))
    assert all_images(result) == {levels[0].tobytes()}
    assert any(kind.__name__ in note for note in result.notes)


def test_transparency_lies_over_white(tmp_path):
    pixels = np.full((2, 8, 8, 4), 100, np.uint8)
    pixels[..., 3] = 51  # 1/5
    assert (load(tmp_path, x=pixels).train.images == 255 * 4 // 5 + 100 // 5).all()


def test_size_and_channels(tmp_path):
    flat = load(tmp_path, x=np.full_like(COLOUR, 77), options={"size": "12x10", "channels": 1})
    assert flat.shape == (1, 12, 10) and (flat.train.images == 77).all()
    coloured = load(tmp_path, x=GREY, options={"channels": 3})
    assert all_images(coloured) == {np.stack([image] * 3).tobytes() for image in GREY}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": GREY.astype(np.float32)}, "values from 0 to 255; scale them"),
        ({"x": np.full((3, 8, 8), np.nan)}, "x: NaN values"),
        ({"x": np.full((3, 8, 8), np.inf)}, "x: infinite values"),
        ({"x": GREY.astype(np.int32)}, "type int32"),
        ({"x": GREY.reshape(30, -1)}, r"shape \(30, 63\)"),
        ({"x": GREY[..., None].repeat(2, -1)}, "C of 1, 3 or 4"),
        ({"x": GREY[:1]}, "too few"),
        ({"x": GREY[:0]}, "too few"),
        ({"pictures": GREY}, "keys are pictures"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, **arrays)


FLAGS, HALVES = np.arange(30) % 2 == 0, np.arange(30) % 3 + 0.0


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(FLAGS, ("False", "True")), (HALVES, ("0", "1", "2")), (np.array(["b", "a", "c"] * 10), ("a", "b", "c"))],
)
def test_flags_whole_floats_and_text_are_classes(tmp_path, labels, classes):
    data = load(tmp_path, x=GREY, y=labels)
    assert data.classes == classes
    numbers = np.searchsorted(np.unique(labels), labels).tolist()
    assert sorted(data.train.labels.tolist() + data.valid.labels.tolist()) == sorted(numbers)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(29, int), "y: labels of shape (29,) for 30 images; one each is needed: not used"),
        (np.zeros((30, 14), int), "y: labels of shape (30, 14) for 30 images; one each is needed: not used"),
        (np.arange(30) + 0.25, "labels: numbers with a fraction: not used"),
        (np.array([None] * 30), "y: labels of type object; save them as plain numbers or text: not used"),
        (np.arange(30) % 3 - 1, "10 of the 30 train images have no class: classes are not used"),
    ],
)
def test_labels_that_are_no_classes_are_named_and_the_images_read(tmp_path, labels, words):
    data = load(tmp_path, x=GREY, y=labels)
    assert data.classes == ()
    assert data.train.labels is None
    assert words in data.notes


def test_numbers_beyond_the_class_names_are_named(tmp_path):
    data = load(
        tmp_path, x_train=GREY, y_train=np.arange(30) % 2, x_test=GREY, y_test=np.arange(30) % 3, classes=["a", "b"]
    )
    assert data.classes == ("a", "b")
    assert data.splits["test"].labels is None
    note = next(note for note in data.notes if note.startswith("10 labels that are not a class: "))
    assert "test image 2: label 2, where classes go from 0 to 1, test image 5: " in note


def test_a_test_split_without_labels_takes_none_from_training(tmp_path, monkeypatch):
    arrays = {"x_train": GREY, "y_train": np.arange(30) % 2, "x_test": GREY, "y_test": np.full(30, -1), "ages": GREY[0]}
    data = load(tmp_path, **arrays)
    assert data.classes == ("0", "1")
    assert data.splits["test"].labels is None
    assert "30 of the 30 test images have no class" in data.notes
    assert "1 arrays not used: ages" in data.notes
    monkeypatch.setenv("TRILEMMA_MEMORY", "100")
    large = load(tmp_path, **arrays)
    assert large.classes == data.classes
    assert large.splits["test"].labels is None
    assert torch.equal(large.train.labels, data.train.labels)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("low", "high"), [(-1e-9, 1 + 1.2e-7), (-0.49 / 255, 1 + 0.49 / 255), (0, 1 + 2.3e-16)])
def test_floats_that_round_to_a_level_are_cut_off(tmp_path, kind, low, high):
    images = np.full((30, 8, 8), 0.5, kind)
    images[0, 0, 0], images[0, 0, 1] = low, high
    data = load(tmp_path, x=images)
    result = torch.cat([split.images for split in data.splits.values()])
    assert (int(result.min()), int(result.max())) == (0, 255)


@pytest.mark.parametrize(("low", "high"), [(0, 1 + 0.51 / 255), (-0.51 / 255, 1), (-0.02, 1.03)])
def test_floats_beyond_are_refused_with_the_exact_numbers(tmp_path, low, high):
    images = np.full((30, 8, 8), 0.5)
    images[0, 0, 0], images[0, 0, 1] = low, high
    with pytest.raises(UserError, match="scale them to lie between 0 and 1") as error:
        load(tmp_path, x=images)
    first, last = re.search(r"values from (\S+) to (\S+);", str(error.value)).groups()
    assert (float(first), float(last)) == (low, high)


@pytest.mark.parametrize(("top", "said"), [(63 / 255, True), (64 / 255, False), (1, False)])
def test_images_that_fill_few_levels_are_said(tmp_path, top, said):
    images = np.linspace(0, top, 30 * 64).reshape(30, 8, 8)
    notes = load(tmp_path, x=images).notes
    assert any("of 256 levels" in note for note in notes) == said


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_objects_are_never_unpickled(tmp_path):
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    with pytest.raises(UserError, match="Python objects"):
        load(tmp_path, x=trap)
    load(tmp_path, x=GREY, y=trap)
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


# -- larger than memory is given


def test_a_large_file_stays_on_the_disk_and_is_the_same_data(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    images, labels = RNG.integers(0, 256, (50, 12, 10, 3), dtype=np.uint8), np.arange(50) % 3
    floats, clear = images.astype(np.float32) / 255, RNG.integers(0, 256, (50, 12, 10, 4), dtype=np.uint8)
    np.save(tmp_path / "plain.npy", images)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(images))
    np.save(tmp_path / "grey.npy", images[..., 0])
    np.save(tmp_path / "float.npy", floats)
    np.save(tmp_path / "clear.npy", clear)
    np.savez(tmp_path / "labels.npz", X=images, y=labels, classes=np.array(["a", "b", "c"]))
    np.savez_compressed(tmp_path / "splits.npz", x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    for file in sorted(tmp_path.glob("*.np?")):
        for options in ({}, {"size": 7, "channels": 1}, {"valid": 0.3, "seed": 5}):
            monkeypatch.delenv("TRILEMMA_MEMORY", raising=False)
            small = load_data(file, **options)
            monkeypatch.setenv("TRILEMMA_MEMORY", "1000")
            for large in (load_data(file, **options), load_data(file, **options)):  # made, and opened again
                assert large.train.mapped and not small.train.mapped
                assert (large.fingerprint, large.classes) == (small.fingerprint, small.classes)
                assert set(small.notes) < set(large.notes)
                for split, other in zip(small.splits.values(), large.splits.values(), strict=True):
                    assert torch.equal(split.images, other.images)
                    assert split.names is other.names is None
                    assert (split.labels is None) == (other.labels is None)
                    assert split.labels is None or torch.equal(split.labels, other.labels)
    assert not list((tmp_path / "cache" / "decoded").glob(".tmp-*"))


def test_a_large_file_that_is_broken_is_refused_as_a_small_one_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRILEMMA_MEMORY", "100")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}] * 100, object), allow_pickle=True)
    np.save(tmp_path / "cut.npy", GREY)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-50])
    np.savez(tmp_path / "cut.npz", x=GREY)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-50])
    np.save(tmp_path / "wide.npy", np.full((30, 7, 9), 2.0))
    np.save(tmp_path / "flat.npy", np.zeros(300))
    np.savez(tmp_path / "other.npz", z=GREY)
    for name in ("objects.npy", "cut.npy", "cut.npz", "wide.npy", "flat.npy", "other.npz"):
        with pytest.raises(UserError, match=name):
            load_data(tmp_path / name)
    assert not list((tmp_path / "cache" / "decoded").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_while_an_array_of_80_mb_is_opened_with_1_mb(tmp_path):
    """Measured: 10 MB; 242 MB where it is read as a whole, which holds three copies for a moment."""
    np.save(tmp_path / "a.npy", RNG.integers(0, 256, (80_000_000 // 3072, 32, 32, 3), dtype=np.uint8))
    np.save(tmp_path / "small.npy", np.zeros((600, 32, 32, 3), np.uint8))
    code = """
from trilemma.data import load_data
load_data(sys.argv[2])
watch()
data = load_data(sys.argv[1])
print(int(data.train.mapped), peak() - before())
"""
    results = {}
    for limit in (2**20, 2**30):
        environment = {**os.environ, "TRILEMMA_MEMORY": str(limit), "TRILEMMA_CACHE": str(tmp_path / "cache")}
        words = [sys.executable, "-c", WATCH + code, str(tmp_path / "a.npy"), str(tmp_path / "small.npy")]
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        mapped, results[limit] = map(int, done.stdout.split())
        assert mapped == (limit == 2**20)
    print(results)
    assert results[2**20] < 40e6 < 80e6 < results[2**30]


# --- images in memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        COLOUR,
        COLOUR.transpose(0, 3, 1, 2),
        torch.from_numpy(COLOUR),
        torch.from_numpy(COLOUR).permute(0, 3, 1, 2),
        COLOUR / 255,
        torch.from_numpy(COLOUR).float() / 255,
    ],
    ids=["NHWC", "NCHW", "tensor NHWC", "tensor NCHW", "float64", "float32 tensor"],
)
def test_images_in_memory_are_those_of_a_file(tmp_path, given):
    """In whatever type and order; their name is a function of what they show."""
    data, of_file = load_data(given), load(tmp_path, x=COLOUR)
    assert data.fingerprint == of_file.fingerprint and data.shape == (3, 7, 9)
    assert data.source == load_data(COLOUR).source and data.source.startswith("array:")
    assert data.source != load_data(COLOUR[::-1]).source


def test_of_two_possible_orders_an_array_has_channels_last_and_a_tensor_first():
    both = RNG.integers(0, 256, (12, 3, 8, 1), dtype=np.uint8)
    assert load_data(both).shape == (1, 3, 8)
    assert load_data(torch.from_numpy(both)).shape == (3, 8, 1)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.arange(30) % 3, ("0", "1", "2")),
        (torch.arange(30) % 2, ("0", "1")),
        (["cat", "dog"] * 15, ("cat", "dog")),
        (np.array(["cat", "dog"] * 15, object), ("cat", "dog")),
        (None, ()),
    ],
)
def test_a_pair_of_images_and_labels(labels, classes):
    data = load_data((GREY, labels), valid=0.2)
    assert data.classes == classes and len(data.valid) == 6
    if classes:
        words = [str(label) for label in (labels.tolist() if hasattr(labels, "tolist") else labels)]
        of_image = dict(zip((image.tobytes() for image in GREY), words, strict=True))
        for split in data.splits.values():
            for image, label in zip(split.images, split.labels.tolist(), strict=True):
                assert of_image[image.numpy().tobytes()] == classes[label]


def test_images_in_memory_are_loaded_again_in_another_way():
    data = load_data(GREY, size=4)
    assert data.shape == (1, 4, 4)
    assert load_data(data, size=(7, 9)).fingerprint == load_data(GREY).fingerprint
    assert load_data(data) is data


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "^source=none: give a word, a path, an array or tensor of images, a pair"),
        (5, "^source=5: give a word"),
        ([GREY], r"^source=\(a list\): give a word"),
        ((1, 2), r"^data=1,2: give a word"),
        (GREY.astype(np.float32), "^array: values from 0 to 255; scale them to lie between 0 and 1"),
        (np.full((9, 7, 7), np.nan), "^array: NaN values; give finite values between 0 and 1"),
        (GREY.astype(np.int64), "^array: type int64; images are uint8, or floats between 0 and 1"),
        (GREY[:, 0], r"^array: shape \(30, 9\); images are \(N, H, W\)"),
        ((GREY, [1, 2]), r"^labels of shape \(2,\) for 30 images; one each is needed"),
        ((GREY, np.linspace(0, 0.9, 30)), "^labels: numbers with a fraction: not used"),
        ("array:0123456789abcdef", "^array:0123456789abcdef was an array in memory: give it as data="),
    ],
)
def test_what_is_no_source_is_refused_in_a_sentence(given, text):
    with pytest.raises(UserError, match=text):
        load_data(given)
