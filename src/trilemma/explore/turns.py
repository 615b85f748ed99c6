"""Ways from one noise to others, for models that draw images from noise: what lies on the way is noise as it is drawn.

From a noise e of Z numbers towards orthonormal v_k at right angles to it, angles a_k lead to

    e(a) = cos|a| e + |e| sin|a| sum_k a_k v_k / |a|,    |a|**2 = sum_k a_k**2

which has the length of e for all a. Of noise N(0, I), e / |e| and the v_k are spread evenly over the sphere whatever
|e| is, and so is e(a) / |e|: for any fixed a, e(a) is N(0, I), too. A straight line would leave the sphere near which
noise of many dimensions lies (White 2016, "Sampling generative networks").

The v_k are the noise of images 1, 2, ... of seed 0, each less what it shares with e and those before it. A quarter turn
along one of them leads to about the image that `sample` numbers so.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trilemma.rng import normal

TURNS = 6  # ways
STD_DEG, MOST_DEG = 30.0, 90.0  # of angles: what counts as one standard deviation, and the range
SPREAD = 2000  # angles that stand for the codes of as many images


class Turns(NamedTuple):
    """start: e (Z,); towards: v_k, (A, Z); float64."""

    start: Tensor
    towards: Tensor

    def codes(self, angles: Tensor) -> Tensor:
        """The noise (N, Z) at angles (N, A) in degrees."""
        a = angles.double().deg2rad()
        size = a.norm(dim=1, keepdim=True)
        way = a / size.clamp_min(torch.finfo(a.dtype).tiny) @ self.towards
        return (size.cos() * self.start + size.sin() * self.start.norm() * way).to(angles.dtype)

    def angles(self) -> Tensor:
        """Angles with a normal law of STD_DEG, cut at MOST_DEG: (SPREAD, A)."""
        shares = (torch.arange(SPREAD, dtype=torch.float64) + 0.5) / SPREAD
        angles = (STD_DEG * torch.special.ndtri(shares)).clamp(-MOST_DEG, MOST_DEG)
        return angles.float()[:, None].expand(-1, len(self.towards))


def turns_from(start: Tensor) -> Turns:
    """The ways from a noise (Z,)."""
    ids = torch.arange(1, 1 + turns_of(len(start)))
    noise = torch.cat([start[None], normal(ids, (len(start),), 0, "x_T")]).double()  # (1 + A, Z)
    basis, parts = torch.linalg.qr(noise.T)
    return Turns(noise[0], (basis * parts.diagonal().sign()).T[1:])


def turns_of(length: int) -> int:
    """How many ways there are from a noise of so many numbers."""
    return min(TURNS, length - 1)
