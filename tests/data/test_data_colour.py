"""Colours against closed forms: profiles, Lab, CMYK, 16 bits, transparency."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from trilemma.data.decoding.decode import Item, decode

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
# Columns are the primaries (X, Y, Z) under D50, as ICC profiles hold them.
P3 = np.array([[0.515121, 0.291977, 0.157104], [0.241196, 0.692245, 0.066574], [-0.001053, 0.041885, 0.784073]])
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
WHITE = np.array([0.9642, 1.0, 0.82491])


def decoded(content, **options):
    result = decode([Item("a", lambda: io.BytesIO(content))], **options)
    assert result.skipped == []
    return result.images[0].numpy().transpose(1, 2, 0).astype(int), result.changes


def saved(image, form="png", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def encode(linear):
    """IEC 61966-2-1: linear light in [0, 1] to levels of sRGB."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def icc(matrix, gamma):
    """An ICC version 2 profile of three primaries and one gamma (ICC.1:2001-04, section 6)."""

    def fixed(numbers):
        return b"".join(struct.pack(">i", round(float(number) * 65536)) for number in numbers)

    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + fixed(WHITE),
        **{f"{c}XYZ".encode(): b"XYZ \0\0\0\0" + fixed(matrix[:, k]) for k, c in enumerate("rgb")},
        **{f"{c}TRC".encode(): b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) for c in "rgb"},
    }
    table, body, at = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head = (head.ljust(36, b"\0") + b"acsp").ljust(68, b"\0") + fixed(WHITE)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize(("matrix", "gamma"), [(P3, 2.2), (ADOBE, 563 / 256)], ids=["p3", "adobe"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_profiles_become_srgb(matrix, gamma, mode):
    expected = encode((LEVELS / 255) ** gamma @ matrix.T @ np.linalg.inv(SRGB).T)
    image = Image.fromarray(LEVELS).convert(mode)
    levels, changes = decoded(saved(image, icc_profile=icc(matrix, gamma)))
    assert "a colour profile, converted to sRGB" in changes
    inside = (expected > 0) & (expected < 255)
    error = np.abs(levels - expected)
    assert error.mean() <= 1
    assert error[inside.all(2)].max() <= 3
    assert np.abs(levels - LEVELS.astype(int)).mean() > 3  # the profile matters


def test_srgb_and_broken_profiles_change_nothing():
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for content, words in ((own, set()), (b"broken" * 40, {"a colour profile that cannot be used, skipped"})):
        levels, changes = decoded(saved(Image.fromarray(LEVELS), icc_profile=content))
        assert np.array_equal(levels, LEVELS)
        assert set(changes) == words


def test_lab():
    """CIE 1976 L*a*b* under D50 to sRGB, by its definition."""
    light = np.linspace(10, 95, 64).reshape(8, 8)
    a, b = np.meshgrid(np.linspace(-20, 20, 8), np.linspace(-20, 20, 8))
    stored = [np.rint(light * 255 / 100), np.rint(a) + 128, np.rint(b) + 128]  # as Pillow holds them
    light, a, b = stored[0] * 100 / 255, np.rint(a), np.rint(b)
    fy = (light + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * WHITE
    expected = encode(xyz @ np.linalg.inv(SRGB).T)
    image = Image.merge("LAB", [Image.fromarray(part.astype(np.uint8)) for part in stored])
    levels, changes = decoded(saved(image, "tiff"))
    assert "converted from LAB" in changes
    inside = ((expected > 1) & (expected < 254)).all(2)
    assert np.abs(levels - expected)[inside].mean() <= 1.5


@pytest.mark.parametrize("transform", [0, 2], ids=["cmyk", "ycck"])
def test_cmyk_of_adobe(transform):
    """Adobe stores 255 - ink, and in YCCK the YCbCr of the inks; R = (255 - C) (255 - K) / 255."""
    ink = np.full((16, 16, 4), (30, 60, 90, 20), np.uint8)
    whole = bytearray(saved(Image.fromarray(ink, "CMYK"), "jpeg", quality=100))
    if transform == 2:
        inks = np.asarray(Image.fromarray(ink[..., :3]).convert("YCbCr"))
        stored = np.concatenate([inks, 255 - ink[..., 3:]], 2)
        whole = bytearray(saved(Image.fromarray(255 - stored, "CMYK"), "jpeg", quality=100))
    whole[whole.find(b"Adobe") + 11] = transform
    levels, changes = decoded(bytes(whole))
    expected = (255 - ink[..., :3].astype(float)) * (255 - 20) / 255
    assert np.abs(levels - expected).max() <= 3
    assert "converted from CMYK" in changes


def test_sixteen_bits_of_colour_are_scaled_linearly():
    values = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    values[0, :6] = np.array([0, 1, 257, 32768, 65534, 65535])[:, None]

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0))
    compression, changes = decoded(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    assert np.abs(compression - values / 257).max() <= 1
    assert np.abs(compression - values / 257).mean() <= 1
    assert "16-bit or float values, scaled linearly to 8 bits" in changes


def test_opaque_alpha_is_no_transparency():
    image = Image.fromarray(LEVELS).convert("RGBA")
    levels, changes = decoded(saved(image))
    assert np.array_equal(levels, LEVELS)
    assert changes == {}


def test_transparency_of_a_palette_and_of_grey():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    levels, _ = decoded(saved(palette, transparency=0))
    assert levels.tolist() == [[[255] * 3, [200, 100, 50]]]
    grey = Image.merge("LA", [Image.new("L", (2, 1), 100), Image.fromarray(np.array([[0, 51]], np.uint8))])
    levels, _ = decoded(saved(grey))
    assert levels[0, :, 0].tolist() == [255, 255 * 4 // 5 + 100 // 5]
