"""Penalties on the mean activation q of a unit of the code, which is to be p: each 0 at q = p and positive elsewhere.

    KL  p ln(p / q) + (1 - p) ln((1 - p) / (1 - q))     (Ng 2011, "Sparse autoencoder": rises steeply towards 0 and 1)
    L1  |q - p|
    L2  (q - p)**2

All of them work element by element: one value per unit; the caller adds them up.
"""

from torch import Tensor

EDGE = 1e-6  # q is kept this far from 0 and 1


def kl_penalty(q: Tensor, p: float) -> Tensor:
    """KL divergence of Bernoulli(q) from Bernoulli(p), KL(p || q), in nats; q in [0, 1], p in (0, 1)."""
    q = q.clamp(EDGE, 1 - EDGE)
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


def l1_penalty(q: Tensor, p: float) -> Tensor:
    """Distance of q from p."""
    return (q - p).abs()


def l2_penalty(q: Tensor, p: float) -> Tensor:
    """Squared distance of q from p."""
    return (q - p).square()
