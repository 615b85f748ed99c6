"""The main job: `compare(data="digits")` trains one model of each family with the same budget, measures them, reports.

The budget is training seconds: every training gets the same, on the same machine, one after the other. Every model is
then measured by one protocol: the same number of images, features, split and seed; the times per image are measured in
turns. A model that fails is reported with its error, and the others are compared. The same call resumes an interrupted
comparison.
"""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from trilemma.announce import announced
from trilemma.comparison.content import Asked, Document, Model
from trilemma.comparison.document import document
from trilemma.comparison.entries import (
    Entry,
    entries_of,
    prepare_images,
    prepare_pipelines,
    representative,
    rows_of,
    to_train,
)
from trilemma.comparison.measured import Measured
from trilemma.comparison.partial import Partial
from trilemma.comparison.plain import Json
from trilemma.comparison.progress import Progress, about, steps_of
from trilemma.comparison.request import (
    Budget,
    command_of,
    model_names,
    refuse_training_keys,
    request_of,
)
from trilemma.comparison.work import Plan, Say, measure_all, train_all
from trilemma.data import Data
from trilemma.data.load import Source
from trilemma.errors import UserError
from trilemma.keys import Inverted, Prompt, Quiet, Resize, Seed
from trilemma.language import in_language
from trilemma.modes import own_modes
from trilemma.rng import check_seed
from trilemma.run.contestant import ImageSet, Thing, images_to_measure
from trilemma.text import encodable, printable, quoted
from trilemma.values import checked_call
from trilemma.words import counted

if TYPE_CHECKING:
    from trilemma.comparison.terminal import Tables
    from trilemma.metrics.controls import Reference
    from trilemma.results import Results

MINUTES = 0.5  # of a training, where no length is given
UNKNOWN_S = 60.0  # a first guess at the seconds of a training whose length is given in images


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: the page and the values, and what they hold.

    estimated_s, took_s: seconds that it was to take by the estimate at its start, and took.
    """

    html: Path
    json: Path
    report: Document = field(repr=False)
    estimated_s: float = 0.0
    took_s: float = 0.0

    @cached_property
    def document(self) -> Json:
        """The content of report.json."""
        return self.report.to_json()

    @property
    def rows(self) -> list[Json]:
        """One dict per model: name, family, error, warnings, parameters, seconds, images, and each metric's value with
        `<metric>_interval` and `<metric>_refused`."""
        return [_row(model) for model in self.report.models]

    def table(self) -> "Tables":
        """The report's tables for a terminal; rich prints them in the layout that fits its width."""
        from trilemma.comparison.terminal import Tables

        return Tables(self.report)

    def _repr_html_(self) -> str:
        """In a notebook: the triangle and the table."""
        from trilemma.comparison.report import fragment

        return fragment(self.report)


@checked_call
@own_modes()
def compare(
    *runs: Annotated[
        Thing | list[Thing],
        Field(description="what to compare: runs, folders or zips of images, pipeline:NAME as of imagine"),
    ],
    data: Annotated[
        Source | None,
        Field(description="data to train on: a word from `trilemma data list`, or a path (default: digits)"),
    ] = None,
    against: Annotated[
        Source | None, Field(description="real images to measure folders of images by (default: the data of the runs)")
    ] = None,
    models: Annotated[
        Sequence[str] | None, Field(description="names of models, comma-separated (default: one model per family)")
    ] = None,
    minutes: Annotated[
        float | None, Field(gt=0, description="training time of each model, minutes (default: 0.5)")
    ] = None,
    images: Annotated[
        int | None, Field(ge=1, description="in place of minutes: training images that each model sees")
    ] = None,
    parameters: Annotated[
        int | None, Field(ge=1, description="bring each model to about so many parameters, by its widths")
    ] = None,
    n: Annotated[int | None, Field(description="images drawn per model (default: as many as real ones)")] = None,
    features: Annotated[
        str, Field(description="network that extracts features, as of evaluate; auto: the one that fits the data")
    ] = "auto",
    inverted: Inverted = 0,
    prompt: Prompt = None,
    size: Resize = None,
    seed: Seed = 0,
    want: Annotated[
        Literal["balance", "quality", "diversity", "speed"], Field(description="what the recommended model is to be")
    ] = "balance",
    curves: Annotated[
        bool, Field(description="also measure models over their training and under settings of their samplers")
    ] = True,
    seeds: Annotated[
        int, Field(ge=1, description="trainings of each model (seed, seed + 1, ...); 3 show the luck of training")
    ] = 1,
    out: Annotated[
        str | Path | None, Field(description="folder of the report (default: chosen for you and printed)")
    ] = None,
    lang: Annotated[Literal["en", "vi"], Field(description="language of the report: English or Vietnamese")] = "en",
    quiet: Quiet = False,
) -> Comparison:
    """Train models with an equal budget, or take finished runs and sets of images; measure them all alike; write one
    report.

    The same call again resumes a comparison that was interrupted, and measures a finished one again: what is trained
    already is not trained again, and what an interrupted one measured is not measured again. With more seeds= it trains
    only those that are missing.

    Args:
        runs: what to compare, one by one or as a list: finished runs, published pipelines, and folders, archives or
            arrays of images, in any mixture; nothing is trained then. Runs that differ in their seed alone share a row.
            Of images the cost is not known: they are compared in fidelity and diversity.
        data: what to train on, where nothing is given to compare: a word, a path, or data already loaded (default:
            digits).
        against: the real images, where images alone are compared (data= serves, too); runs are measured by the images
            that they were trained on.
        models: names or wildcards, as a list or one text with commas (default: one model per family).
        minutes: of training, for each training: equal time.
        images: in place of minutes, training images seen in each training: equal data.
        parameters: of each model, about, beside either: its widths are scaled.
        n: images drawn and measured per model (default: as many as there are real ones to measure by, at most as an
            evaluation takes).
        features: a feature network: auto, efficientnet-lite0, inception, ...
        inverted: so many images come back through every model: through codes that are searched, as `invert` does, where
            it has no encoder.
        prompt: what pipelines draw, with {} for the caption or the class of a real image.
        size: height and width of the images, px (default: inferred); of sets of images, in which they and the real ones
            are measured (default: that of the real ones, up to 256 px on the longer side, or of the runs).
        want: the model to recommend: balance, one that is unbeaten in quality and diversity; quality, diversity or
            speed, one that is unbeaten in this.
        curves: also measure weights that each training keeps on the way, which tell what a longer training would
            change, and several settings of the samplers: the curve of the trilemma.
        seed: of the first training of each model, and of the images drawn.
        seeds: trainings of each model, with seed, seed + 1, ...; a row is their mean, its interval is over trainings.
        out: folder of the report (default: that of the same comparison, else a new runs/compare-DATA, -2, -3, ...).
        lang: of the report; receipts, warnings and commands stay English.
        quiet: print no progress.
    Raises:
        UserError: a wrong name or value, runs on different data, images of another shape, or nothing that could be
            measured.
        KeyboardInterrupt: after Ctrl-C, when the command that resumes has been printed.
    """
    from trilemma.comparison.folder import claim_folder
    from trilemma.metrics.evaluate import check_prompt
    from trilemma.metrics.features import feature_network
    from trilemma.metrics.reals import choose_reals
    from trilemma.metrics.reconstruction import check_inverted

    check_seed(seed)
    check_inverted(inverted)
    say, begin = _printer(quiet), time.perf_counter()
    if things := [thing for item in runs for thing in (item if isinstance(item, list | tuple) else [item])]:
        given = {"minutes": minutes, "images": images, "parameters": parameters}
        refuse_training_keys(models=models, seeds=None if seeds == 1 else seeds, **given)
        entries, budget = entries_of(things, size), None
        for entry in entries:
            if entry.error:
                say(f"{entry.label} is skipped: {entry.error}")
        loaded = _real_data(entries, data, against, size)
    else:
        if against is not None:
            raise UserError("against= is for runs and images to compare; to train models, give data=")
        if minutes is not None and images is not None:
            raise UserError("minutes= and images= both say how long a training is; give one of them")
        length = None if images is not None else MINUTES if minutes is None else minutes
        entries, budget = to_train(model_names(models), seed, seeds), Budget(length, images, parameters, seeds)
        loaded = _loaded("digits" if data is None else data, size)
    own = budget is not None or any(entry.run for entry in entries)
    counts = [entry.images.count for entry in entries if entry.images and entry.images.count is not None]
    split, n = choose_reals(loaded, n, n_fake=min(counts, default=None), own=own)
    network = feature_network(features, loaded.shape, loaded.name)  # if refused, before any training
    check_prompt(prompt, [entry.contestant for entry in entries])
    prepare_pipelines(entries, loaded, split, prompt)
    prepare_images(entries, loaded.shape, loaded.name)
    request = request_of(entries, loaded, budget, n, seed, features, inverted, prompt)
    with_size = size is not None or not isinstance(data if against is None else against, str | Path | None)
    make_command = partial(command_of, request, with_size=with_size, want=want, curves=curves, lang=lang)
    wanted = (want, curves, lang, features, inverted)
    plan = Plan(entries, loaded, budget, split, n, seed, own, make_command(out), network, *wanted)
    with claim_folder(loaded.name, request, out, say) as folder:
        try:
            return _carry_out(plan, folder, say, begin, quiet=quiet)
        except KeyboardInterrupt:
            words = shlex.split(make_command(folder))
            say(f"the comparison stopped. Resume with: {quoted(words)}")
            raise


def _real_data(entries: Sequence[Entry], data: Source | None, against: Source | None, size: Resize) -> Data:
    """The images that finished runs were trained on; of images alone, those they are to be measured against."""
    if run := next((entry.run for entry in entries if entry.run), None):
        refuse_training_keys(data=data, against=against, size=size)
        loaded = run.data
    elif data is not None and against is not None:
        raise UserError("data= and against= both name the real images; give one of them")
    elif (source := data if against is None else against) is None:
        names = ", ".join(entry.label for entry in entries)
        what = "these draw images" if any(entry.pipeline for entry in entries) else "these are images"
        raise UserError(f"{names}: {what}; add what to measure them against, for instance against=digits")
    else:
        with announced("reading the images"):
            loaded = images_to_measure(source, size)
    return loaded


def _loaded(source: Source, size: Resize) -> Data:
    from trilemma.data import load_data

    with announced("reading the images"):
        return load_data(source, size=size)


def _carry_out(plan: Plan, folder: Path, say: Say, begin: float, *, quiet: bool) -> Comparison:
    """Train where there is a budget, measure, and write the report."""
    from trilemma.metrics.cost import BATCH
    from trilemma.metrics.reals import caveats
    from trilemma.results import Results

    files = Results(
        folder / "triangle.png",
        [folder / f"report.{kind}" for kind in ("json", "html", "csv")],
        verb="compare",
        within=folder,
    )
    entries, data, n, budget = plan.entries, plan.data, plan.n, plan.budget
    keys = {"curves": plan.curves, "inverted": plan.inverted, "own": plan.own}
    with announced("estimating the time"):
        steps = steps_of(entries, data, folder, _seconds(budget), n, plan.network, **keys)
    progress = Progress(steps, say, begin)
    partial_report = Partial(folder, entries, progress, trains=budget is not None)
    progress.watch = partial_report.write
    progress.watch("", "")
    if budget is None:
        say(f"{folder}: {_to_measure(entries)} to measure, {about(progress.stated)} in all")
    else:
        train_all(plan, budget, folder, progress, quiet=quiet)
    batch = min(BATCH, n)
    measured = Measured(folder)
    reference = measure_all(plan, batch, progress, measured)
    limits = caveats(data, plan.split, n, own=plan.own)
    length = {} if budget is None else budget.length
    wanted = (plan.want, plan.features, plan.inverted, plan.own)
    asked = Asked(plan.command, length, n, batch, plan.seed, plan.split, limits, *wanted)
    with in_language(plan.lang):
        result = _write(entries, reference, asked, files)
    measured.clear()
    partial_report.remove()
    progress.end()
    return replace(result, estimated_s=progress.first, took_s=progress.elapsed())


def _seconds(budget: Budget | None) -> float | None:
    """Of each training, as far as they are known; None where nothing is trained."""
    if budget is None:
        return None
    return UNKNOWN_S if budget.minutes is None else 60 * budget.minutes


def _to_measure(entries: Sequence[Entry]) -> str:
    """How many runs, pipelines, sets of images and contestants of one's own, in words."""
    pipelines = sum(entry.pipeline is not None for entry in entries)
    sets = sum(isinstance(entry.images, ImageSet) for entry in entries)
    own = sum(entry.images is not None for entry in entries) - sets - pipelines
    runs = len(entries) - sets - pipelines - own
    parts = [(runs, "run"), (pipelines, "pipeline"), (sets, "set"), (own, "contestant")]
    return " and ".join(counted(count, what) + " of images" * (what == "set") for count, what in parts if count)


def _write(entries: Sequence[Entry], reference: "Reference", asked: Asked, files: "Results") -> Comparison:
    from trilemma.comparison import triangle
    from trilemma.comparison.csv_file import csv_text
    from trilemma.comparison.diagnosis import with_diagnosis
    from trilemma.comparison.report import pictures_of, render
    from trilemma.files import json_text
    from trilemma.hardware import describe
    from trilemma.pictures.plots import png
    from trilemma.pictures.png import receipt_for

    content = document(entries, reference.setup.data, asked, describe())
    pictures, near = pictures_of([representative(row) for row in rows_of(entries).values()], reference)
    content = replace(content, models=[replace(model, nearest=near.get(model.name)) for model in content.models])
    content = with_diagnosis(content)
    receipt = receipt_for("compare", command=asked.command)
    json, html, csv = files.beside
    texts = {json: json_text(content.to_json()), html: render(content, pictures), csv: csv_text(content)}
    files.write(png(triangle.draw(content.models)), receipt, texts)
    return Comparison(html, json, content)


def _row(model: Model) -> Json:
    trained, row = model.trained, {"name": model.name, "error": model.error, "warnings": model.warnings}
    for name, score in model.scores.items():
        interval = None if score.interval is None else list(score.interval)
        row |= {name: score.value, f"{name}_interval": interval, f"{name}_refused": score.refused}
    for key in ("family", "parameters", "seconds", "images", "images_per_second"):
        row[key] = getattr(trained, key) if trained else None
    return row


def _printer(quiet: bool) -> Say:
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    return lambda text: console.print(encodable(printable(text), console), markup=False)
