"""The way from one code to another:

    linear      z(t) = (1 - t) a + t b
    spherical   z(t) = sin((1 - t) theta) / sin(theta) a + sin(t theta) / sin(theta) b,   theta the angle from a to b

for t from 0 to 1. Shoemake (1985), "Animating rotation with quaternion curves"; for codes, White (2016), "Sampling
generative networks": under a normal prior in many dimensions, codes lie near a sphere, whose inside a straight line
crosses. Where a and b are (nearly) parallel, opposite or zero, theta or the way is not determined: linear. Styles w
(Karras et al. 2019, "A style-based generator architecture for generative adversarial networks") lie near no sphere:
there the straight line is the way to trust.
"""

import torch
from torch import Tensor

PARALLEL = 1e-6  # sin(theta) below which two codes count as parallel


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points on the straight line from a to b: (Z,) or (P, Z) each, t (P,) -> (P, Z)."""
    return (1 - t)[:, None] * a + t[:, None] * b


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points on the arc from a to b: (Z,) or (P, Z) each, t (P,) -> (P, Z); linear where it is not determined."""
    norms = [x.norm(dim=-1, keepdim=True) for x in (a, b)]
    one, other = (x / n.clamp_min(torch.finfo(x.dtype).tiny) for x, n in zip((a, b), norms, strict=True))
    apart, together = ((one + sign * other).norm(dim=-1, keepdim=True) for sign in (-1, 1))
    theta = 2 * torch.atan2(apart, together)  # exact for small angles, which arccos is not
    line, s = linear(a, b, t), t[:, None]
    arc = ((1 - s) * theta).sin() / theta.sin() * a + (s * theta).sin() / theta.sin() * b
    return torch.where((theta.sin() < PARALLEL) | (norms[0] == 0) | (norms[1] == 0), line, arc)


WAYS = {"linear": linear, "spherical": spherical}
