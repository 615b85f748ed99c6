"""Differences between the rows of a comparison, and who is not beaten.

All pairs of k rows are compared at once, each at the level 1 - 0.05 / (k (k - 1) / 2) (Bonferroni), so that all the
intervals of one metric hold together in 95% of draws. A row is beaten if the interval of its difference to some other
row lies on the wrong side of 0; it leads if every other row is beaten. Overlapping intervals of the values themselves
decide nothing: they are wrong in both directions, because the rows share their real images.

How a pair is compared depends on what is known of it:

- the time per image: the ratio of the times in each turn, with Student's t over the logarithms (`cost.time_in_turns`);
- scores of the same real images: the jackknife of the difference (`intervals.difference`);
- other scores of several trainings: Welch's interval over trainings, joined with the intervals of each training;
- all else: from the two intervals, scaled to the level (Zou & Donner 2008, "Construction of confidence limits about
  effect measures": MOVER), as if they were independent.

The interval of a mean over trainings, or of the difference of two, is Student's t over their values. Where it is not
known how a score scatters, the intervals of each training, as those of independent values, are joined to it by square
and add: a few equal values, as where no image is a copy, do not make a mean exact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from trilemma.comparison.content import Difference

if TYPE_CHECKING:
    from trilemma.metrics.intervals import Estimate, Spread

FAMILY = 0.05  # of draws in which any interval of a metric misses


@dataclass(frozen=True)
class RowMetric:
    """One metric of one row.

    value, interval: as they stand in the table.
    spread: how the value scatters with the real images, and with the generated ones or the trainings.
    values, intervals: of each training.
    times: ms per image in each turn, measured in turns with the other rows.
    """

    value: float
    interval: Sequence[float] | None = None
    spread: "Spread | None" = None
    values: tuple[float, ...] = ()
    intervals: tuple[Sequence[float] | None, ...] = ()
    times: tuple[float, ...] = ()


def level_for(rows: int) -> float:
    """The level of each of the intervals between so many rows.

    >>> level_for(2), round(level_for(4), 5)
    (0.95, 0.99167)
    """
    return 1 - FAMILY / max(math.comb(rows, 2), 1)


def differences(rows: Mapping[str, RowMetric]) -> list[Difference]:
    """Every pair of rows by name; pairs whose difference is not known are left out."""
    names, level = list(rows), level_for(len(rows))
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    compared = (_compared(a, b, rows[a], rows[b], level) for a, b in pairs)
    return [pair for pair in compared if pair is not None]


def unbeaten(values: Mapping[str, float], pairs: Sequence[Difference], better: str = "higher") -> list[str]:
    """The row with the best value, then all others that no row is shown to be better than.

    >>> unbeaten({"a": 0.1, "b": 0.5, "c": 0.4}, [Difference("a", "b", -0.4, [-0.6, -0.2])])
    ['b', 'c']
    """
    sign = 1 if better == "higher" else -1
    order = sorted(values, key=lambda name: -sign * values[name])
    beaten = {_loser(pair, sign) for pair in pairs if pair.a in values and pair.b in values}
    return [name for name in order if name not in beaten]


def _loser(pair: Difference, sign: int) -> str | None:
    low, high = (sign * (end - pair.ratio) for end in pair.interval)  # a ratio of 1 is not a difference
    if max(low, high) < 0:
        return pair.a
    return pair.b if min(low, high) > 0 else None


def over_trainings(spreads: Sequence["Spread"]) -> "Spread":
    """The mean over trainings, which were measured by the same real images: it scatters with these and with the luck
    of a training."""
    import torch

    from trilemma.metrics.intervals import infinitesimal_jackknife

    first = spreads[0]
    if len(spreads) == 1:
        return first
    values = torch.tensor([s.value for s in spreads], dtype=torch.float64)
    shared, own = torch.stack([s.shared for s in spreads]).mean(0), infinitesimal_jackknife(values)  # of their mean
    return replace(first, value=values.mean().item(), shared=shared, own=own, cuts=own.new_zeros(0))


def mean_over_trainings(
    values: Sequence[float], unit: str, intervals: Sequence[Sequence[float] | None] = ()
) -> "Estimate":
    """Mean and interval of a value that has no spread; a fraction stays in [0, 1].

    Args:
        intervals: of each value.
    """
    from trilemma.metrics.intervals import Estimate, mean_estimate

    value, (low, high) = _joined(mean_estimate(values), *_arms(values, intervals))
    return Estimate(value, (max(0.0, low), min(1.0, high)) if unit.startswith("fraction") else (low, high))


def _arms(values: Sequence[float], intervals: Sequence[Sequence[float] | None]) -> tuple[float, float]:
    """How far the mean of independent values reaches below and above itself by their intervals; 0 where one has
    none."""
    arms = [(value - ends[0], ends[1] - value) for value, ends in zip(values, intervals, strict=False) if ends]
    if len(arms) < len(values):
        return 0.0, 0.0
    below, above = (math.hypot(*side) / len(values) for side in zip(*arms, strict=True))
    return below, above


def _joined(estimate: "Estimate", below: float, above: float) -> "Estimate":
    """An estimate whose interval reaches farther by independent errors below and above."""
    value, (low, high) = estimate
    return estimate._replace(interval=(value - math.hypot(value - low, below), value + math.hypot(high - value, above)))


def of_turns(times: Sequence[float]) -> "Estimate":
    """The median time per image over the turns, with its interval."""
    from trilemma.metrics.intervals import Estimate, median_interval

    return Estimate(median(times), median_interval(times))


def _compared(name_a: str, name_b: str, a: RowMetric, b: RowMetric, level: float) -> Difference | None:
    from trilemma.metrics.intervals import difference, mean_estimate

    ratio = len(a.times) == len(b.times) > 1
    if ratio:
        logs = [math.log(x / y) for x, y in zip(a.times, b.times, strict=True)]
        log_ratio = mean_estimate(logs, level=level)
        value, interval = math.exp(log_ratio.value), tuple(math.exp(end) for end in log_ratio.interval)
    elif a.spread is not None and b.spread is not None:
        value, interval = difference(a.spread, b.spread, level=level)
    elif len(a.values) > 1 and len(b.values) > 1:
        value, interval = _of_trainings(a, b, level)
    elif a.interval and b.interval:
        value, interval = a.value - b.value, _mover(a, b, level)
    else:
        return None
    return Difference(name_a, name_b, value, list(interval), ratio, level) if _finite(interval) else None


def _of_trainings(a: RowMetric, b: RowMetric, level: float) -> "Estimate":
    """a - b of the means over their trainings."""
    from trilemma.metrics.intervals import difference_of_trainings, quantile

    (below_a, above_a), (below_b, above_b) = _arms(a.values, a.intervals), _arms(b.values, b.intervals)
    scale, estimate = quantile(level) / quantile(), difference_of_trainings(a.values, b.values, level=level)
    return _joined(estimate, scale * math.hypot(below_a, above_b), scale * math.hypot(above_a, below_b))


def _mover(a: RowMetric, b: RowMetric, level: float) -> tuple[float, float]:
    """The interval of a - b from those of a and b, at 95% each."""
    from trilemma.metrics.intervals import quantile

    assert a.interval and b.interval
    (low_a, high_a), (low_b, high_b) = a.interval, b.interval
    scale, value = quantile(level) / quantile(), a.value - b.value
    below = math.hypot(a.value - low_a, high_b - b.value)
    above = math.hypot(high_a - a.value, b.value - low_b)
    return value - scale * below, value + scale * above


def _finite(interval: Sequence[float]) -> bool:
    return all(map(math.isfinite, interval))
