"""Duplicates exact and near, images shared by splits, and what `trilemma data check` prints and ends with."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from trilemma.cli import main as cli
from trilemma.data import check, load_data
from trilemma.data.decoding import duplicates, storage
from trilemma.data.decoding.decode import Item, decode
from trilemma.data.decoding.duplicates import exact_groups, near_pairs
from trilemma.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path_factory.mktemp("cache")))


def photo(rng, height=96, width=128):
    """Detail on all scales, less on the finer ones, and more in lightness than in colour: as photographs have it."""
    whole = np.full((height, width, 3), 128.0)
    for cells, strength in ((6, 60), (12, 40), (24, 25), (48, 12)):
        noise = rng.normal(size=(cells, cells * 4 // 3, 3)).astype(np.float32)
        layer = [np.asarray(Image.fromarray(noise[..., c]).resize((width, height), 3)) for c in range(3)]
        layer = np.stack(layer, -1)
        whole += strength * (1.4 * layer.mean(-1, keepdims=True) + 0.35 * layer)
    return Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))


def content(image, form="png", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


CHANGES = {
    "recompressed": lambda image: content(image, "jpeg", quality=50),
    "recompressed hard": lambda image: content(image, "jpeg", quality=20),
    "half the size": lambda image: content(image.resize((image.width // 2, image.height // 2), 1)),
    "larger": lambda image: content(image.resize((200, 150), 3)),
    "brighter": lambda image: content(ImageEnhance.Brightness(image).enhance(1.15)),
    "darker, recompressed": lambda image: content(ImageEnhance.Brightness(image).enhance(0.85), "jpeg", quality=70),
}


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [photo(rng) for _ in range(100)]


def decoded(contents, size):
    return decode([Item(str(k), lambda c=c: io.BytesIO(c)) for k, c in enumerate(contents)], size).images


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [(32, 32), pytest.param((64, 64), marks=pytest.mark.slow)])
def test_planted_near_duplicates_are_found(photos, change, size):
    n = len(photos)
    images = decoded([content(image) for image in photos] + [CHANGES[change](image) for image in photos], size)
    pairs = set(near_pairs(images, exact=exact_groups(images))[0])
    expected = {(k, k + n) for k in range(n)}
    assert len(pairs & expected) >= 0.95 * n
    assert pairs <= expected


def test_exact_duplicates_are_all_found():
    images = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8)
    images[[50, 120, 299]] = images[7].clone()
    images[200] = images[100].clone()
    images[201] = images[100].clone()
    images[201, 0, 7, 7] ^= 1
    assert exact_groups(images) == [[7, 50, 120, 299], [100, 200]]
    assert near_pairs(images, exact=exact_groups(images)) == ([(100, 201)], True)  # a group counts once


def test_flat_images_are_not_near_duplicates():
    levels = torch.arange(0, 256, 4, dtype=torch.uint8)
    images = levels.view(-1, 1, 1, 1).expand(-1, 3, 32, 32).clone()
    images[:, :, 0, 0] += 2  # and all different
    assert exact_groups(images) == []
    assert near_pairs(images) == ([], True)


@pytest.mark.slow
def test_images_of_different_things_are_no_near_duplicates():
    digits = load_data("digits")
    images = torch.cat([split.images for split in digits.splits.values()])
    labels = torch.cat([split.labels for split in digits.splits.values()])
    pairs, _ = near_pairs(images)
    assert len(pairs) <= 2  # of 1.6 million pairs
    assert all(labels[i] == labels[j] for i, j in pairs)
    split = load_data("shapes").train
    first = 3000
    names = ("kind", "colour", "size", "row", "column")
    for i, j in near_pairs(split.images[:first])[0]:
        assert all(split.factors[name][i] == split.factors[name][j] for name in names)


def test_many_images_alike_take_bounded_time(monkeypatch):
    """All hashes equal, the worst case: the search stops soon after its limit, and says so. One go is within the limit,
    so that it is passed by less than itself."""
    monkeypatch.setattr(duplicates, "PAIR_LIMIT", 10_000)
    images = (8 * torch.arange(16) + torch.randint(0, 8, (2_000, 1, 16, 16))).to(torch.uint8)
    pairs, whole = near_pairs(images)
    assert not whole
    assert 0 < len(pairs) <= 2 * duplicates.PAIR_LIMIT  # of 2 million


class Largest(TorchFunctionMode):
    """Inside, the bytes of the largest new tensor; views of what is there cost nothing."""

    bytes = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given, made = ([x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)] for tree in (args, result))
        old = {tensor.untyped_storage().data_ptr() for tensor in given}
        new = [tensor.nbytes for tensor in made if tensor.untyped_storage().data_ptr() not in old]
        self.bytes = max([self.bytes, *new])
        return result


def test_many_images_alike_take_bounded_memory():
    """The pairs of n alike images are many more than the images; to gather both sides of each would take n times all
    images."""
    n, side = 24, 128
    rng = np.random.default_rng(0)
    image = np.asarray(photo(rng, side, side)).transpose(2, 0, 1)
    images = torch.from_numpy(np.stack([np.clip(image + rng.integers(-2, 3, image.shape), 0, 255) for _ in range(n)]))
    images = images.to(torch.uint8)
    with Largest() as largest:
        pairs, whole = near_pairs(images)
    assert whole
    assert pairs == [(i, j) for i in range(n) for j in range(i + 1, n)]
    assert 0 < largest.bytes <= 4 * storage.BLOCK  # a block as floats


def test_pairs_are_found_in_whatever_pieces(photos, monkeypatch):
    images = decoded([content(image) for image in photos[:20]] * 2, (32, 32))
    images[20:, 0, :4] ^= 3
    whole = near_pairs(images)
    assert whole == ([(k, k + 20) for k in range(20)], True)
    monkeypatch.setattr(duplicates, "PAIRS", 3)
    monkeypatch.setattr(storage, "BLOCK", images[0].numel() * 2)
    assert near_pairs(images) == whole


def test_several_tensors_are_numbered_as_one(photos, monkeypatch):
    images = decoded([content(image) for image in photos[:30]] * 2, (32, 32))
    images[:10, 0, :4] ^= 3  # nearly equal to 30 to 39; the others are equal
    exact, near = [[k, k + 30] for k in range(10, 30)], ([(k, k + 30) for k in range(10)], True)
    monkeypatch.setattr(storage, "BLOCK", images[0].numel() * 4)
    for parts in ([images], images.split(7), [images[:0], images[:35], images[35:35], images[35:]]):
        assert exact_groups(*parts) == exact
        assert near_pairs(*parts, exact=exact) == near
    monkeypatch.setattr(duplicates, "NEAR_LIMIT", 35)  # and the limit holds for all of them
    assert near_pairs(*images.split(7), exact=exact) == ([(k, k + 30) for k in range(5)], False)


def test_empty_and_single():
    for n in (0, 1):
        images = torch.zeros(n, 1, 8, 8, dtype=torch.uint8)
        assert exact_groups(images) == []
        assert near_pairs(images) == ([], True)


def fill(root, photos):
    """train and test folders that share one image exactly and one nearly."""
    for k, image in enumerate(photos[:12]):
        path = root / ("train" if k < 8 else "test") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(image))
    (root / "test" / "leak.png").write_bytes(content(photos[0]))
    (root / "test" / "leak.jpg").write_bytes(content(photos[1], "jpeg", quality=60))
    (root / "train" / "twice.png").write_bytes(content(photos[2]))
    return root


def test_images_in_two_splits_are_named(tmp_path, photos):
    report = check(fill(tmp_path, photos), size=32)
    assert report.overlap == [("train/0.png", "test/leak.png")]
    assert report.near_overlap == [("train/1.png", "test/leak.jpg")]
    assert ("train/2.png", "train/twice.png") in report.duplicates
    assert (report.files, report.read, report.bad) == (15, 15, [])
    assert not report.ok
    text = str(report)
    assert "in the training images and in another split: 1: train/0.png = test/leak.png" in text
    assert text.endswith("not ok: see above")


def test_files_that_loading_leaves_out_are_counted(tmp_path, photos):
    """What loading says of them begins with a digit, and once was hidden for that."""
    fill(tmp_path, photos[:12])
    (tmp_path / "test" / "leak.png").unlink()
    (tmp_path / "extra").mkdir()
    for k in range(9):
        (tmp_path / "extra" / f"{k}.png").write_bytes(content(photos[20 + k]))
    for k in range(2):
        (tmp_path / f"read{k}.me").write_text("x")
    report, data = check(tmp_path, size=32), load_data(tmp_path, size=32)
    file = tmp_path / "elsewhere" / "report.txt"
    for word in ("skipped", "left out"):  # as an earlier version had it
        file.parent.mkdir(exist_ok=True)
        file.write_text(report.text().replace("files skipped", f"files {word}", 1) + "\n")
        assert check(tmp_path, size=32, out=file).files == report.files
    file.write_text(report.text().replace("files skipped", "files", 1) + "\n")
    with pytest.raises(UserError, match="choose another out="):
        check(tmp_path, size=32, out=file)
    outside = [f"extra/{k}.png" for k in range(9)]
    assert report.left_out == {
        "in none of the split folders": outside,
        "not an image extension": ["read0.me", "read1.me"],
    }
    assert report.files == report.read + 9 == 14 + 9
    assert report.ok
    text = str(report)
    assert "23 image files, 14 read, 0 bad, 11 files skipped" in text
    assert "skipped, in none of the split folders: 9: extra/0.png, " in text
    assert "extra/4.png and 4 more" in text
    assert "skipped, not an image extension: 2: read0.me, read1.me" in text
    assert any(note.startswith("9 files skipped (in none of the split folders): extra/0.png") for note in data.notes)


def test_images_without_a_class_are_told(tmp_path, photos):
    """A note that begins with a digit, and is about no file that the report names."""
    for k in range(4):
        (tmp_path / f"{k}.png").write_bytes(content(photos[k]))
    (tmp_path / "metadata.csv").write_text("file_name,label\n0.png,a\n1.png,b\n2.png,a\n3.png,\n")
    assert "1 of the 4 train images have no class: classes are not used" in check(tmp_path).notes


def test_every_fault_is_named_and_everything_in_the_file(tmp_path, photos):
    root = tmp_path / "a"
    for k in range(9):
        for part in ("train", "test"):
            path = root / part / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(photos[k]))
    rows = [f"{part}/{k}.png,a" for part in ("train", "test") for k in range(9)]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows, *(f"gone{k}.png,a" for k in range(8))]))
    for k in range(7):
        (root / "train" / f"mode{k}.png").write_bytes(content(photos[20 + k].convert("P")))
    report = check(root, size=32, out=tmp_path / "new" / "report.txt")
    assert len(report.overlap) == 9
    text, whole = str(report), (tmp_path / "new" / "report.txt").read_text()
    for k in range(9):
        assert f"    train/{k}.png = test/{k}.png\n" in text
    for k in range(8):
        assert f"    gone{k}.png: listed in metadata.csv, but not found\n" in text
    assert "train/mode6.png: no row in metadata.csv" in text
    assert "changed: converted from palette: 7: train/mode0.png" in text
    assert "train/mode4.png and 2 more" in text
    assert "changed: converted from palette: 7:\n    train/mode0.png\n" in whole
    assert " more" not in whole
    assert whole.endswith("not ok: see above\n")


def test_duplicates_alone_are_no_fault(tmp_path, photos):
    for k in range(4):
        (tmp_path / f"{k}.png").write_bytes(content(photos[k // 2]))
    report = check(tmp_path)
    assert report.duplicates == [("0.png", "1.png"), ("2.png", "3.png")]
    assert report.ok


def test_check_agrees_with_loading_and_never_trains(tmp_path, photos):
    (tmp_path / "only.png").write_bytes(content(photos[0]))
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(UserError, match="too few"):
        load_data(tmp_path)
    report = check(tmp_path)  # a report all the same
    assert (report.read, [name for name, _ in report.bad]) == (1, ["bad.png"])
    (tmp_path / "only.png").unlink()
    assert check(tmp_path).read == 0
    assert not check(tmp_path).ok


def test_check_takes_every_kind_of_source(tmp_path):
    assert check("digits").ok
    assert check(load_data("digits")).read == 1797
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8))
    assert check(tmp_path / "a.npz").read == 9
    with pytest.raises(UserError, match="did you mean"):
        check("digit")


def test_an_array_larger_than_memory_is_not_read_as_a_whole(tmp_path, photos, monkeypatch):
    """Its splits are mapped; the report is that of the same array in memory."""
    images = decoded([content(image) for image in photos[:60]], (32, 32)).permute(0, 2, 3, 1).numpy()
    train, test = images[:50].copy(), images[45:].copy()
    train[1] = train[0]
    train[2] = train[3] ^ 1
    np.savez(tmp_path / "a.npz", x_train=train, x_valid=test[5:9], x_test=test)
    small = check(tmp_path / "a.npz")
    assert len(small.overlap) == 5
    assert small.near == [("train image 2", "train image 3")]
    monkeypatch.setenv("TRILEMMA_MEMORY", "1000")
    monkeypatch.setattr(storage, "BLOCK", 4 * images[0].nbytes)
    load_data(tmp_path / "a.npz")  # makes the entry in the cache
    with Largest() as largest:
        large = check(tmp_path / "a.npz")
    assert 0 < largest.bytes < images.nbytes / 2
    assert replace(large, notes=()) == replace(small, notes=())
    assert set(small.notes) < set(large.notes)  # which tell where the images lie


def test_the_command(tmp_path, photos, capsys):
    assert cli.main(["data", "check", str(fill(tmp_path / "a", photos)), "size=32"]) == 1
    assert "train/0.png = test/leak.png" in capsys.readouterr().out
    (tmp_path / "a" / "test" / "leak.png").unlink()
    assert cli.main(["data", "check", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ok"
    (tmp_path / "a" / "train" / "bad.png").write_bytes(b"bad")
    assert cli.main(["data", "check", str(tmp_path / "a")]) == 1
    assert "bad: train/bad.png: not an image" in capsys.readouterr().out
    assert cli.main(["data", "check", str(tmp_path / "absent")]) == 2
    assert cli.main(["data", "check", "--help"]) == 0
    assert "exit code" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "ok"),
    [
        (["a"], False),
        (["a", "b"], True),
        (["train/a", "test/b"], False),
        (["train/a", "valid/b"], True),
        (["test/a"], False),
    ],
    ids=str,
)
def test_too_few_to_train_are_not_ok(tmp_path, photos, files, ok):
    for name, photo in zip(files, photos, strict=False):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path)
    report = check(tmp_path / "set")
    assert report.ok == ok and ("too few readable images" in report.text()) == (not ok)
    if ok:
        load_data(tmp_path / "set")
    else:
        with pytest.raises(UserError, match="too few readable images"):
            load_data(tmp_path / "set")
