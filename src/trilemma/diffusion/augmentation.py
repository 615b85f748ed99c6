"""Images of a training moved, turned and scaled, of which the network is told how (Karras et al. 2022, appendix F.2).

Each of the transforms below but the first is made with probability p, the first always. Numbers that say what was
made are given to the network beside the noise level; all are 0 for an image as it is. Asked for 0, it draws images as
they are: unlike a transform that it is not told of, none of these leaks into what it draws, for any p < 1.

    transform     drawn                                       told
    flip in x     a0 of {0, 1}                                a0
    flip in y     a1 of {0, 1}                                a1
    scale         factor 2**(0.2 a2), a2 normal               a2
    rotation      angle a3, uniform                           cos a3 - 1, sin a3
    stretch       2**(0.2 a5) along the angle a4, a5 normal   a5 cos 2 a4, a5 sin 2 a4
    translation   a6, a7 eighths of the sides, normal         a6, a7

All are one affine map from a pixel to the place it is taken from, linear between pixels, reflected at the borders.
In the paper images are moved last and sampled with a filter, and of a stretch it tells a5 cos a4 and a5 sin a4, which
are the same for one along a4 and one across it; those of twice the angle are not.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma.nets.affine import resample, rotation
from trilemma.rng import batch_normal, batch_uniform

NUMBERS = 9  # that a network is told
FACTOR = 0.2 * math.log(2)  # log of the scale and of the stretch, for a number of 1
SHIFT = 1 / 8  # of a side, for a number of 1


class Geometry(NamedTuple):
    """Of B images: where each is taken from, x = A y + b, in pixels from the centre, and the numbers that say so."""

    matrix: Tensor  # A (B, 2, 2)
    shift: Tensor  # b (B, 2)
    numbers: Tensor  # (B, NUMBERS)


def geometry(image: Tensor, p: float, rng: torch.Generator) -> Geometry:
    """A transform for each of the images (B, C, H, W)."""
    height, width = image.shape[2:]
    on, u, e = batch_uniform(6, image, rng) < p, batch_uniform(4, image, rng), batch_normal(4, image, rng)
    flip_x, flip_y = (u[0] < 0.5).to(e), (on[1] & (u[1] < 0.5)).to(e)
    scale, angle = on[2] * e[0], on[3] * 2 * math.pi * u[2]
    stretch, along = on[4] * e[1], 2 * math.pi * u[3]
    right, down = on[5] * e[2:]
    factor = (FACTOR * stretch).exp()
    stretched = rotation(along) * _row(factor, 1 / factor) @ rotation(-along)
    matrix = rotation(angle) * _row(1 - 2 * flip_x, 1 - 2 * flip_y) @ stretched * (FACTOR * scale).exp()[:, None, None]
    shift = torch.stack([SHIFT * width * right, SHIFT * height * down], 1)
    numbers = [flip_x, flip_y, scale, angle.cos() - 1, angle.sin()]
    numbers += [stretch * (2 * along).cos(), stretch * (2 * along).sin(), right, down]
    return Geometry(matrix, shift, torch.stack(numbers, 1))


def augment(image: Tensor, p: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) each under a transform of its own, and what the network is told of it, (B, NUMBERS)."""
    with torch.autocast(image.device.type, enabled=False):  # bfloat16 has not the bits for a place in an image
        transform = geometry(image, p, rng)
        return resample(image, transform.matrix, transform.shift), transform.numbers


def _row(x: Tensor, y: Tensor) -> Tensor:
    """Factors of the columns of matrices, (B, 1, 2)."""
    return torch.stack([x, y], 1)[:, None]
