"""The rows of a comparison: a model is the mean over its trainings, which differ in their seed alone.

With each row what its trainings measured; below the models the controls; and the differences between all pairs of rows.
A set of images, or a pipeline, is a row without a training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trilemma.comparison.content import (
    IMAGES,
    PIPELINE,
    Asked,
    Control,
    Difference,
    Forecast,
    Model,
    Places,
    Scores,
    Training,
)
from trilemma.comparison.differences import RowMetric, differences, mean_over_trainings, of_turns, over_trainings
from trilemma.comparison.entries import Entry, representative
from trilemma.comparison.learning import forecast, is_whole
from trilemma.comparison.trained import commands, curves, training_of
from trilemma.comparison.triangle import AXES, places_of
from trilemma.language import translated
from trilemma.metrics.catalogue import COST, DETAILS, OF_CLASSIFIER, QUALITY
from trilemma.words import listed

if TYPE_CHECKING:
    from trilemma.data import Data
    from trilemma.metrics.controls import Control as Measurement
    from trilemma.metrics.evaluate import Evaluation
    from trilemma.metrics.intervals import Spread
    from trilemma.metrics.receipt import Score

TIME = COST[0]
OVER_TRAININGS = "95% over {n} trainings that differ in their seed, and the choice of real images (Student's t)"
REALS_HELD_FIXED = (
    "95% over {n} trainings that differ in their seed (Student's t), and the images of each; real images held fixed"
)
IN_TURNS = "95% for the median over turns, in each of which every model draws one batch; the range of fewer than 6"
NOTES = {  # of the controls, by name
    "real": "what a perfect model would get",
    "training": "what a model that copies its training images would get",
    "mean": "the mean of the training images, every time; a model has to beat it",
    "static": "random pixels; a model has to beat them",
    "one": "one training image, every time; what a collapsed model would get",
}


def model_row(name: str, row: Sequence[Entry], data: "Data", asked: Asked, shared: Sequence[str]) -> Model:
    """A row: what stands for it, and each of its trainings."""
    first, measured = representative(row), [e for e in row if e.evaluation is not None]
    scores, nothing = _row_scores(measured) if measured else {}, _learned_nothing(measured)
    return Model(
        name,
        error=None if measured else next((e.error for e in row if e.error), None),
        scores=scores,
        curves=curves(first.run.log) if first.run else [],
        notes=[note for note in first.evaluation.notes if note not in shared] if first.evaluation else [],
        commands=commands(first, data, asked),
        warnings=_warnings(row, measured),
        learned_nothing=nothing,
        trainings=[_one(entry) for entry in row],
        place=_place(scores, learned=not nothing),
        trained=training_of(first.run, data) if first.run else None,
        kind=PIPELINE if first.pipeline else IMAGES if first.images else "model",
        folder=str(first.place) if first.place else None,
        learning=first.learning,
        forecast=_forecast(first),
        samplers=first.samplers,
    )


def _forecast(entry: Entry) -> Forecast | None:
    """What a longer training would reach; of a curve that could not be measured to its end that is not known."""
    whole = entry.run is not None and is_whole(entry.run, entry.learning)
    return forecast(entry.learning) if whole else None


def _place(scores: Scores, *, learned: bool) -> Places:
    """Where a model stands on each axis. The centre is the place of the fidelity and the diversity of one that learned
    nothing: a few balls hold a constant image by chance, whatever it shows."""
    places = places_of(scores)
    for axis in AXES:
        if (place := places[axis.name]) and axis.metric in QUALITY and not learned:
            places[axis.name] = replace(place, place=0.0, reach=None)
    return places


def _one(entry: Entry) -> Training:
    """One training of a row."""
    run, scores = entry.run, {} if entry.evaluation is None else scores_of(entry.evaluation)
    one = Training(entry.label, entry.seed, entry.error, scores)
    if run is None:
        return one
    return replace(one, warnings=list(run.warnings), run=str(run.path.absolute()), seconds=run.seconds)


def _warnings(row: Sequence[Entry], measured: Sequence[Entry]) -> list[str]:
    """The warnings of the trainings, and what happened to some of them only; of which ones, where there are several."""
    by_text: dict[str, list[int | None]] = {}
    for entry in row:
        texts = [] if entry.run is None else list(entry.run.warnings)
        if measured and entry.error:
            texts.append(f"failed: {entry.error}")
        if entry.evaluation is not None and entry.evaluation.learned_nothing and not _learned_nothing(measured):
            texts.append(translated(entry.evaluation.learned_nothing))
        for text in dict.fromkeys(texts):
            by_text.setdefault(text, []).append(entry.seed)
    return [text if len(row) == 1 else _of_seeds(seeds, text) for text, seeds in by_text.items()]


def _of_seeds(seeds: Sequence[int | None], text: str) -> str:
    form = "seeds {names}: {text}" if len(seeds) > 1 else "seed {names}: {text}"
    return translated(form, names=listed([str(seed) for seed in seeds]), text=text)


def _learned_nothing(measured: Sequence[Entry]) -> str | None:
    """Why, where none of the trainings has learned anything."""
    texts = [evaluation.learned_nothing for evaluation in evaluations(measured)]
    return translated(texts[0]) if texts and texts[0] and all(texts) else None


def evaluations(row: Sequence[Entry]) -> "list[Evaluation]":
    """Those of the trainings that were measured."""
    return [entry.evaluation for entry in row if entry.evaluation is not None]


def _row_scores(measured: Sequence[Entry]) -> "dict[str, Score]":
    """The scores of the only training, or the means over trainings; the time per image as it was measured in turns."""
    each = [scores_of(evaluation) for evaluation in evaluations(measured)]
    scores = dict(each[0])
    if len(each) > 1:
        names = [name for name in scores if all(name in other for other in each)]
        scores = {name: _mean_score(name, measured, [other[name] for other in each]) for name in names}
    if (times := _times(measured)) and TIME in scores:
        value, interval = of_turns(times)
        scores[TIME] = replace(scores[TIME], value=value, interval=interval, interval_is=IN_TURNS)
    return scores


def _mean_score(name: str, measured: Sequence[Entry], each: "Sequence[Score]") -> "Score":
    """The mean over trainings; refused where one of them is."""
    if refused := next((score.refused for score in each if score.refused), None):
        return replace(each[0], value=None, interval=None, refused=refused)
    spread = _spread(name, measured)
    if spread is not None:
        estimate = spread.estimate()
    else:
        values = [score.value for score in each if score.value is not None]
        estimate = mean_over_trainings(values, each[0].unit, [score.interval for score in each])
    of_reals = spread is not None and len(spread.shared) > 0
    interval_is = (OVER_TRAININGS if of_reals else REALS_HELD_FIXED).format(n=len(each))
    return replace(each[0], value=estimate.value, interval=estimate.interval, interval_is=interval_is)


def _spread(name: str, measured: Sequence[Entry]) -> "Spread | None":
    """That of the mean over trainings; None where one of them has none."""
    spreads = [spread for evaluation in evaluations(measured) if (spread := evaluation.spreads.get(name))]
    return over_trainings(spreads) if len(spreads) == len(measured) else None


def _times(measured: Sequence[Entry]) -> tuple[float, ...]:
    """ms per image in each turn, of the training that was timed: the seed of a training does not change its speed."""
    return next((entry.times for entry in measured if entry.times), ())


def row_differences(rows: Mapping[str, Sequence[Entry]], models: Sequence[Model]) -> dict[str, list[Difference]]:
    """By metric, the differences of all pairs of models that have it."""
    names = dict.fromkeys(name for model in models for name in model.scores)
    return {
        name: differences(
            {
                m.name: _compared(name, score.value, score.interval, m, rows[m.name])
                for m in models
                if (score := m.scores.get(name)) and score.value is not None
            }
        )
        for name in names
    }


def _compared(
    name: str, value: float, interval: Sequence[float] | None, model: Model, row: Sequence[Entry]
) -> RowMetric:
    measured = [e for e in row if e.evaluation is not None]
    spread, most = _spread(name, measured), _of_real_images(measured) if name == "density" else math.inf
    known = [t.scores[name] for t in model.trainings if name in t.scores and t.scores[name].value is not None]
    return RowMetric(
        value=min(value, most),
        interval=interval,
        spread=None if spread is None else replace(spread, value=min(spread.value, most)),
        values=tuple(score.value for score in known if score.value is not None),
        intervals=tuple(score.interval for score in known),
        times=_times(measured) if name == TIME else (),
    )


def _of_real_images(measured: Sequence[Entry]) -> float:
    """The density of real images that are no model's: more is not better, as where samples crowd in few places."""
    by_name = {c.name: c for evaluation in evaluations(measured) for c in evaluation.controls}
    control = by_name.get("real") or by_name.get("training")
    return math.inf if control is None or "density" not in control.spreads else control.spreads["density"].value


def controls(entries: Sequence[Entry]) -> list[Control]:
    """What stands under the models in the table: measured by the same images, so of the first model's evaluation."""
    first = next(iter(evaluations(entries)), None)
    measured = first.controls if first else ()
    return [Control(c.name, translated(c.title), translated(NOTES.get(c.name, "")), scores_of(c)) for c in measured]


def scores_of(evaluation: "Evaluation | Measurement") -> "dict[str, Score]":
    """Scores by the name of their column: that of the metric, or of what only some models have the protocol, for bounds
    of different likelihoods, or gains of different classifiers, do not share a column. A detail that is refused is left
    out."""
    kept = [score for score in evaluation.scores if score.value is not None or score.name not in DETAILS]
    own_column = {*QUALITY, *COST, *DETAILS} - {*OF_CLASSIFIER}
    return {score.name if score.name in own_column else score.protocol: score for score in kept}
