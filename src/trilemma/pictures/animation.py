"""Animations: GIF files that repeat for ever."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from trilemma.pictures.grid import grid, tile_scale

if TYPE_CHECKING:
    from PIL import Image

MOVING = 128  # px: images are enlarged towards this side


def frame(images: Tensor, columns: int) -> "Image.Image":
    """Images (N, C, H, W) beside each other."""
    return grid(images, columns=columns, scale=tile_scale(*images.shape[2:], side=MOVING), pad=4)


def animated(pictures: "Sequence[Image.Image]", times_ms: Sequence[int]) -> bytes:
    """The content of a GIF file that shows each picture for its time."""
    buffer = io.BytesIO()
    pictures[0].save(buffer, "gif", save_all=True, append_images=pictures[1:], duration=list(times_ms), loop=0)
    return buffer.getvalue()
