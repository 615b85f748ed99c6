"""Images as a network with augment_p sees them (diffusion/augmentation.py), each with the numbers that it is told: 0
for all that was left as it is."""

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from trilemma.data import load_data
from trilemma.diffusion.augmentation import augment
from trilemma.errors import UserError
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import to_float
from trilemma.rng import generator

if TYPE_CHECKING:
    from PIL import Image

TOLD = ("flip x", "flip y", "scale", "cos-1", "sin", "stretch", "stretch", "right", "down")


def augmented(
    *,
    data: str = "digits",
    image: NonNegativeInt = 0,
    augment_p: Annotated[float, Field(ge=0, lt=1)] = 0.3,
    n: PositiveInt = 12,
    seed: int = 0,
) -> "Image.Image":
    """One training image under n transforms, and what the network is told of each.

    Args:
        data, image: which image: its number in the training split.
        augment_p: the probability of each kind of transform; flips in x are made in half of the images.
    """
    part = load_data(data).train
    if image >= len(part):
        raise UserError(f"image {image} not found in the training split of {data}: choose from 0 to {len(part) - 1}")
    x = to_float(part.take(torch.tensor([image])).images).expand(n, -1, -1, -1)
    moved, numbers = augment(x, augment_p, generator(seed, "augment"))
    return grid(moved, columns=min(n, 6), texts=[told(row) for row in numbers.tolist()])


def told(numbers: list[float]) -> str:
    """The numbers that are not 0, by name.

    >>> told([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.25, 0.0])
    'flip x 1, right -0.25'
    """
    words = [f"{name} {value:.2g}" for name, value in zip(TOLD, numbers, strict=True) if value]
    return ", ".join(words) or "as it is"
