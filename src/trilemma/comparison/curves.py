"""The curves of a training as a person reads them: equal lines once, titles with units, and a healthy range where
known."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from trilemma.comparison.content import Curve
from trilemma.language import translated
from trilemma.metrics.likelihood import ENOUGH
from trilemma.titles import square_of, title
from trilemma.training.adversarial import EXPLODED, OVERFIT, SURE, VANISHED
from trilemma.training.monitor import IN_USE

HEALTHY = {
    "d_real": f"D is the probability that the critic gives to an image of being real. Healthy: below {SURE:g}.",
    "d_fake": f"Healthy: above {1 - SURE:.2g}.",
    "logit_real": "Mean over real images. Only the distance between both lines counts.",
    "logit_fake": "Mean over generated images.",
    "auroc": "Share of pairs in which the real image has the higher logit. 0.5: the critic knows nothing.",
    "gradient_norm": f"Healthy: between {VANISHED:g} and {EXPLODED:g} times its usual value.",
    "critic_overfit": "How far the critic takes held-out images for generated ones, 1: as much as it can. "
    f"Healthy: below {OVERFIT:g}.",
    "penalty": f"On the critic's slope, before its weight. Healthy: below {EXPLODED:g} times its usual value.",
    "used_codes": f"Healthy: at least {IN_USE:g}.",
    "active_units": f"Healthy: at least {ENOUGH}, or a tenth of all units.",
    "kl_nats": "Healthy: above 0. At 0 the code says nothing about the image.",
}


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
    """A single value on held-out images is not a curve; it stands among the facts."""
    return len(curve.values) > (1 if curve.name.startswith("valid_") else 0)


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
    healthy = next((translated(HEALTHY[part]) for c in group if (part := _part(c.name)) in HEALTHY), None)
    return CurvePlot(
        group[0].name, f"{first} ({rest[0]})" if rest else first, healthy, group[0].seconds, group[0].values
    )
