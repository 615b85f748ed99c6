"""How the kernel distance of a model falls over its training, and what a longer training would change.

Weights that a training kept on the way are measured as the last ones are, on FEWER images. The curve is fitted by a
power law of the seconds s,

    log d = a - b log s,

by least squares, each point weighted with the precision that its generated images give it; d at FACTOR times the length
is exp(a - b log(FACTOR s)). The interval is that of the law, not of a measurement: it has the errors of a and b, how
far points lie from the law beside their noise, and once the error that the real images give all points alike.

The law holds over a few doublings: curves of training bend. Points at or below 0 are left out, so that near real images
a curve looks flatter than it is; and where a learning rate falls over the training, the last weights are better than
those of the same time in a longer one, so that it looks steeper.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from trilemma.comparison.content import Forecast, LearningPoint, receipt_of
from trilemma.comparison.plain import Json

if TYPE_CHECKING:
    from trilemma.metrics.controls import Reference
    from trilemma.metrics.intervals import Spread
    from trilemma.metrics.quality import Setup
    from trilemma.run.run import Run

KEPT = 4  # weights that a training of a comparison keeps: after 1/16, 1/8, 1/4, 1/2 of it
FEWER, FEW = 500, 150  # images drawn of each; where features are slow
FACTOR = 4  # times the length that is looked ahead
LEAST_POINTS = 3  # of a fit
LEAST_ERROR = 1e-3  # relative standard error of a point, at least
WIDEST = math.log(1000)  # half of an interval, in logarithms, beyond which nothing is said


class Fit(NamedTuple):
    """log d = a - b (log s - centre), with the variances of a and b, which are independent, how far points lie from the
    line beside their noise, as a variance, and the degrees of freedom of these."""

    a: float
    b: float
    centre: float
    variances: tuple[float, float]
    excess: float
    df: int


def learning_points(run: "Run", reference: "Reference", last: "Spread | None", batch: int) -> Iterator[LearningPoint]:
    """Of the weights that were kept, in their order; then of the last ones, with their kernel distance."""
    from trilemma.metrics.features import extract, to_levels
    from trilemma.metrics.kernel import kernel_distance
    from trilemma.run.earlier import earlier_runs

    setup = reference.setup
    for images, seconds, earlier in earlier_runs(run):
        n = fewer(setup.n, setup.network.is_slow)
        drawn = to_levels(earlier.sample(n, seed=setup.seed, batch=batch))
        fake = extract(setup.network, drawn)
        distance = kernel_distance(real=reference.real.similarity, fake=fake)
        yield _point(images, seconds, distance, _receipts(setup, distance, n))
    if last is not None:
        yield _point(run.summary["images"], run.summary["seconds"], last, _receipts(setup, last, setup.n))


def is_whole(run: "Run", points: Sequence[LearningPoint]) -> bool:
    """Whether a learning curve ends where the training did: one whose measurement fails on its way ends before."""
    return bool(points) and points[-1].images == run.summary["images"]


def fewer(n: int, is_slow: bool) -> int:
    """How many images are drawn for a point of a curve, of n; is_slow: whether features take long."""
    return min(FEW if is_slow else FEWER, n)


def _receipts(setup: "Setup", distance: "Spread", n: int) -> dict[str, Json]:
    """Of a kernel distance of n generated images to all real ones."""
    from trilemma.metrics.catalogue import CATALOGUE
    from trilemma.metrics.quality import quality_scores
    from trilemma.metrics.receipt import protocol_name

    values, network = {"kernel_distance": distance}, setup.network
    (score,) = quality_scores(setup, values, network.resize_rule(setup.data.shape))
    if n != setup.n:
        word, counts = CATALOGUE[score.name].word, f"{n}-against-{setup.n}"
        score = replace(score, n_fake=n, protocol=protocol_name(word, network.name, counts, setup.split_label))
    return {score.name: receipt_of(score)}


def _point(images: int, seconds: float, distance: "Spread", receipts: Mapping[str, Json]) -> LearningPoint:
    value, interval = distance.estimate()
    shared, own = (math.sqrt(float(part.square().sum())) for part in (distance.shared, distance.own))
    return LearningPoint(images, seconds, value, list(interval), shared, own, receipts)


def fit(points: Sequence[LearningPoint]) -> Fit | None:
    """The power law through the points above 0; None where they are too few, or at too few times."""
    usable = [p for p in points if p.value > 0 and p.seconds > 0]
    if len({p.seconds for p in usable}) < LEAST_POINTS:
        return None
    x, y = [math.log(p.seconds) for p in usable], [math.log(p.value) for p in usable]
    weights = [max(p.own / p.value, LEAST_ERROR) ** -2 for p in usable]
    total = sum(weights)
    centre, level = (sum(w * v for w, v in zip(weights, values, strict=True)) / total for values in (x, y))
    spread = sum(w * (v - centre) ** 2 for w, v in zip(weights, x, strict=True))
    slope = sum(w * (v - centre) * (u - level) for w, v, u in zip(weights, x, y, strict=True)) / spread
    rest = [u - level - slope * (v - centre) for v, u in zip(x, y, strict=True)]
    chi2 = sum(w * r**2 for w, r in zip(weights, rest, strict=True)) / (len(usable) - 2)
    scale = max(1.0, chi2)  # where points lie farther from the line than their noise, the law is that much less certain
    excess = (scale - 1) * len(usable) / total
    return Fit(level, -slope, centre, (scale / total, scale / spread), excess, len(usable) - 2)


def forecast(points: Sequence[LearningPoint], factor: float = FACTOR) -> Forecast | None:
    """The kernel distance to be expected after `factor` times the length; None where no law can be fitted, or it says
    nothing."""
    from trilemma.metrics.intervals import quantile

    law = fit(points)
    if law is None:
        return None
    ahead, last = math.log(factor * points[-1].seconds) - law.centre, [p for p in points if p.value > 0][-1]
    of_fit = math.sqrt(law.variances[0] + law.variances[1] * ahead**2 + law.excess)
    half = math.hypot(quantile(df=law.df) * of_fit, quantile() * last.shared / last.value)
    expected = law.a - law.b * ahead
    if half > WIDEST or abs(expected) > 2 * WIDEST:
        return None
    ends = [math.exp(expected - half), math.exp(expected + half)]
    return Forecast(factor * points[-1].seconds, math.exp(expected), ends, law.b)
