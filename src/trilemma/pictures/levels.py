"""From the 256 levels of a picture to floats in [0, 1] and back, by rounding: all levels survive the round trip; and
images of which a part is hidden."""

import torch
from torch import Tensor

GREY = 0.5  # of hidden pixels: 0 in [-1, 1]


def to_float(images: Tensor) -> Tensor:
    """Levels 0 ... 255, uint8, to float32 in [0, 1]: v / 255, bit-equal on every device.

    The divisor is a tensor because a GPU multiplies by the rounded reciprocal of a plain number instead.
    """
    return images / torch.full((), 255.0, dtype=torch.float32, device=images.device)


def to_uint8(images: Tensor) -> Tensor:
    """Values in [0, 1] to levels 0 ... 255 by rounding, any shape; what lies outside is clipped; uint8 stays."""
    if images.dtype == torch.uint8:
        return images
    return images.detach().float().mul(255).round().clamp(0, 255).to(torch.uint8)


def hide(images: Tensor, mask: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1], grey where the mask (B, 1, H, W) is 1."""
    return torch.where(mask.to(images.device) > 0, GREY, images)
