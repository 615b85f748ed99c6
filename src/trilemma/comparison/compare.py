"""The main job: `compare(data="digits")` trains one model of each family with the same budget, measures them, reports.

The budget is training seconds: every model gets the same, on the same machine, one after the other. Every model is
then measured by one protocol: the same number of images, features, split and seed. A model that fails is reported
with its error; the others go on. The same call again continues an interrupted comparison.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma import __version__
from trilemma.comparison.document import Entry, clean, document, protocol_difference, scores_of
from trilemma.comparison.words import counted
from trilemma.errors import UserError

if TYPE_CHECKING:
    from trilemma.comparison.terminal import Tables
    from trilemma.data import Data
    from trilemma.run import Run

ONE_PER_FAMILY = ("ae-stacked", "vae", "gan-dcgan", "diffusion-small")
BATCHES, LARGEST_BATCH = 8, 256  # of images drawn: one batch to warm up and seven to time at least


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: the two files, and the figures as rows."""

    html: Path
    json: Path
    document: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict per model: name, family, error, parameters, seconds, images, and each metric's value with
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


def compare(
    *runs: "Run | str | Path",
    data: "str | Path | Data | None" = None,
    models: str | Sequence[str] | None = None,
    minutes: float = 0.5,
    n: int | None = None,
    size: int | str | tuple[int, int] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    quiet: bool = False,
) -> Comparison:
    """Train models with an equal budget, or take finished runs; measure them all alike; write one report.

    The same call again continues a comparison that was interrupted, and measures a finished one again: what is trained
    already is not trained again.

    Args:
        runs: finished runs to compare; nothing is trained then.
        data: what to train on, where no runs are given: a word, a path, or data already loaded; "digits" where None.
        models: names or wildcards (a list, or one text with commas); one model per family where None.
        minutes: of training, for each model.
        n: images drawn and measured per model; as many as there are real ones to measure by, at most as an evaluation
            takes, where None.
        size: height and width of the images, px; inferred where None.
        seed: of the training and of the images drawn.
        out: folder of the report; where None, that of the same comparison, else a new runs/compare-DATA (-2, -3, ...).
        quiet: print no progress.
    Raises:
        UserError: a wrong name or value, runs on different data, or no model that could be trained and measured.
        KeyboardInterrupt: after Ctrl-C, when it is said how to go on.
    """
    from trilemma.comparison.folder import claim_folder
    from trilemma.data import load_data
    from trilemma.data.sources import source_word
    from trilemma.metrics.evaluate import caveats, choose_reals

    say = _speaker(quiet)
    if runs:
        _refuse_training_keys(data=data, models=models, size=size)
        entries = _finished(runs)
        loaded = entries[0].run.data
        wanted: dict[str, Any] = {"runs": [str(entry.run.path.resolve()) for entry in entries]}
    else:
        entries = [Entry(name) for name in _names(models)]
        _check_minutes(minutes)
        loaded = load_data("digits" if data is None else data, size=size)
        wanted = {"models": [entry.name for entry in entries], "minutes": minutes}
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
            if not runs:
                for note in loaded.notes:
                    say(f"  {note}")
                names = ", ".join(entry.name for entry in entries)
                say(f"{folder}: {names} on {loaded.name}, {counted(60 * minutes, 'second')} of training each")
                for entry in entries:
                    _attempt(entry, lambda e=entry: _train(e, loaded, folder, minutes, seed, quiet), say)
            batch = max(1, min(LARGEST_BATCH, n // BATCHES))
            _measure_all(entries, loaded, n, batch, seed, say)
            shown = {"command": command, "minutes": None if runs else minutes, "n": n, "batch": batch, "seed": seed}
            shown |= {"split": split, "caveats": caveats(loaded, split, n, own=True)}
            return _write(entries, loaded, shown, folder)
        except KeyboardInterrupt:
            say(f"the comparison stopped. Go on with: {_command(request, folder, with_size=with_size)}")
            raise


def _write(entries: Sequence[Entry], data: "Data", request: dict[str, Any], folder: Path) -> Comparison:
    from trilemma.comparison import triangle
    from trilemma.comparison.figures import png
    from trilemma.comparison.report import pictures_of, render
    from trilemma.files import write_atomic, write_json
    from trilemma.hardware import describe
    from trilemma.pictures import save_png

    values = document(entries, data, request, describe())
    pictures, neighbours = pictures_of(entries, data, request["split"], request["seed"])
    for model in values["models"]:
        model["nearest"] = clean(neighbours.get(model["name"]))
    json = write_json(folder / "report.json", values)
    html = write_atomic(folder / "report.html", render(values, pictures))
    made = {"trilemma": __version__, "verb": "compare", "command": request["command"]}
    save_png(png(triangle.draw(values["models"])), folder / "triangle.png", made, replace=True)
    return Comparison(html, json, values)


def _train(entry: Entry, data: "Data", folder: Path, minutes: float, seed: int, quiet: bool) -> None:
    from trilemma.training import train

    out = folder / "runs" / entry.name
    entry.run = train(entry.name, data, minutes=minutes, seed=seed, out=out, quiet=quiet)


def _measure_all(
    entries: Sequence[Entry], data: "Data", n: int, batch: int, seed: int, say: Callable[[str], None]
) -> None:
    """Measure every model that was trained.

    Raises:
        UserError: if none could be trained and measured.
    """
    for entry in entries:
        if entry.run is not None:
            entry.run.data = data  # the same images; read once for all
            say(f"{entry.name}: drawing and measuring {n} images")
            _attempt(entry, lambda e=entry: _measure(e, entries, n, batch, seed), say)
    if all(entry.error for entry in entries):
        raise UserError("no model could be compared: " + "; ".join(f"{e.name}: {e.error}" for e in entries))


def _measure(entry: Entry, entries: Sequence[Entry], n: int, batch: int, seed: int) -> None:
    from trilemma.metrics import evaluate

    evaluation = evaluate(entry.run, n=n, seed=seed, batch=batch)
    first = next((e for e in entries if e.evaluation is not None), None)
    if first and (difference := protocol_difference(scores_of(evaluation), scores_of(first.evaluation))):
        raise UserError(
            f"measured by another protocol than {first.name} ({difference}), so the figures cannot be compared"
        )
    entry.evaluation = evaluation


def _attempt(entry: Entry, action: Callable[[], None], say: Callable[[str], None]) -> None:
    """Do it; an error ends this model only, and is said and kept."""
    try:
        action()
    except UserError as error:
        entry.error = str(error)
    except Exception as error:  # a fault in one model must not lose the others' minutes
        entry.error = f"{type(error).__name__}: {error}"
    if entry.error:
        say(f"{entry.name} failed: {entry.error}")


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


def _refuse_training_keys(**given: Any) -> None:
    for key, value in given.items():
        if value is not None:
            raise UserError(
                f"{key}={value}: finished runs are compared as they are; leave {key} out, or leave the runs out"
            )


def _finished(runs: Sequence["Run | str | Path"]) -> list[Entry]:
    """Entries of finished runs on the same images, with names that tell them apart; all there is of them is read."""
    from trilemma.run import as_run

    opened = [as_run(run) for run in runs]
    for run in opened:
        _ = run.model, run.summary, run.log  # an unfinished run is refused before anything is measured
    places = [run.path.resolve() for run in opened]
    for k, place in enumerate(places):
        if place in places[:k]:
            raise UserError(f"{opened[k].path} is given twice; name each run once")
    _same_data(opened)
    plain = [place.name for place in places]
    names = plain if len(set(plain)) == len(plain) else ["/".join(place.parts[-2:]) for place in places]
    names = names if len(set(names)) == len(names) else [str(place) for place in places]
    return [Entry(name, run) for name, run in zip(names, opened, strict=True)]


def _same_data(runs: Sequence["Run"]) -> None:
    """Refuse runs on different images: their figures would not compare."""
    first = runs[0]
    for run in runs[1:]:
        if _images(run) != _images(first):
            what, other = _images_text(first), _images_text(run)
            why = "the figures would not compare. Train both on the same data="
            if first.config["data"] == run.config["data"]:
                why += ", with the same size= and valid="
            raise UserError(f"{first.path} was trained on {what}, {run.path} on {other}: {why}")


def _images(run: "Run") -> tuple[Any, ...]:
    return run.config["fingerprint"], tuple(run.config["model_config"]["shape"])


def _images_text(run: "Run") -> str:
    shape = " x ".join(map(str, run.config["model_config"]["shape"]))
    return f"{run.config['data']} ({shape}, fingerprint {run.config['fingerprint'][:12]})"


def _command(request: dict[str, Any], out: str | Path | None, *, with_size: bool) -> str:
    """The command line that makes this report again, from any folder."""
    if "runs" in request:
        words = request["runs"]
    else:
        words = [f"data={request['data']}", f"models={','.join(request['models'])}"]
        words += [f"minutes={_shortest(request['minutes'])}"]
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
        for key in ("name", "family", "error", "parameters", "seconds", "images", "images_per_second")
    }
    for name, score in model["scores"].items():
        row |= {name: score["value"], f"{name}_interval": score["interval"], f"{name}_refused": score["refused"]}
    return row


def _speaker(quiet: bool) -> Callable[[str], None]:
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    return lambda text: console.print(text, markup=False)
