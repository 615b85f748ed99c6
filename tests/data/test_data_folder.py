"""Folders and zips: every layout, every kind of pixel, and bad files that are named and passed over."""

import errno
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma.data import check, load_data
from trilemma.data.decoding import cache
from trilemma.data.decoding.decode import Item, decode
from trilemma.data.decoding.listing import listed
from trilemma.data.sources.folder_layout import arrange
from trilemma.errors import UserError

RNG = np.random.default_rng(0)


def noise(height=10, width=12, mode="RGB"):
    channels = () if mode == "L" else (3,)
    return Image.fromarray(RNG.integers(0, 256, (height, width, *channels), dtype=np.uint8))


def fill(folder, names, **kind):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(**kind).save(path, format="png")
    return folder


def item(image, form="png", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return Item(f"a.{form}", lambda: io.BytesIO(file.getvalue()))


def one(image, form="png", size=None, channels=None, **options):
    """The image as decoded, (C, H, W), and what was done to it."""
    decoded = decode([item(image, form, **options)], size, channels)
    assert decoded.skipped == []
    return decoded.images[0].numpy(), [*decoded.changes]


def test_flat_folder(tmp_path):
    fill(tmp_path, [f"{k:02}.png" for k in range(20)])
    data = load_data(tmp_path)
    assert data.shape == (3, 10, 12)
    assert data.classes == ()
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 13, "valid": 7}
    assert data.held_out == ("valid", data.valid)
    assert data.train.labels is None
    for split in data.splits.values():
        assert list(split.names) == sorted(split.names)
        for image, name in zip(split.images, split.names, strict=True):
            with Image.open(tmp_path / name) as expected:
                assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_split_depends_on_the_seed_and_the_names_alone(tmp_path):
    names = [f"{k:02}.png" for k in range(30)]
    a = load_data(fill(tmp_path / "a", names), seed=1)
    b = load_data(fill(tmp_path / "b", reversed(names)), seed=1)
    assert a.valid.names == b.valid.names
    assert load_data(tmp_path / "a", seed=2).valid.names != a.valid.names
    assert len(load_data(tmp_path / "a", valid=0.5).valid) == 15
    assert set(a.valid.names).isdisjoint(a.train.names)


def test_class_folders(tmp_path):
    fill(tmp_path, [f"{kind}/{k}.PNG" for kind in ("dog", "cat") for k in range(5)])
    data = load_data(tmp_path)
    assert data.classes == ("cat", "dog")
    for split in data.splits.values():
        assert [data.classes[k] for k in split.labels] == [name.split("/")[0] for name in split.names]


def test_split_folders(tmp_path):
    names = [f"{split}/{kind}/{k}.png" for split in ("Train", "val", "test") for kind in "ab" for k in range(2)]
    data = load_data(fill(tmp_path, [*names, "extra/c/1.png"]))
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 4, "valid": 4, "test": 4}
    assert data.classes == ("a", "b")
    assert all(name.startswith("val/") for name in data.valid.names)
    assert data.held_out[0] == "test"
    assert any("extra/c/1.png" in note for note in data.notes)


def test_train_and_test_folders_get_a_validation_split(tmp_path):
    data = load_data(fill(tmp_path, [f"{split}/{k}.png" for split in ("train", "test") for k in range(20)]))
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 18, "valid": 2, "test": 20}
    assert data.classes == ()


@pytest.mark.parametrize(
    ("names", "expected", "classes"),
    [
        (["photos/1.png", "photos/2.png"], [("train", None)] * 2, ()),  # a wrapping folder is no class
        (["bus/1.png", "train/1.png"], [("train", "bus"), ("train", "train")], ("bus", "train")),  # a class named train
        (["x/train/1.png", "x/test/1.png"], [("train", None), ("test", None)], ()),
        (["1.png", "a/2.png"], [("train", None)] * 2, ()),
        (["../../a/1.png", "/b/2.png"], [("train", "a"), ("train", "b")], ("a", "b")),
    ],
)
def test_layouts(names, expected, classes):
    layout = arrange(names)
    assert layout.places == expected
    assert layout.classes == classes


def test_one_spelling_of_class_names(tmp_path):
    names = ["e\u0301te\u0301/1.png", "\u00e9t\u00e9/2.png", "nu\u0301i #1/1.png", "nu\u0301i #1/2.png"]
    data = load_data(fill(tmp_path, names))
    assert data.classes == ("nú" + "i #1", "été")


def test_hidden_and_other_files(tmp_path):
    fill(tmp_path, ["1.png", "2.JPG", "._1.png", ".hidden/3.png", "__MACOSX/4.png"])
    (tmp_path / "notes.txt").write_text("text")
    data = load_data(tmp_path)
    assert len(data.train) + len(data.valid) == 2
    assert any("notes.txt" in note for note in data.notes)


def test_links_that_go_round_are_followed_once(tmp_path):
    fill(tmp_path / "in", ["1.png", "2.png"])
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    data = load_data(tmp_path / "in")
    assert len(data.train) + len(data.valid) == 2


@pytest.mark.parametrize("alias", ["a", "z"])  # before and after the folder it is a link to
def test_a_link_beside_its_folder_does_not_double_it(tmp_path, alias):
    root = tmp_path / "in"
    fill(root / "real", ["1.png", "sub/2.png"])
    fill(root, ["other/3.png"])
    (root / alias).symlink_to(root / "real", target_is_directory=True)
    (root / "other" / alias).symlink_to("../real/sub", target_is_directory=True)
    data = load_data(root)
    names = sorted(name for split in data.splits.values() for name in split.names)
    assert names == ["other/3.png", "real/1.png", "real/sub/2.png"]
    (note,) = (note for note in data.notes if "links to folders" in note)
    assert note.startswith("2 links to folders that were read already, skipped: ")
    assert f"{alias} to real" in note
    assert f"other/{alias} to real/sub" in note
    assert note in check(root).notes


def test_folders_outside_and_hidden_ones_are_read_by_one_link(tmp_path):
    root = tmp_path / "in"
    fill(root, ["1.png", ".store/new/2.png"])
    fill(tmp_path / "out", ["3.png", "sub/4.png"])
    for name, target in (("a", "out"), ("b", "out"), ("c", "out/sub"), ("d", "in/.store/new"), ("up", ".")):
        (root / name).symlink_to(tmp_path / target, target_is_directory=True)
    with listed(root) as files:
        assert [item.name for item in files.files] == ["1.png", "a/3.png", "a/sub/4.png", "d/2.png"]
        assert files.links == ["b to a", "c to a/sub", "up to a folder around the source"]


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    fill(tmp_path, ["1.png", "2.png", "closed/3.png", "open/4.png"])
    scandir = os.scandir

    def refuse(path="."):
        if os.path.basename(os.fspath(path)) == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    data = load_data(tmp_path)
    assert len(data.train) + len(data.valid) == 3
    assert data.skipped == (f"closed: cannot be listed: {os.strerror(errno.EACCES)}",)
    assert check(tmp_path).bad == [("closed", f"cannot be listed: {os.strerror(errno.EACCES)}")]
    key = cache.key_of([tmp_path], None, None)
    monkeypatch.setattr(os, "scandir", scandir)
    assert cache.key_of([tmp_path], None, None) != key  # what is listed later is not taken from the cache


def linked(path, members):
    """A tar with files (content as bytes) and links ("hard" or "symbolic", target), in that order."""
    kinds = {"hard": tarfile.LNKTYPE, "symbolic": tarfile.SYMTYPE, "pipe": tarfile.FIFOTYPE}
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = kinds[content[0]], content[1]
                archive.addfile(info)
    return path


def test_links_in_a_tar_are_the_files_they_lead_to(tmp_path):
    path = linked(
        tmp_path / "a.tar",
        [
            ("./x/1.png", b"one"),
            ("y/hard.png", ("hard", "./x/1.png")),
            ("y/soft.png", ("symbolic", "../x/1.png")),
            ("y/chain.png", ("symbolic", "later.png")),  # to a link, and to what comes after it
            ("y/later.png", ("symbolic", "./two.png")),
            ("y/two.png", b"two"),
            ("z", ("symbolic", "y")),
            ("through.png", ("symbolic", "z/two.png")),
            ("./x/1.png", ("hard", "x/1.png")),  # the same file a second time
            ("hard-to-soft.png", ("hard", "y/soft.png")),
        ],
    )
    with listed(path) as files:
        contents = {item.name.removeprefix("./"): item.open().read() for item in files.files}
        assert len(contents) == len(files.files)
    one, two = ("x/1", "y/hard", "y/soft", "hard-to-soft"), ("y/two", "y/chain", "y/later", "through")
    expected = {f"{name}.png": b"one" for name in one} | {f"{name}.png": b"two" for name in two}
    assert (contents, files.skipped, files.links) == (expected, [], ["z to y"])


def test_links_that_lead_out_of_a_tar_are_named(tmp_path):
    file = io.BytesIO()
    noise().save(file, "png")
    members = [
        ("1.png", file.getvalue()),
        ("2.png", ("hard", "1.png")),
        ("gone.png", ("symbolic", "../1.png")),
        ("absolute.png", ("symbolic", "/1.png")),
        ("round.png", ("symbolic", "round.png")),
        ("lost.png", ("hard", "none.png")),
        ("pipe.png", ("pipe", "")),
        ("hidden", ("symbolic", ".store")),
        (".store/3.png", file.getvalue()),
        (".gone.png", ("symbolic", "none.png")),  # hidden: not said
    ]
    out, lead = "which is not a file of this archive", "a link to"
    expected = {
        "gone.png": f"{lead} ../1.png, {out}",
        "absolute.png": f"{lead} /1.png, {out}",
        "round.png": f"{lead} round.png, {out}",
        "lost.png": f"{lead} none.png, {out}",
        "pipe.png": "neither a plain file nor a link",
        "hidden": f"{lead} .store, which is a hidden folder",
    }
    report = check(linked(tmp_path / "a.tar", members))
    assert (report.read, dict(report.bad), report.duplicates) == (2, expected, [("1.png", "2.png")])
    (tmp_path / "shards").mkdir()
    linked(tmp_path / "shards" / "a.tar", members)
    assert dict(check(tmp_path / "shards").bad) == {f"a.tar:{name}": reason for name, reason in expected.items()}


def test_bad_files_are_named_and_skipped(tmp_path):
    fill(tmp_path, [f"{k}.png" for k in range(6)])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("this is no image")
    whole = (tmp_path / "0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    data = load_data(tmp_path)
    assert len(data.train) + len(data.valid) == 6
    assert [line.split(":")[0] for line in data.skipped] == ["cut.png", "empty.png", "text.jpg"]
    assert any(note.startswith("3 unreadable and skipped: cut.png") for note in data.notes)


def test_a_broken_file_has_no_say_in_size_and_colour(tmp_path):
    fill(tmp_path, [f"{k}.png" for k in range(4)], mode="L")
    file = io.BytesIO()
    noise(40, 40).save(file, "png")
    (tmp_path / "cut.png").write_bytes(file.getvalue()[:500])  # a whole header: colour, another size
    data = load_data(tmp_path)
    assert data.shape == (1, 10, 12)
    assert len(data.skipped) == 1


@pytest.mark.parametrize("names", [[], ["notes.txt"], ["1.png"]])
def test_too_few_images(tmp_path, names):
    fill(tmp_path, names)
    with pytest.raises(UserError, match="images"):
        load_data(tmp_path)


def test_no_readable_image(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_text("no image")
    with pytest.raises(UserError, match=r"too few readable images \(0 train\).*3 unreadable and skipped: 0\.png"):
        load_data(tmp_path)


def test_zip_in_place(tmp_path):
    path = tmp_path / "Some Photos.zip"
    file = io.BytesIO()
    noise().save(file, "png")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/1.png", "a\\2.png", "b/1.png", "../../b/3.png", "__MACOSX/b/._1.png"):
            archive.writestr(name, file.getvalue())
        archive.writestr("b/inner.zip", b"PK")
        archive.writestr("b/bad.png", b"\0" * 100_000)
    before = sorted(tmp_path.rglob("*"))
    data = load_data(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert data.name == "some-photos"
    assert data.classes == ("a", "b")
    assert len(data.train) + len(data.valid) == 4
    assert data.skipped[0].startswith("b/bad.png: ")


def test_a_member_that_says_to_be_huge_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("trilemma.data.decoding.pixels.FILE_LIMIT", 10_000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        file = io.BytesIO()
        noise().save(file, "png")
        archive.writestr("1.png", file.getvalue())
        archive.writestr("2.png", file.getvalue())
        archive.writestr("bomb.png", file.getvalue() + b"\0" * 1_000_000)
    (skipped,) = load_data(path).skipped
    assert skipped.startswith("bomb.png: 1,")
    assert skipped.endswith("more than 10,000 are not opened")


def test_truncated_zip(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.png", b"x" * 1000)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="not a whole zip file"):
        load_data(path)


def test_too_many_pixels_and_other_formats_are_refused(monkeypatch):
    monkeypatch.setattr("trilemma.data.decoding.pixels.PIXELS", 50)
    decoded = decode([item(noise()), item(noise(), "ppm"), item(noise(5, 5))])
    assert decoded.numbers == [2]
    assert "not opened" in decoded.skipped[0]
    assert "not an image in one of the formats" in decoded.skipped[1]


def test_grey_stays_grey_only_if_all_are():
    grey, colour = item(noise(mode="L")), item(noise())
    assert decode([grey, grey]).images.shape[1] == 1
    assert decode([grey, colour]).images.shape[1] == 3
    assert decode([colour], None, 1).images.shape[1] == 1
    assert decode([grey], None, 3).images.shape[1] == 3


def test_transparency_lies_over_white():
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 0], pixels[0, :, 3] = 200, (0, 51, 255)  # red 200 with alpha 0, 1/5 and 1
    levels, notes = one(Image.fromarray(pixels))
    assert levels[0, 0].tolist() == [255, 255 * 4 // 5 + 200 // 5, 200]
    assert levels[1, 0].tolist() == [255, 204, 0]
    assert any(note == "transparency, composed over white" for note in notes)
    levels, _ = one(Image.fromarray(pixels).convert("LA"))
    assert levels.shape == (1, 1, 3)
    assert levels[0, 0, 0] == 255


def test_sixteen_bits_are_scaled():
    values = np.array([[0, 128, 257, 1000, 32768, 65535]], np.uint16)
    levels, notes = one(Image.fromarray(values))
    assert levels[0].tolist() == np.rint(values / 257).tolist()
    assert any("16-bit" in note for note in notes)
    levels, _ = one(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "tiff")
    assert levels[0].tolist() == [[0, 128, 255]]
    assert decode([item(Image.fromarray(np.array([[0, 300.0]], np.float32)), "tiff")]).numbers == []


def test_palette_and_cmyk():
    flat = Image.new("RGB", (4, 4), (10, 200, 30))
    levels, notes = one(flat.convert("P", palette=Image.Palette.ADAPTIVE), "gif")
    assert np.abs(levels[:, 0, 0].astype(int) - (10, 200, 30)).max() <= 1
    assert any("palette" in note for note in notes)
    levels, _ = one(flat.convert("CMYK"), "tiff")
    assert np.abs(levels[:, 0, 0].astype(int) - (10, 200, 30)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["png", "tiff", "webp", "jpeg"])
def test_exif_orientation(orientation, form):
    upright = np.zeros((8, 16), np.uint8)  # one quarter bright, so that all eight differ
    upright[:4, :8] = 200
    # What a camera stores for each orientation: the inverse of the turn that a viewer makes.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "webp" else {"quality": 100} if form == "jpeg" else {}
    levels, notes = one(image, form, exif=exif.tobytes(), **options)
    assert levels.shape == (3, 8, 16)
    assert np.abs(levels[0].astype(int) - upright).max() <= 1
    assert any("EXIF" in note for note in notes) == (orientation != 1)


def test_first_frame_of_several():
    frames = [Image.new("L", (4, 4), level) for level in (50, 200)]
    levels, notes = one(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert levels[0, 0, 0] == 50
    assert any("the first is used" in note for note in notes)


def test_large_images_shrink_to_a_longer_side_of_64(tmp_path):
    fill(tmp_path, ["1.png", "2.png"], height=300, width=200)
    assert load_data(tmp_path).shape == (3, 64, 43)
    assert load_data(tmp_path, size="20x30").shape == (3, 20, 30)
    assert load_data(tmp_path, size=16, channels=1).shape == (1, 16, 16)


def test_mixed_sizes_become_a_square(tmp_path):
    fill(tmp_path, ["1.png", "2.png"], height=30, width=40)
    fill(tmp_path, ["3.png"], height=25, width=20)
    data = load_data(tmp_path)
    assert data.shape == (3, 20, 20)
    assert any("2 sizes" in note and "20x20" in note for note in data.notes)


def test_covering_keeps_the_centre():
    pixels = np.zeros((40, 80), np.uint8)
    pixels[:, 20:60] = 200  # the central square
    for form in ("png", "jpeg"):
        levels, _ = one(Image.fromarray(pixels), form, size=(10, 10))
        assert np.abs(levels[0, :, 2:-2].astype(int) - 200).max() <= 3  # the filter looks beyond the crop at its edge
        assert levels.min() > 150


def test_a_large_jpeg_decoded_at_a_fraction_is_the_same_picture():
    y, x = np.mgrid[:800, :1200] / 100
    image = Image.fromarray((127 + 60 * np.sin(y) + 60 * np.cos(x)).astype(np.uint8))
    quick, _ = one(image, "jpeg", size=(32, 32), quality=95)
    full, _ = one(image, "png", size=(32, 32))
    assert np.abs(quick.astype(int) - full).max() <= 3


def test_fingerprint_sees_one_pixel(tmp_path):
    fill(tmp_path, [f"{k}.png" for k in range(10)])
    first = load_data(tmp_path)
    assert load_data(tmp_path).fingerprint == first.fingerprint
    name = first.train.names[0]
    with Image.open(tmp_path / name) as image:
        changed = image.copy()
    changed.putpixel((0, 0), tuple(255 - v for v in changed.getpixel((0, 0))))
    changed.save(tmp_path / name)
    assert load_data(tmp_path).fingerprint != first.fingerprint


def test_images_are_uint8_and_contiguous(tmp_path):
    data = load_data(fill(tmp_path, ["1.png", "2.png", "3.png"]))
    assert data.train.images.dtype == torch.uint8
    assert data.train.images.is_contiguous()
