"""From image files of any kind to one uint8 tensor (N, C, H, W), each written straight into its place.

Each image is turned as its EXIF entry says, has its transparency composed over white, 16-bit values v scaled linearly
(round(v / 257)), and palette and CMYK colours converted; then the rule of size.py applies. Files that cannot be read
are named with the reason and left out.
"""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from trilemma.data.size import choose_size, cover

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
PLAIN = ("1", "L", "RGB")
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 exchange height and width
PIXELS = 2**30 // 12  # a larger image is taken for a decompression bomb
CHUNK = 32  # images per task of the thread pool

R = TypeVar("R")


@dataclass(frozen=True)
class Item:
    """One image file: its name, and how to open it for reading."""

    name: str
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Decoded:
    """images: uint8 (N, C, H, W); kept: which items they are; notes, skipped: as in Data."""

    images: Tensor
    kept: list[int]
    notes: list[str]
    skipped: list[str]


class Header(NamedTuple):
    """size: (height, width) as seen; grey: whether the file can hold nothing but grey."""

    size: tuple[int, int]
    grey: bool


def decode(items: Sequence[Item], size: tuple[int, int] | None = None, channels: int | None = None) -> Decoded:
    """Decode all items that can be read, to one size and number of channels.

    Args:
        size: the target (height, width), or None to infer it.
        channels: 1 or 3, or None: 1 where every image is stored as grey, else 3.
    """
    bad: dict[int, str] = {}
    headers = _each(lambda i: _header(items[i]), range(len(items)), bad)
    good, notes = [i for i in headers if i not in bad], []
    images = torch.empty(0, 1, 1, 1, dtype=torch.uint8)
    while good:
        target, depth, rule = _plan([headers[i] for i in good], size, channels)
        images = torch.empty(len(good), depth, *target, dtype=torch.uint8)
        places = dict(zip(good, images.numpy(), strict=True))
        done = _each(lambda i, places=places: _decode_into(places[i], items[i]), good, bad)
        rows, kept = [k for k, i in enumerate(good) if i not in bad], [i for i in good if i not in bad]
        counts = Counter(word for words in done.values() for word in words)
        notes = [rule, *(f"{count:,} of the images: {what}" for what, count in sorted(counts.items()))]
        images = images if len(rows) == len(good) else images[rows]
        good = kept
        # A file that broke only now must not have had a say in the size or the colours: then do it again without it.
        if not kept or _plan([headers[i] for i in kept], size, channels)[:2] == (target, depth):
            break
    return Decoded(images, good, notes, [f"{items[i].name}: {bad[i]}" for i in sorted(bad)])


def _plan(
    headers: Sequence[Header], size: tuple[int, int] | None, channels: int | None
) -> tuple[tuple[int, int], int, str]:
    """The target (height, width), the number of channels, and the size rule in words."""
    target, rule = choose_size([header.size for header in headers], size)
    return target, channels or (1 if all(header.grey for header in headers) else 3), rule


def _each(work: Callable[[int], R], indices: Sequence[int], bad: dict[int, str]) -> dict[int, R]:
    """work(i) for each index, in threads; where it raises, the reason goes into `bad`."""

    def chunk(first: int) -> dict[int, R]:
        found = {}
        for i in indices[first : first + CHUNK]:
            try:
                found[i] = work(i)
            except Exception as error:  # a decoder may raise anything on a broken file
                bad[i] = _reason(error)
        return found

    results: dict[int, R] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # about oddities inside files that can be read all the same
        for found in pool.map(chunk, range(0, len(indices), CHUNK)):
            results.update(found)
    return results


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in one of the formats {', '.join(FORMATS)}"
    return str(error) or type(error).__name__


def _open(file: IO[bytes]) -> Image.Image:
    """The header of an image; the pixels are read later."""
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels; more than {PIXELS:,} are not opened")
    return image


def _header(item: Item) -> Header:
    with item.open() as file, _open(file) as image:
        width, height = image.size
        # A square needs no asking, a TIFF gives its size as turned, a PNG without an early EXIF entry would be decoded.
        ask = width != height and image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        turned = ask and image.getexif().get(ORIENTATION, 1) >= 5
        return Header((width, height) if turned else (height, width), image.mode in GREY)


def _decode_into(place: np.ndarray, item: Item) -> list[str]:
    """Decode one image into `place`, uint8 (C, H, W); returns what had to be done, in words."""
    channels, height, width = place.shape
    words = []
    with item.open() as file, _open(file) as image:
        if getattr(image, "is_animated", False):
            words.append("several frames or pages, of which the first is used")
        image.draft(None, (2 * max(height, width),) * 2)  # a large JPEG is decoded at a fraction, at least this size
        turned = image.getexif().get(ORIENTATION, 1) != 1
        image.load()
        if turned:  # a TIFF is already, and says so
            words.append("turned as their EXIF orientation says")
            ImageOps.exif_transpose(image, in_place=True)
        pixels = _plain(image, words).convert("L" if channels == 1 else "RGB")
    place[:] = np.asarray(cover(pixels, (height, width))).reshape(height, width, channels).transpose(2, 0, 1)
    return words


def _plain(image: Image.Image, words: list[str]) -> Image.Image:
    """Without transparency and with 8 bits per channel; what was done is added to `words`."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        words.append("16-bit or float values, scaled linearly to 8 bits")
        return _eight_bits(image)
    if image.has_transparency_data:
        words.append("transparency, composed over white")
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
    if image.mode not in PLAIN:
        words.append(f"converted from {'palette' if image.mode == 'P' else image.mode}")
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Integers 0 ... 65535, or floats 0 ... 1, to 0 ... 255."""
    values, top = np.asarray(image).astype(np.float64), 1 if image.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= top):  # False for NaN
        raise ValueError(f"values between {values.min():g} and {values.max():g}; 0 to {top} can be read")
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))
