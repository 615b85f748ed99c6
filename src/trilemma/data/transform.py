"""Random transforms of a batch of uint8 images, drawn from (seed, image, epoch): the same in any batch.

Each output pixel (i, j) is read from row r(i + dy) and column r(j + dx), where r reflects what leaves the image:
r(k) = (n - 1) - |n - 1 - |k||. A flip exchanges column j for W - 1 - j first. Both are a table of rows (B, H), a
table of columns (B, W), and one look-up.

Binarisation follows: a pixel of level v is 255 with the probability v / 255, else 0. Drawn anew in every epoch this is
the binarisation of Salakhutdinov & Murray (2008), "On the quantitative analysis of deep belief networks".
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma import rng
from trilemma.errors import unknown

TRANSFORMS = ("flip", "shift", "binarise")
REACH = 8  # a shift goes up to 1/8 of the side
DRAWS = 3  # numbers per image: flip, dy, dx; then one for each of its values to be binarised


def check_transforms(names: Sequence[str]) -> tuple[str, ...]:
    """The names as they are.

    Raises:
        UserError: for an unknown one.
    """
    for name in names:
        if name not in TRANSFORMS:
            raise unknown("transform", name, TRANSFORMS)
    return tuple(names)


def draws_needed(names: Sequence[str], size: int) -> int:
    """Random numbers for each image of `size` values."""
    return DRAWS + (size if "binarise" in names else 0)


def draws(index: Tensor, seed: int, epoch: int, count: int = DRAWS) -> Tensor:
    """The random numbers of the images `index` in an epoch, float32 in [0, 1), (B, count)."""
    return rng.uniform(index, (count,), seed, "augment", epoch)


def transform(images: Tensor, names: Sequence[str], u: Tensor) -> Tensor:
    """Images transformed as their numbers say.

    Args:
        images: any type, (B, C, H, W); uint8 where they are binarised.
        names: "flip" (left and right exchanged with probability 1/2), "shift" (uniformly by up to 1/8 of each side),
            "binarise" (each value drawn as 0 or 255), in whatever order they are given.
        u: numbers in [0, 1), (B, draws_needed(names, C * H * W)), from `draws`.
    """
    if "flip" in names or "shift" in names:
        images = _flip_and_shift(images, names, u)
    return binarise(images, u[:, DRAWS:].view(images.shape)) if "binarise" in names else images


def binarise(images: Tensor, u: Tensor) -> Tensor:
    """Level v becomes 255 where u < v / 255, else 0: uint8 images and numbers in [0, 1) of any one shape."""
    return (255 * u.to(images.device, non_blocking=True) < images).to(torch.uint8) * 255


def _flip_and_shift(images: Tensor, names: Sequence[str], u: Tensor) -> Tensor:
    """Images read at the columns and rows that the flip and the shift of each ask for."""
    count, channels, height, width = images.shape
    rows = torch.arange(height).expand(count, -1)  # (B, H)
    columns = torch.arange(width).expand(count, -1)  # (B, W)
    if "shift" in names:
        rows = _reflect(rows + _steps(u[:, 1:2], height // REACH), height)
        columns = _reflect(columns + _steps(u[:, 2:3], width // REACH), width)
    if "flip" in names:
        columns = torch.where(u[:, :1] < 0.5, width - 1 - columns, columns)
    at = (rows[:, :, None] * width + columns[:, None, :]).reshape(count, 1, -1)  # (B, 1, H * W)
    at = at.to(images.device, non_blocking=True).expand(-1, channels, -1)
    return images.flatten(2).gather(2, at).view_as(images)


def _steps(u: Tensor, reach: int) -> Tensor:
    """Whole numbers from -reach to reach, all as likely."""
    return (u * (2 * reach + 1)).long() - reach


def _reflect(at: Tensor, n: int) -> Tensor:
    """Positions beyond 0 ... n-1 mirrored back inside; the border itself isn't repeated."""
    return (n - 1) - ((n - 1) - at.abs()).abs()
