"""Improved precision and recall (Kynkaanniemi et al. 2019, "Improved precision and recall metric for assessing
generative models").

The manifold of a set is the union of the balls around its points that reach to the k-th nearest other point, k = 3.
Precision: the fraction of generated images inside the manifold of the real ones (fidelity). Recall: the fraction of
real images inside the manifold of the generated ones (coverage). A point on a ball's surface is inside (<=), so that
a set is always inside itself.

Balls shrink as images are added, so both values depend on the number of images: the two sets are brought to the same
size, and only values at equal size compare. Distances are differences squared and summed in float64, not the quicker
|x|^2 + |y|^2 - 2 x.y, which loses the distance between near duplicates.

Interval: Wilson (1927), over the images that are asked about, with the other set's manifold held fixed.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma import rng
from trilemma.errors import UserError
from trilemma.metrics.receipt import Z_95, Estimate

K = 3
INTERVAL_IS = (
    "Wilson 95% over the images asked about, the other set's manifold held fixed; depends on the number of images"
)


@dataclass(frozen=True)
class PrecisionRecall:
    """Both values, of `n` images on either side."""

    precision: Estimate
    recall: Estimate
    n: int


def precision_recall(*, real: Tensor, fake: Tensor, k: int = K, block: int = 1024) -> PrecisionRecall:
    """Improved precision and recall of two sets of features.

    Args:
        real, fake: features, (N, D) and (M, D); the larger set is thinned to the size of the smaller one.
        k: which nearest neighbour the balls reach to.
        block: rows of the distance matrix held at a time; bounds the memory, changes nothing else.
    Raises:
        UserError: if a set has no k-th neighbour.
    """
    n = min(len(real), len(fake))
    if n <= k:
        raise UserError(f"precision and recall with k={k} need more than {k} images on either side, not {n}")
    x, y = _thin(real.double(), n), _thin(fake.double(), n)
    radii_x, radii_y = _radii(x, k, block), _radii(y, k, block)
    covered, inside = [], torch.zeros(n, dtype=torch.bool)
    for rows, radii in zip(x.split(block), radii_x.split(block), strict=True):
        d = distances(rows, y)  # (block, n), real by generated
        covered.append((d <= radii_y).any(dim=1))
        inside |= (d <= radii[:, None]).any(dim=0)
    return PrecisionRecall(wilson(int(inside.sum()), n), wilson(int(torch.cat(covered).sum()), n), n)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (N, M) of x (N, D) and y (M, D); exactly 0 between equal points."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def wilson(successes: int, n: int) -> Estimate:
    """A fraction with its Wilson 95% interval."""
    p, z2 = successes / n, Z_95**2 / n
    centre = (p + z2 / 2) / (1 + z2)
    half = math.sqrt(p * (1 - p) * z2 + z2**2 / 4) / (1 + z2)
    return Estimate(p, (max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))))


def _radii(x: Tensor, k: int, block: int) -> Tensor:
    """Distance of each point to its k-th nearest other point, (N,)."""
    return torch.cat([distances(rows, x).kthvalue(k + 1, dim=1).values for rows in x.split(block)])


def _thin(x: Tensor, n: int) -> Tensor:
    """n rows, chosen by a fixed permutation where there are more."""
    return x if len(x) == n else x[rng.permutation(len(x), 0, "precision and recall")[:n]]
