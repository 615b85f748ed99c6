"""The content of a report, as `content.Document`: from what was trained and measured.

A model is a row: the mean over its trainings, which differ in their seed alone. The table holds the columns that every
measured model has ("shared"); what only some have, and details, are listed beside it (`further_scores`).
"""

import shlex
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trilemma import __version__
from trilemma.comparison.answer import answer
from trilemma.comparison.content import (
    IMAGES,
    SAME,
    Asked,
    Budget,
    Column,
    Control,
    Difference,
    Differences,
    Document,
    Images,
    Item,
    Model,
)
from trilemma.comparison.differences import unbeaten
from trilemma.comparison.entries import Entry, rows_of
from trilemma.comparison.plain import Json, clean
from trilemma.comparison.rows import controls, evaluations, model_row, row_differences
from trilemma.comparison.sampler_settings import most_density, with_frontier
from trilemma.comparison.trained import words_of
from trilemma.comparison.triangle import AXES, FASTEST, SLOWEST
from trilemma.comparison.words import title, verdict
from trilemma.errors import UserError, shows_tracebacks
from trilemma.language import language, translated
from trilemma.metrics.catalogue import COST, DETAILS, QUALITY
from trilemma.text import quoted
from trilemma.words import counted, duration, listed

if TYPE_CHECKING:
    from trilemma.comparison.content import Scores
    from trilemma.data import Data
    from trilemma.metrics.receipt import Score

FORMAT = 1
SPEED_SCALE = {"centre": SLOWEST, "corner": FASTEST, "unit": "images per second", "scale": "logarithmic"}
BUDGET_FACTOR = 1.1  # training seconds farther apart than this are not an equal budget


def document(entries: Sequence[Entry], data: "Data", asked: Asked, machine: Json) -> Document:
    """Everything the report shows.

    Args:
        entries: what was measured, in the order asked for.
        data: what all of them were trained on, or are measured by.
        machine: what `hardware.describe` tells of the machine that sampled and measured.
    """
    from trilemma.metrics.reals import real_notes

    notes = _shared_notes(entries)
    rows = rows_of(entries)
    models = [_row_or_error(name, row, data, asked, notes) for name, row in rows.items()]
    pairs = row_differences(rows, models)
    conclusion, below = verdict(models, AXES, pairs), controls(entries)
    models = _with_frontier(models, below)
    table = columns(models, pairs)
    return clean(
        Document(
            format=FORMAT,
            trilemma=__version__,
            title=translated("{models} on {data}", models=listed(list(rows)), data=data.name),
            answer=_for_these(answer(models, conclusion, pairs, asked, below), data, asked),
            verdict=conclusion,
            data=_images(data),
            budget=_budget(models, asked, machine),
            columns=table,
            differences=pairs,
            versions=shared_versions([score for model in models for score in model.scores.values()]),
            axes=[{"name": a.name, "metric": a.metric, "unit": a.short} for a in AXES],
            speed_scale=SPEED_SCALE,
            language=language(),
            real={"split": asked.split, "role": _role(models, asked)},
            caveats=[translated(caveat.form, **caveat.values) for caveat in asked.caveats],
            notes=[note for note in notes if note not in (*map(str, asked.caveats), *real_notes(data))],
            seed=asked.seed,
            models=models,
            controls=below,
            again=_again(models, asked),
        )
    )


def _for_these(items: Sequence[Item], data: "Data", asked: Asked) -> list[Item]:
    """The answer, for how many images and how much training it is one."""
    values = {"n": f"{len(data.train):,}", "size": " x ".join(str(side) for side in data.shape[1:])}
    if not asked.length:
        return list(items)
    if "minutes" in asked.length:
        length = duration(60 * asked.length["minutes"])
        text = "For {n} training images of {size} px and {length} of training each: {text}"
    else:
        length = counted(asked.length["images"], "training image")
        text = "For {n} training images of {size} px, of which each model sees {length} in all: {text}"
    first = items[0]
    return [replace(first, text=translated(text, **values, length=length, text=first.text)), *items[1:]]


def _with_frontier(models: Sequence[Model], below: Sequence[Control]) -> list[Model]:
    """The models, the points of their samplers marked that no other one dominates."""
    marked = with_frontier({m.name: m.samplers for m in models}, most_density(below))
    return [replace(m, samplers=marked[m.name]) for m in models]


def _row_or_error(name: str, row: Sequence[Entry], data: "Data", asked: Asked, notes: Sequence[str]) -> Model:
    """A row; where what its run folders say cannot be shown, the error in its place; the other rows remain."""
    try:
        return model_row(name, row, data, asked, notes)
    except Exception as error:  # whatever it is, it must not lose what was measured of the others
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        if shows_tracebacks():
            traceback.print_exc()
    for entry in row:
        entry.error, entry.contestant, entry.evaluation = entry.error or text, None, None
    return model_row(name, row, data, asked, notes)


def columns(models: Sequence[Model], pairs: Differences | None = None) -> list[Column]:
    """The metrics that were measured, known ones first, each with its title, receipt and its best models, which no
    other is shown to beat."""
    names = dict.fromkeys([*QUALITY, *COST])
    measured = [m for m in models if m.scores]
    of_models = {name: None for m in models for name in m.scores}
    order = [name for name in names if name in of_models] + [name for name in of_models if name not in names]
    return [_column(name, measured, (pairs or {}).get(name, ())) for name in order]


def shared_versions(scores: "Sequence[Score]") -> dict[str, str]:
    """Of the versions, devices and hashes that some scores name, those that none of them names otherwise."""
    named = {key: value for score in scores for key, value in score.versions.items()}
    return {key: value for key, value in named.items() if all(s.versions.get(key, value) == value for s in scores)}


def further_scores(document: Document) -> "list[tuple[Model, Column, Score]]":
    """What only some models have, model by model."""
    rest = [column for column in document.columns if not column.shared]
    return [(m, c, m.scores[c.name]) for m in document.models for c in rest if c.name in m.scores]


def _column(name: str, measured: Sequence[Model], pairs: Sequence[Difference]) -> Column:
    """A metric; a set of images can have no cost, so that none is expected of it."""
    models = [m for m in measured if name in m.scores]
    able = [m for m in measured if m.kind != IMAGES or name not in COST]
    first = models[0].scores[name]
    values = {m.name: value for m in models if (value := _deciding(m, name)) is not None}
    long, short = title(first.name, first.protocol)
    reasons = {m.scores[name].refused for m in models}
    return Column(
        name=name,
        title=long,
        head=short,
        shared=len(models) == len(able) and first.name not in DETAILS,
        unit=first.unit,
        better=first.better,
        best=unbeaten(values, pairs, first.better),
        refused=next(iter(reasons)) if len(reasons) == 1 else None,  # one reason for all models, or None
        receipt=replace(first, versions=shared_versions([m.scores[name] for m in models])),
    )


def _deciding(model: Model, name: str) -> float | None:
    """A model's value if it may be called the best: it is not rough, and the model learned something."""
    score = model.scores[name]
    return None if score.rough or model.learned_nothing else score.value


def protocol_difference(scores: "Scores", others: "Scores") -> str | None:
    """What differs between the protocols of two sets of scores, in words; None where they may share columns."""
    for name in scores.keys() & others.keys():
        for key in SAME:
            here, there = getattr(scores[name], key), getattr(others[name], key)
            if here != there:
                return f"{name}: {key} is {here!r} here and {there!r} for the first model"
    return None


def _shared_notes(entries: Sequence[Entry]) -> list[str]:
    """What the evaluation noted of every model alike."""
    notes = [evaluation.notes for evaluation in evaluations(entries)]
    return [note for note in notes[0] if all(note in others for others in notes)] if notes else []


def _images(data: "Data") -> Images:
    return Images(
        name=data.name,
        source=str(data.source),
        shape=data.shape,
        classes=data.classes,
        counts={name: len(split) for name, split in data.splits.items()},
        notes=data.notes,
        skipped=data.skipped,
        fingerprint=data.fingerprint,
    )


def _role(models: Sequence[Model], asked: Asked) -> str:
    """What the real images were to the models; beside others that of the runs is known alone."""
    from trilemma.metrics.reals import role_of

    role = translated(role_of(asked.split, own=asked.own))
    others = any(m.kind != "model" for m in models)
    return translated("for the runs: {role}", role=role) if asked.own and others else role


def _budget(models: Sequence[Model], asked: Asked, machine: Json) -> Budget:
    used = [t.seconds for m in models for t in m.trainings if t.seconds is not None]
    by_images = "images" in asked.length
    equal = by_images or not used or max(used) <= BUDGET_FACTOR * min(used)
    seconds = 60 * asked.length["minutes"] if "minutes" in asked.length else None
    if seconds:
        text = translated("Asked for each model: {length} of training.", length=duration(seconds))
    elif by_images:
        text = translated("Each model was to see {images}.", images=counted(asked.length["images"], "training image"))
    elif all(m.kind != "model" for m in models):
        text = translated("What it took to train these is not known.")
    else:
        text = translated("These runs were trained before.")
    if used:
        low, high = (f"{end:,.1f}" for end in (min(used), max(used)))
        took = low if low == high else f"{low} {translated('to')} {high}"
        text += " " + translated("Used: {seconds} seconds.", seconds=took)
    if not equal:
        text += " " + translated("The budgets are not equal: scores also differ because of that.")
    return Budget(seconds, used, equal, text, machine)


def _again(models: Sequence[Model], asked: Asked) -> Mapping[str, str | None]:
    """The command of this report and, where it trained, one that measures the same weights again; from any folder."""
    whole = quoted(shlex.split(asked.command))
    if not asked.length:
        return {"all": whole, "measure": whole}
    paths = [t.run for m in models for t in m.trainings if t.run]
    keys = [f"n={asked.n}", f"seed={asked.seed}", *words_of(asked, "features", "inverted", "want", "curves", "lang")]
    return {"all": whole, "measure": quoted(["trilemma", "compare", *paths, *keys]) if paths else None}
