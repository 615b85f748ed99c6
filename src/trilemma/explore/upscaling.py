"""An enlarged image beside the small one: what `upscale` gives, whatever enlarged it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma.errors import UserError
from trilemma.pictures.grid import grid

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 2**20  # pixels of an enlarged image


@dataclass(frozen=True)
class Upscaling:
    """The picture, the file of each image, and what they show: the small image (1, C, h, w), the same enlarged by
    bicubic interpolation (1, C, H, W), the images drawn (n, C, H, W), and the true one where there is one."""

    picture: Path
    files: list[Path]
    small: Tensor
    bicubic: Tensor
    images: Tensor
    original: Tensor | None


def check_enlarged(image: object, size: Sequence[int]) -> None:
    """Raises UserError, before anything is drawn, where an image would become too large."""
    if size[0] * size[1] > LARGEST:
        raise UserError(f"{image} would become {size[0]}x{size[1]} px, more than {LARGEST:,} pixels; cut or shrink it")


def upscaling_page(
    small: Tensor, bicubic: Tensor, images: Tensor, original: Tensor | None, first: int
) -> "Image.Image":
    """small | bicubic | drawn | original."""
    pixels = F.interpolate(small, size=list(bicubic.shape[2:]), mode="nearest")
    shown, texts = [pixels, bicubic, images], ["small", "bicubic", *(str(first + k) for k in range(len(images)))]
    if original is not None:
        shown.append(original)
        texts.append("original")
    return grid(torch.cat(shown), columns=min(8, len(texts)), texts=texts)
