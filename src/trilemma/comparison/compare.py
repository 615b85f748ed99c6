"""The main job: `compare(data="digits")` trains one model of each family with the same budget, measures them, reports.

The budget is training seconds: every training gets the same, on the same machine, one after the other. Every model is
then measured by one protocol: the same number of images, features, split and seed; the times per image are measured in
turns. A model that fails is reported with its error, and the others are compared. The same call resumes an interrupted
comparison.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from trilemma.announce import announced
from trilemma.comparison.document import document, protocol_difference
from trilemma.comparison.entries import Entry, finished, rows_of, shown, to_train
from trilemma.comparison.plain import clean
from trilemma.comparison.progress import Progress, about, in_words, steps_of
from trilemma.comparison.request import (
    Budget,
    command_of,
    model_names,
    refuse_training_keys,
    request_of,
)
from trilemma.comparison.rows import scores_of
from trilemma.data.load import Source
from trilemma.errors import UserError
from trilemma.keys import Quiet, Resize, Seed
from trilemma.modes import own_modes
from trilemma.rng import check_seed
from trilemma.text import encodable, printable, quoted
from trilemma.values import checked_call
from trilemma.words import counted

if TYPE_CHECKING:
    from trilemma.comparison.terminal import Tables
    from trilemma.data import Data
    from trilemma.results import Results
    from trilemma.run.run import Run


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: the two files, and the figures as rows."""

    html: Path
    json: Path
    document: dict[str, Any] = field(repr=False)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict per model: name, family, error, warnings, parameters, seconds, images, and each metric's value with
        `<metric>_interval` and `<metric>_refused`."""
        return [_row(model) for model in self.document["models"]]

    def table(self) -> "Tables":
        """The report's tables for a terminal; rich prints them in the layout that fits its width."""
        from trilemma.comparison.terminal import Tables

        return Tables(self.document)

    def _repr_html_(self) -> str:
        """In a notebook: the triangle and the table."""
        from trilemma.comparison.report import fragment

        return fragment(self.document)


class Plan(NamedTuple):
    """What a comparison does: trainings or finished runs, measured by n real images of a split.

    budget: None where nothing is trained; command: makes the same report again.
    """

    entries: list[Entry]
    data: "Data"
    budget: Budget | None
    split: str
    n: int
    seed: int
    command: str


@checked_call
@own_modes()
def compare(
    *runs: Annotated["Run | str | Path | Sequence[Run | str | Path]", Field(description="finished runs to compare")],
    data: Annotated[
        Source | None,
        Field(description="data to train on: a word from `trilemma data list`, or a path (default: digits)"),
    ] = None,
    models: Annotated[
        Sequence[str] | None, Field(description="names of models, comma-separated (default: one model per family)")
    ] = None,
    minutes: Annotated[float, Field(gt=0, description="training time of each model, minutes")] = 0.5,
    n: Annotated[int | None, Field(description="images drawn per model (default: as many as real ones)")] = None,
    size: Resize = None,
    seed: Seed = 0,
    seeds: Annotated[
        int, Field(ge=1, description="trainings of each model (seed, seed + 1, ...); 3 show the luck of training")
    ] = 1,
    out: Annotated[
        str | Path | None, Field(description="folder of the report (default: chosen for you and printed)")
    ] = None,
    quiet: Quiet = False,
) -> Comparison:
    """Train models with an equal budget, or take finished runs; measure them all alike; write one report.

    The same call again resumes a comparison that was interrupted, and measures a finished one again: what is trained
    already is not trained again. With more seeds= it trains only those that are missing.

    Args:
        runs: finished runs to compare, one by one or as a list; nothing is trained then. Runs that differ in their
            seed alone share a row.
        data: what to train on, where no runs are given: a word, a path, or data already loaded; "digits" where None.
        models: names or wildcards (a list, or one text with commas); one model per family where None.
        minutes: of training, for each training.
        n: images drawn and measured per model; as many as there are real ones to measure by, at most as an evaluation
            takes, where None.
        size: height and width of the images, px; inferred where None.
        seed: of the first training of each model, and of the images drawn.
        seeds: trainings of each model, with seed, seed + 1, ...; a row is their mean, its interval is over trainings.
        out: folder of the report; where None, that of the same comparison, else a new runs/compare-DATA (-2, -3, ...).
        quiet: print no progress.
    Raises:
        UserError: a wrong name or value, runs on different data, or no model that could be trained and measured.
        KeyboardInterrupt: after Ctrl-C, when the command that resumes has been printed.
    """
    from trilemma.comparison.folder import claim_folder
    from trilemma.metrics.evaluate import choose_reals

    check_seed(seed)
    say, begin = _speaker(quiet), time.perf_counter()
    if given := _flat(runs):
        refuse_training_keys(data=data, models=models, size=size, seeds=None if seeds == 1 else seeds)
        entries, budget = finished(given), None
        for entry in entries:
            if entry.error:
                say(f"{entry.label} is left out: {entry.error}")
        loaded = entries[0].run.data
    else:
        entries, budget = _trainings(models, minutes, seed, seeds), Budget(minutes, seeds)
        loaded = _loaded(data, size)
    split, n = choose_reals(loaded, n)
    request = request_of(entries, loaded, budget, n, seed)
    with_size = size is not None or not isinstance(data, str | Path | None)
    plan = Plan(entries, loaded, budget, split, n, seed, command_of(request, out, with_size=with_size))
    with claim_folder(loaded.name, request, out, say) as folder:
        try:
            return _carry_out(plan, folder, say, begin, quiet=quiet)
        except KeyboardInterrupt:
            words = shlex.split(command_of(request, folder, with_size=with_size))
            say(f"the comparison stopped. Resume with: {quoted(words)}")
            raise


def _flat(runs: "Sequence[Run | str | Path | Sequence[Run | str | Path]]") -> list[Any]:
    """Runs that are given one by one or as lists, as one list."""
    return [run for item in runs for run in (item if isinstance(item, list | tuple) else [item])]


def _trainings(models: str | Sequence[str] | None, minutes: float, seed: int, seeds: int) -> list[Entry]:
    """What is to be trained, checked."""
    return to_train(model_names(models), seed, seeds)


def _loaded(data: "Source | None", size: Resize) -> "Data":
    from trilemma.data import load_data

    with announced("reading the images"):
        return load_data("digits" if data is None else data, size=size)


def _carry_out(plan: Plan, folder: Path, say: Callable[[str], None], begin: float, *, quiet: bool) -> Comparison:
    """Train where there is a budget, measure, and write the report."""
    from trilemma.metrics.cost import BATCH
    from trilemma.metrics.evaluate import caveats
    from trilemma.results import Results

    files = Results(
        folder / "triangle.png", [folder / "report.json", folder / "report.html"], verb="compare", within=folder
    )
    entries, data, n, budget = plan.entries, plan.data, plan.n, plan.budget
    minutes = None if budget is None else budget.minutes
    progress = Progress(steps_of(entries, data, folder, None if minutes is None else 60 * minutes, n), say, begin)
    if budget is None:
        say(f"{folder}: {counted(len(entries), 'run')} to measure, {about(progress.stated)} in all")
    else:
        _train_all(plan, budget, folder, progress, quiet=quiet)
    batch = min(BATCH, n)
    _measure_all(entries, data, n, batch, plan.seed, progress)
    request = {"command": plan.command, "minutes": minutes, "n": n, "batch": batch, "seed": plan.seed}
    request |= {"split": plan.split, "caveats": caveats(data, plan.split, n, own=True)}
    result = _write(entries, data, request, files)
    progress.end()
    return result


def _train_all(plan: Plan, budget: Budget, folder: Path, progress: Progress, *, quiet: bool) -> None:
    """Say what is trained and for how long, then train one after the other."""
    say, models, minutes = progress.say, list(rows_of(plan.entries)), budget.minutes
    for note in plan.data.notes:
        say(f"  {note}")
    say(f"{folder}: {', '.join(models)} on {plan.data.name}")
    trainings = f"{counted(len(models), 'model')} x " + (f"{budget.seeds} seeds x " if budget.seeds > 1 else "")
    say(f"{trainings}{in_words(60 * minutes)} of training, {about(progress.stated)} in all")
    for entry in plan.entries:
        _attempt(entry, lambda e=entry: _train(e, plan.data, folder, minutes, quiet), say)
        progress.done()


def _write(entries: Sequence[Entry], data: "Data", request: dict[str, Any], files: "Results") -> Comparison:
    from trilemma.comparison import triangle
    from trilemma.comparison.report import pictures_of, render
    from trilemma.files import json_text
    from trilemma.hardware import describe
    from trilemma.pictures.plots import png
    from trilemma.pictures.png import receipt_for

    values = document(entries, data, request, describe())
    stand = [shown(row) for row in rows_of(entries).values()]
    pictures, neighbours = pictures_of(stand, data, request["split"], request["seed"])
    for model in values["models"]:
        model["nearest"] = clean(neighbours.get(model["name"]))
    receipt = receipt_for("compare", command=request["command"])
    json, html = files.beside
    files.write(
        png(triangle.draw(values["models"])), receipt, {json: json_text(values), html: render(values, pictures)}
    )
    return Comparison(html, json, values)


def _train(entry: Entry, data: "Data", folder: Path, minutes: float, quiet: bool) -> None:
    from trilemma.training import train

    out = folder / "runs" / entry.label
    entry.run = train(entry.name, data, minutes=minutes, seed=entry.seed or 0, out=out, quiet=quiet)


def _measure_all(entries: Sequence[Entry], data: "Data", n: int, batch: int, seed: int, progress: "Progress") -> None:
    """Measure every training that ended well, then time one of each model in turns.

    Raises:
        UserError: if none could be trained and measured.
    """
    for entry in entries:
        if entry.run is not None:
            entry.run.data = data  # the same images; read once for all
            progress.say(f"{entry.label}: drawing and measuring {n} images")
            _attempt(entry, lambda e=entry: _measure(e, entries, n, batch, seed), progress.say)
        progress.done()
    _time(list(rows_of(entries).values()), batch, seed, progress.say)
    if all(entry.error for entry in entries):
        reasons = "; ".join(f"{e.label}: {e.error}" for e in entries)
        raise UserError(f"no model could be compared, so none can be recommended: {reasons}")


def _measure(entry: Entry, entries: Sequence[Entry], n: int, batch: int, seed: int) -> None:
    from trilemma.metrics import evaluate

    first = next((e for e in entries if e.evaluation is not None), None)
    reference = first.evaluation.reference if first else None  # the real images and the controls are the same for all
    evaluation = evaluate(entry.run, n=n, seed=seed, batch=batch, reference=reference)
    if first and (difference := protocol_difference(scores_of(evaluation), scores_of(first.evaluation))):
        raise UserError(
            f"measured by another protocol than {first.label} ({difference}), so the figures cannot be compared"
        )
    if any(e.name == entry.name and e.evaluation is not None for e in entries):
        evaluation = replace(evaluation, fakes=evaluation.fakes[:0])  # those of the first training stand for the row
    entry.evaluation = evaluation


def _time(rows: Sequence[Sequence[Entry]], batch: int, seed: int, say: Callable[[str], None]) -> None:
    """The time per image of each model, measured in turns; one that fails on the way has no figures."""
    from trilemma.metrics import cost

    measured = [row for row in rows if shown(row).evaluation is not None]
    draws = [(partial(_draw, shown(row), seed, say), shown(row).run.device) for row in measured]
    for row, times in zip(measured, cost.time_in_turns(draws, batch=batch), strict=True):
        timed = shown(row)
        timed.times = times
        if timed.error:
            for entry in row:
                entry.evaluation, entry.error = None, entry.error or timed.error


def _draw(entry: Entry, seed: int, say: Callable[[str], None], first: int, count: int) -> None:
    """Draw images to be timed; after an error of this model, none."""
    if entry.error is None:
        _attempt(entry, lambda: entry.run.sample(count, seed=seed, first=first, batch=count), say)


def _attempt(entry: Entry, action: Callable[[], object], say: Callable[[str], None]) -> None:
    """Do it; an error ends this model only, and is said and kept."""
    try:
        action()
    except UserError as error:
        entry.error = str(error)
    except Exception as error:  # a fault in one model must not lose the others' minutes
        entry.error = f"{type(error).__name__}: {error}"
    if entry.error:
        say(f"{entry.label} failed: {entry.error}")


def _row(model: dict[str, Any]) -> dict[str, Any]:
    row = {
        key: model.get(key)
        for key in ("name", "family", "error", "warnings", "parameters", "seconds", "images", "images_per_second")
    }
    for name, score in model["scores"].items():
        row |= {name: score["value"], f"{name}_interval": score["interval"], f"{name}_refused": score["refused"]}
    return row


def _speaker(quiet: bool) -> Callable[[str], None]:
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    return lambda text: console.print(encodable(printable(text), console), markup=False)
