"""Penalties on the slope of a critic, E over images of a function of |grad_x D(x)|; all are per image.

    gradient   (|grad D(x)| - 1)**2 at x = u real + (1 - u) fake, u uniform for each image    (Gulrajani et al. 2017)
    r1         |grad D(x)|**2 / 2 at real images                                              (Mescheder et al. 2018)
    r2         |grad D(x)|**2 / 2 at generated images                                         (the same)

The gradient of the sum of logits has each image's own gradient in its row only where no image changes the logit of
another, so a critic with a penalty has no batch norm. Everything here is float32 outside of autocast: a penalty squares
gradients, and bfloat16 has eight bits for them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

TWICE = "its penalty takes gradients of gradients"
Critic = Callable[[Tensor], Tensor]  # images (B, C, H, W) -> logits (B,)


def squared_slopes(logits: Tensor, image: Tensor) -> Tensor:
    """|grad_x D(x)|**2 of each image, (B,), through which a gradient passes.

    Args:
        logits: (B,), computed from `image` (B, C, H, W), which requires a gradient.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def lengths(squared: Tensor) -> Tensor:
    """Roots of squared lengths (B,), with the derivative 0 at 0, where the root has none."""
    is_zero = squared == 0
    return torch.where(is_zero, 1.0, squared).sqrt().masked_fill(is_zero, 0.0)


def slope_deviation(squared: Tensor) -> Tensor:
    """Mean of (|grad D| - 1)**2 from squared slopes (B,); a slope of 0 counts 1."""
    return (lengths(squared) - 1).square().mean()


def gradient_penalty(critic: Critic, u: Tensor, *, real: Tensor, fake: Tensor) -> Tensor:
    """Of slopes other than 1 at u real + (1 - u) fake, of images (B, C, H, W) and numbers u in [0, 1], (B,)."""
    with torch.autocast(real.device.type, enabled=False):
        share = u[:, None, None, None].to(real)
        image = (share * real + (1 - share) * fake).detach().requires_grad_()
        return slope_deviation(squared_slopes(critic(image), image))


def zero_centred(logits: Tensor, image: Tensor) -> Tensor:
    """R1 at real images, R2 at generated ones: half the mean of |grad D|**2; arguments as `squared_slopes`."""
    return squared_slopes(logits, image).mean() / 2
