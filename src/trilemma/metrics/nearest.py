"""Nearest training images, and whether generated images lie nearer to them than new real images do: a test of copying.

The yardstick is the distance of held-out real images to their nearest training image. Let t be the k-th smallest of m
such distances, k = ceil(q m). If generated images are like new real ones, every order of the n + m distances is equally
likely, and at least x of the n generated ones lie below t where the first x + k - 1 of that order hold fewer than k
real ones (a hypergeometric law; with ever more real images, x of n is binomial with probability q):

    P(X >= x) = sum_{j < k} C(m, j) C(n, x + k - 1 - j) / C(n + m, x + k - 1)

The share of near copies scatters with both sets. Which order statistics hold the threshold of all held-out images, the
beta law of their ranks tells (Hutson 1999, "Calculating nonparametric confidence intervals for quantiles using
fractional order statistics"); the shares below these and Wilson's interval are joined by square and add (Newcombe 1998,
"Interval estimation for the difference between independent proportions").

Authenticity asks the same of each image alone, by the distances among training images around it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.errors import UserError
from trilemma.metrics.feature_cache import cached_features
from trilemma.metrics.intervals import Estimate, wilson
from trilemma.metrics.neighbours import nearest

BLOCK = 4096  # training images compared at a time
MOST, MOST_SLOW = 100_000, 10_000  # training images that are searched, by a slow network
AUTHENTICITY_IS = "Wilson 95% over the generated images, the training images held fixed"
NEAR_COPIES_IS = (
    "95% over the generated images (Wilson) and the held-out images (order statistics of their distances), the "
    "training images held fixed"
)
QUANTILES = (0.01, 0.05)  # of the held-out images' distances
LEVEL = 0.05  # of all quantiles together


@dataclass(frozen=True)
class Closeness:
    """Generated images that lie nearer to a training image than a share `farther` of held-out real images.

    `share` is their share of all generated images, `expected` that share without copying. `count` counts each training
    image once, so that samples which all resemble one image are not taken for copies; `p` is the probability of `count`
    or more without copying.
    """

    farther: float
    expected: float
    threshold: float
    share: float
    count: int
    p: float


def refusal(n: int, network: FeatureNetwork) -> str | None:
    """Why n training images are too many to be searched; None if they are not."""
    most = MOST_SLOW if network.is_slow else MOST
    if n <= most:
        return None
    advice = f"; a quicker network, such as features=cifar10-cnn, searches {MOST:,}" if n <= MOST else ""
    return f"{n:,} training images: they are searched where there are at most {most:,}{advice}"


def nearest_training_images(
    queries: Tensor, train_images: Tensor, network: FeatureNetwork, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """For each image, the training image nearest in feature space.

    Args:
        queries: features of the images by the same network, (N, D).
        train_images: (M, C, H, W), uint8 or float in [0, 1].
        block: training images compared at a time; bounds the memory, changes nothing else.
    Returns:
        Positions in `train_images`, int64 (N,), the first of equals; and the Euclidean distances, float64 (N,).
    Raises:
        UserError: there are too many training images.
    """
    if refused := refusal(len(train_images), network):
        raise UserError(refused)
    return nearest(queries, cached_features(network, train_images).split(block))


def authenticity(index: Tensor, distance: Tensor, train: Tensor, block: int = BLOCK) -> Estimate:
    """The share of generated images that are farther from the nearest training image than that is from the nearest
    other one (Alaa et al. 2022, "How faithful is your synthetic data?", section 3.3); a copy is not.

    Args:
        index, distance: of the generated images, (N,), as `nearest_training_images` returns them.
        train: features of the training images, (M, D), M at least 2.
    """
    hit, where = index.unique(return_inverse=True)
    _, apart = nearest(train[hit], train.split(block), without=hit)
    return wilson(int((distance > apart[where]).sum()), len(distance))


def near_copies(index: Tensor, distance: Tensor, *, real: Tensor) -> Estimate | str:
    """The share of generated images that lie nearer to a training image than all but the nearest 1 in 100 of the
    held-out images do (QUANTILES), about as much of a model that copies nothing; or why it is not known. Arguments as
    of `closeness`."""
    if len(real) < (least := round(1 / QUANTILES[0])):
        return f"{len(real)} held-out images: the nearest of a hundred needs {least}"
    part = closeness(index, distance, real=real)[0]
    if part.threshold == 0:
        return "one in a hundred of the held-out images, or more, are training images themselves"
    share, (low, high) = wilson(round(part.share * len(distance)), len(distance))
    ends = threshold_interval(real, math.ceil(QUANTILES[0] * len(real)))
    fewer, more = ((distance < end).double().mean().item() for end in ends)
    low, high = share - math.hypot(share - low, share - fewer), share + math.hypot(high - share, more - share)
    return Estimate(share, (max(0.0, low), min(1.0, high)))


def threshold_interval(values: Tensor, k: int) -> list[float]:
    """The 95% interval of the number that k / (M + 1) of all values lie below, from M of them, (M,), none negative."""
    m, ordered = len(values), torch.cat([values.new_zeros(1), values.sort().values])
    ends = []
    for tail in (0.975, 0.025):
        rank = _rank(k / (m + 1), m, tail)
        whole = int(rank)
        ends.append(torch.lerp(ordered[whole], ordered[whole + 1], rank - whole).item())
    return ends


def _rank(share: float, m: int, tail: float) -> float:
    """The rank j, not whole, of which this share of all values, or less, lies below the j-th of m with probability
    `tail`: that share has the law Beta(j, m + 1 - j)."""
    from scipy.special import betainc

    low, high = 0.0, float(m)
    while high - low > 1e-6:
        rank = (low + high) / 2
        low, high = (low, rank) if betainc(rank, m + 1 - rank, share) < tail else (rank, high)
    return low


def closeness(index: Tensor, distance: Tensor, *, real: Tensor) -> tuple[Closeness, ...]:
    """How close generated images lie to the training images, for each of QUANTILES that the real images can tell apart.

    Args:
        index, distance: of the generated images, (N,), as `nearest_training_images` returns them.
        real: the same distances of held-out real images, (M,).
    """
    ranks = dict.fromkeys(math.ceil(q * len(real)) for q in QUANTILES)
    return tuple(_closeness(index, distance, real.sort().values, k) for k in ranks)


def copies(parts: Sequence[Closeness]) -> bool:
    """Whether generated images are significantly nearer to training images than new real ones (Bonferroni)."""
    return min(part.p for part in parts) <= LEVEL / len(parts)


def _closeness(index: Tensor, distance: Tensor, ordered: Tensor, k: int) -> Closeness:
    m, threshold = len(ordered), ordered[k - 1].item()
    near = distance < threshold
    count = index[near].unique().numel()
    p = tail(count, n=len(distance), k=k, m=m)
    return Closeness(1 - (k - 1) / m, k / (m + 1), threshold, near.double().mean().item(), count, p)


def tail(x: int, *, n: int, k: int, m: int) -> float:
    """P(X >= x): at least x of n distances below the k-th smallest of m others of the same law.

    >>> tail(2, n=2, k=1, m=1)  # one order of the three in which both come first
    0.3333333333333333
    """
    first = x + k - 1
    ways = sum(math.comb(m, j) * math.comb(n, first - j) for j in range(min(k, first + 1)))
    return ways / math.comb(n + m, first)
