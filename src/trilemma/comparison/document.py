"""The content of a report as plain values: report.json is this, and report.html shows this and the pictures.

    {"format", "trilemma", "title", "answer", "verdict", "data", "budget", "columns", "differences", "axes",
     "models": [...], "controls": [...], "again"}

A model is a row: the mean over its trainings, which differ in their seed alone. The table holds the columns that every
measured model has ("shared"); what only some have is listed beside it (`further`). Every number is finite: a figure
that is missing is None, with the reason beside it.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from trilemma import __version__
from trilemma.comparison.answer import answer
from trilemma.comparison.differences import unbeaten
from trilemma.comparison.entries import Entry, rows_of
from trilemma.comparison.plain import clean
from trilemma.comparison.rows import COST, QUALITY, controls, curves, model_row, row_differences
from trilemma.comparison.triangle import AXES, FASTEST, SLOWEST
from trilemma.comparison.words import title, verdict
from trilemma.errors import UserError
from trilemma.text import quoted
from trilemma.words import counted, listed

__all__ = ["Entry", "clean", "columns", "curves", "document", "further", "protocol_difference"]

FORMAT = 1
SAME = ("protocol", "n_real", "n_fake", "features", "split", "seed", "resize")  # what a column must share
BUDGET_FACTOR = 1.1  # training seconds farther apart than this are no equal budget


def document(
    entries: Sequence[Entry], data: Any, request: Mapping[str, Any], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything the report shows.

    Args:
        entries: the trainings, of the models in the order asked for.
        data: the `Data` all of them were trained on.
        request: "command", "minutes" (None for finished runs), "n", "batch", "seed", and of the real images "split" and
            "caveats".
        machine: what `hardware.describe` tells of the machine that sampled and measured.
    """
    from trilemma.metrics.evaluate import ROLES

    notes = _shared_notes(entries)
    rows = rows_of(entries)
    models = [_row_or_error(name, row, data, request, notes) for name, row in rows.items()]
    pairs = row_differences(rows, models)
    judged, below = verdict(models, AXES, pairs), controls(entries)
    values = {
        "format": FORMAT,
        "trilemma": __version__,
        "title": f"{listed(list(rows))} on {data.name}",
        "answer": answer(models, judged, pairs, request, below),
        "verdict": judged,
        "data": _data(data),
        "budget": _budget(models, request, machine),
        "columns": (table := columns(models, pairs)),
        "differences": pairs,
        "versions": {key: value for column in table for key, value in column["receipt"]["versions"].items()},
        "axes": [{"name": a.name, "metric": a.metric, "unit": a.short} for a in AXES],
        "speed_scale": {"centre": SLOWEST, "corner": FASTEST, "unit": "images per second", "scale": "logarithmic"},
        "real": {"split": request["split"], "role": ROLES[request["split"]]},
        "caveats": request["caveats"],
        "notes": [note for note in notes if note not in request["caveats"]],
        "seed": request["seed"],
        "models": models,
        "controls": below,
        "again": _again(models, request),
    }
    return clean(values)


def _row_or_error(
    name: str, row: Sequence[Entry], data: Any, request: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """A row; where what its run folders say cannot be shown, the error in its place, and the others go on."""
    try:
        return model_row(name, row, data, request, notes)
    except Exception as error:  # whatever it is, it must not lose what was measured of the others
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    for entry in row:
        entry.error, entry.run, entry.evaluation = entry.error or text, None, None
    return model_row(name, row, data, request, notes)


def columns(
    models: Sequence[Mapping[str, Any]], pairs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> list[dict[str, Any]]:
    """The metrics that were measured, known ones first, each with its title, receipt and its best models, which no
    other is shown to beat; `shared` where every model that was measured has it."""
    names = dict.fromkeys([*QUALITY, *COST])
    measured_names = {name: None for m in models for name in m["scores"]}
    order = [name for name in names if name in measured_names] + [name for name in measured_names if name not in names]
    measured = sum(1 for m in models if m["scores"])
    pairs = pairs or {}
    return [_column(name, [m for m in models if name in m["scores"]], measured, pairs.get(name, ())) for name in order]


def further(values: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """What only some models have, model by model: (model, column, score)."""
    rest = [column for column in values["columns"] if not column["shared"]]
    return [(m, c, m["scores"][c["name"]]) for m in values["models"] for c in rest if c["name"] in m["scores"]]


def _column(
    name: str, models: Sequence[Mapping[str, Any]], measured: int, pairs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    first = models[0]["scores"][name]
    known = {m["name"]: m["scores"][name]["value"] for m in models if _decides(m, name)}
    receipt = {key: first.get(key) for key in (*SAME, "versions", "interval_is", "data_fingerprint")}
    long, short = title(first["name"], first["protocol"])
    head = {"name": name, "title": long, "head": short, "shared": len(models) == measured}
    head |= {"unit": first["unit"], "better": first["better"], "best": unbeaten(known, pairs, first["better"])}
    reasons = {m["scores"][name]["refused"] for m in models}
    refused = next(iter(reasons)) if len(reasons) == 1 else None  # one reason for all models, or None
    return {**head, "refused": refused, "receipt": receipt}


def _decides(model: Mapping[str, Any], name: str) -> bool:
    """Whether a model's figure may be called the best: it is there and not rough, and the model learned something."""
    score = model["scores"][name]
    return score["value"] is not None and not score.get("rough") and not model.get("learned_nothing")


def protocol_difference(scores: Mapping[str, Any], others: Mapping[str, Any]) -> str | None:
    """What differs between the protocols of two sets of scores, in words; None where they may share columns."""
    for name in scores.keys() & others.keys():
        for key in SAME:
            if scores[name][key] != others[name][key]:
                return f"{name}: {key} is {scores[name][key]!r} here and {others[name][key]!r} for the first model"
    return None


def _shared_notes(entries: Sequence[Entry]) -> list[str]:
    """What the evaluation noted of every model alike."""
    notes = [entry.evaluation.notes for entry in entries if entry.evaluation is not None]
    return [note for note in notes[0] if all(note in others for others in notes)] if notes else []


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
    used = [t["seconds"] for m in models for t in m["trainings"] if "seconds" in t]
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


def _again(models: Sequence[Mapping[str, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
    """The command of this report and, where it trained, one that measures the same weights again; from any folder."""
    whole = quoted(shlex.split(request["command"]))
    if request["minutes"] is None:
        return {"all": whole, "measure": whole}
    paths = [t["run"] for m in models for t in m["trainings"] if t["run"]]
    keys = [f"n={request['n']}", f"seed={request['seed']}"]
    measure = quoted(["trilemma", "compare", *paths, *keys]) if paths else None
    return {"all": whole, "measure": measure}
