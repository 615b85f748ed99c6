"""The values of a report as a table of comma-separated values: a line for each value of each model and control."""

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trilemma.comparison.content import Document

if TYPE_CHECKING:
    from trilemma.metrics.receipt import Score

HEAD = ("model", "kind", "metric", "value", "low", "high", "unit", "better", "protocol", "n_real", "n_fake", "refused")
FORMULA = ("=", "+", "-", "@")  # with which a spreadsheet begins what it computes


def csv_text(document: Document) -> str:
    """The lines, the first of which names the columns; low and high are the 95% interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    writer.writerows(_lines(document))
    return text.getvalue()


def _lines(document: Document) -> Iterator[tuple[object, ...]]:
    for model in document.models:
        if model.error:
            yield (_safe(model.name), model.kind, "", "", "", "", "", "", "", "", "", _safe(model.error))
        for score in model.scores.values():
            yield (_safe(model.name), model.kind, *_cells(score))
    for control in document.controls:
        for score in control.scores.values():
            yield (_safe(control.title), "control", *_cells(score))


def _cells(score: "Score") -> tuple[object, ...]:
    low, high = score.interval or ("", "")
    value = "" if score.value is None else score.value
    receipt = (score.unit, score.better, score.protocol, score.n_real, score.n_fake, score.refused or "")
    return (score.name, value, low, high, *receipt)


def _safe(text: str) -> str:
    """A text that a spreadsheet does not compute."""
    return f"'{text}" if text.startswith(FORMULA) else text
