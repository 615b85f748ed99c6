"""Images that a page sends: each is decoded within bounds and written anew as a PNG of its pixels alone.

So nothing of the file that came is kept: no place where it was taken, no script, no name outside of ours.
"""

import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from trilemma.errors import UserError
from trilemma.files import disk_errors, remove_scratch, scratch_of, write_atomic

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
KEPT = ("L", "LA", "RGB", "RGBA")  # modes that are written as they are
MOST_IMAGES, MOST_PIXELS = 20_000, 16_000_000
LARGEST_IMAGE, LARGEST_WHOLE = 64 << 20, 4 << 30  # bytes
NO_IMAGE = (
    f"this is not an image that can be read; give one in {', '.join(FORMATS[:-1])} or {FORMATS[-1]} with at most "
    f"{MOST_PIXELS:,} pixels and {LARGEST_IMAGE >> 20} MB"
)
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
UNCLEAR = re.compile(r"[^a-z0-9]+")


class Upload(NamedTuple):
    """What was written: the folder, the number of images, and the names of files that were not images within bounds."""

    folder: Path
    images: int
    skipped: list[str]


def checked_name(text: str) -> str:
    """The name of a folder for data.

    Raises:
        UserError: it is not one of small letters, digits and hyphens.
    """
    if not NAME.fullmatch(text):
        raise UserError("the name of the data takes up to 40 small letters, digits and hyphens, as in my-photos")
    return text


def receive(files: Iterable[tuple[str, IO[bytes]]], folder: Path) -> Upload:
    """Write images, or those of zips, into a new folder, which is whole or absent; a folder in a zip is a class.

    Args:
        files: the name and the content of each.
    Raises:
        UserError: the folder exists, or is being received; there are too many or too large ones, or none is an image;
            or the disk refuses.
    """
    if os.path.lexists(folder):
        raise UserError(f"{folder.name} exists already; choose another name")
    scratch = scratch_of(folder)
    try:
        with disk_errors(folder):
            scratch.mkdir(parents=True)
            try:
                count, skipped = _write(files, scratch)
                _put(scratch, folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except FileExistsError:
        raise UserError(f"{folder.name} exists already; choose another name") from None
    return Upload(folder, count, skipped)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed studio was receiving; only for a folder that this process has locked."""
    remove_scratch(folder, NAME.pattern)


def _put(scratch: Path, folder: Path) -> None:
    """Give a folder its name; raises FileExistsError if something has it."""
    if os.path.lexists(folder):
        raise FileExistsError(folder)
    scratch.rename(folder)


def _write(files: Iterable[tuple[str, IO[bytes]]], folder: Path) -> tuple[int, list[str]]:
    """The number of images that were written, and the names of files that are none; errors as `receive`."""
    skipped: list[str] = []
    count = 0
    for name, content in members(files):
        if count >= MOST_IMAGES:
            raise UserError(
                f"more than {MOST_IMAGES:,} images; use the command line for that many: trilemma data check"
            )
        pixels = decoded(content)
        if pixels is None:
            skipped.append(name[:200])
            continue
        count += 1
        write_png(pixels, folder / class_of(name) / f"{count:05}.png")
    if not count:
        raise UserError(f"none of the files is an image ({', '.join(FORMATS)}, at most {MOST_PIXELS:,} pixels)")
    return count, skipped


def members(files: Iterable[tuple[str, IO[bytes]]]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of files, those in zips one by one, all within bounds.

    Raises:
        UserError: together they are too large.
    """
    whole = 0
    for name, file in files:
        for inner, content in (
            _in_zip(file) if name.lower().endswith(".zip") else [(name, file.read(LARGEST_IMAGE + 1))]
        ):
            whole += len(content)
            if whole > LARGEST_WHOLE:
                raise UserError(f"more than {LARGEST_WHOLE:,} bytes of images")
            yield inner, content


def _in_zip(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist()[: 2 * MOST_IMAGES]:
                if not entry.is_dir() and not Path(entry.filename).name.startswith("."):
                    with archive.open(entry) as inner:
                        yield entry.filename, inner.read(LARGEST_IMAGE + 1)
    except Exception as error:  # of whatever unpacks: zlib.error, LZMAError, a name that is no text
        raise UserError(f"the zip cannot be read: {error}") from None


def decoded(content: bytes) -> "Image.Image | None":
    """The first frame of an image, turned as its camera says, as grey or sRGB of 8 bits with its transparency, without
    anything else; None if it is not one."""
    import io

    from PIL import Image, ImageOps

    from trilemma.data.decoding.convert import GREY, in_srgb

    if len(content) > LARGEST_IMAGE:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            plain = in_srgb(ImageOps.exif_transpose(image), [])
            return plain if plain.mode in KEPT else plain.convert("L" if plain.mode in GREY else "RGB")
    except Exception:  # a decoder may raise anything on a broken file
        return None


def write_png(image: "Image.Image", path: Path) -> None:
    """Write the pixels alone."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    plain = Image.frombytes(image.mode, image.size, image.tobytes())
    plain.save(buffer, "png")
    write_atomic(path, buffer.getvalue())


def class_of(name: str) -> str:
    """The folder of a class: the last folder of a name, in our letters; "" for none.

    >>> class_of("photos/My Cats/1.jpg"), class_of("1.jpg"), class_of("../../etc/x.png")
    ('my-cats', '', 'etc')
    """
    parts = re.split(r"[/\\\\]", name)
    return UNCLEAR.sub("-", parts[-2].lower()).strip("-")[:40] if len(parts) > 1 else ""
