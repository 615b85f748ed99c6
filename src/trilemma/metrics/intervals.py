"""95% intervals: of one score, of the difference of two scores, and over trainings.

A score of two sets scatters because either set could have been drawn otherwise. A `Spread` holds what that makes, as
deviations whose squares add up to a variance: those due to the real images, which two models have in common, and those
due to each model's own. The variance of a difference A - B is

    sum (shared_A - shared_B)^2 + sum own_A^2 + sum own_B^2.

Intervals have Student's t, with the degrees of freedom of Satterthwaite (1946): R deviations from their own mean have
R - 1, differences of halves R.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import mean, variance
from typing import NamedTuple

import torch
from torch import Tensor

LEVEL = 0.95


class Estimate(NamedTuple):
    """A value with its 95% interval (low, high)."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """A score with how it would scatter over other draws of the same size.

    value: the score.
    shared: deviations due to the real images, or to both sets cut alike for every model, float64 (R,).
    own: deviations due to the generated images alone, float64 (S,).
    n: images that a fraction is taken of; 0 for a score that is not a fraction.
    least, most: the smallest and the largest possible value.
    cuts: deviations due to a mean over few random cuts of the sets, float64 (C,).
    halves: whether `shared` are differences of halves; all other deviations are from their mean.
    """

    value: float
    shared: Tensor = field(compare=False)
    own: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64), compare=False)
    n: int = 0
    least: float = -math.inf
    most: float = math.inf
    cuts: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64), compare=False)
    halves: bool = False

    @property
    def shared_df(self) -> int:
        """Degrees of freedom of the shared deviations."""
        return len(self.shared) if self.halves else len(self.shared) - 1

    @property
    def unshared(self) -> list[tuple[Tensor, int]]:
        """The groups of deviations that no other model has, with their degrees of freedom."""
        return [(deviations, len(deviations) - 1) for deviations in (self.own, self.cuts)]

    def estimate(self, level: float = LEVEL) -> Estimate:
        """The value and its interval, which always holds the value."""
        spread, df = _total([(self.shared, self.shared_df), *self.unshared])
        if self.n:
            spread = max(spread, self.value * (1 - self.value) / self.n)
            return fraction_estimate(self.value, spread, self.n, quantile(level, df))
        half = quantile(level, df) * math.sqrt(spread)
        return Estimate(self.value, (max(self.least, self.value - half), min(self.most, self.value + half)))


def difference(a: Spread, b: Spread, *, level: float = LEVEL) -> Estimate:
    """a - b of two models that were measured by the same real images and each by images of its own.

    Raises:
        ValueError: if the spreads are not over the same real images.
    """
    if len(a.shared) != len(b.shared):
        raise ValueError(
            f"{len(a.shared)} and {len(b.shared)} deviations: these scores are not of the same real images"
        )
    spread, df = _total([(a.shared - b.shared, a.shared_df), *a.unshared, *b.unshared])
    floor = sum(_least_variance(s) for s in (a, b) if s.n)
    half = quantile(level, df) * math.sqrt(max(spread, floor))
    return Estimate(a.value - b.value, (a.value - b.value - half, a.value - b.value + half))


def mean_estimate(values: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """Mean of independent values (of images, or of trainings that differ in their seed), at least two, with Student's
    t interval."""
    centre, half = mean(values), half_width(values, level=level)
    return Estimate(centre, (centre - half, centre + half))


def difference_of_trainings(a: Sequence[float], b: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """mean(a) - mean(b) over trainings, at least two of either (Welch 1947)."""
    parts = [(variance(values) / len(values), len(values) - 1) for values in (a, b)]
    total = sum(v for v, _ in parts)
    half = quantile(level, satterthwaite(parts)) * math.sqrt(total)
    return Estimate(mean(a) - mean(b), (mean(a) - mean(b) - half, mean(a) - mean(b) + half))


def wilson(successes: int, n: int, *, level: float = LEVEL) -> Estimate:
    """A fraction of n independent trials with its interval (Wilson 1927)."""
    p = successes / n
    return fraction_estimate(p, p * (1 - p) / n, n, quantile(level))


def fraction_estimate(p: float, spread: float, n: int, z: float) -> Estimate:
    """Wilson's interval for a fraction p whose variance is `spread`: that of p (1 - p) / spread independent images, or
    of n where p is 0 or 1."""
    size = p * (1 - p) / spread if spread > 0 and 0 < p < 1 else n
    z2 = z**2 / size
    centre, half = (p + z2 / 2) / (1 + z2), math.sqrt(p * (1 - p) * z2 + z2**2 / 4) / (1 + z2)
    return Estimate(p, (max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))))


def logit_estimate(value: float, sd: float, df: float) -> Estimate:
    """A value above 0 and below 1 with its interval: value +- t sd on the scale of log(v / (1 - v)), on which both ends
    stay within [0, 1]."""
    from scipy.special import expit, logit

    half = quantile(df=df) * sd / (value * (1 - value))
    low, high = (float(expit(logit(value) + step)) for step in (-half, half))
    return Estimate(value, (min(value, low), max(value, high)))


def jackknife(left_out: Tensor) -> Tensor:
    """Deviations from the R values of a statistic with one image left out (Efron & Stein 1981): (R,) -> (R,)."""
    r = len(left_out)
    return math.sqrt((r - 1) / r) * (left_out - left_out.mean())


def infinitesimal_jackknife(rate: Tensor) -> Tensor:
    """Deviations from the rates at which a statistic changes with the weight of each image (Efron 1982), less a
    constant: their squares add up to var(rate) / n; (n,) -> (n,)."""
    n = len(rate)
    return (rate - rate.mean()) / math.sqrt(n * (n - 1))


def satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of variances, each with its own; infinite for a sum of 0."""
    below = sum(v**2 / df for v, df in parts)
    return sum(v for v, _ in parts) ** 2 / below if below > 0 else math.inf


@lru_cache(maxsize=1024)
def quantile(level: float = LEVEL, df: float = math.inf) -> float:
    """The number that |t| stays below with probability `level`; Student's t, the normal law for df infinite."""
    from scipy.special import ndtri, stdtrit  # scipy.stats takes a second to import

    p = 0.5 + level / 2
    return float(ndtri(p) if math.isinf(df) else stdtrit(max(df, 1.0), p))


def _total(groups: Sequence[tuple[Tensor, int]]) -> tuple[float, float]:
    """Variance and degrees of freedom of what independent groups of deviations, each with its own, add up to."""
    parts = [(float(deviations.square().sum()), df) for deviations, df in groups if df > 0]
    return sum(v for v, _ in parts), satterthwaite(parts)


def _least_variance(spread: Spread) -> float:
    """Variance of a fraction that is 0 or 1 in all that was seen, from Laplace's estimate (k + 1) / (n + 2)."""
    p = (spread.value * spread.n + 1) / (spread.n + 2)
    return 0.0 if 0 < spread.value < 1 else p * (1 - p) / spread.n


def half_width(values: Sequence[float], least: float = 0.0, *, level: float = LEVEL) -> float:
    """Half of the interval of the mean of independent values: at 95%, t_{0.975, n - 1} s / sqrt(n) (Student 1908).

    Args:
        least: what the standard deviation s is at least, where values can only be told apart so far.
    """
    s = torch.tensor(values, dtype=torch.float64).std().item()
    return quantile(level, len(values) - 1) * max(s, least) / math.sqrt(len(values))


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Order statistics that hold the median with at least 95%; the range where none do (fewer than 6 values)."""
    ordered, n = sorted(values), len(values)
    rank, tail = 0, 0.5**n  # P(more than n - 1 - rank values lie on one side of the median)
    while tail + math.comb(n, rank + 1) * 0.5**n <= 0.025:
        rank += 1
        tail += math.comb(n, rank) * 0.5**n
    return ordered[rank], ordered[n - 1 - rank]
