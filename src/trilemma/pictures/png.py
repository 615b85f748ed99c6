"""PNG files that carry a receipt: how they were made, as JSON.

Every receipt names the version and the verb, and repeats what was asked for; `sample` alone writes one of its own
(explore/sample.py), from which its pictures are made again.
"""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma import __version__
from trilemma.errors import UserError
from trilemma.files import open_plain, parse_json, refuse_foreign, write_atomic

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

KEY = "trilemma"  # of our entry in a PNG
ENTRY_LIMIT = 2**20  # bytes of our entry that are read


def receipt_for(verb: str, **asked: Any) -> dict[str, Any]:
    """How a picture of a verb is made.

    Args:
        asked: what it takes to make it; the rest of the receipt, in this order.
    """
    return {"trilemma": __version__, "verb": verb, **asked}


def save_png(
    image: "Image.Image | Tensor | bytes",
    path: str | Path,
    metadata: dict[str, Any] | None = None,
    *,
    replace: bool = False,
) -> Path:
    """Write a picture (PIL image, one image as a tensor, or the content of a PNG file) with its receipt; whole or not
    at all.

    Args:
        replace: write over any file of that name, in a folder that is ours.
    Raises:
        UserError: a file of that name exists and is not a picture of ours, or the disk refuses.
    """
    if not replace:
        refuse_foreign(Path(path), says_how_made)
    return write_atomic(path, png_content(image, metadata))


def png_content(image: "Image.Image | Tensor | bytes", metadata: dict[str, Any] | None = None) -> bytes:
    """The content of a PNG file with its receipt; the arguments are those of `save_png`."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if metadata is not None:
        info.add_itxt(KEY, json.dumps(metadata, ensure_ascii=False))
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image), formats=["PNG"])
    if not isinstance(image, Image.Image):
        from trilemma.pictures.grid import to_image

        image = to_image(image)
    buffer = io.BytesIO()
    image.save(buffer, "png", pnginfo=info)
    return buffer.getvalue()


def says_how_made(path: Path) -> bool:
    """Whether a file is a picture that says how it was made, as ours do."""
    try:
        read_metadata(path)
    except UserError:
        return False
    return True


def read_metadata(path: str | Path) -> dict[str, Any]:
    """How a picture was made, as `save_png` wrote it.

    Raises:
        UserError: the file does not exist, is not a PNG, or carries no receipt of ours.
    """
    from PIL import Image

    try:
        with open_plain(path) as file, Image.open(file, formats=["PNG"]) as image:
            text = image.info.get(KEY)  # our entry stands before the pixels, which are not decoded
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} not found") from None
    except Exception as error:  # a decoder may raise anything on a broken file
        raise UserError(f"{path} is not a readable PNG: {error}") from None
    try:
        receipt = parse_json(text) if isinstance(text, str) and len(text) <= ENTRY_LIMIT else None
    except UserError:
        receipt = None
    if not isinstance(receipt, dict):
        raise UserError(f"{path} does not say how it was made; only a PNG as trilemma wrote it does")
    return receipt
