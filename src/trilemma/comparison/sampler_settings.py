"""The curve of the trilemma: a model under several settings of its sampler, each with its quality and its speed.

Fewer steps are quicker and worse; a truncation, a temperature or a guidance trade diversity for fidelity. Every point
is measured on the same number of images, and on as many real ones. The frontier holds the points that no other one of
any model equals in density, coverage and speed and exceeds in one, by their values, whatever their intervals; density
counts up to that of real images, above which more is no better. Times that differ by less than a tenth count as equal;
they are measured one setting after the other, not in turns.
"""

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trilemma.comparison.content import Control, SamplerPoint, receipt_of, scores_of_real
from trilemma.comparison.learning import fewer
from trilemma.comparison.plain import Json

if TYPE_CHECKING:
    from torch import Tensor

    from trilemma.metrics.controls import Reference
    from trilemma.metrics.intervals import Spread
    from trilemma.metrics.quality import Setup
    from trilemma.run.run import Run

ALIKE = 1.1  # ratio of times that count as equal
SCORES = ("density", "coverage")  # of a point
VALUES: dict[str, Sequence[float]] = {  # of the keys that trade one corner of the triangle for another
    "steps": (5, 10, 20, 50),
    "truncation": (0.5, 0.7, 0.85),
    "temperature": (0.5, 0.7, 0.85),
    "guidance": (2.0, 4.0),
}


def settings_of(run: "Run") -> list[dict[str, Any]]:
    """The sampler's own settings, {}, and those with one key of VALUES changed that it takes."""
    from trilemma.errors import UserError
    from trilemma.types import Samples, keys_of

    if not isinstance(run.model, Samples):
        return []
    fields, settings = keys_of(run.model).model_fields, list[dict[str, Any]]([{}])
    others: list[dict[str, Any]] = [
        {key: v} for key, values in VALUES.items() if key in fields for v in values if fields[key].default != v
    ]
    for changed in others:
        with suppress(UserError):  # a guidance without classes, more steps than there are
            run.sample(1, **changed)
            settings.append(changed)
    return settings


def sampler_points(run: "Run", reference: "Reference", batch: int) -> Iterator[SamplerPoint]:
    """One for each of the settings, the own one first."""
    import torch

    from trilemma.metrics.features import extract, to_levels
    from trilemma.metrics.intervals import difference
    from trilemma.metrics.neighbours import neighbour_scores

    setup, own = reference.setup, run.sampling({}, type(run).sample)
    of_own = dict[str, "Spread"]()
    n = fewer(setup.n, setup.network.is_slow)
    for settings in settings_of(run):
        run.sample(min(n, batch), seed=setup.seed, batch=batch, **settings)  # warms up
        parts, times = list["Tensor"](), []
        for first in range(0, n, batch):
            count, start = min(batch, n - first), time.perf_counter()
            parts.append(run.sample(count, seed=setup.seed, first=first, batch=count, **settings))
            times.append(1000 * (time.perf_counter() - start) / count)
        fake = extract(setup.network, to_levels(torch.cat(parts)))
        scores = neighbour_scores(real=reference.real.features, fake=fake)
        of_own = of_own or scores
        density, coverage = (scores[name].estimate() for name in SCORES)
        changes = {name: list(difference(scores[name], of_own[name]).interval) for name in SCORES}
        ms = statistics.median(times[:-1] or times)  # the last batch may be a small one
        asked = replace(setup, n=n, settings=settings)
        yield SamplerPoint(
            _in_words(settings or own.model_dump()),
            not settings,
            ms,
            density.value,
            list(density.interval),
            coverage.value,
            list(coverage.interval),
            n,
            _receipts(asked, scores, ms, batch, run),
            changes,
        )


def _receipts(setup: "Setup", scores: "Mapping[str, Spread]", ms: float, batch: int, run: "Run") -> dict[str, Json]:
    """Of the density, the coverage and the milliseconds per image of a point."""
    import torch

    from trilemma.metrics.catalogue import CATALOGUE, COST
    from trilemma.metrics.quality import quality_scores
    from trilemma.metrics.receipt import protocol_name, score_of

    resize, device = setup.network.resize_rule(setup.data.shape), run.device.type
    measured = quality_scores(setup, {name: scores[name] for name in SCORES}, resize)
    protocol = protocol_name(CATALOGUE[COST[0]].word, device, f"batch{min(batch, setup.n)}")
    used = {"device": device, "threads": str(torch.get_num_threads())}
    measured.append(score_of(COST[0], protocol, ms, n_fake=setup.n, seed=setup.seed, used=used))
    return {score.name: receipt_of(score) for score in measured}


def _in_words(settings: Mapping[str, Any]) -> str:
    """The keys of VALUES among settings of a sampler.

    >>> _in_words({"steps": 20, "eta": 0.0})
    'steps=20'
    """
    return ", ".join(f"{key}={settings[key]:g}" for key in VALUES if isinstance(settings.get(key), int | float))


def most_density(controls: Sequence[Control]) -> float:
    """The density of real images, above which more is no better; infinite where it is not known."""
    score = scores_of_real(controls).get("density")
    return (score.value if score else None) or math.inf


def with_frontier(rows: Mapping[str, Sequence[SamplerPoint]], most: float) -> dict[str, list[SamplerPoint]]:
    """The points of each row, those marked that no point of any row dominates; `most` is the density of real images."""
    everything = [point for points in rows.values() for point in points]

    def dominates(one: SamplerPoint, other: SamplerPoint) -> bool:
        gains = (min(one.density, most) - min(other.density, most), one.coverage - other.coverage)
        slower, faster = one.ms_per_image > ALIKE * other.ms_per_image, ALIKE * one.ms_per_image < other.ms_per_image
        return not slower and min(gains) >= 0 and (max(gains) > 0 or faster)

    def on_frontier(point: SamplerPoint) -> bool:
        return not any(dominates(other, point) for other in everything)

    return {name: [replace(p, frontier=on_frontier(p)) for p in points] for name, points in rows.items()}
