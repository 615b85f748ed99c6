"""The rows of a comparison: a model is the mean over its trainings, which differ in their seed alone.

With each row what its trainings measured; below the models the controls; and the differences between all pairs of rows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trilemma.comparison.differences import (
    Figure,
    differences,
    mean_over_trainings,
    of_turns,
    over_trainings,
)
from trilemma.comparison.entries import Entry, shown
from trilemma.comparison.plain import clean, finite
from trilemma.comparison.triangle import AXES, placed
from trilemma.text import quoted
from trilemma.words import listed

if TYPE_CHECKING:
    from trilemma.metrics.intervals import Spread

CURVE_POINTS = 200  # of one loss curve at most
MOST_CURVES = 40  # of a training; no model here has more than 20
QUALITY = ("density", "coverage", "precision", "recall", "kernel_distance", "frechet_distance")
TIME, CALLS = COST = ("ms_per_image", "calls_per_image")
OVER_TRAININGS = "95% over {n} trainings that differ in their seed, and the choice of real images (Student's t)"
IN_TURNS = "95% for the median over turns, in each of which every model draws one batch; the range of fewer than 6"
NOTES = {  # of the controls, by name
    "real": "what a perfect model would get",
    "training": "what a model that copies its training images would get",
    "mean": "the mean of the training images, every time; a model has to beat it",
    "static": "random pixels; a model has to beat them",
    "one": "one training image, every time; what a collapsed model would get",
}


def model_row(
    name: str, row: Sequence[Entry], data: Any, request: Mapping[str, Any], shared: Sequence[str]
) -> dict[str, Any]:
    """A row: what stands for it, and each of its trainings."""
    first, measured = shown(row), [e for e in row if e.evaluation is not None]
    error = None if measured else next((e.error for e in row if e.error), None)
    values = {"name": name, "error": error, "scores": {}, "curves": [], "notes": [], "commands": {}}
    values |= {"warnings": _warnings(row, measured), "learned_nothing": _learned_nothing(measured)}
    if first.run is not None:
        values |= _training(first.run, data)
        values["commands"] = _commands(first.run, request)
    if measured:
        values["scores"] = _row_scores(measured)
        values["notes"] = [note for note in first.evaluation.notes if note not in shared]
    place = _place(values["scores"], learned=not values["learned_nothing"])
    return {**values, "trainings": [_one(entry) for entry in row], "place": place}


def _place(scores: Mapping[str, Any], *, learned: bool) -> dict[str, Any]:
    """Where a model stands on each axis. The centre is the place of the fidelity and the diversity of one that learned
    nothing: a few balls hold a constant image by chance, whatever it shows."""
    places = placed(scores)
    for axis in AXES:
        if (place := places[axis.name]) and axis.metric in QUALITY and not learned:
            place |= {"place": 0.0, "reach": None}
    return places


def _one(entry: Entry) -> dict[str, Any]:
    """One training of a row."""
    run, scores = entry.run, {} if entry.evaluation is None else scores_of(entry.evaluation)
    known = {} if run is None else {"run": str(run.path.absolute()), "seconds": run.summary["seconds"]}
    said = [] if run is None else list(run.warnings)
    return {
        "name": entry.label,
        "seed": entry.seed,
        "run": None,
        "error": entry.error,
        "scores": scores,
        "warnings": said,
    } | known


def _warnings(row: Sequence[Entry], measured: Sequence[Entry]) -> list[str]:
    """The warnings of the trainings, and what happened to some of them only; of which ones, where there are several."""
    by_text: dict[str, list[int | None]] = {}
    for entry in row:
        said = [] if entry.run is None else list(entry.run.warnings)
        if measured and entry.error:
            said.append(f"failed: {entry.error}")
        if entry.evaluation is not None and entry.evaluation.learned_nothing and not _learned_nothing(measured):
            said.append(entry.evaluation.learned_nothing)
        for text in dict.fromkeys(said):
            by_text.setdefault(text, []).append(entry.seed)
    return [text if len(row) == 1 else f"{_seeds(seeds)}: {text}" for text, seeds in by_text.items()]


def _seeds(seeds: Sequence[int | None]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {listed([str(seed) for seed in seeds])}"


def _learned_nothing(measured: Sequence[Entry]) -> str | None:
    """Why, where none of the trainings has learned anything."""
    texts = [entry.evaluation.learned_nothing for entry in measured]
    return texts[0] if texts and all(texts) else None


def _row_scores(measured: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """The scores of the only training, or the means over trainings; the time per image as it was measured in turns."""
    each = [scores_of(entry.evaluation) for entry in measured]
    scores = dict(each[0])
    if len(each) > 1:
        names = [name for name in scores if all(name in other for other in each)]
        scores = {name: _mean_score(name, measured, [other[name] for other in each]) for name in names}
    if (times := _times(measured)) and TIME in scores:
        value, interval = of_turns(times)
        scores[TIME] = {**scores[TIME], "value": value, "interval": list(interval), "interval_is": IN_TURNS}
    return scores


def _mean_score(name: str, measured: Sequence[Entry], each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean over trainings; refused where one of them is."""
    if refused := next((score["refused"] for score in each if score["refused"]), None):
        return {**each[0], "value": None, "interval": None, "refused": refused}
    spreads = [entry.evaluation.spreads.get(name) for entry in measured]
    if None not in spreads:
        estimate = over_trainings(spreads).estimate()
    else:
        estimate = mean_over_trainings([score["value"] for score in each], each[0]["unit"])
    interval_is = OVER_TRAININGS.format(n=len(each))
    return {**each[0], "value": estimate.value, "interval": list(estimate.interval), "interval_is": interval_is}


def _times(measured: Sequence[Entry]) -> tuple[float, ...]:
    """ms per image in each turn, of the training that was timed: the seed of a training does not change its speed."""
    return next((entry.times for entry in measured if entry.times), ())


def row_differences(
    rows: Mapping[str, Sequence[Entry]], models: Sequence[Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """By metric, the differences of all pairs of models that have it."""
    names = dict.fromkeys(name for model in models for name in model["scores"])
    return {
        name: differences(
            {m["name"]: _figure(name, m, rows[m["name"]]) for m in models if _has_value(m["scores"].get(name))}
        )
        for name in names
    }


def _has_value(score: Mapping[str, Any] | None) -> bool:
    return score is not None and score["value"] is not None


def _figure(name: str, model: Mapping[str, Any], row: Sequence[Entry]) -> Figure:
    score, measured = model["scores"][name], [e for e in row if e.evaluation is not None]
    spreads = [entry.evaluation.spreads.get(name) for entry in measured]
    most = _of_real_images(measured) if name == "density" else math.inf
    return Figure(
        value=min(score["value"], most),
        interval=score["interval"],
        spread=None if None in spreads else _at_most(over_trainings(spreads), most),
        values=tuple(t["scores"][name]["value"] for t in model["trainings"] if _has_value(t["scores"].get(name))),
        times=_times(measured) if name == TIME else (),
    )


def _at_most(spread: "Spread", most: float) -> "Spread":
    return replace(spread, value=min(spread.value, most))


def _of_real_images(measured: Sequence[Entry]) -> float:
    """The density of real images that are no model's: more of it is no better, as where samples crowd in few places."""
    known = {c.name: c for entry in measured for c in entry.evaluation.controls}
    control = known.get("real") or known.get("training")
    return math.inf if control is None or "density" not in control.spreads else control.spreads["density"].value


def controls(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What stands under the models in the table: measured by the same images, so of the first model's evaluation."""
    first = next((entry.evaluation for entry in entries if entry.evaluation is not None), None)
    return [
        {"name": c.name, "title": c.title, "note": NOTES.get(c.name, ""), "scores": scores_of(c)}
        for c in (first.controls if first else ())
    ]


def scores_of(evaluation: Any) -> dict[str, dict[str, Any]]:
    """Scores by metric name, as plain values; a value that is no finite number is refused here at the latest.

    What only some models have goes by its protocol: bounds of different likelihoods do not share a column.
    """
    return {_column_name(score): _finite_score(clean(score.to_json())) for score in evaluation.scores}


def _column_name(score: Any) -> str:
    return score.name if score.name in (*QUALITY, *COST) else score.protocol


def _finite_score(score: dict[str, Any]) -> dict[str, Any]:
    if score["value"] is None and not score["refused"]:
        score["refused"] = "the value is not a finite number"
    if score["interval"] and None in score["interval"]:
        score["interval"] = None
    return score


def _training(run: Any, data: Any) -> dict[str, Any]:
    """What the run folder says of the training."""
    summary, recipe = run.summary, run.recipe
    figures = {k: v for k, v in summary.items() if k.startswith("valid_") and isinstance(v, int | float)}
    return {
        "recipe": recipe.name,
        "family": recipe.family,
        "summary": recipe.summary,
        "source": recipe.source,
        "run": str(run.path.absolute()),
        "weights": run.weights_id,
        "parameters": summary["parameters"],
        "images": summary["images"],
        "epochs": summary["images"] / max(len(data.train), 1),
        "steps": summary.get("steps"),
        "seconds": summary["seconds"],
        "images_per_second": summary["images_per_second"],
        "valid": figures,
        "settings": run.config["model_config"],
        "training": {**run.config["training"], **run.config["data_config"]},
        "curves": curves(run.log),
    }


def curves(log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Loss parts and validation figures of a log, MOST_CURVES at most, as at most CURVE_POINTS points over training
    seconds."""
    names = dict.fromkeys(key for row in log for key in row if "/" in key or key.startswith("valid_"))
    return [_curve(name, log) for name in list(names)[:MOST_CURVES]]


def _curve(name: str, log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [(row["seconds"], row[name]) for row in log if finite(row.get(name))]
    last = max(len(points) - 1, 0)
    count = min(len(points), CURVE_POINTS)
    kept = [points[round(i * last / max(count - 1, 1))] for i in range(count)]
    return {"name": name, "seconds": [x for x, _ in kept], "values": [y for _, y in kept]}


def _commands(run: Any, request: Mapping[str, Any]) -> dict[str, str]:
    path = str(run.path.absolute())
    draw = [f"n={request['n']}", f"seed={request['seed']}", f"batch={request['batch']}"]
    return {
        **({"train": run.command} if run.command else {}),
        "sample": quoted(["trilemma", "sample", path, "n=64", f"seed={request['seed']}"]),
        "evaluate": quoted(["trilemma", "evaluate", path, *draw]),
    }
