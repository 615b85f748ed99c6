"""Images beside each other on one sheet, each with a text under it if wanted."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from trilemma.pictures.levels import to_uint8

if TYPE_CHECKING:
    from PIL import Image, ImageFont


MODES = {1: "L", 3: "RGB", 4: "RGBA"}
TILE = 64  # px: small images are enlarged towards this side
TEXT = 11  # px: height of the letters under a tile
LINES, LETTERS, MORE = 4, 400, "..."  # under a tile, at most; what stands for the rest


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
        columns: default: as square as possible.
        scale: how many pixels each pixel becomes (nearest neighbour); default: towards a side of 64.
        pad: white pixels around each tile. Without texts, tile (row, column) begins at
            (pad + column * (W * scale + pad), pad + row * (H * scale + pad)).
        texts: up to LINES lines under each tile.
    """
    from PIL import Image, ImageDraw

    n, channels, height, width = images.shape
    columns = _columns(n, columns)
    scale = scale or tile_scale(height, width)
    letters = font() if texts else None
    lines = [_wrap(text, width * scale, letters.getlength) for text in texts] if texts and letters else []
    below = max(map(len, lines), default=0) * (TEXT + 2)
    step_x, step_y = width * scale + pad, height * scale + pad + below
    size = (pad + columns * step_x, pad + math.ceil(n / columns) * step_y)
    sheet = Image.new(MODES.get(channels, "RGB"), size, "white")
    draw = ImageDraw.Draw(sheet)
    for k, image in enumerate(to_uint8(images).cpu()):
        x, y = pad + k % columns * step_x, pad + k // columns * step_y
        sheet.paste(to_image(image).resize((width * scale, height * scale), Image.Resampling.NEAREST), (x, y))
        if lines:
            draw.multiline_text((x, y + height * scale), "\n".join(lines[k]), fill="black", font=letters, spacing=2)
    return sheet


def tiled(images: Tensor) -> Tensor:
    """The pixels of a `grid` of images (N, C, H, W) that is asked for nothing else, uint8 (C, height, width)."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.array(grid(images)))  # (height, width) or (height, width, C)
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def grid_size(n: int, height: int, width: int) -> tuple[int, int]:
    """Width and height in pixels of a `grid` of n images that is asked for nothing else."""
    columns, scale = _columns(n), tile_scale(height, width)
    return 1 + columns * (width * scale + 1), 1 + math.ceil(n / columns) * (height * scale + 1)


def _columns(n: int, asked: int | None = None) -> int:
    return max(1, min(asked or math.ceil(math.sqrt(n)), n))


def tile_scale(height: int, width: int, side: int = TILE) -> int:
    """By which whole number images are enlarged towards a longer side of `side` px."""
    return max(1, side // max(height, width, 1))


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Images (..., H, W) with each pixel repeated: (..., H * scale, W * scale)."""
    return images.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def reduced(image: "Image.Image", side: int) -> "Image.Image":
    """An image whose longer side is at most `side` px."""
    from PIL import Image

    factor = side / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(length * factor)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def font() -> "ImageFont.FreeTypeFont":
    """A font with the letters of most alphabets (the one matplotlib carries)."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), TEXT)


def _wrap(text: str, width: int, measure: Callable[[str], float]) -> list[str]:
    """At most LINES lines that fit into `width` px, the last with "..." where more follows: broken between words, or
    inside one that is too long."""
    lines, rest = [], " ".join(text[:LETTERS].split())
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
