"""How many images are held out, which, and that the rule of earlier versions stays what it was."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma import rng
from trilemma.data import load_data
from trilemma.data.hold_out import ENOUGH, enough, hold_out, lost, split_off
from trilemma.data.options import Options, share
from trilemma.data.split import Split, equal_images, held_out_split
from trilemma.errors import UserError


def images(n):
    """n different images, uint8 (n, 1, 2, 2)."""
    return torch.arange(n, dtype=torch.int32).view(torch.uint8).view(n, 1, 2, 2)


def split(n, labels=None):
    return Split(images(n), None if labels is None else torch.tensor(labels))


def numbers(part):
    return part.images.contiguous().view(-1).view(torch.int32).tolist()


def held_by_permutation(n, count, seed):
    return sorted(rng.permutation(n, seed, "valid")[:count].tolist())


# -- how many


def test_how_many_are_held_out_grows_without_a_jump_and_so_does_the_rest():
    counts = [enough(n) for n in range(2, 5000)]
    steps = [after - before for before, after in pairwise(counts)]
    assert set(steps) == {0, 1}  # so n - count never falls


@pytest.mark.parametrize(
    ("counts", "name"),
    [
        ({"train": 9, "valid": 5, "test": 5}, "test"),
        ({"train": 9, "valid": 5, "test": 4}, "valid"),
        ({"train": 9, "valid": 4, "test": 4}, "test"),  # neither has enough
        ({"train": 9, "valid": 1}, "valid"),
    ],
)
def test_which_split_is_measured_on(counts, name):
    assert held_out_split({key: split(n) for key, n in counts.items()}, least=5) == name


@pytest.mark.parametrize(
    ("n", "expected"),
    [(2, 1), (30, 10), (197, 66), (599, 200), (600, 200), (1999, 200), (2000, 200), (2010, 201), (60_000, 6000)],
)
def test_how_many_are_held_out(n, expected):
    assert enough(n) == expected == max(round(n / 10), min(ENOUGH, round(n / 3)), 1)
    assert n < 2000 or enough(n) == share(n, None)


def test_a_small_source_holds_out_more_and_says_why():
    splits, words = hold_out({"train": split(197)}, Options(), equal_images)
    assert numbers(splits["valid"]) == held_by_permutation(197, 66, 0)
    assert words.startswith("66 of 197 images are held out for validation (a tenth would be too few to measure by)")
    for more in ({"valid": 0.1}, {"rule": "tenth"}):
        splits, words = hold_out({"train": split(197)}, Options(**more), equal_images)
        assert numbers(splits["valid"]) == held_by_permutation(197, 20, 0)
        assert "measure by" not in words


def test_a_source_with_test_images_is_measured_by_them():
    splits, words = hold_out({"train": split(197), "test": split(5)}, Options(), equal_images)
    assert (len(splits["valid"]), len(splits["test"])) == (20, 5)
    assert "measure by" not in words


def test_digits_and_large_sources_stay_as_they_were():
    assert load_data("digits").fingerprint == load_data("digits", rule="tenth").fingerprint
    whole = {"train": split(2000)}
    big = {rule: hold_out(whole, Options(seed=3, rule=rule), equal_images)[0] for rule in ("enough", "tenth")}
    assert numbers(big["enough"]["valid"]) == numbers(big["tenth"]["valid"]) == held_by_permutation(2000, 200, 3)


def test_a_rule_that_is_not_known():
    with pytest.raises(UserError, match=r'unknown rule "tent".*did you mean "tenth"'):
        load_data("digits", rule="tent")


# -- which, with classes


@pytest.mark.parametrize("seed", range(10))
def test_every_class_keeps_a_training_image_and_nothing_else_changes(seed):
    labels = [0] * 40 + [1] * 40 + [2] + [3] * 2
    plain = held_by_permutation(83, 28, seed)
    train, held = split_off(split(83), 28, seed, labels=torch.tensor(labels))
    rest = set(range(83)) - set(plain)
    broken = {labels[k] for k in plain} - {labels[k] for k in rest}
    assert {labels[k] for k in numbers(train)} == {0, 1, 2, 3}
    assert len(held) == 28
    assert bool(set(plain) - set(numbers(held))) == bool(broken)
    assert len(set(plain) - set(numbers(held))) == len(broken)  # one image each is passed over


def test_some_seed_would_have_lost_a_class():
    """Else the test above could not fail."""
    labels = torch.tensor([0] * 40 + [1] * 40 + [2] + [3] * 2)
    broken = [
        seed for seed in range(10) if lost(labels, labels[torch.tensor(numbers(split_off(split(83), 28, seed)[0]))])
    ]
    assert 0 < len(broken) < 10


def test_classes_of_equal_images_and_of_files_that_stay_together():
    labels = torch.tensor([0] * 10 + [1] * 4)
    equal = [[10, 11, 12, 13]]
    files = [f"{k // 2}" for k in range(14)]
    for seed in range(10):
        train, held = split_off(split(14), 5, seed, equal=equal, labels=labels)
        assert set(range(10, 14)) <= set(numbers(train))
        assert len(held) == 5
        train, held = split_off(split(14), 4, seed, files, labels=labels)
        assert all((k in numbers(held)) == (k + 1 in numbers(held)) for k in range(0, 14, 2))
        assert not lost(labels, labels[torch.tensor(numbers(train))])


def test_classes_of_one_image_each_lose_one_and_it_is_named():
    whole = {"train": split(5, range(5))}
    splits, words = hold_out(whole, Options(), equal_images, classes="abcde")
    (gone,) = splits["valid"].labels.tolist()
    assert words.endswith(f"1 classes without a training image: {'abcde'[gone]}")


def test_the_rule_of_earlier_versions_does_not_look_at_the_classes():
    labels = [0] * 42 + [1]
    seed = next(s for s in range(500) if 42 in held_by_permutation(43, 4, s))
    whole = {"train": split(43, labels)}
    splits, words = hold_out(whole, Options(seed=seed, rule="tenth"), equal_images, classes="ab")
    assert numbers(splits["valid"]) == held_by_permutation(43, 4, seed)
    assert words.endswith("1 classes without a training image: b")
    splits, _ = hold_out(whole, Options(valid=0.1, seed=seed), equal_images)
    assert splits["train"].labels.unique().tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["folder", "npz", "idx", "parquet", "metadata"])
def test_classes_from_every_kind_of_source_keep_a_training_image(tmp_path, kind):
    """Class "1" has one image: number 12 of 13, held out by the plain rule with this seed."""
    labels, pixels = [0] * 12 + [1], images(13 * 4).view(13, 1, 4, 4).numpy()
    seed = next(s for s in range(99) if 12 in held_by_permutation(13, enough(13), s))
    files = []
    for pixel in pixels:
        file = io.BytesIO()
        Image.fromarray(pixel[0]).save(file, "png")
        files.append(file.getvalue())
    path = tmp_path / "d"
    path.mkdir()
    if kind in ("folder", "metadata"):
        for k, content in enumerate(files):
            name = f"{labels[k]}/{k:02}.png" if kind == "folder" else f"{k:02}.png"
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(content)
        if kind == "metadata":
            rows = "".join(f"{k:02}.png,{label}\n" for k, label in enumerate(labels))
            (path / "metadata.csv").write_text(f"file_name,label\n{rows}")
    elif kind == "npz":
        path = tmp_path / "d.npz"
        np.savez(path, x=pixels[:, 0], y=labels)
    elif kind == "idx":
        for name, array in (("images-idx3-ubyte", pixels[:, 0]), ("labels-idx1-ubyte", np.array(labels, np.uint8))):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (path / name).write_bytes(head + array.tobytes())
        path = path / "images-idx3-ubyte"
    else:
        arrow = pytest.importorskip("pyarrow", reason="pyarrow (extra hub) is not installed")
        from pyarrow.parquet import write_table

        rows = [{"bytes": content, "path": None} for content in files]
        write_table(arrow.table({"image": rows, "label": labels}), path / "a.parquet")
    data = load_data(path, seed=seed)
    assert data.classes == ("0", "1")
    assert (len(data.valid), data.train.labels.tolist().count(1)) == (enough(13), 1)
