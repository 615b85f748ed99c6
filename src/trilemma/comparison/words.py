"""Figures in words: numbers no finer than their interval, and who leads on each axis.

A claim is made only where the evidence carries it: a model leads where every other one is beaten (`differences.py`).
A model that learned nothing decides nothing.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trilemma.comparison.differences import unbeaten
from trilemma.words import listed, number, span


class Title(NamedTuple):
    """How a metric is called on the page and, in lines as short as its words allow, at the head of a column."""

    long: str
    short: str


TITLES = {
    "precision": Title("Precision", "Precision"),
    "recall": Title("Recall", "Recall"),
    "density": Title("Fidelity: density", "Fidelity\n(density)"),
    "coverage": Title("Diversity: coverage", "Diversity\n(coverage)"),
    "kernel_distance": Title("Kernel distance", "Kernel\ndistance"),
    "frechet_distance": Title("Frechet distance", "Frechet\ndistance"),
    "ms_per_image": Title("Milliseconds per image", "Milliseconds\nper image"),
    "calls_per_image": Title("Network calls per image", "Network calls\nper image"),
    "elbo_nats": Title("ELBO", "ELBO, nats\nper image"),
    "bound_nats": Title("Likelihood bound", "Bound, nats\nper image"),
    "bits_per_dim": Title("Bits per dimension", "Bits per\ndimension"),
    "active_units": Title("Active units of the code", "Active\nunits"),
    "class_obeyed": Title("Drawn as the class asked for", "Class\nobeyed"),
}


def title(name: str, protocol: str) -> Title:
    """What a metric is called; of figures that only some models have, also what tells their protocols apart.

    >>> title("bound_nats", "bound50_gaussian-0.5-continuous_360_test").long
    'Likelihood bound of 50 samples (gaussian 0.5, continuous pixels)'
    >>> title("active_units", "active-units_32_360_test").long, title("new_score", "new_10").long
    ('Active units of the code, of 32', 'New score')
    """
    plain = name.replace("_", " ").capitalize()
    long, short = TITLES.get(name, Title(plain, plain.replace(" ", "\n", 1)))
    if found := re.fullmatch(r"[a-z]+(\d*)_(.+)-(binary|continuous)_\d+_[^_]+", protocol):
        samples, likelihood, pixels = found.groups()
        within = f"{likelihood.replace('-', ' ')}, {pixels} pixels"
        return Title(f"{long} of {samples} samples ({within})" if samples else f"{long} ({within})", short)
    if found := re.match(r"active-units_(\d+)_", protocol):
        return Title(f"{long}, of {found[1]}", f"{short}, of {found[1]}")
    return Title(long, short)


def verdict(
    models: Sequence[Mapping[str, Any]], axes: Sequence[Any], differences: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Who leads on each axis, and the sentences that say so.

    Args:
        models: the document's models, each with "place" (by axis: value and interval, or None where there is no figure)
            and "learned_nothing".
        axes: `triangle.AXES`.
        differences: of the document, by metric.
    Returns:
        {"text", "axes": {axis: {"first": [names], "beaten": [names], "clear": bool, "text"}}}: `first` are the unbeaten
        among those that count, `beaten` the others; one name alone is `clear` where it is ahead of another model.
    """
    judged = {axis.name: _judged(axis, models, differences.get(axis.metric, ())) for axis in axes}
    texts = [f"{axis.name.capitalize()}: {judged[axis.name]['text']}" for axis in axes]
    return {"text": " ".join([*texts, *_overall(judged, models)]), "axes": judged}


def counts(model: Mapping[str, Any], axis: str) -> bool:
    """Whether a model can lead on an axis: it has a figure, and it learned something."""
    return bool(model["place"].get(axis)) and not model.get("learned_nothing")


def _judged(axis: Any, models: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures = {m["name"]: m["place"][axis.name] for m in models if m["place"].get(axis.name)}
    able = {m["name"]: figures[m["name"]]["value"] for m in models if counts(m, axis.name)}
    first = unbeaten(able, _in_units_of(axis, pairs))
    beaten = [name for name in able if name not in first]
    clear = len(first) == 1 and bool(beaten)
    return {"first": first, "beaten": beaten, "clear": clear, "text": _sentence(axis, figures, first, beaten)}


def _in_units_of(axis: Any, pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The pairs, a and b exchanged where a higher score is lower on the axis: of a long time few images per second."""
    if axis.value(1.0) < axis.value(2.0):
        return list(pairs)
    return [{**pair, "a": pair["b"], "b": pair["a"]} for pair in pairs]


def _sentence(axis: Any, figures: Mapping[str, Any], first: Sequence[str], beaten: Sequence[str]) -> str:
    if not figures:
        return "no model has a figure."
    if not first:
        return "no model has learned anything yet; no model leads."
    value, interval = figures[first[0]]["value"], figures[first[0]]["interval"]
    text = f"{axis.short} {number(value, interval)}" + (f", {span(value, interval)}" if interval else ", no interval")
    if len(figures) == 1:
        return f"only {first[0]} has a figure ({text})."
    if len(first) == 1:
        return f"{first[0]} leads ({text})." if beaten else f"{first[0]} ({text}); the others have learned nothing yet."
    behind = ", which are ahead of the others" if beaten else ""
    return f"no difference could be shown between {listed(first)}{behind} (highest value: {text})."


def _overall(judged: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> list[str]:
    failed = [m["name"] for m in models if m["error"]]
    nothing = [m["name"] for m in models if m.get("learned_nothing")]
    leaders = {a["first"][0] if a["clear"] else None for a in judged.values()}
    texts = []
    if len(models) - len(failed) > 1:
        one = len(leaders) == 1 and None not in leaders
        texts.append(f"{leaders.pop()} leads on all three axes." if one else "No model leads on all three axes.")
    texts += [f"Learned nothing yet, so never ahead: {listed(nothing)}."] if nothing else []
    return texts + ([f"Failed: {listed(failed)}."] if failed else [])
