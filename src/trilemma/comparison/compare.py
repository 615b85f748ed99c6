"""The main job: `compare(data="digits")` trains one model of each family with the same budget, measures them, reports.

The budget is training seconds: every training gets the same, on the same machine, one after the other. Every model is
then measured by one protocol: the same number of images, features, split and seed; the times per image are measured in
turns. A model that fails is reported with its error, and the others are compared. The same call resumes an interrupted
comparison.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma import __version__
from trilemma.comparison.document import document, protocol_difference
from trilemma.comparison.entries import Entry, finished, rows_of, shown, to_train
from trilemma.comparison.plain import clean
from trilemma.comparison.progress import Progress, about, in_words, steps_of
from trilemma.comparison.rows import scores_of
from trilemma.comparison.words import counted
from trilemma.errors import UserError
from trilemma.modes import own_modes

if TYPE_CHECKING:
    from torch import Tensor

    from trilemma.comparison.terminal import Tables
    from trilemma.data import Data
    from trilemma.run import Run

ONE_PER_FAMILY = ("ae-stacked", "vae", "gan-dcgan", "diffusion-small")


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


@own_modes()
def compare(
    *runs: "Run | str | Path | Sequence[Run | str | Path]",
    data: "str | Path | Data | None" = None,
    models: str | Sequence[str] | None = None,
    minutes: float = 0.5,
    n: int | None = None,
    size: int | str | tuple[int, int] | None = None,
    seed: int = 0,
    seeds: int = 1,
    out: str | Path | None = None,
    quiet: bool = False,
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
    from trilemma.data import load_data
    from trilemma.data.sources import source_word
    from trilemma.metrics.cost import BATCH
    from trilemma.metrics.evaluate import caveats, choose_reals

    say, begin = _speaker(quiet), time.perf_counter()
    given: list[Any] = [run for item in runs for run in (item if isinstance(item, list | tuple) else [item])]
    if given:
        _refuse_training_keys(data=data, models=models, size=size, seeds=None if seeds == 1 else seeds)
        entries = finished(given)
        loaded = entries[0].run.data
        wanted: dict[str, Any] = {"runs": [str(entry.run.path.resolve()) for entry in entries]}
    else:
        _check_minutes(minutes)
        _check_seeds(seeds)
        entries = to_train(_names(models), seed, seeds)
        loaded = load_data("digits" if data is None else data, size=size)
        wanted = {"models": list(rows_of(entries)), "minutes": minutes, "seeds": seeds}
    split, n = choose_reals(loaded, n)
    request = {
        "data": source_word(loaded.source),
        "fingerprint": loaded.fingerprint,
        **wanted,
        "n": n,
        "size": list(loaded.shape[1:]),
        "seed": seed,
    }
    with_size = size is not None or not isinstance(data, str | Path | None)
    command = _command(request, out, with_size=with_size)
    with claim_folder(loaded.name, request, out) as folder:
        try:
            steps = steps_of(entries, loaded, folder, None if given else 60 * minutes, n)
            progress = Progress(steps, say, begin)
            if given:
                say(f"{folder}: {counted(len(entries), 'run')} to measure, {about(progress.stated)} in all")
            else:
                for note in loaded.notes:
                    say(f"  {note}")
                say(f"{folder}: {', '.join(wanted['models'])} on {loaded.name}")
                trainings = f"{counted(len(wanted['models']), 'model')} x " + (f"{seeds} seeds x " if seeds > 1 else "")
                say(f"{trainings}{in_words(60 * minutes)} of training, {about(progress.stated)} in all")
                for entry in entries:
                    _attempt(entry, lambda e=entry: _train(e, loaded, folder, minutes, quiet), say)
                    progress.done()
            batch = min(BATCH, n)
            _measure_all(entries, loaded, n, batch, seed, progress)
            asked = {"command": command, "minutes": None if given else minutes, "n": n, "batch": batch, "seed": seed}
            asked |= {"split": split, "caveats": caveats(loaded, split, n, own=True)}
            result = _write(entries, loaded, asked, folder)
            progress.end()
            return result
        except KeyboardInterrupt:
            say(f"the comparison stopped. Resume with: {_command(request, folder, with_size=with_size)}")
            raise


def _write(entries: Sequence[Entry], data: "Data", request: dict[str, Any], folder: Path) -> Comparison:
    from trilemma.comparison import triangle
    from trilemma.comparison.figures import png
    from trilemma.comparison.report import pictures_of, render
    from trilemma.files import write_atomic, write_json
    from trilemma.hardware import describe
    from trilemma.pictures import save_png

    values = document(entries, data, request, describe())
    stand = [shown(row) for row in rows_of(entries).values()]
    pictures, neighbours = pictures_of(stand, data, request["split"], request["seed"])
    for model in values["models"]:
        model["nearest"] = clean(neighbours.get(model["name"]))
    json = write_json(folder / "report.json", values)
    html = write_atomic(folder / "report.html", render(values, pictures))
    made = {"trilemma": __version__, "verb": "compare", "command": request["command"]}
    save_png(png(triangle.draw(values["models"])), folder / "triangle.png", made, replace=True)
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
    if all(entry.error for entry in entries):
        reasons = "; ".join(f"{e.label}: {e.error}" for e in entries)
        raise UserError(f"no model could be compared, so none can be recommended: {reasons}")
    _time([shown(row) for row in rows_of(entries).values()], batch, seed)


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
        evaluation = _without_images(evaluation)
    entry.evaluation = evaluation


def _without_images(evaluation: Any) -> Any:
    """The images of one training stand for a row; those of the others would fill the memory."""
    return type(evaluation)(**{**vars(evaluation), "fakes": evaluation.fakes[:0]})


def _time(entries: Sequence[Entry], batch: int, seed: int) -> None:
    """The time per image of each model, measured in turns."""
    from trilemma.metrics import cost

    measured = [entry for entry in entries if entry.evaluation is not None]
    draws = [(partial(_draw, entry.run, seed), entry.run.device) for entry in measured]
    for entry, times in zip(measured, cost.time_in_turns(draws, batch=batch), strict=True):
        entry.times = times


def _draw(run: "Run", seed: int, first: int, count: int) -> "Tensor":
    return run.sample(count, seed=seed, first=first, batch=count)


def _attempt(entry: Entry, action: Callable[[], None], say: Callable[[str], None]) -> None:
    """Do it; an error ends this model only, and is said and kept."""
    try:
        action()
    except UserError as error:
        entry.error = str(error)
    except Exception as error:  # a fault in one model must not lose the others' minutes
        entry.error = f"{type(error).__name__}: {error}"
    if entry.error:
        say(f"{entry.label} failed: {entry.error}")


def _names(models: str | Sequence[str] | None) -> list[str]:
    """Model names from a list or a text with commas; wildcards are spelt out, unknown names refused."""
    from trilemma.registry import get_recipe, list_models

    if models is None:
        return list(ONE_PER_FAMILY)
    words = models.split(",") if isinstance(models, str) else list(models)
    words = [word.strip() for word in words if word.strip()]
    if not words:
        raise UserError('models="" names no model; give names with commas, for instance models=vae,gan-dcgan')
    names: list[str] = []
    for word in words:
        names += _matching(word, list_models) if "*" in word else [get_recipe(word).name]
    return list(dict.fromkeys(names))


def _matching(pattern: str, list_models: Callable[[str], list[str]]) -> list[str]:
    found = list_models(pattern)
    if not found:
        raise UserError(f'no model matches "{pattern}"; choose from {", ".join(list_models("*"))}')
    return found


def _check_minutes(minutes: float) -> None:
    if not (isinstance(minutes, int | float) and 0 < minutes < float("inf")):
        raise UserError(f"minutes={minutes}: training needs a time above 0, for instance minutes=0.5")


def _check_seeds(seeds: int) -> None:
    if not isinstance(seeds, int) or seeds < 1:
        raise UserError(
            f"seeds={seeds}: this is the number of trainings of each model, 1 or more, for instance seeds=3"
        )


def _refuse_training_keys(**given: Any) -> None:
    for key, value in given.items():
        if value is not None:
            raise UserError(
                f"{key}={value}: finished runs are compared as they are; leave {key} out, or leave the runs out"
            )


def _command(request: dict[str, Any], out: str | Path | None, *, with_size: bool) -> str:
    """The command line that makes this report again, from any folder."""
    if "runs" in request:
        words = request["runs"]
    else:
        words = [f"data={request['data']}", f"models={','.join(request['models'])}"]
        words += [f"minutes={_shortest(request['minutes'])}"]
        words += [f"seeds={request['seeds']}"] if request["seeds"] > 1 else []
        words += [f"size={'x'.join(map(str, request['size']))}"] if with_size else []
    words = [*words, f"n={request['n']}", f"seed={request['seed']}"]
    words += [] if out is None else [f"out={Path(out).absolute()}"]
    return shlex.join(["trilemma", "compare", *words])


def _shortest(value: float) -> str:
    """The fewest digits that give the same number: with another number the command would ask for another comparison."""
    return text if float(text := f"{value:g}") == value else repr(value)


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
    return lambda text: console.print(text, markup=False)
