"""The work of a comparison: train, measure, time, each so that a failure costs one model and no other."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from trilemma.comparison.content import LearningPoint, SamplerPoint
from trilemma.comparison.document import protocol_difference
from trilemma.comparison.entries import Entry, representative, rows_of
from trilemma.comparison.learning import KEPT, is_whole, learning_points
from trilemma.comparison.measured import Measured
from trilemma.comparison.progress import Progress, about, in_words
from trilemma.comparison.request import Budget
from trilemma.comparison.rows import scores_of
from trilemma.comparison.sampler_settings import sampler_points
from trilemma.comparison.sizes import settings_for
from trilemma.comparison.trained import keys_of, usefulness_of
from trilemma.data import Data
from trilemma.errors import UserError, shows_tracebacks
from trilemma.run.contestant import ImageSet
from trilemma.run.run import Run
from trilemma.run.text_to_image import TextToImage
from trilemma.words import counted

if TYPE_CHECKING:
    from trilemma.classifiers.bundled import FeatureNetwork
    from trilemma.metrics.controls import Reference
    from trilemma.metrics.evaluate import Evaluation
    from trilemma.registry import Recipe

T = TypeVar("T")
Say = Callable[[str], None]


class Plan(NamedTuple):
    """What a comparison does: trainings, finished runs or sets of images, measured by n real images of a split.

    budget: None where nothing is trained; own: whether there is a model that was trained on the data; command: makes
    the same report again; network: whose features are compared; want: what the user wants most; curves: whether models
    are measured over their training and under several settings of their samplers; lang: of the report; features: the
    feature network as it was asked for; inverted: images whose codes are searched of each model without an encoder.
    """

    entries: list[Entry]
    data: Data
    budget: Budget | None
    split: str
    n: int
    seed: int
    own: bool
    command: str
    network: "FeatureNetwork"
    want: str = "balance"
    curves: bool = True
    lang: str = "en"
    features: str = "auto"
    inverted: int = 0


def train_all(plan: Plan, budget: Budget, folder: Path, progress: Progress, *, quiet: bool) -> None:
    """Say what is trained and for how long, then train one after the other."""
    say, models = progress.say, list(rows_of(plan.entries))
    for note in plan.data.notes:
        say(f"  {note}")
    say(f"{folder}: {', '.join(models)} on {plan.data.name}")
    trainings = f"{counted(len(models), 'model')} x " + (f"{budget.seeds} seeds x " if budget.seeds > 1 else "")
    if budget.minutes is None:
        say(f"{trainings}{counted(budget.images or 0, 'training image')}")
    else:
        say(f"{trainings}{in_words(60 * budget.minutes)} of training, {about(progress.stated)} in all")
    for entry in plan.entries:
        progress.watch(entry.label, "training")
        _attempt(entry, partial(_train, entry, plan, budget, folder, quiet), say)
        progress.done()


def _train(entry: Entry, plan: Plan, budget: Budget, folder: Path, quiet: bool) -> None:
    from trilemma.registry import get_recipe
    from trilemma.training import train

    recipe, (length,) = get_recipe(entry.name), budget.length.items()
    names = _lengths(recipe, length[0])
    share = length[1] / len(names) if budget.minutes is not None else max(1, length[1] // len(names))
    keys: dict[str, Any] = {**dict.fromkeys(names, share), "keep_weights": KEPT}  # a later curves=true needs them
    if budget.parameters is not None:
        keys |= settings_for(entry.name, plan.data.shape, budget.parameters)
    out = folder / "runs" / entry.label
    entry.contestant = train(entry.name, plan.data, seed=entry.seed or 0, out=out, quiet=quiet, **keys)


def _lengths(recipe: "Recipe", key: str) -> list[str]:
    """The keys of `train` that say how long a model is trained, and each of its parts; `key`: minutes or images."""
    from trilemma.registry import get_recipe

    inner = [f"{name}.{own}" for name, part in recipe.parts.items() for own in _lengths(get_recipe(part), key)]
    return [key, *inner]


def measure_all(plan: Plan, batch: int, progress: Progress, measured: Measured) -> "Reference":
    """Measure every training that ended well and every set of images by the same real images, of which all features are
    computed once; then time one training of each model in turns. What is `measured` already is not measured again.

    Raises:
        UserError: if none could be trained and measured.
    """
    from trilemma.metrics.evaluate import reference_by

    entries = plan.entries
    if all(entry.contestant is None for entry in entries):
        raise _nothing_left(entries)
    reference = reference_by(plan.data, plan.split, plan.n, features=plan.network, own=plan.own, seed=plan.seed)
    for entry in entries:
        if entry.contestant is not None:
            progress.watch(entry.label, "measuring")
            progress.say(f"{entry.label}: drawing and measuring {plan.n} images")
            _attempt(entry, partial(_measure, entry, plan, batch, reference, measured), progress.say)
        progress.done()
    _time(list(rows_of(entries).values()), batch, plan.seed, progress.say)
    if all(entry.error for entry in entries):
        raise _nothing_left(entries)
    if plan.curves:
        measure_curves(entries, reference, batch, progress, measured)
    return reference


def measure_curves(
    entries: Sequence[Entry], reference: "Reference", batch: int, progress: Progress, measured: Measured
) -> None:
    """Of the training that stands for each row, the learning curve, and the model under settings of its sampler, where
    it has learned something. What fails here costs no model its scores."""
    for row in rows_of(entries).values():
        entry = representative(row)
        run, evaluation = entry.run, entry.evaluation
        if run is not None and evaluation is not None:
            learned = not evaluation.learned_nothing
            more = " and settings of its sampler" if learned else ""
            progress.say(f"{entry.label}: measuring its learning curve{more}")
            last = evaluation.spreads.get("kernel_distance")
            curve = partial(learning_points, run, reference, last, batch)
            as_far = partial(_as_far_as_possible, curve, f"{entry.label}, learning curve", progress.say)
            entry.learning = measured.points(run, reference, LearningPoint, as_far)
            if len(entry.learning) == 1 and is_whole(run, entry.learning):
                why = f"its training kept no earlier weights (train keep_weights={KEPT})"
                progress.say(f"{entry.label}: no learning curve, as {why}")
            if learned:
                settings = partial(sampler_points, run, reference, batch)
                as_far = partial(_as_far_as_possible, settings, f"{entry.label}, settings of the sampler", progress.say)
                entry.samplers = measured.points(run, reference, SamplerPoint, as_far)
        progress.done()


def _as_far_as_possible(points: Callable[[], Iterator[T]], what: str, say: Say) -> tuple[list[T], bool]:
    """The points up to the first that fails, which is said; and whether none did."""
    measured: list[T] = []
    try:
        measured.extend(points())
    except Exception as error:  # whatever it is, the scores are measured already
        say(f"{what}: stopped, {error if isinstance(error, UserError) else type(error).__name__}")
        for line in traceback.format_exc().splitlines() if shows_tracebacks() else ():
            say(line)
        return measured, False
    return measured, True


def _nothing_left(entries: Sequence[Entry]) -> UserError:
    reasons = "; ".join(f"{e.label}: {e.error}" for e in entries)
    return UserError(f"no model could be compared, so none can be recommended: {reasons}")


def _measure(entry: Entry, plan: Plan, batch: int, reference: "Reference", measured: Measured) -> None:
    assert entry.contestant is not None
    entries = plan.entries
    first = next((e for e in entries if e.evaluation is not None), None)
    first_of_row = not any(e.name == entry.name and e.evaluation is not None for e in entries)  # which stands for it
    evaluation = _evaluation(entry, plan, batch, reference, measured, images=first_of_row)
    earlier = scores_of(first.evaluation) if first and first.evaluation else {}
    if first and (difference := protocol_difference(scores_of(evaluation), earlier)):
        raise UserError(
            f"measured by another protocol than {first.label} ({difference}), so the scores cannot be compared"
        )
    known = usefulness_of(entry.run, plan.seed) if entry.run else []
    entry.evaluation = replace(evaluation, scores=(*evaluation.scores, *known)) if known else evaluation


def _evaluation(
    entry: Entry, plan: Plan, batch: int, reference: "Reference", measured: Measured, *, images: bool
) -> "Evaluation":
    """The scores of an entry; images: whether its images and their features are kept."""
    from trilemma.metrics import evaluate

    contestant = entry.contestant
    assert contestant is not None
    settings = {"batch": batch, **(keys_of(entry.run, plan.inverted) if entry.run else {})}

    def measure() -> "Evaluation":
        whole = evaluate(contestant, n=plan.n, seed=plan.seed, reference=reference, **settings)
        return whole if images else replace(whole, fakes=whole.fakes[:0], features=whole.features[:0])

    if not isinstance(contestant, Run | ImageSet | TextToImage):  # whose content is not known
        return measure()
    return measured.evaluation(contestant, reference, {**settings, "images": images}, measure)


def _time(rows: Sequence[Sequence[Entry]], batch: int, seed: int, say: Say) -> None:
    """The time per image of each model, measured in turns; one that fails on the way has no scores."""
    from trilemma.metrics import cost

    firsts = [(row, representative(row)) for row in rows]
    timed = [(row, first, run) for row, first in firsts if first.evaluation is not None and (run := first.run)]
    draws = [(partial(_draw, first, run, seed, say), run.device) for _, first, run in timed]
    for (row, first, _), times in zip(timed, cost.time_in_turns(draws, batch=batch), strict=True):
        first.times = times
        if first.error:
            for entry in row:
                entry.evaluation, entry.error = None, entry.error or first.error


def _draw(entry: Entry, run: Run, seed: int, say: Say, first: int, count: int) -> None:
    """Draw images to be timed; after an error of this model, none."""
    if entry.error is None:
        _attempt(entry, partial(run.sample, count, seed=seed, first=first, batch=count), say)


def _attempt(entry: Entry, action: Callable[[], object], say: Say) -> None:
    """Do it; an error ends this model only, and is said and kept, with where it happened if that is asked for."""
    try:
        action()
    except Exception as error:  # a fault in one model must not lose the others' minutes
        entry.error = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        for line in traceback.format_exc().splitlines() if shows_tracebacks() else ():
            say(line)
        say(f"{entry.label} failed: {entry.error}")
