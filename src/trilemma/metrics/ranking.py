"""How well a score tells abnormal images from normal ones: the higher, the more abnormal.

    AUROC = P(a > b) + P(a = b) / 2,   a the score of an abnormal image, b of a normal one,

the area under the curve of detection rate over false-alarm rate (Hanley & McNeil 1982, "The meaning and use of the
area under a receiver operating characteristic curve"): 0.5 is chance, 1 is perfect. Average precision is the sum over
the distinct scores, from the highest down, of precision * (growth of the detection rate); chance is the share of
abnormal images, so it depends on the numbers of either kind.

Interval: every image is left out once (jackknife; Arvesen 1969, "Jackknifing U-statistics", for two samples), which
gives the variance of a value v as the sum over both kinds of (n - 1) / n * sum_i (v_(-i) - mean)^2. For AUROC it is
that of DeLong et al. (1988). The interval is v +- t sd on the scale of log(v / (1 - v)), on which both ends stay
within [0, 1]; t is Student's for the degrees of freedom of the two variances (Satterthwaite 1946). It always holds v.
Where no score overlaps, every v_(-i) is equal: the images are then taken as if the closest two of either kind had
changed places, and the interval is stretched to v. With one image of a kind it is all of [0, 1].

Both values follow from the counts of normal and of abnormal images at each distinct score, and so do all v_(-i), by
running sums: the scores are sorted once.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.metrics.intervals import Estimate, logit_estimate, satterthwaite

INTERVAL_IS = "95% by leaving each image of either kind out (jackknife, Student's t on the logit scale)"


class Ranking(NamedTuple):
    """Both values with their 95% intervals."""

    auroc: Estimate
    average_precision: Estimate


def ranking(*, normal: Tensor, abnormal: Tensor) -> Ranking:
    """AUROC and average precision with jackknife intervals.

    Args:
        normal, abnormal: scores, (N,) and (M,).
    Raises:
        UserError: if a side has no score, or one that is not a number.
    """
    counts = _counts(normal, abnormal)
    values = _values(*counts)
    if min(len(normal), len(abnormal)) < 2:
        return Ranking(*(Estimate(value, (0.0, 1.0)) for value in values.tolist()))
    counts_inside = counts if 0 < values[0] < 1 else _swapped(*counts)
    return Ranking(*(_estimate(*both) for both in zip(values.tolist(), _intervals(*counts_inside), strict=True)))


def auroc(*, normal: Tensor, abnormal: Tensor) -> float:
    """Area under the receiver operating characteristic curve; `ranking` gives its interval."""
    return float(_values(*_counts(normal, abnormal))[0])


def average_precision(*, normal: Tensor, abnormal: Tensor) -> float:
    """Average precision of the abnormal images; `ranking` gives its interval."""
    return float(_values(*_counts(normal, abnormal))[1])


def _counts(normal: Tensor, abnormal: Tensor) -> tuple[Tensor, Tensor]:
    """How many normal and how many abnormal images have each of the distinct scores, from the highest down."""
    if not len(normal) or not len(abnormal):
        raise UserError(
            f"{len(normal)} normal and {len(abnormal)} abnormal images: a ranking needs at least one of either"
        )
    scores = torch.cat([normal, abnormal]).double().cpu()
    if scores.isnan().any():
        raise UserError(f"{int(scores.isnan().sum())} of {len(scores)} scores are not numbers; the model gave NaN")
    distinct, place = scores.unique(return_inverse=True)
    one, other = (
        torch.bincount(p, minlength=len(distinct)).flip(0).double()
        for p in (place[: len(normal)], place[len(normal) :])
    )
    return one, other


def _values(normal: Tensor, abnormal: Tensor) -> Tensor:
    """AUROC and average precision, (2,), from the counts at each distinct score, from the highest down."""
    n, m = normal.sum(), abnormal.sum()
    below = n - normal.cumsum(0)  # normal images with a lower score
    hits = abnormal.cumsum(0)  # abnormal images with this score or a higher one
    precision = hits / (hits + normal.cumsum(0))
    return torch.stack([(abnormal * (below + normal / 2)).sum() / (n * m), (abnormal * precision).sum() / m])


def _without_a_normal(normal: Tensor, abnormal: Tensor) -> Tensor:
    """Both values without one normal image of each distinct score, (2, D); meaningless where there is none."""
    n, m, hits = normal.sum(), abnormal.sum(), abnormal.cumsum(0)
    flagged, above = hits + normal.cumsum(0), hits - abnormal
    wins = n * m * _values(normal, abnormal)[0]
    area = (wins - (above + abnormal / 2)) / ((n - 1) * m)
    before = (abnormal * hits / flagged).cumsum(0) - abnormal * hits / flagged  # at higher scores nothing changes
    after = _rest(abnormal * hits / (flagged - 1).clamp(min=1))  # at lower ones an image less is flagged
    return torch.stack([area, (before + after) / m])


def _without_an_abnormal(normal: Tensor, abnormal: Tensor) -> Tensor:
    """Both values without one abnormal image of each distinct score, (2, D); meaningless where there is none."""
    n, m, hits = normal.sum(), abnormal.sum(), abnormal.cumsum(0)
    flagged, below = hits + normal.cumsum(0), n - normal.cumsum(0)
    wins = n * m * _values(normal, abnormal)[0]
    area = (wins - (below + normal / 2)) / (n * (m - 1))
    before = (abnormal * hits / flagged).cumsum(0) - abnormal * hits / flagged
    precision = (hits - 1) / (flagged - 1).clamp(min=1)
    return torch.stack([area, (before + _rest(abnormal * precision) - precision) / (m - 1)])


def _rest(values: Tensor) -> Tensor:
    """The sum of each value and all that follow it."""
    return values.flip(0).cumsum(0).flip(0)


def _intervals(normal: Tensor, abnormal: Tensor) -> list[tuple[float, float]]:
    """The intervals of AUROC and average precision."""
    parts: list[list[tuple[float, float]]] = []  # variance and degrees of freedom, by kind and value
    for counts, of in ((normal, _without_a_normal), (abnormal, _without_an_abnormal)):
        size, without = counts.sum(), of(normal, abnormal)
        mean = (counts * without).sum(1, keepdim=True) / size
        variances = (size - 1) / size * (counts * (without - mean).square()).sum(1)
        parts.append([(variance, float(size) - 1) for variance in variances.tolist()])
    intervals = []
    for value, of_kinds in zip(_values(normal, abnormal).tolist(), zip(*parts, strict=True), strict=True):
        sd = math.sqrt(sum(variance for variance, _ in of_kinds))
        inside = 0 < value < 1
        intervals.append(logit_estimate(value, sd, satterthwaite(of_kinds)).interval if inside else (0.0, 1.0))
    return intervals


def _swapped(normal: Tensor, abnormal: Tensor) -> tuple[Tensor, Tensor]:
    """The counts after the closest two images of either kind have changed places, where no score overlaps."""
    one, other = normal.clone(), abnormal.clone()
    top, rest = (one, other) if one[0] else (other, one)
    last, first = int(top.nonzero()[-1]), int(rest.nonzero()[0])
    for counts, sign in ((top, 1), (rest, -1)):
        counts[last] -= sign
        counts[first] += sign
    return one, other


def _estimate(value: float, interval: tuple[float, float]) -> Estimate:
    """The value with an interval that holds it."""
    return Estimate(value, (min(value, interval[0]), max(value, interval[1])))
