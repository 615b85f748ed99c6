"""What images show, by name: the picture, the table beside it, and what is printed."""

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import trilemma
from trilemma.classifiers import imagenet
from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.pictures.png import read_metadata


class ByBrightness(nn.Module):
    """Class k for an image of level k, then its neighbours k + 1 and k - 1."""

    def features(self, image):
        return image.mean((1, 2, 3))[:, None] * 255

    def classify(self, features):
        return -(torch.arange(1000) - features.round() - 0.1).square()


@pytest.fixture
def by_brightness(monkeypatch):
    monkeypatch.setattr(imagenet, "load_efficientnet", lambda: FeatureNetwork("stand-in", ByBrightness(), (3, 8, 8)))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Grey images of levels 10, 20, ... in two classes."""
    monkeypatch.chdir(tmp_path)
    for k in range(12):
        folder = tmp_path / "photos" / ("light" if k > 5 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * (k + 1)).save(folder / f"{k}.png")
    return "photos"


def cwd(name):
    return Path.cwd() / name


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_image_gets_the_likeliest_of_its_classes(photos, by_brightness):
    picture = trilemma.show(photos, names=True)
    data = trilemma.load_data(photos)
    rows, names = rows_of(picture.with_suffix(".csv")), imagenet.class_names()
    assert picture.name == "photos-names.png" and len(rows) == len(data.train)
    assert sorted(int(row["image"]) for row in rows) == list(range(len(data.train)))
    share = (-(torch.arange(-9.0, 10) - 0.1).square()).softmax(0)[[9, 10, 8]]
    for row in rows:
        level = int(data.train.images[int(row["image"]), 0, 0, 0])
        assert (row["name 1"], row["name 2"], row["name 3"]) == (names[level], names[level + 1], names[level - 1])
        values = torch.tensor([float(row[f"probability {k}"]) for k in (1, 2, 3)])
        torch.testing.assert_close(values, share, atol=1e-4, rtol=0)
        assert row["file"].endswith(f"{level // 10 - 1}.png")
        assert row["class"] == ("light" if level > 60 else "dark")


def test_the_picture_says_how_it_was_made_and_by_which_network(photos, by_brightness):
    picture = trilemma.show(cwd(photos), names=True, n=5)
    receipt, content = read_metadata(picture), picture.read_bytes()
    assert imagenet.SHA256 in receipt["network"]
    words = receipt["command"].split()
    assert words[-1] == "names=true" and words[:3] == ["trilemma", "data", "show"]
    picture.unlink()
    picture.with_suffix(".csv").unlink()
    assert cli.main(words[1:]) == 0
    assert read_metadata(picture) == receipt
    assert picture.read_bytes() == content
    plain = trilemma.show(photos, n=5)
    assert plain.name == "photos.png" and "network" not in read_metadata(plain) and plain.read_bytes() != content


def test_the_command_line_prints_the_table(photos, by_brightness, capsys):
    assert cli.main(["data", "show", photos, "n=3", "names=true", "out=o.png"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert any(line.startswith("image ") and line.endswith("probability 3") for line in lines)
    table = [line for line in lines if "0." in line]
    assert len(table) == 3 and all(
        row["name 1"] in line for row, line in zip(rows_of(cwd("o.csv")), table, strict=True)
    )
    assert "o.png" in said.out and "o.csv" in said.out
    assert "the images are named at 8x8; if the files are larger, size=160 gives better names" in said.err


def test_a_table_of_others_is_kept(photos, by_brightness):
    out = cwd("o.png")
    out.with_suffix(".csv").write_text("mine")
    with pytest.raises(UserError, match=r"o\.csv"):
        trilemma.show(photos, names=True, out=out)
    assert not out.exists() and out.with_suffix(".csv").read_text() == "mine"
    trilemma.show(photos, out=out)  # which writes no table
    with pytest.raises(UserError, match=r"o\.csv"):
        trilemma.show(photos, names=True, out=out)
    assert out.with_suffix(".csv").read_text() == "mine"


def test_a_table_of_ours_is_written_again(photos, by_brightness):
    out = cwd("o.png")
    for names, n in ((True, 4), (False, 4), (True, 2)):
        trilemma.show(photos, names=names, n=n, out=out)
    assert len(rows_of(out.with_suffix(".csv"))) == 2


@pytest.mark.slow
def test_photographs_are_named_rightly(tmp_path, monkeypatch):
    shown = pytest.importorskip("skimage.data", reason="needs scikit-image")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photographs = {
        "chelsea": {"Egyptian cat", "tabby", "tiger cat"},
        "coffee": {"espresso", "cup", "coffee mug"},
        "stereo_motorcycle": {"moped", "motor scooter"},
    }
    for name in photographs:
        pixels = getattr(shown, name)()
        Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).save(tmp_path / "photos" / f"{name}.png")
    for k in range(7):  # so that each photograph may be in training
        Image.new("RGB", (200, 200), (30 * k, 0, 0)).save(tmp_path / "photos" / f"plain-{k}.png")
    rows = rows_of(trilemma.show("photos", names=True, size=160).with_suffix(".csv"))
    named = {row["file"].removesuffix(".png"): row for row in rows}
    seen = [name for name in photographs if name in named]
    assert len(seen) >= 2
    assert all(named[name]["name 1"] in photographs[name] for name in seen)
    assert all(float(named[name]["probability 1"]) > 0.4 for name in seen)
