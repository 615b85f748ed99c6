"""The one rule by which images of any size get one size.

Images that are all equal and at most 128 px keep their size. Otherwise each is scaled by s = max(H / h, W / w), the
least factor that covers the target (H, W), with Lanczos' filter (antialiased), and its centre is kept. The target is
the `size` asked for; else the common size with its longer side at 64 px; else, for mixed sizes, a square of the
smallest side seen, between 8 and 64 px. Where images are only measured, MEASURED_PX takes the place of 128 and 64 px.
"""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trilemma.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

KEEP, LONG, SHORTEST, LARGEST = 128, 64, 8, 2048  # px
MEASURED_PX = 256  # of the longer side, at most, where no model says the size
SCALED = "each is scaled (Lanczos) to cover"  # in the note of images that do not keep their size
Size = int | str | tuple[int, int] | list[int]


def parse_size(size: Size | None) -> tuple[int, int] | None:
    """(height, width) from 32, "32", "48x64" or "48,64" (height, width) or (48, 64); None stays None.

    >>> parse_size("48x64"), parse_size("48,64"), parse_size(32)
    ((48, 64), (48, 64), (32, 32))
    """
    if size is None:
        return None
    parts = (
        re.split("[x,]", size.lower()) if isinstance(size, str) else size if isinstance(size, (tuple, list)) else [size]
    )
    try:
        sides = [int(part) for part in parts]
    except (TypeError, ValueError):
        sides = []
    if len(sides) not in (1, 2) or not all(1 <= side <= LARGEST for side in sides):
        raise UserError(f"size={size}: give one side as 32, or height x width as 48x64; 1 to {LARGEST} px each")
    return sides[0], sides[-1]


def choose_size(
    seen: Iterable[Sequence[int]], size: tuple[int, int] | None, most_px: int | None = None
) -> tuple[tuple[int, int], str]:
    """The target (height, width) for images of the sizes `seen`, and what will be done, in words.

    Args:
        size: asked for (default: inferred).
        most_px: of a side that is inferred (default: KEEP of images that are equal, or else LONG).
    """
    keep, long = (KEEP, LONG) if most_px is None else (most_px, most_px)
    kinds = {(height, width) for height, width in seen}
    only = next(iter(kinds)) if len(kinds) == 1 else None
    if only and (size == only or (size is None and max(only) <= keep)):
        return only, f"all images are {text(only)} (height x width) and keep their size"
    if size:
        target = size
    elif only:
        target = max(1, round(only[0] * long / max(only))), max(1, round(only[1] * long / max(only)))
    else:
        side = max(SHORTEST, min(long, min(map(min, kinds))))
        target = side, side
    images = f"all images are {text(only)}" if only else f"images of {len(kinds)} sizes"
    rule = f"{images}: {SCALED} {text(target)} and its centre is kept"
    advice = f"; size={text(only)} keeps their size" if only and not size and max(only) <= LARGEST else ""
    return target, rule + advice


def cover(image: "Image.Image", target: tuple[int, int]) -> "Image.Image":
    """Scale to cover the target (height, width) and keep the centre."""
    from PIL import Image

    height, width = target
    if image.size == (width, height):
        return image
    scale = max(height / image.height, width / image.width)
    half_x, half_y = width / scale / 2, height / scale / 2
    x, y = image.width / 2, image.height / 2
    box = (max(0.0, x - half_x), max(0.0, y - half_y), min(image.width, x + half_x), min(image.height, y + half_y))
    return image.resize((width, height), Image.Resampling.LANCZOS, box)


def fit(images: Tensor, target: tuple[int, int], channels: int) -> Tensor:
    """Decoded images, uint8 (N, 1 or 3, h, w), in the target size and number of channels: (N, channels, H, W)."""
    from PIL import Image

    images = with_channels(images, channels)
    if tuple(images.shape[2:]) == target:
        return images
    out = torch.empty(len(images), channels, *target, dtype=torch.uint8)
    source, result = images.permute(0, 2, 3, 1).numpy(), out.numpy()  # (N, h, w, C), (N, C, H, W)

    def one(k: int) -> None:
        pixels = np.ascontiguousarray(source[k])
        small = cover(Image.fromarray(pixels[..., 0] if channels == 1 else pixels), target)
        result[k] = np.asarray(small).reshape(*target, channels).transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(len(images)), chunksize=64))
    return out


def with_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 (N, 1 or 3, H, W) with 1 or 3 channels; grey is the luma of ITU-R BT.601, as everywhere in PIL.

    In whole levels, as Pillow computes it, so that arrays and files give equal images. `metrics.features.to_channels`
    weighs floats with the same luma and rounds nothing: its images need not be whole levels, and scores of earlier
    versions were computed so. The two differ by half a level at most.
    """
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    red, green, blue = images.int().unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8)[:, None]


def text(size: tuple[int, int]) -> str:
    """Height x width in words."""
    return f"{size[0]}x{size[1]}"
