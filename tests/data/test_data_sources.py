"""The sources known by name, the size rule on them, and words that are none."""

import hashlib
import io
import math
import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma import rng, show
from trilemma.cli import main as cli
from trilemma.data import check, list_sources, load_data
from trilemma.data.decoding.size import MEASURED_PX, choose_size, cover, parse_size, with_channels
from trilemma.data.hold_out import split_off
from trilemma.data.options import share
from trilemma.data.places import find
from trilemma.data.sources import cifar as cifar10
from trilemma.data.sources.idx import read_idx
from trilemma.data.sources.mnist import FILES, SHA256
from trilemma.data.sources.shapes import BACKGROUND, COLOURS, KINDS, SIZES, captions_of, draw_shapes, render
from trilemma.data.split import Split
from trilemma.errors import UserError
from trilemma.pictures.png import read_metadata

REAL = os.environ.get("TRILEMMA_DATA")


@pytest.fixture(autouse=True)
def no_files(tmp_path, monkeypatch):
    """No test finds or writes anything of the user's."""
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRILEMMA_DATA", raising=False)


@pytest.fixture
def real(monkeypatch):
    if not REAL or not Path(REAL).is_dir():
        pytest.skip("TRILEMMA_DATA names no folder with the real data")
    monkeypatch.setenv("TRILEMMA_DATA", REAL)


def test_digits():
    from sklearn.datasets import load_digits

    data = load_data("digits")
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 1293, "valid": 144, "test": 360}
    assert data.shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    images, labels = load_digits(return_X_y=True)
    name, test = data.held_out
    assert name == "test"
    assert np.array_equal(test.images.flatten(1).numpy(), np.rint(images[-360:] * 255 / 16))
    assert np.array_equal(test.labels.numpy(), labels[-360:])
    assert data.train.images.max() == 255
    assert load_data("digits").fingerprint == data.fingerprint
    assert load_data("digits", seed=1).fingerprint != data.fingerprint
    assert len(load_data("digits", valid=0.2).valid) == round(0.2 * 1437)
    assert load_data("digits", size="9x12", channels=3).shape == (3, 9, 12)


def test_a_data_is_given_back():
    data = load_data("digits")
    assert load_data(data) is data
    assert load_data(data, size=8, channels=1) is data
    assert load_data(data, size=16).shape == (1, 16, 16)


OPTIONS = {"size": (9, 12), "channels": 3, "valid": 0.3, "seed": 4}


@pytest.mark.slow
def test_a_data_loaded_again_keeps_what_is_not_asked():
    loaded = load_data("digits", **OPTIONS)
    assert load_data(loaded) is load_data(loaded, **OPTIONS) is loaded
    for key, value in {"size": (8, 8), "channels": 1, "valid": 0.2, "seed": 0}.items():
        other = load_data(loaded, **{key: value})
        assert other.fingerprint == load_data("digits", **OPTIONS | {key: value}).fingerprint != loaded.fingerprint
        assert load_data(other, **{key: OPTIONS[key]}).fingerprint == loaded.fingerprint


def test_a_folder_named_like_a_word(tmp_path, monkeypatch):
    """The word is the source, `./WORD` the folder, also when its data are loaded again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    for k in range(4):
        Image.new("L", (5, 5), 10 * k).save(tmp_path / "digits" / f"{k}.png")
    word, folder = load_data("digits"), load_data("./digits")
    assert (word.source, word.shape, check("digits").read) == ("digits", (1, 8, 8), 1797)
    assert (folder.source, folder.shape) == (str(tmp_path / "digits"), (1, 5, 5))
    assert load_data(folder, valid=0.5).shape == (1, 5, 5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", 'did you mean "digits"'),
        ("fashion_mnist", 'did you mean "fashion-mnist"'),
        ("nothing-like-it", "choose one of digits, shapes, scenes, ellipse, mnist"),
        ("./absent/folder", "absent/folder not found in"),
        ("absent.zip", "absent.zip not found in"),
        (__file__, "not of a kind"),
    ],
)
def test_unknown_sources(source, message):
    with pytest.raises(UserError, match=message):
        load_data(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": "8x"}, "size=8x"),
        ({"size": (8, 8, 8)}, "size="),
        ({"size": 10**6}, "1 to 2048"),
        ({"channels": 2}, "channels=2"),
        ({"valid": 0}, "valid=0"),
        ({"valid": 1.0}, "valid=1.0"),
    ],
)
def test_values_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        load_data("digits", **options)


def test_sizes():
    assert [parse_size(s) for s in (None, 5, "7", "7x9", (7, 9), [7, 9])] == [None, (5, 5), (7, 7), *[(7, 9)] * 3]


@pytest.mark.parametrize(
    ("seen", "size", "target"),
    [
        ([(128, 33)], None, (128, 33)),
        ([(129, 33)], None, (64, round(33 * 64 / 129))),
        ([(300, 2)], None, (64, 1)),
        ([(50, 40), (45, 90)], None, (40, 40)),
        ([(500, 400), (450, 900)], None, (64, 64)),
        ([(500, 400), (3, 900)], None, (8, 8)),
        ([(50, 40), (45, 90)], (20, 30), (20, 30)),
        ([(200, 200)], (200, 200), (200, 200)),
    ],
)
def test_size_rule(seen, size, target):
    assert choose_size(seen, size)[0] == target


@pytest.mark.parametrize(
    ("seen", "target"),
    [
        ([(256, 66)], (256, 66)),
        ([(512, 128)], (256, 64)),
        ([(500, 400), (450, 900)], (256, 256)),
        ([(500, 400), (3, 900)], (8, 8)),
    ],
)
def test_size_rule_of_images_that_are_only_measured(seen, target):
    assert choose_size(seen, None, MEASURED_PX)[0] == target


def test_the_size_that_keeps_images_is_named():
    assert choose_size([(200, 150)], None)[1].endswith("; size=200x150 keeps their size")
    for seen, size in (([(200, 150)], (20, 30)), ([(4000, 3000)], None), ([(50, 40), (45, 90)], None)):
        assert choose_size(seen, size)[1].endswith("its centre is kept")


def test_covering_a_constant_or_a_ramp_changes_nothing_else():
    ramp = Image.fromarray(np.arange(0, 240, 2, dtype=np.uint8)[None].repeat(30, 0))  # 30 x 120, 2 levels per pixel
    result = np.asarray(cover(ramp, (10, 20))).astype(float)  # scale 1/3: the middle 60 of 120 columns
    centres = 30 + 3 * (np.arange(20) + 0.5) - 0.5  # of the new pixels, on the old grid
    assert np.abs(result - 2 * centres).max() <= 1


def test_luma_is_that_of_pil():
    images = torch.randint(0, 256, (1, 3, 50, 50), dtype=torch.uint8)
    expected = Image.fromarray(images[0].permute(1, 2, 0).contiguous().numpy()).convert("L")
    assert np.array_equal(with_channels(images, 1)[0, 0].numpy(), np.asarray(expected))


def test_validation_images_are_at_least_one_and_never_all():
    for n, fraction in ((2, 0.01), (2, 0.99), (10, None), (100, 0.25)):
        split = Split(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1))
        rest, held = split_off(split, share(n, fraction), 0)
        count = max(1, min(n - 1, round(n * (0.1 if fraction is None else fraction))))
        assert (len(rest), len(held)) == (n - count, count)
        both = torch.cat([rest.images, held.images]).flatten()
        assert both.sort().values.tolist() == list(range(n))
        assert (rest.images.flatten().int().diff() > 0).all()


def test_list_of_sources(tmp_path, monkeypatch):
    rows = {word: place for word, _, place in list_sources()}
    assert list(rows) == ["digits", "shapes", "scenes", "ellipse", "mnist", "fashion-mnist", "cifar10", "mnist-binary"]
    assert rows["digits"] == "built in"
    assert rows["cifar10"] == "to be fetched (170 MB)"
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path / "absent"))
    assert list_sources()[4][2] == "to be fetched (12 MB)"
    (tmp_path / "cifar10").mkdir()
    for split in ("train", "test"):
        (tmp_path / "cifar10" / f"{split}.zip").touch()
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path))
    assert list_sources()[6][2] == f"in {tmp_path / 'cifar10'}"


# -- shapes


def test_shapes_depend_on_seed_and_index_alone():
    many = draw_shapes(700)
    some = draw_shapes(5, first=600)
    assert torch.equal(many.images[600:605], some.images)
    assert many.captions[600:605] == some.captions
    assert not torch.equal(draw_shapes(5, first=600, seed=1).images, some.images)
    assert not torch.equal(draw_shapes(5, first=600, purpose="test").images, some.images)


def test_shapes_as_data():
    data = load_data("shapes", size="16x24", channels=1, valid=0.01)
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 10_000, "valid": 100, "test": 1000}
    assert data.shape == (1, 16, 24)
    assert data.classes == KINDS
    assert not any(colour in caption for colour in COLOURS for caption in data.valid.captions)
    assert data.valid.labels.tolist() == data.valid.factors["kind"].tolist()


@pytest.mark.parametrize("n", [1, 30])
def test_shapes_of_any_number(n):
    data = load_data(f"shapes:{n}", size=8, channels=1)
    assert {key: len(split) for key, split in data.splits.items()} == {"train": n, "valid": 1000, "test": 1000}
    assert (data.source, data.name) == (f"shapes:{n}", f"shapes-{n}")
    whole = load_data("shapes", size=8, channels=1)
    assert torch.equal(data.train.images, whole.train.images[:n])
    assert torch.equal(data.valid.images, whole.valid.images)
    assert len(load_data(data, valid=0.4).valid) == max(1, round(0.4 * n))
    assert f"{n + 2000:,} image files" in str(check(f"shapes:{n}", size=8))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shapes:many", "shapes:many: give a whole number .* as shapes:20000"),
        ("shapes:0", "1 or more"),
        ("shapes:", "1 or more"),
        ("digits:5", "digits has a fixed number of images; only shapes and scenes take a number"),
        (f"shapes:{10**12}", r"bytes of memory, .*fewer \(shapes:N\) or smaller"),
        ("shaped:5", 'did you mean "shapes"'),
    ],
)
def test_numbers_that_are_none(source, message):
    with pytest.raises(UserError, match=message):
        load_data(source)


def test_every_factor_is_drawn_evenly():
    split = draw_shapes(6000, size=(8, 8))
    for name, count in {"kind": 3, "colour": 6, "size": 3, "row": 3, "column": 3}.items():
        counts = torch.bincount(split.factors[name], minlength=count)
        expected = 6000 / count
        assert ((counts - expected).abs() < 5 * (expected * (1 - 1 / count)) ** 0.5).all()


def one_shape(kind, size=2, colour=0, row=1, column=1, side=(200, 300)):
    centres = (0.25, 0.5, 0.75)
    values = {"kind": kind, "colour": colour, "size": size, "row": row, "column": column}
    factors = {name: torch.tensor([value]) for name, value in values.items()}
    factors |= {"y": torch.tensor([centres[row]]), "x": torch.tensor([centres[column]])}
    return factors, render(factors, side)[0].float()


@pytest.mark.parametrize("size", range(3))
def test_areas_of_the_shapes(size):
    r = 200 * list(SIZES.values())[size]
    areas = (math.pi * r**2, math.pi * r**2, 3 * math.sqrt(3) / 4 * (1.2 * r) ** 2)
    for kind, area in enumerate(areas):
        _, image = one_shape(kind, size)
        covered = (image[0] - BACKGROUND) / (COLOURS["red"][0] - BACKGROUND)
        assert covered.sum() == pytest.approx(area, rel=0.01)


def test_places_and_colours_of_the_shapes():
    for colour, (name, levels) in enumerate(COLOURS.items()):
        factors, image = one_shape(1, 0, colour, row=0, column=2)
        assert image[:, 50, 225].tolist() == list(levels)
        weight = (image - BACKGROUND).abs().sum(0)
        y = (weight.sum(1) * (torch.arange(200) + 0.5)).sum() / weight.sum()
        x = (weight.sum(0) * (torch.arange(300) + 0.5)).sum() / weight.sum()
        assert (y.item(), x.item()) == pytest.approx((50, 225), abs=0.01)
        assert captions_of(factors) == (f"a small {name} square at the top right",)


def test_the_triangle_points_up():
    _, image = one_shape(2)
    rows = (image[0] > 100).sum(1)
    filled = rows[rows > 0]
    assert filled[0] < filled[-1]
    assert (filled.diff() >= 0).float().mean() > 0.95


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (17, 40), (64, 9)])
def test_the_shapes_lie_inside(size):
    split = draw_shapes(2000, size=size)
    radius = min(size) * torch.tensor(list(SIZES.values()))[split.factors["size"]]
    reach = torch.where(split.factors["kind"] == KINDS.index("triangle"), 1.2 * radius, radius)
    for axis, side in (("y", size[0]), ("x", size[1])):
        centre = side * split.factors[axis]
        assert (centre - reach >= 0).all()
        assert (centre + reach <= side).all()
    assert (split.images.flatten(1).int() - BACKGROUND).abs().max(1).values.min() > 20  # a shape is seen in each


# -- idx and CIFAR-10 files


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def test_idx(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    path = tmp_path / "a"
    path.write_bytes(idx(array))
    assert np.array_equal(read_idx(path, hashlib.sha256(idx(array)).hexdigest()).numpy(), array)
    with pytest.raises(UserError, match="not the published file"):
        read_idx(path, "0" * 64)
    for content in (b"", b"\0\0", idx(array)[:-1], idx(array) + b"x", b"\0\0\x0d" + idx(array)[3:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a whole idx file"):
            read_idx(path)


def test_an_idx_file_takes_memory_for_what_it_holds(tmp_path):
    (tmp_path / "a").write_bytes(idx(np.zeros((3, 4, 5), np.uint8)))
    tracemalloc.start()
    try:
        read_idx(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def cifar(path, drop=0, label=None, per_file=20):
    """A small archive of the published form."""
    with tarfile.open(path, "w:gz") as archive:
        for name in [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]:
            rows = np.random.default_rng(len(name)).integers(0, 256, (per_file, 3073), dtype=np.uint8)
            rows[:, 0] = np.arange(per_file) % 10 if label is None else label
            content = rows.tobytes()[: per_file * 3073 - drop]
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return rows


def test_cifar_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "IMAGES", 20)
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    path = tmp_path / "cifar10" / cifar10.ARCHIVE
    rows = cifar(path)
    data = load_data("cifar10")
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 90, "valid": 10, "test": 20}
    assert data.shape == (3, 32, 32)
    assert np.array_equal(data.splits["test"].images.flatten(1).numpy(), rows[:, 1:])
    assert data.splits["test"].labels.tolist() == rows[:, 0].tolist()
    for options, message in (({"drop": 1}, "sizes"), ({"label": 3}, "per class"), ({"label": 11}, "per class")):
        cifar(path, **options)
        with pytest.raises(UserError, match=message):
            load_data("cifar10")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        load_data("cifar10")


def test_cifar_zips(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "jpeg")
    for split, n in (("train", 10), ("test", 2)):
        with zipfile.ZipFile(tmp_path / "cifar10" / f"{split}.zip", "w") as archive:
            for kind in ("cat", "dog"):
                for k in range(n):
                    archive.writestr(f"{kind}/{k:04}.jpg", file.getvalue())
    data = load_data("cifar10")
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 18, "valid": 2, "test": 4}
    assert data.classes == ("cat", "dog")
    assert data.name == data.source == "cifar10"


# -- the real data


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_published_files(real, name):
    data = load_data(name)
    counts = {key: len(split) for key, split in data.splits.items()}
    assert counts == {"train": 55_000, "valid": 5_000, "test": 10_000}
    assert data.shape == (1, 28, 28)
    for file, expected in zip(FILES, SHA256[name], strict=True):
        array = read_idx(find(name, file))
        assert hashlib.sha256(idx(array.numpy())).hexdigest() == expected
    images = read_idx(find(name, FILES[0]))
    assert torch.equal(data.valid.images[:, 0], images[-5_000:])
    assert torch.equal(data.train.images[:, 0], images[:55_000])


@pytest.mark.slow
def test_the_real_cifar_zips(real):
    data = load_data("cifar10")
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 45_000, "valid": 5_000, "test": 10_000}
    assert data.classes == cifar10.CLASSES
    assert data.splits["test"].labels.bincount().tolist() == [1000] * 10
    assert data.skipped == ()


# -- the picture


def test_show(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = show("digits", n=9)
    assert path == Path("digits.png")
    command = read_metadata(path)["command"]
    assert command == "trilemma data show digits n=9 size=8x8 channels=1 seed=0 frames=first"
    content = path.read_bytes()
    path.unlink()
    assert cli.main(command.split()[1:]) == 0 and path.read_bytes() == content
    with Image.open(path) as image:
        assert image.width == 1 + 3 * (64 + 1)
        levels = np.asarray(image)[1:65, 1:65]
    data = load_data("digits")
    enlarged = data.train.images[:, 0].repeat_interleave(8, 1).repeat_interleave(8, 2).numpy()
    assert (enlarged == levels).all((1, 2)).any()
    assert show("shapes", n=4, size=16, out=tmp_path / "new" / "a.png").exists()


def test_show_checks_the_number_of_images_first():
    with pytest.raises(UserError, match="n=0: give a whole number of at least 1"):
        show("no-source-at-all", n=0)


def test_show_in_grey_and_of_loaded_data(tmp_path):
    assert show("shapes:9", n=4, channels=1, out=tmp_path / "a.png").exists()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L" or all(low == high for low, high in zip(*np.asarray(image).T[:2], strict=True))
    data = load_data("shapes:9", seed=3)
    show(data, n=9, seed=1, out=tmp_path / "b.png")  # in another order, but these images: no command has two seeds
    assert "command" not in read_metadata(tmp_path / "b.png")
    show("shapes:9", n=9, seed=1, out=tmp_path / "c.png")
    assert read_metadata(tmp_path / "b.png")["notes"] == list(data.notes) != read_metadata(tmp_path / "c.png")["notes"]


# Equal images and the split that is set aside.


def twins(n, copies=2):
    """n different images, uint8 (copies * n, 1, 4, 4), each with its copies side by side."""
    images = torch.arange(n).repeat_interleave(copies)
    return images.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).to(torch.uint8).contiguous()


def shared(data):
    """Images that are in both splits."""
    train, valid = ({image.numpy().tobytes() for image in split.images} for split in (data.train, data.valid))
    return train & valid


@pytest.mark.parametrize("kind", ["folder", "npy", "idx", "stream"])
def test_equal_images_are_on_one_side(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    images, path = twins(20), tmp_path / "a"
    if kind in ("folder", "stream"):
        path.mkdir()
        for k, image in enumerate(images):
            Image.fromarray(image[0].numpy()).save(path / f"{k:02}.png")
    elif kind == "npy":
        path = tmp_path / "a.npy"
        np.save(path, images.numpy())
    else:
        path = tmp_path / "a-idx3-ubyte"
        path.write_bytes(bytes((0, 0, 8, 3, *np.array([40, 4, 4], ">u4").tobytes())) + images.numpy().tobytes())
    if kind == "stream":
        monkeypatch.setenv("TRILEMMA_MEMORY", "100")
    for seed in range(3):
        data = load_data(path, valid=0.2, seed=seed)
        assert (len(data.train), len(data.valid), data.train.mapped) == (32, 8, kind == "stream")
        assert not shared(data)
        assert any("40 are exact duplicates; duplicates are kept in the same split" in note for note in data.notes)


def test_equal_images_change_the_split_no_further_than_they_must():
    split = Split(torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1))
    plain = split_off(split, 8, 0)[1].images.flatten().tolist()
    held, free = plain[0], next(k for k in range(40) if k not in plain)

    def taken(*equal, fraction=0.2, files=None):
        rest, valid = split_off(split, share(40, fraction), 0, files, equal)
        assert len(rest) and len(rest) + len(valid) == 40
        return set(valid.images.flatten().tolist())

    others = sorted(set(range(40)) - set(plain))
    assert taken() == taken(others[:2]) == set(plain)  # on one side anyhow
    assert len(taken([held, free]) - set(plain)) <= 1
    assert len(taken([held, free])) == 8
    assert taken(range(30), fraction=0.2) <= set(range(30, 40))  # never the group that does not fit
    assert taken(range(30), range(30, 40), fraction=0.1) == set(range(30, 40))  # none fits: the smallest
    assert taken(range(40)) == set(plain)  # they cannot stay together
    files = [f"{k // 4}" for k in range(40)]
    whole = taken([3, 4], [8, 39], files=files)
    assert all(len({k in whole for k in range(first, first + 4)}) == 1 for first in range(0, 40, 4))
    assert (3 in whole) == (4 in whole)
    assert (8 in whole) == (39 in whole)


def test_where_no_images_are_equal_the_split_is_the_first_of_the_permutation(tmp_path):
    np.save(tmp_path / "a.npy", torch.randint(0, 256, (50, 6, 6), dtype=torch.uint8).numpy())
    data, images = load_data(tmp_path / "a.npy", seed=4, valid=0.1), torch.from_numpy(np.load(tmp_path / "a.npy"))
    held = sorted(rng.permutation(50, 4, "valid")[:5].tolist())
    assert torch.equal(data.valid.images[:, 0], images[held])
