"""The content of a report as plain values: report.json is this, and report.html shows this and the pictures.

    {"format", "trilemma", "title", "verdict", "data", "budget", "columns", "axes", "models": [...], "again"}

The table holds the columns that every measured model has ("shared"); what only some have is listed beside it
(`further`). Every number is finite: a figure that is missing is None, with the reason beside it.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilemma import __version__
from trilemma.comparison.triangle import AXES, FASTEST, SLOWEST, placed
from trilemma.comparison.words import counted, leaders, listed, title, verdict

FORMAT = 1
CURVE_POINTS = 200  # of one loss curve at most
SAME = ("protocol", "n_real", "n_fake", "features", "split", "seed", "resize")  # what a column must share
BUDGET_FACTOR = 1.1  # training seconds farther apart than this are no equal budget
QUALITY = ("precision", "recall", "kernel_distance", "frechet_distance")
COST = ("ms_per_image", "calls_per_image")


@dataclass
class Entry:
    """One model of a comparison: its run and what was measured, or the error that ended it."""

    name: str
    run: Any = None
    evaluation: Any = None
    error: str | None = None


def document(
    entries: Sequence[Entry], data: Any, request: Mapping[str, Any], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything the report shows.

    Args:
        entries: the models, in the order asked for.
        data: the `Data` all of them were trained on.
        request: "command", "minutes" (None for finished runs), "n", "batch", "seed", and of the real images "split" and
            "caveats".
        machine: what `hardware.describe` tells of the machine that sampled and measured.
    """
    from trilemma.metrics.evaluate import ROLES

    notes = _shared_notes(entries)
    models = [_model(entry, data, request, notes) for entry in entries]
    values = {
        "format": FORMAT,
        "trilemma": __version__,
        "title": f"{listed([e.name for e in entries])} on {data.name}",
        "verdict": verdict(models, AXES),
        "data": _data(data),
        "budget": _budget(models, request, machine),
        "columns": (table := columns(models)),
        "versions": {key: value for column in table for key, value in column["receipt"]["versions"].items()},
        "axes": [{"name": a.name, "metric": a.metric, "unit": a.short} for a in AXES],
        "speed_scale": {"centre": SLOWEST, "corner": FASTEST, "unit": "images per second", "scale": "logarithmic"},
        "real": {"split": request["split"], "role": ROLES[request["split"]]},
        "caveats": request["caveats"],
        "notes": [note for note in notes if note not in request["caveats"]],
        "seed": request["seed"],
        "models": models,
        "again": _again(models, request),
    }
    return clean(values)


def columns(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The metrics that were measured, known ones first, each with its title, receipt and leaders; `shared` where
    every model that was measured has it."""
    names = dict.fromkeys([*QUALITY, *COST])
    found = {name: None for m in models for name in m["scores"]}
    order = [name for name in names if name in found] + [name for name in found if name not in names]
    measured = sum(1 for m in models if m["scores"])
    return [_column(name, [m for m in models if name in m["scores"]], measured) for name in order]


def further(values: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """What only some models have, model by model: (model, column, score)."""
    rest = [column for column in values["columns"] if not column["shared"]]
    return [(m, c, m["scores"][c["name"]]) for m in values["models"] for c in rest if c["name"] in m["scores"]]


def _column(name: str, models: Sequence[Mapping[str, Any]], measured: int) -> dict[str, Any]:
    first = models[0]["scores"][name]
    known = {m["name"]: (s["value"], s["interval"]) for m in models if (s := m["scores"][name])["value"] is not None}
    receipt = {key: first.get(key) for key in (*SAME, "versions", "interval_is", "data_fingerprint")}
    long, short = title(first["name"], first["protocol"])
    head = {"name": name, "title": long, "head": short, "shared": len(models) == measured}
    head |= {"unit": first["unit"], "better": first["better"], "best": leaders(known, first["better"])}
    reasons = {m["scores"][name]["refused"] for m in models}
    refused = next(iter(reasons)) if len(reasons) == 1 else None  # one reason for all models, or None
    return {**head, "refused": refused, "receipt": receipt}


def protocol_difference(scores: Mapping[str, Any], others: Mapping[str, Any]) -> str | None:
    """What differs between the protocols of two sets of scores, in words; None where they may share columns."""
    for name in scores.keys() & others.keys():
        for key in SAME:
            if scores[name][key] != others[name][key]:
                return f"{name}: {key} is {scores[name][key]!r} here and {others[name][key]!r} for the first model"
    return None


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


def _model(entry: Entry, data: Any, request: Mapping[str, Any], shared: Sequence[str]) -> dict[str, Any]:
    values = {"name": entry.name, "error": entry.error, "scores": {}, "curves": [], "notes": [], "commands": {}}
    if entry.run is not None:
        values |= _training(entry.run, data)
        values["commands"] = _commands(entry.run, request)
    if entry.evaluation is not None:
        values["scores"] = scores_of(entry.evaluation)
        values["notes"] = [note for note in entry.evaluation.notes if note not in shared]
    return {**values, "place": placed(values["scores"])}


def _shared_notes(entries: Sequence[Entry]) -> list[str]:
    """What the evaluation noted of every model alike."""
    notes = [entry.evaluation.notes for entry in entries if entry.evaluation is not None]
    return [note for note in notes[0] if all(note in others for others in notes)] if notes else []


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
        "training": run.config["training"],
        "curves": curves(run.log),
    }


def curves(log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every loss part and every validation figure of a log, as at most CURVE_POINTS points over training seconds."""
    names = dict.fromkeys(key for row in log for key in row if "/" in key or key.startswith("valid_"))
    return [_curve(name, log) for name in names]


def _curve(name: str, log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [(row["seconds"], row[name]) for row in log if _finite(row.get(name))]
    last = max(len(points) - 1, 0)
    count = min(len(points), CURVE_POINTS)
    kept = [points[round(i * last / max(count - 1, 1))] for i in range(count)]
    return {"name": name, "seconds": [x for x, _ in kept], "values": [y for _, y in kept]}


def _data(data: Any) -> dict[str, Any]:
    channels, height, width = data.shape
    return {
        "name": data.name,
        "source": str(data.source),
        "shape": [channels, height, width],
        "classes": list(data.classes),
        "counts": {name: len(split) for name, split in data.splits.items()},
        "notes": list(data.notes),
        "skipped": list(data.skipped),
        "fingerprint": data.fingerprint,
    }


def _budget(
    models: Sequence[Mapping[str, Any]], request: Mapping[str, Any], machine: Mapping[str, Any]
) -> dict[str, Any]:
    used = [m["seconds"] for m in models if "seconds" in m]
    equal = not used or max(used) <= BUDGET_FACTOR * min(used)
    asked = None if request["minutes"] is None else 60 * request["minutes"]
    text = (
        f"{counted(asked, 'second')} of training {'was' if asked == 1 else 'were'} asked for each model"
        if asked
        else "These runs were trained before"
    )
    if used:
        low, high = (f"{end:,.1f}" for end in (min(used), max(used)))
        text += f"; {low} were used" if low == high else f"; {low} to {high} seconds were used"
    text += "." if equal else ". The budgets are not equal: figures also differ because of that."
    return {"asked_seconds": asked, "used_seconds": used, "equal": equal, "text": text, "machine": dict(machine)}


def _commands(run: Any, request: Mapping[str, Any]) -> dict[str, str]:
    path = str(run.path.absolute())
    draw = [f"n={request['n']}", f"seed={request['seed']}", f"batch={request['batch']}"]
    return {
        "train": run.config["command"],
        "sample": shlex.join(["trilemma", "sample", path, "n=64", f"seed={request['seed']}"]),
        "evaluate": shlex.join(["trilemma", "evaluate", path, *draw]),
    }


def _again(models: Sequence[Mapping[str, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
    """The command of this report and, where it trained, one that measures the same weights again; from any folder."""
    if request["minutes"] is None:
        return {"all": request["command"], "measure": request["command"]}
    paths = [m["run"] for m in models if "run" in m]
    keys = [f"n={request['n']}", f"seed={request['seed']}"]
    measure = shlex.join(["trilemma", "compare", *paths, *keys]) if paths else None
    return {"all": request["command"], "measure": measure}


def clean(value: Any) -> Any:
    """Plain values that JSON and a UTF-8 page can hold: no nan, no infinity, no lone surrogates, no tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    return clean(str(value)) if isinstance(value, Path) or not hasattr(value, "item") else clean(value.item())


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
