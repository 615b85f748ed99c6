"""How well a score tells abnormal images from normal ones: the higher, the more abnormal.

    AUROC = P(a > b) + P(a = b) / 2,   a the score of an abnormal image, b of a normal one,

the area under the curve of detection rate over false-alarm rate (Hanley & McNeil 1982, "The meaning and use of the
area under a receiver operating characteristic curve"): 0.5 is chance, 1 is perfect. Average precision is the sum over
the distinct scores, from the highest down, of precision * (growth of the detection rate); chance is the share of
abnormal images, so it depends on the numbers of either kind.

Both follow from the counts of normal and of abnormal images at each distinct score. A bootstrap (Efron 1979,
"Bootstrap methods: another look at the jackknife") draws the images of either kind anew, which only changes the
counts: the scores are sorted once.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trilemma import rng
from trilemma.errors import UserError
from trilemma.metrics.intervals import Estimate

RESAMPLES = 1000
INTERVAL_IS = (
    f"2.5% to 97.5% of {RESAMPLES} bootstrap samples of the images of either kind; without width where no score "
    "overlaps, which a larger set might show"
)


class Ranking(NamedTuple):
    """Both figures with their 95% intervals."""

    auroc: Estimate
    average_precision: Estimate


def ranking(*, normal: Tensor, abnormal: Tensor, seed: int = 0, resamples: int = RESAMPLES) -> Ranking:
    """AUROC and average precision with bootstrap intervals.

    Args:
        normal, abnormal: scores, (N,) and (M,).
        seed: of the bootstrap samples.
    Raises:
        UserError: if a side has no score, or one that is not a number.
    """
    places, counts = _places(normal, abnormal)
    generator = rng.generator(seed, "bootstrap")
    drawn = torch.stack([_figures(*_again(places, len(counts[0]), generator)) for _ in range(resamples)])  # (R, 2)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0).tolist()
    values = _figures(*counts).tolist()
    return Ranking(*(Estimate(value, (a, b)) for value, a, b in zip(values, low, high, strict=True)))


def auroc(*, normal: Tensor, abnormal: Tensor) -> float:
    """Area under the receiver operating characteristic curve; `ranking` gives its interval."""
    return float(_figures(*_places(normal, abnormal)[1])[0])


def average_precision(*, normal: Tensor, abnormal: Tensor) -> float:
    """Average precision of the abnormal images; `ranking` gives its interval."""
    return float(_figures(*_places(normal, abnormal)[1])[1])


def _places(normal: Tensor, abnormal: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """For normal and for abnormal images: which of the distinct scores (ascending) each has, and how many have each."""
    if not len(normal) or not len(abnormal):
        raise UserError(
            f"{len(normal)} normal and {len(abnormal)} abnormal images: a ranking needs at least one of either"
        )
    scores = torch.cat([normal, abnormal]).double().cpu()
    if scores.isnan().any():
        raise UserError(f"{int(scores.isnan().sum())} of {len(scores)} scores are not numbers; the model gave NaN")
    distinct, place = scores.unique(return_inverse=True)
    places = place[: len(normal)], place[len(normal) :]
    return places, (_counts(places[0], len(distinct)), _counts(places[1], len(distinct)))


def _counts(place: Tensor, size: int) -> Tensor:
    return torch.bincount(place, minlength=size).double()


def _again(places: tuple[Tensor, Tensor], size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The counts of as many images of either kind, drawn with replacement."""
    one, other = (_counts(p[torch.randint(len(p), (len(p),), generator=generator)], size) for p in places)
    return one, other


def _figures(normal: Tensor, abnormal: Tensor) -> Tensor:
    """AUROC and average precision, (2,), from the counts at each distinct score, ascending."""
    below = normal.cumsum(0) - normal  # normal images with a lower score
    area = (abnormal * (below + normal / 2)).sum() / (normal.sum() * abnormal.sum())
    found = abnormal.flip(0).cumsum(0)  # abnormal images with this score or a higher one, from the highest down
    flagged = found + normal.flip(0).cumsum(0)
    precision = found / flagged.clamp(min=1)  # the highest scores may be absent from a bootstrap sample
    return torch.stack([area, (precision * abnormal.flip(0)).sum() / abnormal.sum()])
