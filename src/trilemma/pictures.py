"""From tensors to pictures: values in [0, 1] to 256 levels by rounding, grids, PNG files that say how they were made.

A level v of 0 ... 255 is the float v / 255; round(255 * v / 255) = v for all 256, which truncation would not keep.
"""

import io
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.files import open_plain, parse_json, refuse_foreign, write_atomic

if TYPE_CHECKING:
    from PIL import Image, ImageFont

KEY = "trilemma"  # of our entry in a PNG
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
TILE = 64  # px: small images are enlarged towards this side
TEXT = 11  # px: height of the letters under a tile
LINES, LETTERS, MORE = 4, 400, "..."  # under a tile, at most; what stands for the rest
ENTRY_LIMIT = 2**20  # bytes of our entry that are read


def to_uint8(images: Tensor) -> Tensor:
    """Values in [0, 1] to levels 0 ... 255 by rounding, any shape; what lies outside is clipped; uint8 stays."""
    if images.dtype == torch.uint8:
        return images
    return images.detach().float().mul(255).round().clamp(0, 255).to(torch.uint8)


def to_image(image: Tensor) -> "Image.Image":
    """One image (C, H, W), float in [0, 1] or uint8, with 1, 3 or 4 channels, as a PIL image."""
    from PIL import Image

    if image.ndim != 3 or image.shape[0] not in MODES:
        raise ValueError(f"a picture needs (1, 3 or 4 channels, height, width), got {tuple(image.shape)}")
    pixels = to_uint8(image).cpu().permute(1, 2, 0).contiguous().numpy()  # (H, W, C)
    return Image.fromarray(pixels[..., 0] if image.shape[0] == 1 else pixels)


def grid(
    images: Tensor,
    columns: int | None = None,
    scale: int | None = None,
    pad: int = 1,
    texts: Sequence[str] | None = None,
) -> "Image.Image":
    """Images side by side on white, row by row.

    Args:
        images: (N, C, H, W), float in [0, 1] or uint8.
        columns: as square as possible where None.
        scale: how many pixels each pixel becomes (nearest neighbour); where None, towards a side of 64.
        pad: white pixels around each tile. Without texts, tile (row, column) begins at
            (pad + column * (W * scale + pad), pad + row * (H * scale + pad)).
        texts: up to LINES lines under each tile.
    """
    from PIL import Image, ImageDraw

    n, channels, height, width = images.shape
    columns = _columns(n, columns)
    scale = scale or _scale(height, width)
    lines = [_wrap(text, width * scale) for text in texts] if texts else []
    below = max(map(len, lines), default=0) * (TEXT + 2)
    step_x, step_y = width * scale + pad, height * scale + pad + below
    size = (pad + columns * step_x, pad + math.ceil(n / columns) * step_y)
    sheet = Image.new(MODES.get(channels, "RGB"), size, "white")
    draw = ImageDraw.Draw(sheet)
    for k, image in enumerate(images):
        x, y = pad + k % columns * step_x, pad + k // columns * step_y
        sheet.paste(to_image(image).resize((width * scale, height * scale), Image.Resampling.NEAREST), (x, y))
        if lines:
            draw.multiline_text((x, y + height * scale), "\n".join(lines[k]), fill="black", font=font(), spacing=2)
    return sheet


def grid_size(n: int, height: int, width: int) -> tuple[int, int]:
    """Width and height in pixels of a `grid` of n images that is asked for nothing else."""
    columns, scale = _columns(n), _scale(height, width)
    return 1 + columns * (width * scale + 1), 1 + math.ceil(n / columns) * (height * scale + 1)


def _columns(n: int, asked: int | None = None) -> int:
    return max(1, min(asked or math.ceil(math.sqrt(n)), n))


def _scale(height: int, width: int) -> int:
    return max(1, TILE // max(height, width, 1))


def save_png(
    image: "Image.Image | Tensor | bytes",
    path: str | Path,
    metadata: dict[str, Any] | None = None,
    *,
    replace: bool = False,
) -> Path:
    """Write a picture (PIL image, one image as a tensor, or the content of a PNG file) and how it was made; whole or
    not at all.

    Args:
        replace: write over whatever is there, in a folder that is ours.
    Raises:
        UserError: there is a file that is not a picture of ours, or the disk refuses.
    """
    if not replace:
        refuse_foreign(Path(path), says_how_made)
    return write_atomic(path, png_content(image, metadata))


def png_content(image: "Image.Image | Tensor | bytes", metadata: dict[str, Any] | None = None) -> bytes:
    """The content of a PNG file with how it was made; the arguments are those of `save_png`."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if metadata is not None:
        info.add_itxt(KEY, json.dumps(metadata, ensure_ascii=False))
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image), formats=["PNG"])
    buffer = io.BytesIO()
    (to_image(image) if isinstance(image, Tensor) else image).save(buffer, "png", pnginfo=info)
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
        UserError: there is no such file, it is no PNG, or it carries no entry of ours.
    """
    from PIL import Image

    try:
        with open_plain(path) as file, Image.open(file, formats=["PNG"]) as image:
            text = image.info.get(KEY)  # our entry stands before the pixels, which are not decoded
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no picture {path}") from None
    except Exception as error:  # a decoder may raise anything on a broken file
        raise UserError(f"{path} is not a readable PNG: {error}") from None
    try:
        found = parse_json(text) if isinstance(text, str) and len(text) <= ENTRY_LIMIT else None
    except UserError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} does not say how it was made; only a PNG as trilemma wrote it does")
    return found


def font() -> "ImageFont.FreeTypeFont":
    """A font with the letters of most alphabets (the one matplotlib carries)."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), TEXT)


def _wrap(text: str, width: int) -> list[str]:
    """At most LINES lines that fit into `width` px, the last with "..." where more follows: broken between words, or
    inside one that is too long."""
    measure, lines, rest = font().getlength, [], " ".join(text[:LETTERS].split())
    while rest and len(lines) < LINES:
        fits = _fitting(rest, width, measure)
        space = rest.rfind(" ", 0, fits + 1) if fits < len(rest) else -1
        at = space if space > 0 else fits
        lines.append(rest[:at])
        rest = rest[at:].lstrip()
    if rest or len(text) > LETTERS:
        last = lines[-1][: _fitting(lines[-1], width - measure(MORE), measure)]
        lines[-1] = f"{last.rstrip()}{MORE}"
    return lines or [""]


def _fitting(text: str, width: float, measure: Callable[[str], float]) -> int:
    """How many of the first letters fit into `width` px, at least one."""
    return max(1, bisect_right(range(1, len(text) + 1), width, key=lambda k: measure(text[:k])))
