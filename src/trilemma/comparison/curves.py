"""The curves of a training as a person reads them: equal lines once, titles with units, and a healthy range where
known."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from trilemma.comparison.content import Curve
from trilemma.healthy import HEALTHY, LINEAR, part_of
from trilemma.language import translated
from trilemma.titles import square_of, title


class CurvePlot(NamedTuple):
    """A curve to draw: its title, and what is healthy, where known."""

    name: str
    title: str
    healthy: str | None
    seconds: Sequence[float]
    values: Sequence[float]


def shown_curves(curves: Sequence[Curve]) -> list[CurvePlot]:
    """The document's curves as they are drawn; lines that are equal are one."""
    names = {curve.name for curve in curves}
    drawable = [c for c in curves if _is_curve(c) and square_of(c.name) not in names]
    phases = {c.name.partition("/")[0] for c in drawable if "/" in c.name}
    return [_merged(group, phase=len(phases) > 1) for group in _equal(drawable)]


def curve_title(name: str, *, phase: bool = False) -> str:
    """A part of the loss or a validation value in words; with `phase`, also whose loss it is.

    >>> curve_title("vae/kl_nats"), curve_title("critic/loss", phase=True), curve_title("valid_rmse")
    ('KL divergence (nats)', 'critic: loss', 'validation error (RMSE)')
    """
    head, _, _ = name.partition("/")
    words = translated(title(_part(name)))
    if name.startswith("valid_") and words[1:2].islower():
        return translated("validation {words}", words=words)
    if name.startswith("valid_"):
        return translated("{words}, validation", words=words)
    return f"{head}: {words}" if phase and "/" in name else words


def _part(name: str) -> str:
    return name.partition("/")[2] or name.removeprefix("valid_")


def _is_curve(curve: Curve) -> bool:
    """A single value on held-out images is not a curve, and the error of a linear estimate is none of the model; they
    stand among the facts."""
    return not curve.name.startswith(LINEAR) and len(curve.values) > (1 if curve.name.startswith("valid_") else 0)


def _equal(curves: Sequence[Curve]) -> list[list[Curve]]:
    groups: list[list[Curve]] = []
    for curve in curves:
        same = next((group for group in groups if _same(group[0], curve)), None)
        groups.append([curve]) if same is None else same.append(curve)
    return groups


def _same(a: Curve, b: Curve) -> bool:
    pairs = zip(a.values, b.values, strict=False)
    return a.seconds == b.seconds and all(math.isclose(x, y, rel_tol=1e-6) for x, y in pairs)


def _merged(group: Sequence[Curve], *, phase: bool) -> CurvePlot:
    """The first of equal lines under all their names, the loss first: "loss (squared error)"."""
    first, *rest = [curve_title(c.name, phase=phase and k == 0) for k, c in enumerate(group)]
    rest = [text for text in rest[-1:] if text != first]
    healthy = next((translated(HEALTHY[part]) for c in group if (part := part_of(c.name)) in HEALTHY), None)
    return CurvePlot(
        group[0].name, f"{first} ({rest[0]})" if rest else first, healthy, group[0].seconds, group[0].values
    )
