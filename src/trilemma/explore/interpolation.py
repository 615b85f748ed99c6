"""What `interpolate` gives: pictures from one end to the other, and their animation, whatever drew them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trilemma.keys import Film
from trilemma.pictures.animation import animated, frame

FINER = 4  # steps of the animation for one of the grid
STEP_MS, REST_MS = 60, 600  # time of a step of the animation, and of its two ends


@dataclass(frozen=True)
class Interpolation:
    """The picture, the animation if there is one, and the images of each way: (frames, C, H, W)."""

    picture: Path
    animation: Path | None
    frames: dict[str, Tensor]


def animated_ways(ways: dict[str, Tensor], film: Film) -> bytes:
    """An animation that goes there and back for ever, the ways side by side."""
    there = [frame(torch.stack(images), columns=len(images)) for images in zip(*ways.values(), strict=True)]
    pictures = [*there, *there[-2:0:-1]]
    rest = {0, len(there) - 1}
    times = [REST_MS if k in rest else STEP_MS for k in range(len(pictures))]
    return animated(pictures, times, film)
