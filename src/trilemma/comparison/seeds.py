"""Whether models stand in the same order for each seed of their trainings."""

import math
from collections.abc import Iterator, Sequence

from trilemma.comparison.content import FIDELITY, WANTS, Item, Model, value_of
from trilemma.comparison.words import WORDS, counts, metric_of
from trilemma.language import translated


def rankings(models: Sequence[Model], want: str, most: float) -> Iterator[Item]:
    """Whether models that were trained with the same seeds, several of them, stand in the same order for each.

    Args:
        most: the density of real images, above which more is no better.
    """
    rows = [m for m in models if all(counts(m, axis) for axis in WANTS[want]) and len(_seeds(m)) > 1]
    seeds = [seed for seed in _seeds(rows[0]) if all(seed in _seeds(m) for m in rows)] if rows else []
    if len(rows) < 2 or len(seeds) < 2:
        return
    texts = [_ranking(rows, seeds, axis, most) for axis in WANTS[want]]
    yield Item("seeds", " ".join(texts), [m.name for m in rows])


def _seeds(model: Model) -> list[int]:
    """Those of the trainings that were measured."""
    return [training.seed for training in model.trainings if training.scores and training.seed is not None]


def _ranking(rows: Sequence[Model], seeds: Sequence[int], axis: str, most: float) -> str:
    """Whether the order of some models on an axis is the same for each seed, and the orders, the best first."""
    metric = metric_of(axis)
    sign, limit = (-1 if metric.better == "higher" else 1), most if axis == FIDELITY else math.inf

    def order(seed: int) -> str:
        trainings = {m.name: next(t for t in m.trainings if t.seed == seed and t.scores) for m in rows}
        values = {name: value_of(training.scores, metric.name) for name, training in trainings.items()}
        known = {name: min(value, limit) for name, value in values.items() if value is not None}
        return ", ".join(sorted(known, key=lambda name: sign * known[name]))

    orders = [order(seed) for seed in seeds]
    what, n = translated(WORDS[axis]), len(seeds)
    if len(set(orders)) == 1:
        text = "In {what}, the order of the models is the same with each of {n} seeds: {orders}."
        return translated(text, what=what, n=n, orders=orders[0])
    text = "In {what}, the order of the models depends on the seed: {orders}."
    by_seed = [
        translated("seed {names}: {text}", names=seed, text=one) for seed, one in zip(seeds, orders, strict=True)
    ]
    return translated(text, what=what, orders="; ".join(by_seed))
