"""Training images as a critic with critic_augment sees them (gans/augmentation.py)."""

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, PositiveInt

from trilemma.data import load_data
from trilemma.gans.augmentation import MOST, adaptive, differentiable
from trilemma.keys import OneOrMore
from trilemma.pictures.levels import to_float
from trilemma.pictures.table import table
from trilemma.rng import generator

if TYPE_CHECKING:
    from PIL import Image

Probability = Annotated[float, Field(ge=0, le=1)]


def critic_augment(
    *,
    data: str = "shapes:64",
    n: PositiveInt = 8,
    probabilities: OneOrMore[Probability] = (0.2, 0.5, MOST),
    seed: int = 0,
) -> "Image.Image":
    """Images as they are; through the differentiable transforms; through the adaptive ones with several probabilities.

    Args:
        data: whose first n training images are shown.
        seed: of the transforms.
    """
    part = load_data(data).train
    image = to_float(part.take(torch.arange(min(n, len(part)))).images)
    rows = {"as they are": image, "differentiable": differentiable(image, generator(seed, "differentiable"))}
    for p in probabilities:
        rows[f"adaptive, p = {p:g}"] = adaptive(image, p, generator(seed, "adaptive"))
    return table(torch.cat(list(rows.values())).clamp(0, 1), list(rows))
