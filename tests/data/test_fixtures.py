"""Fixture F: a folder of good, odd and bad files; every bad one is named with its reason, and the rest is read."""

import contextlib
import gzip
import io
import os
import struct
import sys
import time
import zipfile
import zlib
from functools import cache

import numpy as np
import pytest
from PIL import Image

from trilemma.data import check, load_data
from trilemma.data.decoding import convert
from trilemma.data.decoding import pixels as words
from trilemma.data.decoding.decode import Item, decode
from trilemma.data.decoding.integrity import NO_END, TRAILING

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))


def photo(height=40, width=60):
    """A smooth picture in colour, with detail."""
    cells = RNG.integers(30, 226, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind, content, crc=None):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc or zlib.crc32(kind + content))


def png(width, height, *chunks, depth=8, colour=0):
    """A PNG of chunks as given."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def huge_png():
    """200 megapixels of nothing: 20,000 x 10,000 grey in some 200 kB."""
    pack = zlib.compressobj(9)
    rows = b"".join(pack.compress(b"\0" * (20_001 * 100)) for _ in range(100)) + pack.flush()
    return png(20_000, 10_000, chunk(b"IDAT", rows))


def text_bomb():
    """A small picture with 64 MB of compressed text."""
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 2**26, 9))
    return png(8, 8, text, chunk(b"IDAT", zlib.compress(b"\0" * 72)))


def tiff_loop():
    """A TIFF whose first directory is followed by itself."""
    whole = bytearray(saved(photo(), "tiff"))
    first = int.from_bytes(whole[4:8], "little")
    count = int.from_bytes(whole[first : first + 2], "little")
    whole[first + 2 + 12 * count : first + 6 + 12 * count] = whole[4:8]
    return bytes(whole)


def cmyk_adobe(transform):
    """Inverted CMYK with the Adobe marker saying 0, stored as it is, or 2, stored as YCCK."""
    inks = photo().convert("CMYK")
    if transform == 2:
        values = np.asarray(inks)
        ycc = np.asarray(Image.fromarray(np.ascontiguousarray(values[..., :3])).convert("YCbCr"))
        inks = Image.fromarray(np.concatenate([255 - ycc, values[..., 3:]], 2), "CMYK")
    whole = bytearray(saved(inks, "jpeg", quality=95))
    whole[whole.find(b"Adobe") + 11] = transform
    return bytes(whole)


def rgb48():
    values = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(30, 20, chunk(b"IDAT", zlib.compress(rows)), depth=16, colour=2)


def oriented(k):
    exif = Image.Exif()
    exif[0x0112] = k
    return saved(photo(), "jpeg", exif=exif.tobytes())


def frames(form):
    return saved(photo(), form, save_all=True, append_images=[photo()])


def hidden_colour():
    pixels = RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    pixels[:10, :, 3] = 0
    return saved(Image.fromarray(pixels), "png")


@cache
def good_files():
    """Name to content and the change that must be named, or None."""
    jpeg, plain = saved(photo(), "jpeg", quality=90), photo()
    grey = Image.fromarray(RNG.integers(0, 256, (20, 30), dtype=np.uint8))
    lab = Image.merge("LAB", [grey, Image.new("L", grey.size, 128), Image.new("L", grey.size, 128)])
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.txt", "hidden")
    files = {
        "without-its-end.png": (saved(photo(), "png")[:-12], NO_END),
        "jpeg-and-a-zip.jpg": (jpeg + zipped.getvalue(), TRAILING),
        "cmyk-adobe.jpg": (cmyk_adobe(0), "converted from CMYK"),
        "ycck.jpg": (cmyk_adobe(2), "converted from CMYK"),
        "lab.tif": (saved(lab, "tiff"), "converted from LAB"),
        "gray16.png": (saved(Image.fromarray(RNG.integers(0, 65536, (20, 30), dtype=np.uint16)), "png"), convert.DEPTH),
        "gray16-big-endian.tif": (
            saved(Image.fromarray(RNG.integers(0, 65536, (20, 30), dtype=np.uint16).astype(">u2")), "tiff"),
            convert.DEPTH,
        ),
        "rgb48.png": (rgb48(), convert.DEPTH),
        "float32.tif": (saved(Image.fromarray(RNG.random((20, 30), dtype=np.float32)), "tiff"), convert.DEPTH),
        "one-bit.png": (saved(grey.convert("1"), "png"), "1 bit per pixel"),
        "palette.png": (saved(plain.quantize(16), "png"), "converted from palette"),
        "palette-transparent.png": (
            saved(plain.quantize(16), "png", transparency=0),
            ("converted from palette", convert.ALPHA.format("white")),
        ),
        "la.png": (saved(Image.merge("LA", [grey, grey.transpose(1)]), "png"), convert.ALPHA.format("white")),
        "hidden-colour.png": (hidden_colour(), convert.ALPHA.format("white")),
        "animated.gif": (frames("gif"), ("converted from palette", words.FRAMES)),
        "animated.webp": (frames("webp"), words.FRAMES),
        "animated.png": (frames("png"), words.FRAMES),
        "pages.tiff": (frames("tiff"), words.FRAMES),
        **{f"exif-{k}.jpg": (oriented(k), None if k == 1 else words.TURNED) for k in range(1, 9)},
        "p3.jpg": (saved(photo(), "jpeg", icc_profile=profile(P3, 2.2)), convert.PROFILE),
        "adobe-rgb.jpg": (saved(photo(), "jpeg", icc_profile=profile(ADOBE, 563 / 256)), convert.PROFILE),
        "one-pixel.png": (saved(photo(1, 1), "png"), None),
        "long.png": (saved(photo(10, 10_000), "png"), None),
        "loop.tif": (tiff_loop(), None),
        "Ảnh đẹp.png": (saved(photo(), "png"), None),
        "A\u0309nh d\u0323ep.png": (saved(photo(), "png"), None),
        "a#b%20?.png": (saved(photo(), "png"), None),
        "n" * 251 + ".png": (saved(photo(), "png"), None),
        "upper.JPG": (saved(photo(), "jpeg"), None),
        "upper.JPE": (saved(photo(), "jpeg"), None),
    }
    return files | {"same.png": files["a#b%20?.png"], "near.jpg": (saved(reopen(files["upper.JPG"][0]), "jpeg"), None)}


@cache
def bad_files():
    """Name to content and a part of the reason."""
    jpeg, whole = saved(photo(), "jpeg", quality=90), saved(photo(), "png")
    at = whole.find(b"IDAT")
    damaged = bytearray(whole)
    damaged[at + 4 + int.from_bytes(whole[at - 4 : at], "big")] ^= 1  # the checksum itself: the pixels are whole
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    return {
        "half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "without-its-last-byte.jpg": (jpeg[:-1], "truncated"),
        "cut.png": (whole[: at + 40], "cut short"),
        "checksum.png": (bytes(damaged), "checksum"),
        "empty.png": (b"", "not an image"),
        "text.jpg": (b"this is no image", "not an image"),
        "page.png": (b"<!doctype html><title>404</title>", "not an image"),
        "phone.heic": (heic, ".heic are not read"),
        "phone.jpg": (heic, "not an image"),
        "drawing.svg": (b"<svg/>", ".svg are not read"),
        "huge.png": (huge_png(), "decompression bomb"),
        "fits.png": (gzip.compress(b"SIMPLE  =                    T".ljust(2880)), "not an image"),
        "eps.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        "bitmap.jpg": (saved(photo(), "jpeg2000"), "not an image"),
    }


def quiet_files():
    """Names that are passed over without a word."""
    return dict.fromkeys(("._a.jpg", "Thumbs.db", ".DS_Store", "desktop.ini", "__MACOSX/b.png"), b"\0" * 100)


def reopen(content):
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


P3 = ((0.515121, 0.241196, -0.001053), (0.291977, 0.692245, 0.041885), (0.157104, 0.066574, 0.784073))  # under D50
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
D50 = (0.9642, 1.0, 0.82491)


def profile(primaries, gamma):
    """An ICC version 2 profile of three primaries (X, Y, Z) and one gamma (ICC.1:2001-04, section 6)."""

    def fixed(*numbers):
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    text = b"a test profile"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50),
        **{f"{c}XYZ".encode(): b"XYZ \0\0\0\0" + fixed(*p) for c, p in zip("rgb", primaries, strict=True)},
        **{f"{c}TRC".encode(): b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) for c in "rgb"},
    }
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ").ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + fixed(*D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("f") / "images"
    files = {**{k: v[0] for k, v in {**good_files(), **bad_files()}.items()}, **quiet_files()}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "broken-link.png").symlink_to(root / "nothing.png")
    (root / "round.png").symlink_to(root / "round.png")
    (root / "round").symlink_to(root, target_is_directory=True)
    os.mkfifo(root / "pipe.png")
    return root


BAD_LINKS = {"broken-link.png": "no such file", "round.png": "too many levels", "pipe.png": "not a regular file"}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, and names that Windows does not take")
def test_every_file_of_f_is_named(folder):
    good, bad = good_files(), bad_files()
    assert len(good) + len(bad) + len(quiet_files()) + len(BAD_LINKS) + 1 >= 45
    report = check(folder, size=32)
    reasons = dict(report.bad)
    assert set(reasons) == set(bad) | set(BAD_LINKS)
    for name, part in {**{k: v[1] for k, v in bad.items()}, **BAD_LINKS}.items():
        assert part in reasons[name], (name, reasons[name])
    assert report.files == len(good) + len(bad) + len(BAD_LINKS)
    assert report.read == len(good)
    for name, (_, change) in good.items():
        result = {what for what, names in report.changes.items() if name in names}
        assert result == (set(change) if isinstance(change, tuple) else {change} - {None}), name
    assert ("a#b%20?.png", "same.png") in report.duplicates
    assert ("near.jpg", "upper.JPG") in report.near
    assert not report.ok
    text = str(report)
    assert all(f"bad: {name}: {reason}" in text for name, reason in report.bad)
    assert "Thumbs.db" not in text
    assert ".DS_Store" not in text


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, and names that Windows does not take")
def test_loading_goes_on_with_the_rest_of_f(folder):
    data = load_data(folder, size=32)
    assert len(data.train) + len(data.valid) == len(good_files())
    assert len(data.skipped) == len(bad_files()) + len(BAD_LINKS)
    assert dict(line.split(": ", 1) for line in data.skipped) == dict(check(folder, size=32).bad)
    assert any(note.startswith(f"{len(data.skipped)} unreadable and skipped") for note in data.notes)
    assert sum(note.endswith(convert.ALPHA.format("white")) for note in data.notes) == 1  # once, with the count


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything can be read as root")
def test_a_file_that_may_not_be_read(tmp_path):
    for name in ("a.png", "b.png", "secret.png"):
        (tmp_path / name).write_bytes(saved(photo(), "png"))
    (tmp_path / "secret.png").chmod(0)
    assert check(tmp_path).bad == [("secret.png", "permission denied")]


def test_a_file_that_the_system_refuses(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    decoded = decode([Item("secret.png", lambda: refuse("secret.png")), Item("a.png", lambda: io.BytesIO(PNG))])
    assert decoded.skipped == ["secret.png: permission denied"]


PNG = saved(photo(), "png")


def test_a_file_that_vanishes_in_the_middle():
    opened = []

    def vanishing():
        opened.append(1)
        if len(opened) > 1:
            raise FileNotFoundError(2, "No such file or directory", "b.png")
        return io.BytesIO(PNG)

    decoded = decode([Item("a.png", lambda: io.BytesIO(PNG)), Item("b.png", vanishing)])
    assert decoded.numbers == [0]
    assert decoded.skipped == ["b.png: no such file or directory"]


BOMBS = {
    "huge.png": huge_png,
    "text.png": text_bomb,
    "wide.gif": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + b"\0" * 40 + b";",
    "frame.gif": lambda: (
        b"GIF89a"
        + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
        + b"\x08;"
    ),
    "wide.bmp": lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "wide.tif": lambda: tiff_claiming(60_000, 60_000),
    "profile.png": lambda: png(
        8,
        8,
        chunk(b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 2**26, 9)),
        chunk(b"IDAT", zlib.compress(b"\0" * 72)),
    ),
    "fits.png": lambda: gzip.compress(b"SIMPLE  =                    T".ljust(2880) + b"\0" * 2**26),
    "jp2.png": lambda: saved(photo(), "jpeg2000"),
}


def tiff_claiming(width, height):
    """A TIFF whose header says another size than it holds."""
    whole = bytearray(saved(Image.new("L", (8, 8)), "tiff"))
    first = int.from_bytes(whole[4:8], "little")
    for k in range(int.from_bytes(whole[first : first + 2], "little")):
        at = first + 2 + 12 * k
        tag = int.from_bytes(whole[at : at + 2], "little")
        if tag in (256, 257):
            whole[at : at + 12] = struct.pack("<HHII", tag, 4, 1, width if tag == 256 else height)
    return bytes(whole)


def peak_bytes():
    """The most memory this process has used since the mark was reset, or None where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def reset_peak():
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once_and_in_little_memory(name):
    content = BOMBS[name]()
    decode([Item("a.png", lambda: io.BytesIO(PNG))])  # what is needed once is there
    seconds = []
    reset_peak()
    before = peak_bytes()
    for _ in range(3):
        start = time.perf_counter()
        decoded = decode([Item(name, lambda: io.BytesIO(content))])
        seconds.append(time.perf_counter() - start)
        assert decoded.numbers == (
            [0] if name in ("profile.png", "text.png") else []
        )  # without it the picture is whole
    assert min(seconds) <= 0.2  # the least of three: other processes may be busy
    if before is not None:
        assert peak_bytes() - before <= 50 * 2**20
