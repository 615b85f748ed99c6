"""Images in rows with a name beside each and heads above the columns."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from trilemma.pictures.grid import TEXT, font, grid, tile_scale

if TYPE_CHECKING:
    from PIL import Image

GAP = 6  # px between a table and its names


def table(
    images: Tensor, names: Sequence[str], heads: Sequence[str] = (), texts: Sequence[str] | None = None
) -> "Image.Image":
    """Images in rows of equal length, with a name beside each row and heads above the columns.

    Args:
        images: (N, C, H, W), row by row; N is a multiple of the number of names.
        heads: one per column; if they are too wide, only every second, third ... is written.
        texts: what to write under each image.
    """
    from PIL import Image, ImageDraw

    letters, columns, pad = font(), len(images) // len(names), 4 if texts else 1
    body = grid(images, columns=columns, pad=pad, texts=texts)
    left = GAP + math.ceil(max(map(letters.getlength, names))) + GAP
    top = GAP + TEXT + GAP if heads else 0
    row, column = (body.height - pad) / len(names), (body.width - pad) / columns
    tile = images.shape[2] * tile_scale(*images.shape[2:])
    page = Image.new(body.mode, (left + body.width + GAP, top + body.height + GAP), "white")
    page.paste(body, (left, top))
    draw = ImageDraw.Draw(page)
    for k, name in enumerate(names):
        draw.text((left - GAP, top + k * row + tile / 2), name, fill="black", font=letters, anchor="rm")
    every = math.ceil(max(map(letters.getlength, heads), default=0) / column) or 1
    for k, head in enumerate(heads):
        if k % every == 0:
            draw.text((left + (k + 0.5) * column, top - GAP), head, fill="black", font=letters, anchor="ms")
    return page
