"""One image file of any kind to plain 8-bit pixels, within bounds, and in words everything that had to be done to it.

An image is turned as its EXIF entry says (orientations 2 to 8), brought to sRGB where it carries another colour
profile, composed over white (a mask over black) where it is transparent, and 16-bit values v are scaled linearly
(round(v / 257)). Of several frames the first is taken, or each as an image of its own. Only the formats below are
opened, and only up to PIXELS pixels, as the header says; large ones are worked on in bands, and few of them at a time
(budget.py).
"""

import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, repeat
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from trilemma.data.decoding.budget import budget
from trilemma.data.decoding.convert import DEPTH, GREY, fitted, is_deep, to_plain
from trilemma.data.decoding.integrity import Ranges, end_of_jpeg, end_of_png, needed

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 exchange height and width
PIXELS = 2**30 // 12  # a larger image is taken for a decompression bomb
FILE_LIMIT = 2**28  # bytes; a larger image file is not opened
LAYERED = ("GIF", "WEBP", "PNG")  # their frames are drawn over one another, so that each needs those before it
FRAMED = (*LAYERED, "TIFF")
FRAME_LIMIT, FRAME_PIXELS = 20_000, 2**30  # frames of a file, and pixels of all of them

TURNED = "rotated to match their EXIF orientation"
FRAMES = "several frames or pages, of which the first is used (frames=all uses each)"
PICTURES = "several pictures in a JPEG, of which the first is used"
AFTER_BROKEN = "drawn over a frame that cannot be decoded"
BAD_EXIF = "EXIF that cannot be read, skipped"
BAD_EXTRAS = "text, a profile or other metadata that is broken or too long, skipped"
TURN = {  # EXIF orientation -> how the pixels are turned
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Header(NamedTuple):
    """size: (height, width) as seen; grey: whether the file can hold nothing but grey."""

    size: tuple[int, int]
    grey: bool


@dataclass(frozen=True)
class Item:
    """One file: its name, with "/" between folders; how to open it for reading; the archive of several it lies in;
    whether a forked process may open it; the number of the frame that is meant, from 0, where each frame is an image
    of its own; its header, where that was read before; the colour that shows through where it is transparent."""

    name: str
    open: Callable[[], IO[bytes]]
    shard: str = ""
    forks: bool = True
    frame: int | None = None
    header: Header | None = None
    ground: str = "white"


def name_of(item: Item) -> str:
    """A file's name for reports: with the archive of several in which it lies."""
    return f"{item.shard}:{item.name}" if item.shard else item.name


def open_file(path: str | Path) -> IO[bytes]:
    """A file of reasonable size for reading; a pipe or a device, which could block for ever, is not opened."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    check_length(status.st_size)
    return open(path, "rb")


def check_length(length: int) -> None:
    """Raises ValueError where a file is too large to be opened."""
    if length > FILE_LIMIT:
        raise ValueError(f"{length:,} bytes; more than {FILE_LIMIT:,} are not opened")


def header(item: Item) -> Header:
    """What is known without decoding the pixels."""
    if item.header:
        return item.header
    with item.open() as file, _open(file)[0] as image:
        return _header(image)


def frames_of(item: Item) -> list[Item]:
    """The frames of a file, each as an item of its own, NAME#0, NAME#1 ...; the item alone if it has one image.

    Raises:
        ValueError: they are more than FRAME_LIMIT, or have more than FRAME_PIXELS pixels.
    """
    frames, pixels = [], 0
    with item.open() as file, _open(file)[0] as image:
        if image.format not in FRAMED or not getattr(image, "is_animated", False):
            return [replace(item, header=_header(image))]
        for k, head in enumerate(_headers(image)):
            pixels += head.size[0] * head.size[1]
            if k == FRAME_LIMIT or pixels > FRAME_PIXELS:
                raise ValueError(f"more than {FRAME_LIMIT:,} frames, or {FRAME_PIXELS:,} pixels in all of them")
            frames.append(replace(item, name=f"{item.name}#{k}", frame=k, header=head))
    return frames


def decode_into(places: Sequence[np.ndarray], items: Sequence[Item]) -> list[tuple[Header, list[str]] | str]:
    """Decode the images `items` of one file, in the order of their frames, each into its place, uint8 (C, H, W).

    Returns:
        For each its header and what had to be done, in words; or why it cannot be decoded.
    """
    with items[0].open() as file:
        image, words = _open(file)
        with image:
            results = _decode_frames(file, image, places, items, words)
        if words or not any(isinstance(result, str) for result in results) or not (plain := _without_extras(file)):
            return results
        with Image.open(
            plain, formats=["PNG", "JPEG"]
        ) as image:  # what stands after the pixels is met only in decoding
            return _decode_frames(file, image, places, items, [BAD_EXTRAS])


def _decode_frames(
    file: IO[bytes], image: Image.Image, places: Sequence[np.ndarray], items: Sequence[Item], words: list[str]
) -> list[tuple[Header, list[str]] | str]:
    """As `decode_into`, with the file, the opened image, and words about it."""
    results: list[tuple[Header, list[str]] | str] = []
    damage = [*words]
    if image.format in ("PNG", "JPEG"):
        at = file.tell()
        damage += end_of_png(file) if image.format == "PNG" else end_of_jpeg(file)
        file.seek(at)
    for place, item in zip(places, items, strict=True):
        if results and isinstance(results[-1], str) and image.format in LAYERED:
            results.append(AFTER_BROKEN)
            continue
        try:
            results.append(_decode(image, place, item, [*damage]))
        except Exception as error:  # a decoder may raise anything on a broken file
            results.append(reason(error))
    return results


def _decode(image: Image.Image, place: np.ndarray, item: Item, words: list[str]) -> tuple[Header, list[str]]:
    """Decode the frame of an item into its place; what had to be done is added to `words`."""
    (channels, height, width), frame = place.shape, item.frame
    layered = frame is not None and image.format in LAYERED  # to go to it draws those before it
    if frame is None and getattr(image, "is_animated", False):
        words.append(FRAMES if image.format in FRAMED else PICTURES)
    elif frame is not None and not layered:
        _go_to(image, frame)
    early = "exif" in image.info or image.format not in ("PNG", "JPEG")  # to ask a PNG for it decodes the pixels
    orientation = _orientation(image, words) if early else 1
    head, is_16_bit = _header(image, orientation), is_deep(image)
    if image.format == "JPEG" and max(image.size) >= 4 * max(height, width):
        image.draft(None, (2 * max(height, width),) * 2)  # decoded at a fraction, at least this size
    with budget().taken(image.width * image.height):
        if frame is not None and layered:
            _go_to(image, frame)
            head, is_16_bit = _header(image, orientation), is_deep(image)
        words += [DEPTH] if is_16_bit else []
        image.load()
        if not early and image.format == "PNG":
            orientation = _orientation(image, words)
        if orientation in TURN:
            words.append(TURNED)
            image = image if image.format == "TIFF" else image.transpose(TURN[orientation])  # a TIFF is already
        pixels = fitted(to_plain(image, words, item.ground), "L" if channels == 1 else "RGB", (height, width))
    place[:] = np.asarray(pixels).reshape(height, width, channels).transpose(2, 0, 1)
    return head, words


def _go_to(image: Image.Image, frame: int) -> None:
    """Make a frame the one that is decoded."""
    image.seek(frame)
    _check_size(image)
    if frame and image.format == "GIF" and image.mode == "L":
        image.load()
        if image.mode == "P":  # a colour palette, whose numbers Pillow would draw as levels: begin again in colour
            image.seek(0)
            image.load()
            image.im, image._mode = image.im.convert("RGB"), "RGB"
            image.seek(frame)


def reason(error: Exception) -> str:
    """Why a file could not be read, without the path, which stands before it."""
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in one of the formats {', '.join(FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return str(error) or type(error).__name__


def _open(file: IO[bytes]) -> tuple[Image.Image, list[str]]:
    """The header of an image, and words about it; the pixels are read later. A PNG or JPEG whose text or profile
    stands in the way is read without it."""
    words = []
    try:
        image = Image.open(file, formats=FORMATS)
    except Exception:
        plain = _without_extras(file)
        if plain is None:
            raise
        image, words = Image.open(plain, formats=["PNG", "JPEG"]), [BAD_EXTRAS]
    _check_size(image)
    return image, words


def _without_extras(file: IO[bytes]) -> IO[bytes] | None:
    """A PNG or JPEG without what its picture does not need; None if it has none of that, or is neither."""
    ranges = needed(file)
    file.seek(0)
    return None if ranges is None else io.BufferedReader(Ranges(file, ranges))


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels; more than {PIXELS:,} are not opened")


def _header(image: Image.Image, orientation: int | None = None) -> Header:
    """The header; the orientation is read if it is not given."""
    width, height = image.size
    if orientation is None:
        # A square needs no asking, and a PNG without an early EXIF entry would be decoded.
        ask = width != height and ("exif" in image.info or image.format not in ("PNG", "JPEG"))
        orientation = _orientation(image, []) if ask else 1
    turned = orientation >= 5 and image.format != "TIFF"  # which gives its size as turned
    return Header((width, height) if turned else (height, width), image.mode in GREY)


def _orientation(image: Image.Image, words: list[str]) -> int:
    """How an image is turned, 1 to 8; 1 if its EXIF entry cannot be read, which is added to `words`."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever it holds
        words.append(BAD_EXIF)
        return 1
    return int(value) if isinstance(value, int | float) and value in TURN else 1


def _headers(image: Image.Image) -> Iterator[Header]:
    """The header of each frame; the header of one that cannot be found is a guess, and decoding it says why."""
    if image.format in LAYERED:
        yield from repeat(_header(image), _n_frames(image))
        return
    for k in count():
        try:
            image.seek(k)
        except EOFError:
            return
        except SyntaxError:  # a kind of page that is not known; others may follow
            pass
        except Exception:  # the way to the others is broken
            yield _header(image)
            return
        yield _header(image)


def _n_frames(image: Image.Image) -> int:
    """The number of frames; of a file that breaks off in the head of one, with that one."""
    try:
        return image.n_frames  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:
        return image.tell() + 2
