"""Points near an ellipse in space, as images of one pixel with three channels: data whose best plane is known.

    x = R (cos a, sin(a) / 2, 0) + 0.28 eps,   eps ~ N(0, I),   a = 2 pi u**1.5,   u uniform in [0, 1)

with R a fixed rotation. A plane explains all but the noise across it, so the best linear autoencoder with two numbers
in its code has an expected squared error of 0.28**2 per point, or a root mean square of 0.28 / sqrt(3) = 0.162 over
the three coordinates. A coordinate x becomes the level 255 (x + 2) / 4, cut to 0 ... 255; point i depends on (seed, i).
"""

import math

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data.split import Split

AXES = (1.0, 0.5)
NOISE = 0.28  # standard deviation of each coordinate
UNEVEN = 1.5  # exponent that gathers the angles at 0
TILT, TURN = 0.6, 0.9  # radians about the first and the third axis
LOWEST, SPAN = -2.0, 4.0  # of the coordinates that become levels 0 ... 255
COUNTS = {"train": 60, "valid": 500}


def draw_ellipse(n: int, *, seed: int = 0, purpose: str = "train") -> Split:
    """Points 0 ... n - 1 of a purpose ("train", "valid") as images, uint8 (n, 3, 1, 1)."""
    levels = 255 * (points(torch.arange(n), seed, purpose) - LOWEST) / SPAN
    return Split(levels.round().clamp(0, 255).to(torch.uint8)[:, :, None, None])


def points(ids: Tensor, seed: int, purpose: str) -> Tensor:
    """The points `ids` in space, float32 (n, 3)."""
    angle = 2 * math.pi * rng.uniform(ids, (), seed, f"ellipse/{purpose}/angle") ** UNEVEN
    flat = torch.stack([AXES[0] * angle.cos(), AXES[1] * angle.sin(), torch.zeros_like(angle)], dim=1)
    return flat @ rotation().T + NOISE * rng.normal(ids, (3,), seed, f"ellipse/{purpose}/noise")


def rotation() -> Tensor:
    """By TILT about the first axis, then by TURN about the third, (3, 3)."""
    (c, s), (c2, s2) = ((math.cos(a), math.sin(a)) for a in (TILT, TURN))
    tilt = torch.tensor([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]], dtype=torch.float32)
    turn = torch.tensor([[c2, -s2, 0.0], [s2, c2, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float32)
    return turn @ tilt
