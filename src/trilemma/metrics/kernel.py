"""Kernel distance: squared maximum mean discrepancy (Binkowski et al. 2018, "Demystifying MMD GANs").

    k(x, y) = (x.y / D + 1)^3
    d = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

is unbiased at every m and n (it may be negative), so it serves where there are few images. Standard error: the
delete-one jackknife over the images of both sets, computed from the kernel's row sums without drawing anything:

    var = (m - 1) / m sum_i (d_-i - mean)^2 + (n - 1) / n sum_j (d_-j - mean)^2,

which on average is not too small (Efron & Stein 1981).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.metrics.intervals import Spread, jackknife

MINIMUM = 3
INTERVAL_IS = (
    "delete-one jackknife over the images of both sets, too wide rather than too narrow; the value is unbiased"
)


class Similarity(NamedTuple):
    """Points (N, D), and the sum of the kernel between each and the others, (N,)."""

    points: Tensor
    sums: Tensor


def refusal(n_real: int, n_fake: int) -> str | None:
    """Why a kernel distance of so many images is not given, or None."""
    if min(n_real, n_fake) >= MINIMUM:
        return None
    return f"a kernel distance needs at least {MINIMUM} images on either side, not {n_real} and {n_fake}"


def similarity(features: Tensor, block: int = 1024) -> Similarity:
    """Of real images, it is the same for all that is measured by them: features (N, D)."""
    x = features.double()
    return Similarity(x, _within(x, block))


def kernel_distance(*, real: Tensor | Similarity, fake: Tensor, block: int = 1024) -> Spread:
    """Unbiased squared MMD of two sets of features with its spread.

    Args:
        real, fake: features, (N, D) and (M, D), at least 3 each; of the real images, their similarity serves, too.
        block: rows of the kernel matrix held at a time; bounds the memory, changes nothing else.
    Raises:
        UserError: if a set has fewer than 3 images.
    """
    x = real.points if isinstance(real, Similarity) else real
    m, n = len(x), len(fake)
    if refused := refusal(m, n):
        raise UserError(refused)
    (x, xx) = real if isinstance(real, Similarity) else similarity(real, block)  # (m,): sums over the other images
    y, yy = similarity(fake, block)
    xy, yx = _across(x, y, block)  # (m,), (n,): sums over the other set
    total_x, total_y, total = xx.sum(), yy.sum(), xy.sum()

    def distance(s_xx: Tensor, s_yy: Tensor, s_xy: Tensor, m: int, n: int) -> Tensor:
        return s_xx / (m * (m - 1)) + s_yy / (n * (n - 1)) - 2 * s_xy / (m * n)

    value = distance(total_x, total_y, total, m, n).item()
    without_x = distance(total_x - 2 * xx, total_y, total - xy, m - 1, n)  # (m,)
    without_y = distance(total_x, total_y - 2 * yy, total - yx, m, n - 1)  # (n,)
    return Spread(value, jackknife(without_x), jackknife(without_y))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return torch.addmm(x.new_ones(1), x, y.T, alpha=1 / x.shape[1]).pow_(3)


def _within(x: Tensor, block: int) -> Tensor:
    """sum_{j != i} k(x_i, x_j), (N,); the kernel is symmetric, so half of its blocks are enough."""
    sums = -((x.square().sum(dim=1) / x.shape[1] + 1) ** 3)
    for start in range(0, len(x), block):
        rows, rest = x[start : start + block], x[start + block :]
        of_rest, of_rows = _across(rest, rows, block)
        sums[start : start + block] += _kernel(rows, rows).sum(dim=1) + of_rows
        sums[start + block :] += of_rest
    return sums


def _across(x: Tensor, y: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Row and column sums of k(x_i, y_j), (N,) and (M,)."""
    rows, columns = [], torch.zeros(len(y), dtype=y.dtype)
    for part in x.split(block):
        k = _kernel(part, y)
        rows.append(k.sum(dim=1))
        columns += k.sum(dim=0)
    return torch.cat(rows), columns
