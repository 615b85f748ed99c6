"""Images under affine maps of their pixels, an own map for each image."""

import torch
from torch import Tensor


def rotation(angle: Tensor) -> Tensor:
    """Angles (B,) -> matrices (B, 2, 2)."""
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).unflatten(1, (2, 2))


def resample(image: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Images (B, C, H, W) at x = A y + b, linear between pixels, reflected at their borders.

    What torch's `grid_sample` does with reflection, in steps of which each has a second derivative, as penalties on
    the slope need.

    Args:
        matrix: A, (B, 2, 2); shift: b, (B, 2); of (x, y) in pixels from the centre.
    """
    height, width = image.shape[2:]
    ys, xs = ((torch.arange(n, device=image.device) - (n - 1) / 2).to(image) for n in (height, width))
    at = torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)]).flatten(1)
    x, y = (matrix @ at + shift[..., None]).unbind(1)  # (B, HW)
    x0, wx = _neighbours(x + (width - 1) / 2, width)
    y0, wy = _neighbours(y + (height - 1) / 2, height)
    rows, result = image.flatten(2), torch.zeros_like(image).flatten(2)
    for dy in (0, 1):
        for dx in (0, 1):
            index = (y0 + dy).clamp(max=height - 1) * width + (x0 + dx).clamp(max=width - 1)
            weight = (wy if dy else 1 - wy) * (wx if dx else 1 - wx)
            value = rows.gather(2, index[:, None].expand(-1, rows.shape[1], -1))
            result = result + weight[:, None] * value
    return result.unflatten(2, (height, width))


def _neighbours(at: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The pixel before each place on a side of n pixels that is reflected at -1/2 and n - 1/2, and the weight of the
    next one."""
    around = (at + 0.5).remainder(2 * n)
    inside = (torch.minimum(around, 2 * n - around) - 0.5).clamp(0, n - 1)
    before = inside.floor()
    return before.long(), inside - before
