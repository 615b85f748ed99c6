"""The curves of a training as a person reads them: equal lines once, titles with units, and a healthy range where
known."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trilemma.training.monitor import ENOUGH, IN_USE, SURE
from trilemma.training.titles import square_of, title

HEALTHY = {
    "d_real": f"D is the probability that the critic gives to an image of being real. Healthy: below {SURE:g}.",
    "d_fake": f"Healthy: above {1 - SURE:.2g}.",
    "used_codes": f"Healthy: at least {IN_USE:g}.",
    "active_units": f"Healthy: at least {ENOUGH}, or a tenth of all units.",
    "kl_nats": "Healthy: above 0. At 0 the code says nothing about the image.",
}


def shown_curves(curves: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Curves to draw, as {"title", "healthy", "seconds", "values"}; lines that are equal are one.

    Args:
        curves: the document's, {"name", "seconds", "values"}.
    """
    names = {curve["name"] for curve in curves}
    kept = [c for c in curves if _is_curve(c) and square_of(c["name"]) not in names]
    phases = {c["name"].partition("/")[0] for c in kept if "/" in c["name"]}
    return [_merged(group, phase=len(phases) > 1) for group in _equal(kept)]


def curve_title(name: str, *, phase: bool = False) -> str:
    """A part of the loss or a validation value in words; with `phase`, also whose loss it is.

    >>> curve_title("vae/kl_nats"), curve_title("critic/loss", phase=True), curve_title("valid_rmse")
    ('KL divergence (nats)', 'critic: loss', 'validation error (RMSE)')
    """
    head, _, _ = name.partition("/")
    words = title(_part(name))
    if name.startswith("valid_"):
        return f"validation {words}" if words[1:2].islower() else f"{words}, validation"
    return f"{head}: {words}" if phase and "/" in name else words


def _part(name: str) -> str:
    return name.partition("/")[2] or name.removeprefix("valid_")


def _is_curve(curve: Mapping[str, Any]) -> bool:
    """A single value on held-out images is not a curve; it stands among the facts."""
    return len(curve["values"]) > (1 if curve["name"].startswith("valid_") else 0)


def _equal(curves: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    groups: list[list[Mapping[str, Any]]] = []
    for curve in curves:
        same = next((group for group in groups if _same(group[0], curve)), None)
        groups.append([curve]) if same is None else same.append(curve)
    return groups


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    pairs = zip(a["values"], b["values"], strict=False)
    return a["seconds"] == b["seconds"] and all(math.isclose(x, y, rel_tol=1e-6) for x, y in pairs)


def _merged(group: Sequence[Mapping[str, Any]], *, phase: bool) -> dict[str, Any]:
    """The first of equal lines under all their names, the loss first: "loss (squared error)"."""
    first, *rest = [curve_title(c["name"], phase=phase and k == 0) for k, c in enumerate(group)]
    rest = [text for text in rest[-1:] if text != first]
    healthy = next((HEALTHY[part] for c in group if (part := _part(c["name"])) in HEALTHY), None)
    return {**group[0], "title": f"{first} ({rest[0]})" if rest else first, "healthy": healthy}
