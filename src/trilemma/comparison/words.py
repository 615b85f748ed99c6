"""Values in words: numbers no finer than their interval, and who leads on each axis.

A claim is made only where the evidence carries it: a model leads where every other one is beaten (`differences.py`).
A model that learned nothing decides nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from trilemma.comparison.content import (
    DIVERSITY,
    FIDELITY,
    SPEED,
    Difference,
    Differences,
    Leaders,
    Model,
    Place,
    Verdict,
)
from trilemma.comparison.differences import unbeaten
from trilemma.language import translated
from trilemma.metrics.catalogue import CATALOGUE, OF_CLASSIFIER, Metric
from trilemma.words import listed, number, span

if TYPE_CHECKING:
    from trilemma.comparison.triangle import Axis

WORDS = {FIDELITY: "quality", DIVERSITY: "diversity", SPEED: "speed"}  # of the axes, in the answer


class Title(NamedTuple):
    """How a metric is called on the page and, in lines as short as its words allow, at the head of a column."""

    long: str
    short: str


def title(name: str, protocol: str) -> Title:
    """What a metric is called; of metrics that only some models have, also what tells their protocols apart.

    >>> title("bound_nats", "bound50_gaussian-0.5-continuous_360_test").long
    'Likelihood bound of 50 samples (gaussian 0.5, continuous pixels)'
    >>> title("active_units", "active-units_32_360_test").long, title("new_score", "new_10").long
    ('Active units of the code, of 32', 'New score')
    >>> title("synthetic_accuracy", "synthetic-accuracy_features-digits_300-steps_3-trainings_2000_500_test").long
    'Accuracy of a classifier that learns from them alone (2000 real and 500 generated images)'
    """
    plain = name.replace("_", " ").capitalize()
    metric = CATALOGUE.get(name)
    long, short = (
        (translated(metric.title), translated(metric.short)) if metric else (plain, plain.replace(" ", "\n", 1))
    )
    if parts := re.fullmatch(r"[a-z]+(\d*)_(.+)-(binary|continuous)_\d+_[^_]+", protocol):
        samples, likelihood, pixels = parts.groups()
        within = f"{likelihood.replace('-', ' ')}, {pixels} pixels"
        of_samples = translated("{title} of {n} samples ({within})", title=long, n=samples, within=within)
        return Title(of_samples if samples else f"{long} ({within})", short)
    if (units := units_of(protocol)) is not None:
        return Title(*(translated("{title}, of {n}", title=text, n=units) for text in (long, short)))
    if name in OF_CLASSIFIER and (numbers := re.search(r"_(\d+)_(\d+)_[^_]+$", protocol)):
        real, made = numbers.groups()
        return Title(
            translated("{title} ({real} real and {made} generated images)", title=long, real=real, made=made), short
        )
    return Title(long, short)


def units_of(protocol: str) -> int | None:
    """Of how many units of a code the active ones were counted, if a protocol is of that.

    >>> units_of("active-units_32_360_test"), units_of("bound50_bernoulli-binary_360_test")
    (32, None)
    """
    match = re.match(r"active-units_(\d+)_", protocol)
    return int(match[1]) if match else None


def verdict(models: Sequence[Model], axes: "Sequence[Axis]", differences: Differences) -> Verdict:
    """Who leads on each axis, and the sentences that say so.

    Args:
        models: the document's models.
        axes: `triangle.AXES`.
        differences: the document's, by metric.
    """
    leaders = {axis.name: _leaders(axis, models, differences.get(axis.metric, ())) for axis in axes}
    texts = [f"{translated(axis.name.capitalize())}: {leaders[axis.name].text}" for axis in axes]
    return Verdict(" ".join([*texts, *_overall(leaders, models)]), leaders)


def metric_of(axis: str) -> Metric:
    """The metric of the catalogue that stands on an axis."""
    return next(metric for metric in CATALOGUE.values() if metric.axis == axis)


def counts(model: Model, axis: str) -> bool:
    """Whether a model can lead on an axis: it has a value, and it learned something."""
    return bool(model.place.get(axis)) and not model.learned_nothing


def _leaders(axis: "Axis", models: Sequence[Model], pairs: Sequence[Difference]) -> Leaders:
    places = {m.name: place for m in models if (place := m.place.get(axis.name))}
    able = {m.name: places[m.name].value for m in models if counts(m, axis.name)}
    first = unbeaten(able, _in_units_of(axis, pairs))
    beaten = [name for name in able if name not in first]
    return Leaders(first, beaten, len(first) == 1 and bool(beaten), _sentence(axis, places, first, beaten))


def _in_units_of(axis: "Axis", pairs: Sequence[Difference]) -> list[Difference]:
    """The pairs, a and b exchanged where a higher score is lower on the axis: of a long time few images per second."""
    if axis.value(1.0) < axis.value(2.0):
        return list(pairs)
    return [replace(pair, a=pair.b, b=pair.a) for pair in pairs]


def _sentence(axis: "Axis", places: Mapping[str, Place], first: Sequence[str], beaten: Sequence[str]) -> str:
    if not places:
        return translated("no model has a value.")
    if not first:
        return translated("no model has learned anything yet; no model leads.")
    value, interval = places[first[0]].value, places[first[0]].interval
    within = span(value, interval) if interval else translated("no interval")
    text = f"{translated(axis.short)} {number(value, interval)}, {within}"
    if len(places) == 1:
        return translated("only {name} has a value ({text}).", name=first[0], text=text)
    if len(first) == 1 and beaten:
        return translated("{name} leads ({text}).", name=first[0], text=text)
    if len(first) == 1:
        return translated("{name} ({text}); the others have learned nothing yet.", name=first[0], text=text)
    if beaten:
        sentence = (
            "no difference could be shown between {names}, which are ahead of the others (highest value: {text})."
        )
    else:
        sentence = "no difference could be shown between {names} (highest value: {text})."
    return translated(sentence, names=listed(first), text=text)


def _overall(axes: Mapping[str, Leaders], models: Sequence[Model]) -> list[str]:
    failed = [m.name for m in models if m.error]
    nothing = [m.name for m in models if m.learned_nothing]
    leaders = {a.first[0] if a.clear else None for a in axes.values()}
    texts = []
    if len(models) - len(failed) > 1:
        one = len(leaders) == 1 and None not in leaders
        if one:
            texts.append(translated("{name} leads on all three axes.", name=leaders.pop()))
        else:
            texts.append(translated("No model leads on all three axes."))
    if nothing:
        texts.append(translated("Learned nothing yet, so never ahead: {names}.", names=listed(nothing)))
    return texts + ([translated("Failed: {names}.", names=listed(failed))] if failed else [])
