"""The values of a report as a table of comma-separated values: a line for each value of each model and control."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trilemma import text
from trilemma.comparison.content import Document

if TYPE_CHECKING:
    from trilemma.metrics.receipt import Score

HEAD = ("model", "kind", "metric", "value", "low", "high", "unit", "better", "protocol", "n_real", "n_fake", "refused")


def csv_text(document: Document) -> str:
    """The lines, the first of which names the columns; low and high are the 95% interval."""
    return text.csv_text([HEAD, *_lines(document)])


def _lines(document: Document) -> Iterator[tuple[object, ...]]:
    for model in document.models:
        if model.error:
            yield (model.name, model.kind, "", "", "", "", "", "", "", "", "", model.error)
        for score in model.scores.values():
            yield (model.name, model.kind, *_cells(score))
    for control in document.controls:
        for score in control.scores.values():
            yield (control.title, "control", *_cells(score))


def _cells(score: "Score") -> tuple[object, ...]:
    low, high = score.interval or ("", "")
    value = "" if score.value is None else score.value
    receipt = (score.unit, score.better, score.protocol, score.n_real, score.n_fake, score.refused or "")
    return (score.name, value, low, high, *receipt)
