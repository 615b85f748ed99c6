"""What stands in a picture's file besides its pixels costs no pixels: EXIF, text, profiles and other chunks."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from trilemma.data.decoding.decode import Item, decode
from trilemma.data.decoding.pixels import BAD_EXIF, BAD_EXTRAS, TURNED
from trilemma.data.sources.labels import class_number

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
LONG = RNG.bytes(1_200_000)  # more than Pillow unpacks of a chunk
TIFF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0%c\0\0\0\0\0\0\0"  # one entry, the orientation


def saved(form, pixels=PIXELS, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def chunk(kind, content, crc=None):
    stored = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", stored)


def with_chunks(*chunks, late=False):
    """A PNG with chunks before its pixels, or after them."""
    content = saved("png")
    at = -12 if late else 33
    return content[:at] + b"".join(chunks) + content[at:]


def read(content, size=None):
    """(pixels (H, W, C) or None, what was done, why it was left out) of one file."""
    decoded = decode([Item("a", lambda: io.BytesIO(content))], size)
    pixels = decoded.images[0].permute(1, 2, 0).numpy() if decoded.numbers else None
    return pixels, set(decoded.changes), decoded.skipped


BROKEN_EXIF = {
    "magic": b"IIU\0\x18\0\0\0",
    "junk": bytes(range(200)),
    "cut": (TIFF % 6)[:11],
}


@pytest.mark.parametrize("name", BROKEN_EXIF)
@pytest.mark.parametrize("form", ["png", "webp"])
def test_broken_exif_is_skipped_and_said(name, form):
    block = BROKEN_EXIF[name]
    content = with_chunks(chunk(b"eXIf", block)) if form == "png" else saved("webp", lossless=True, exif=block)
    pixels, words, skipped = read(content)
    assert skipped == []
    assert np.array_equal(pixels, PIXELS)
    assert (BAD_EXIF in words) == (name != "cut")  # whose entry Pillow takes for none


@pytest.mark.parametrize("orientation", [0, 1, 9, 255, *range(2, 9)])
def test_orientations_that_are_none_turn_nothing(orientation):
    """Of a picture (H, W), 2 to 8 are flips and quarter turns, as the EXIF standard has them; others are none."""
    turn = {
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x.transpose(1, 0, 2), 2),
        8: lambda x: np.rot90(x),
    }.get(orientation, lambda x: x)
    pixels, words, _ = read(with_chunks(chunk(b"eXIf", TIFF % orientation)))
    assert np.array_equal(pixels, turn(PIXELS))
    assert (TURNED in words) == (2 <= orientation <= 8)


EXTRAS = {
    "long zTXt": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(LONG)),
    "long iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(LONG)),
    "long iCCP": chunk(b"iCCP", b"scanner\0\0" + zlib.compress(LONG)),
    "zTXt of another method": chunk(b"zTXt", b"a\0\7b"),
    "wrong checksum": chunk(b"tEXt", b"a\0b", 1),
    "wrong checksum of EXIF": chunk(b"eXIf", TIFF % 1, 1),
    "short pHYs": chunk(b"pHYs", b"\0"),
    "short gAMA": chunk(b"gAMA", b""),
    "unknown": chunk(b"abCd", b"?", 1),
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", EXTRAS)
def test_chunks_that_the_picture_does_not_need_are_skipped(name, late):
    pixels, words, skipped = read(with_chunks(EXTRAS[name], late=late))
    assert skipped == []
    assert np.array_equal(pixels, PIXELS)
    assert BAD_EXTRAS in words or late


@pytest.mark.parametrize(
    "segment",
    [(0xE0, b"JFIF\0"), (0xE2, b"ICC_PROFILE\0"), (0xE2, b"ICC_PROFILE\0\1"), (0xED, b"Photoshop 3.0\x008BIM\0")],
)
def test_broken_segments_of_a_jpeg_are_skipped(segment):
    content = saved("jpeg", quality=95)
    wanted, *_ = read(content)
    marker, body = segment
    exif = b"Exif\0\0" + TIFF % 3
    exif = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    inside = exif + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    pixels, words, skipped = read(content[:2] + inside + content[2:])
    assert skipped == []
    assert np.array_equal(pixels, wanted[::-1, ::-1])
    assert TURNED in words
    assert words <= {TURNED, BAD_EXTRAS}


def test_exif_beside_a_text_that_is_too_long_still_turns():
    pixels, words, _ = read(with_chunks(chunk(b"eXIf", TIFF % 3), EXTRAS["long zTXt"]))
    assert np.array_equal(pixels, PIXELS[::-1, ::-1])
    assert words == {BAD_EXTRAS, TURNED}


def test_the_pixels_must_still_be_whole():
    whole = with_chunks(EXTRAS["long zTXt"])
    at = whole.find(b"IDAT") + 8
    pixels, _, skipped = read(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    assert pixels is None
    assert "checksum of its chunk IDAT is wrong" in skipped[0]


@pytest.mark.parametrize(
    ("value", "level"), [(1 + 1.2e-7, 255), (-1e-9, 0), (1 + 0.49 / 255, 255), (1 + 0.51 / 255, None)]
)
def test_float_pictures_are_read_up_to_half_a_level_beyond(value, level):
    pixels = np.full((8, 8), 0.5, np.float32)
    pixels[0, 0] = value
    levels, _, skipped = read(saved("tiff", pixels))
    if level is None:
        shown = re.search(r"values from 0.5 to (\S+); 0 to 1 can be read", skipped[0])[1]
        assert np.float32(shown) == pixels[0, 0]
    else:
        assert levels[0, 0, 0] == level


def test_nan_in_a_float_picture_is_said():
    pixels = np.full((8, 8), 0.5, np.float32)
    pixels[0, 0] = np.nan
    assert read(saved("tiff", pixels))[2] == ["a: NaN values; 0 to 1 can be read"]


@pytest.mark.parametrize(
    ("word", "classes", "number"),
    [
        ("10", ("1", "2", "10"), 2),
        (2, ("1", "2", "10"), 1),
        (0, ("1", "2", "10"), None),
        ("0", ("-1", "1"), None),
        (0, ("cat", "1"), 0),
        (1, ("cat", "1"), 1),
        (2, ("cat", "1"), None),
        ("²", ("cat", "dog", "fish"), None),
        (-1, ("cat", "dog"), None),
    ],
)
def test_a_number_is_a_name_where_all_names_are_numbers(word, classes, number):
    assert class_number(word, classes) == number
