"""Images over others that are compared with them, a text under each pair."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma.pictures.grid import TEXT, enlarged, font, grid, tile_scale
from trilemma.pictures.table import GAP

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = 16


def pairs(above: Tensor, below: Tensor, texts: Sequence[str], names: tuple[str, str, str], title: str) -> "Image.Image":
    """Each image of `above` over that of `below`, both (N, C, H, W), in rows of 16.

    Args:
        texts: one under each pair; names: of both images and of the texts, beside every row; title: over all.
    """
    from PIL import Image, ImageDraw

    sheet = grid(_joined(above, below), COLUMNS, scale=1, texts=texts)
    letters, rows = font(), -(-len(above) // COLUMNS)
    height = above.shape[2] * tile_scale(*above.shape[2:])
    places = (height / 2, 1.5 * height + 1, 2 * height + 1 + TEXT / 2)
    left, top = GAP + math.ceil(max(map(letters.getlength, names))) + GAP, GAP + TEXT + GAP
    width = max(left + sheet.width, math.ceil(GAP + letters.getlength(title) + GAP))
    page = Image.new(sheet.mode, (width, top + sheet.height), "white")
    page.paste(sheet, (left, top))
    draw = ImageDraw.Draw(page)
    draw.text((GAP, GAP), title, fill="black", font=letters)
    step = (sheet.height - 1) / rows
    for row in range(rows):
        for name, y in zip(names, places, strict=True):
            draw.text((left - GAP, top + 1 + row * step + y), name, fill="black", font=letters, anchor="rm")
    return page


def _joined(above: Tensor, below: Tensor) -> Tensor:
    """Each image over the other with a white line between them, enlarged as tiles of a grid are."""
    scale = tile_scale(*above.shape[2:])
    large = [enlarged(part, scale) for part in (above, below)]
    line = torch.ones_like(large[0][:, :, :1])
    return torch.cat([large[0], line, large[1]], dim=2)  # (n, C, 2 H scale + 1, W scale)
