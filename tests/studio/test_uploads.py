"""What is brought in: pixels alone, within bounds, under names of ours."""

import errno
import io
import stat
import struct
import zipfile
import zlib
from itertools import cycle, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from starlette.datastructures import UploadFile

from trilemma import UserError
from trilemma.files import scratch_of
from trilemma.studio import uploads
from trilemma.studio.uploads import checked_name, class_of, decoded, receive

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 256, (5, 7, 3), np.uint8)


def content(kind="png", levels=LEVELS, **options):
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, kind, **options)
    return buffer.getvalue()


def zipped(*entries, **members):
    """A zip of members by name, with __ for /, and of entries (ZipInfo, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in [*entries, *((name.replace("__", "/"), data) for name, data in members.items())]:
            archive.writestr(name, data)
    return buffer.getvalue()


def huge_png(width, height):
    """A PNG that says so many pixels and holds none."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def huge_gif():
    """A GIF that says 65535 x 65535 pixels."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0xF0, 0, 0) + b"\0\0\0\xff\xff\xff"
    return screen + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\0;"


def huge_tiff():
    """A TIFF that says 100,000 x 100,000 pixels, in one strip of a byte."""
    side, rows = 100_000, [(258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 100_000), (279, 1)]
    tags = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in [(256, side), (257, side), *rows]]
    return b"II" + struct.pack("<HIH", 42, 8, len(tags)) + b"".join(tags) + struct.pack("<I", 0)


def huge_bmp():
    """A BMP that says 100,000 x 100,000 pixels."""
    plain = content("bmp")
    return plain[:18] + struct.pack("<ii", 100_000, 100_000) + plain[26:]


def locked_zip():
    """A zip whose member says that it is encrypted."""
    plain = bytearray(zipped(a=GOOD))
    for place in (6, plain.index(b"PK\x01\x02") + 8):
        plain[place] |= 1
    return bytes(plain)


def linked_zip():
    """A zip with a link to a file of the system."""
    entry = zipfile.ZipInfo("a.png")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped((entry, "/etc/passwd"))


def cut(kind):
    """The first half of an image."""
    whole = content(kind)
    return whole[: len(whole) // 2]


GOOD = content()
HOSTILE = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "html": b"<html><script>alert(1)</script></html>",
    "empty": b"",
    "text": b"hello",
    "pickle": b"cos\nsystem\n(S'touch canary'\ntR.",
    "elf": b"\x7fELF" + b"\0" * 60,
    "pdf": b"%PDF-1.4\n",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    "mp4": b"\0\0\0\x18ftypmp42",
    "huge": huge_png(100_000, 100_000),
    "wide": huge_png(2**31 - 1, 1),
    "flat": huge_png(0, 5),
    "no-pixels": huge_png(8, 8),
    "cut": GOOD[: len(GOOD) // 2],
    "head": GOOD[:8],
    "ppm": b"P6 5 5 255\n" + b"\0" * 75,
    "tga": b"\0\0\x02" + b"\0" * 40,
    "icns": b"icns" + b"\0" * 20,
    "psd": b"8BPS\0\x01" + b"\0" * 30,
    "nested-zip": zipped(a=zipped(b=b"x")),
    "bad-zip": b"PK\x03\x04" + b"\0" * 30,
    "cut-zip": zipped(a=GOOD)[:-20],
    "url": b"[InternetShortcut]\nURL=http://169.254.169.254/",
    "xml-bomb": b'<!DOCTYPE x [<!ENTITY a "aaa">]><x>&a;</x>',
    **{f"cut-{kind}": cut(kind) for kind in ("jpeg", "webp", "gif", "bmp", "tiff")},
    "wrong-sum": GOOD[:29] + bytes(4) + GOOD[33:],  # of the head
    "bomb": content("png", np.zeros((4100, 4100), np.uint8)),  # small as a file
    "huge-gif": huge_gif(),
    "huge-bmp": huge_bmp(),
    "huge-tiff": huge_tiff(),
    "up-zip": zipped(**{"..__..__evil.sh": b"#!/bin/sh"}),
    "link-zip": linked_zip(),
    "locked-zip": locked_zip(),
    "zeros-zip": zipped(a=bytes(100_000)),
    "script-gif": b"GIF89a=1;alert(1)//",
    "ico": content("ico", np.zeros((32, 32, 3), np.uint8)),  # an image, of a format that is not read
}
UPLOADS = {"/data/upload": "files", "/edit/image": "picture", "/sample/receipt": "picture"}  # routes and their fields


NAMES = ("../../etc/passwd.png", "/etc/x.png", "C:\\x.png", "..\\x.png", "a/../../x.png", "\0.png", "x" * 5000,
         "CON.png", "aux", "<script>.png", "a\nb.png", ".htaccess", "-rf.png", "e\u0301/x.png", "a:b.png",
         "$(x).png")  # fmt: skip


def test_there_are_40_hostile_uploads():
    assert len(HOSTILE) == 40


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_hostile_uploads_are_refused_by_every_route(browser, studio, every):
    """The quick test sends each file to one route."""
    pairs = product(UPLOADS.items(), HOSTILE.items()) if every else zip(cycle(UPLOADS.items()), HOSTILE.items())
    for (path, field), (name, data) in pairs:
        files = [(field, (f"x.{'zip' if 'zip' in name else 'png'}", data))]
        answer = browser.send("POST", path, data={"name": "mine"}, files=files)
        assert answer.status_code == 400 and "Traceback" not in answer.text, (path, name)
    assert [path.name for path in studio.folder.parent.iterdir()] == [studio.folder.name]
    assert not [path for path in studio.folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_skipped_and_nothing_of_it_is_kept(name, tmp_path):
    for suffix in (".png", ".zip"):
        folder = tmp_path / f"data{suffix}"
        with pytest.raises(UserError):
            receive([(f"x{suffix}", io.BytesIO(HOSTILE[name]))], folder)
        assert not folder.exists()
    upload = receive([("a.png", io.BytesIO(GOOD)), ("b.png", io.BytesIO(HOSTILE[name]))], tmp_path / "both")
    assert (upload.images, upload.skipped) == (1, ["b.png"])


def test_a_hostile_name_leads_nowhere_else(browser, studio):
    """As it is sent by no browser, which writes some letters otherwise. What is no name in a header is refused."""
    part, refused = "--b\r\nContent-Disposition: form-data; name=", []
    for k, name in enumerate(NAMES):
        head = f'{part}"name"\r\n\r\nmine-{k}\r\n{part}"files"; filename="{name}"\r\n\r\n'.encode()
        headers = {"content-type": "multipart/form-data; boundary=b"}
        body = head + GOOD + b"\r\n--b--\r\n"
        answer = browser.send("POST", "/data/upload", content=body, headers=headers)
        found = [path for path in studio.folder.rglob("*") if path.is_file()]
        assert answer.status_code in (200, 400)
        if answer.status_code == 400:
            refused.append(name)
        assert len(found) == k + 1 - len(refused) and {path.name for path in found} == {"00001.png"}
        assert all(path.is_relative_to(studio.folder / "data") for path in found)
    assert len(refused) <= 2 and [path.name for path in studio.folder.parent.iterdir()] == [studio.folder.name]


def test_pixels_stay_and_all_else_goes(tmp_path):
    info = PngInfo()
    info.add_text("Comment", "where I live")
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 29.0)}  # GPS
    marked = content(pnginfo=info, exif=exif) + b"<script>after the end</script>"
    receive([("a.png", io.BytesIO(marked))], tmp_path / "data")
    path = tmp_path / "data" / "00001.png"
    with Image.open(path) as image:
        assert (np.asarray(image) == LEVELS).all() and not image.info and not image.getexif()
    assert b"live" not in path.read_bytes() and b"script" not in path.read_bytes()


def test_an_image_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    assert (np.asarray(decoded(content(exif=exif))) == np.rot90(LEVELS, -1)).all()


def test_grey_stays_grey_and_a_palette_becomes_colour():
    assert decoded(content(levels=LEVELS[..., 0])).mode == "L"
    buffer = io.BytesIO()
    Image.fromarray(LEVELS).convert("P").save(buffer, "gif")
    assert decoded(buffer.getvalue()).mode == "RGB"


def test_transparency_stays_in_grey_and_in_a_palette():
    alpha = Image.fromarray(np.where(LEVELS[..., 0] > 100, 255, 0).astype(np.uint8))
    grey = Image.merge("LA", [Image.fromarray(LEVELS[..., 0]), alpha])
    buffer = io.BytesIO()
    grey.save(buffer, "png")
    image = decoded(buffer.getvalue())
    assert image.mode == "LA" and (np.asarray(image) == np.asarray(grey)).all()
    palette, buffer = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P"), io.BytesIO()
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(buffer, "png", transparency=0)
    image = decoded(buffer.getvalue())
    assert image.mode == "RGBA" and (np.asarray(image)[..., 3] == [[0, 255], [255, 0]]).all()
    assert tuple(np.asarray(image)[0, 1]) == (0, 0, 255, 255)


def test_deep_values_are_scaled_and_one_bit_is_grey():
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(buffer, "png")
    image = decoded(buffer.getvalue())
    assert image.mode == "L" and np.asarray(image).tolist() == [[0, 1, 255]]
    buffer = io.BytesIO()
    Image.fromarray(np.array([[True, False]])).save(buffer, "png")
    assert decoded(buffer.getvalue()).mode == "L"


def test_colours_of_another_space_are_converted():
    """The profile goes, so its meaning has to go into the pixels; 8 bits of Lab are steps of up to 3 levels."""
    srgb, buffer = ImageCms.createProfile("sRGB"), io.BytesIO()
    levels = (96 + LEVELS // 4).astype(np.uint8)
    to_lab = ImageCms.buildTransform(srgb, ImageCms.createProfile("LAB"), "RGB", "LAB")
    ImageCms.applyTransform(Image.fromarray(levels), to_lab).save(buffer, "tiff")
    image = decoded(buffer.getvalue())
    assert image.mode == "RGB" and np.abs(np.asarray(image).astype(int) - levels).max() <= 3


def test_folders_of_a_zip_are_classes(tmp_path):
    archive = zipped(photos__My_Cats__1=GOOD, photos__dogs__1=GOOD, photos__dogs__2=GOOD)
    upload = receive([("photos.zip", io.BytesIO(archive))], tmp_path / "data")
    assert upload.images == 3
    assert {path.name: len(list(path.iterdir())) for path in upload.folder.iterdir()} == {"my-cats": 1, "dogs": 2}
    assert class_of("1.png") == ""


def test_bounds_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_IMAGES", 2)
    with pytest.raises(UserError, match="more than 2 images"):
        receive([(f"{k}.png", io.BytesIO(GOOD)) for k in range(3)], tmp_path / "many")
    monkeypatch.setattr(uploads, "LARGEST_WHOLE", len(GOOD) + 1)
    with pytest.raises(UserError, match="bytes of images"):
        receive([(f"{k}.png", io.BytesIO(GOOD)) for k in range(2)], tmp_path / "large")
    monkeypatch.setattr(uploads, "LARGEST_IMAGE", 10)
    assert decoded(GOOD) is None


class Broken:
    """A file whose disk fails after so many bytes; it tells what lies in a folder by then."""

    def __init__(self, place):
        self.place, self.seen = place, []

    def read(self, most):
        self.seen = [path.name for path in self.place.rglob("*.png")]
        raise OSError(errno.EIO, "Input/output error")


def test_data_are_there_whole_or_not_at_all(tmp_path):
    broken = Broken(tmp_path)
    with pytest.raises(UserError, match="input/output error"):
        receive([("a.png", io.BytesIO(GOOD)), ("b.png", broken)], tmp_path / "data" / "mine")
    assert broken.seen == ["00001.png"]  # it had been written
    assert not [*(tmp_path / "data").iterdir()]
    cut = zipped(a=GOOD, b=bytes(10_000))
    cut = cut.replace(bytes(1_000), b"x" * 1_000)  # its sum is wrong
    with pytest.raises(UserError, match="the zip cannot be read"):
        receive([("a.zip", io.BytesIO(cut))], tmp_path / "data" / "mine")
    assert not [*(tmp_path / "data").iterdir()]
    killed = scratch_of(tmp_path / "data" / "mine")
    (killed / "cats").mkdir(parents=True)
    with pytest.raises(UserError, match="exists already"):  # another page sends it
        receive([("a.png", io.BytesIO(GOOD))], tmp_path / "data" / "mine")
    (tmp_path / "data" / ".notes.tmp").write_text("of somebody else")
    uploads.remove_unfinished(tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".notes.tmp"]
    assert receive([("a.png", io.BytesIO(GOOD))], tmp_path / "data" / "mine").images == 1


@pytest.mark.parametrize(("method", "head"), [(zipfile.ZIP_DEFLATED, 0), (zipfile.ZIP_BZIP2, 0), (zipfile.ZIP_LZMA, 9)])
def test_a_zip_whose_content_is_damaged_is_said(tmp_path, method, head):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a.png", GOOD)
    whole = buffer.getvalue()
    begin = whole.index(b"a.png") + len(b"a.png") + head
    damaged = whole[:begin] + b"\xff" * 40 + whole[begin + 40 :]
    with pytest.raises(UserError, match="the zip cannot be read"):
        receive([("a.zip", io.BytesIO(damaged))], tmp_path / "data")


def test_a_disk_that_is_full_while_images_arrive_is_said(browser, studio, monkeypatch):
    async def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadFile, "write", write)
    answer = browser.send("POST", "/data/upload", data={"name": "mine"}, files=[("files", ("a.png", GOOD))])
    assert answer.status_code == 400 and "the disk is full" in answer.text
    assert not (studio.folder / "data").exists()


def test_a_disk_that_is_full_when_a_picture_is_dropped_is_said(browser, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write)
    answer = browser.send("POST", "/sample/receipt", files=[("picture", ("a.png", GOOD))])
    assert answer.status_code == 400 and "the disk is full" in answer.text


def test_a_name_of_data_is_plain(tmp_path):
    assert checked_name("my-photos-2") == "my-photos-2"
    for name in ("", "..", "a/b", "A", "-a", "a" * 41, "a b", "a.png", "café"):
        with pytest.raises(UserError, match="small letters"):
            checked_name(name)
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="exists already"):
        receive([("a.png", io.BytesIO(GOOD))], tmp_path / "data")
