"""What is wrong with a model, as far as its scores tell: collapse, images of one kind, codes without use, memorisation,
underfit.

    collapse        its images are as good as real ones by half or more (density), and cover less than half of what real
                    images do (coverage)
    of one kind     within a class its images differ less than half as much as real ones (diversity within a class)
    posterior       fewer than one in ten units of the code are active, and fewer than five (`likelihood.is_collapsed`)
    memorisation    significantly more of its images lie near training images than held-out real ones do
    underfit        its learning curve still falls: four times the training is expected to be better

A share counts where the whole interval lies below HALF. A model that has learned nothing yet has no other fault.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from trilemma.comparison.content import Control, Document, Item, Model, Nearest, Scores, scores_of_real
from trilemma.comparison.words import units_of
from trilemma.language import translated
from trilemma.metrics.likelihood import is_collapsed
from trilemma.words import number

HALF = 0.5  # of real images


def diagnosis(models: Sequence[Model], controls: Sequence[Control]) -> Iterator[Item]:
    """A sentence for each fault of each model that was measured."""
    real = scores_of_real(controls)
    for model in models:
        if model.scores and not model.learned_nothing and not model.error:
            for text in _faults(model, real):
                yield Item("diagnosis", text, [model.name])


def _faults(model: Model, real: Scores) -> Iterator[str]:
    if _value(model.scores, "density") > HALF * _value(real, "density", 1.0) and _is_below(
        model.scores, "coverage", HALF * _value(real, "coverage", 1.0)
    ):
        values = {name: number(_value(model.scores, name)) for name in ("density", "coverage")}
        yield translated(
            "{name} draws good images of few kinds (density {density}, coverage {coverage}): it has collapsed to a "
            "part of the data.",
            name=model.name,
            **values,
        )
    elif _is_below(model.scores, "class_diversity", HALF):
        share = f"{_value(model.scores, 'class_diversity'):.0%}"
        yield translated(
            "Within a class, the images of {name} differ {share} as much as real ones: it draws a few of each class.",
            name=model.name,
            share=share,
        )
    for score in model.scores.values():  # by protocol, see `rows.scores_of`
        units = units_of(score.protocol)
        if units is not None and score.value is not None and is_collapsed(score.value, units):
            yield translated(
                "{active} of the {units} units of the code of {name} are active (posterior collapse): most of the code "
                "carries no information about the image.",
                active=number(score.value),
                units=str(units),
                name=model.name,
            )
    if isinstance(model.nearest, Nearest) and model.nearest.copies:
        yield translated("{name} may copy training images: look at its nearest ones in the report.", name=model.name)
    if model.forecast and model.learning and model.forecast.interval[1] < model.learning[-1].interval[0]:
        yield translated("{name} is still learning: a longer training is expected to be better.", name=model.name)


def _value(scores: Scores, name: str, otherwise: float = 0.0) -> float:
    score = scores.get(name)
    return otherwise if score is None or score.value is None else score.value


def _is_below(scores: Scores, name: str, limit: float) -> bool:
    """Whether a score and its whole interval lie below a limit."""
    score = scores.get(name)
    if score is None or score.value is None or score.rough:
        return False
    return max([score.value, *(score.interval or ())]) < limit


def with_diagnosis(document: Document) -> Document:
    """The document, the faults of its models before the limits of its answer."""
    first = [item for item in document.answer if item.kind != "limits"]
    limits = [item for item in document.answer if item.kind == "limits"]
    return replace(document, answer=[*first, *diagnosis(document.models, document.controls), *limits])
