"""What the settings of a sampler change, in sentences of the answer: quicker ones without a loss, and better ones."""

from collections.abc import Iterator, Sequence

from trilemma.comparison.content import DIVERSITY, FIDELITY, WANTS, Item, Model, SamplerPoint
from trilemma.comparison.sampler_settings import ALIKE
from trilemma.comparison.words import WORDS
from trilemma.language import translated
from trilemma.words import listed, number

SCORES = {FIDELITY: "density", DIVERSITY: "coverage"}  # of a point, by axis


def quicker_settings(models: Sequence[Model]) -> Iterator[Item]:
    """The quickest setting of each model's sampler whose images are not shown to be worse than by its own setting."""
    for model in models:
        own = _own_point(model)
        quicker = [p for p in model.samplers if own and ALIKE * p.ms_per_image < own.ms_per_image and _is_as_good(p)]
        if not own or not quicker:
            continue
        best = min(quicker, key=lambda point: point.ms_per_image)
        command = model.commands.get("sample")
        text = translated(
            "{name} with {setting} draws {times} times as fast as with {own}, and no loss is shown (of {n} images "
            "each).",
            name=model.name,
            setting=best.setting,
            times=f"{own.ms_per_image / best.ms_per_image:.1f}",
            own=own.setting,
            n=f"{best.n:,}",
        )
        yield Item("quicker", text, [model.name], command and f"{command} {best.setting}")


def _own_point(model: Model) -> SamplerPoint | None:
    """That of the setting which the model draws with by itself."""
    return next((point for point in model.samplers if point.own), None)


def _is_as_good(point: SamplerPoint) -> bool:
    """Whether neither score is shown to be lower than by the own setting: both intervals of the differences reach 0."""
    return all(high >= 0 for _, high in point.changes.values())


def better_settings(models: Sequence[Model], want: str, most: float) -> Iterator[Item]:
    """The settings of each model's sampler with the highest density or coverage, as is wanted, where its interval lies
    above that of the own setting.

    Args:
        most: the density of real images, above which more is no better.
    """
    axes = [axis for axis in WANTS[want] if axis in SCORES]
    for model in models:
        own = _own_point(model)
        best = {axis: point for axis in axes if own and (point := _higher(model.samplers, own, axis, axes, most))}
        for setting in dict.fromkeys(point.setting for point in best.values()):
            point = next(point for point in best.values() if point.setting == setting)
            what = listed([translated(WORDS[axis]) for axis, other in best.items() if other is point])
            assert own is not None
            yield _better(model, point, own, what)


def _higher(
    points: Sequence[SamplerPoint], own: SamplerPoint, axis: str, axes: Sequence[str], most: float
) -> SamplerPoint | None:
    """The point with the highest value on an axis whose interval lies above that of the own setting; where both axes
    are wanted, one that is not shown to be worse on the other. Of equals, the one that covers more, then the
    quickest."""
    score, limit = SCORES[axis], most if axis == FIDELITY else 1.0
    if getattr(own, score) >= limit:
        return None
    above = [
        p
        for p in points
        if getattr(p, f"{score}_interval")[0] > getattr(own, f"{score}_interval")[1]
        and (len(axes) == 1 or _is_as_good(p))
    ]
    return max(above, key=lambda p: (min(getattr(p, score), limit), p.coverage, -p.ms_per_image), default=None)


def _better(model: Model, point: SamplerPoint, own: SamplerPoint, what: str) -> Item:
    """That a setting of the sampler has higher scores than the own one, and what it costs in the others."""
    text = translated(
        "{name} with {setting} has higher {what} than with {own}: density {density}, not {own_density}; coverage "
        "{coverage}, not {own_coverage}; an image takes {times} times as long (of {n} images each).",
        name=model.name,
        setting=point.setting,
        what=what,
        own=own.setting,
        density=number(point.density, point.density_interval),
        own_density=number(own.density, own.density_interval),
        coverage=number(point.coverage, point.coverage_interval),
        own_coverage=number(own.coverage, own.coverage_interval),
        times=f"{point.ms_per_image / own.ms_per_image:.1f}",
        n=f"{point.n:,}",
    )
    command = model.commands.get("sample")
    return Item("better", text, [model.name], command and f"{command} {point.setting}")
