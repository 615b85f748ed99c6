"""One HTML file that needs nothing else: plots and pictures inside, no request, fit for print.

The page is the `content.Document` poured into templates/report.html, every text escaped. The pictures come
beside it, from `images.py`. The only script sorts tables; by its hash the page allows no other one.
"""

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from trilemma.comparison import figures, triangle
from trilemma.comparison.content import Column, Document, Model, point_receipts, receipt_of
from trilemma.comparison.curves import CurvePlot, curve_title, shown_curves
from trilemma.comparison.document import further_scores
from trilemma.comparison.images import Pictures, pictures_of
from trilemma.comparison.plain import Json
from trilemma.comparison.sampler_settings import most_density
from trilemma.language import in_language, translated
from trilemma.metrics.catalogue import CATALOGUE, COST
from trilemma.pictures import plots
from trilemma.pictures.page import template
from trilemma.run.contestant import KINDS
from trilemma.titles import root_of
from trilemma.words import capital, counted, duration, ends, listed, number, span

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

SCRIPT = Path(__file__).parent / "templates" / "sort.js"

__all__ = ["fragment", "pictures_of", "render"]


def render(document: Document, pictures: Pictures) -> str:
    """The page."""
    with in_language(document.language):
        script = Markup(SCRIPT.read_text("utf-8"))
        return _template("report.html").render(
            **_context(document), pictures=pictures, script=script, script_hash=_hash_of(script)
        )


def _hash_of(script: str) -> str:
    """As a content security policy names a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}"


def fragment(document: Document) -> str:
    """The triangle and the table alone, for a notebook."""
    with in_language(document.language):
        return _template("fragment.html").render(**_context(document))


def _context(document: Document) -> dict[str, object]:
    models, shape = document.models, document.data.shape
    placed = [m for m in models if any(m.place.values())]
    return {
        "doc": document,
        "_": translated,
        "language": document.language,
        "shares": [translated(axis["unit"]) for axis in document.axes if axis["name"] != "speed"],
        "further": further_scores(document),
        "cost": COST,
        "titles": {name: translated(metric.title) for name, metric in CATALOGUE.items()},
        "triangle": _svg(triangle.draw(models), _triangle_text(placed)),
        "dots": [_svg(figures.dots(models, axis), _dots_text(models, axis)) for axis in triangle.AXES],
        "small": {
            m.name: _svg(triangle.draw(models, only=m.name), translated("{name} among the others", name=m.name))
            for m in placed
        },
        "curves": {m.name: [_curve(m.name, curve) for curve in shown_curves(m.curves)] for m in models},
        "valid": {m.name: _validation(m.trained.valid if m.trained else {}) for m in models},
        "learning": _learning(models),
        "samplers": _samplers(document),
        "of_points": _of_points(document),
        "used": {column.name: _used(document, column) for column in document.columns},
        "measured": [c for c in document.columns if c.shared and not c.refused],
        "size": " x ".join(str(side) for side in shape[1:]),
        "colour": KINDS[shape[0]],
    }


def _of_points(document: Document) -> list[Json]:
    """Receipts of points on the curves that are not those of a column."""
    of_columns = [receipt_of(column.receipt) for column in document.columns]
    return [receipt for receipt in point_receipts(document.models).values() if receipt not in of_columns]


def _used(document: Document, column: Column) -> dict[str, str]:
    """Versions, devices and hashes behind a column that are not those of all values; with the names of the models where
    these differ."""
    by_model = {m.name: m.scores[column.name].versions for m in document.models if column.name in m.scores}
    own = dict.fromkeys(key for used in by_model.values() for key in used if key not in document.versions)

    def text(key: str) -> str:
        each = listed([f"{used[key]} ({name})" for name, used in by_model.items() if key in used])
        return column.receipt.versions.get(key, each)

    return {key: text(key) for key in own}


def _learning(models: Sequence[Model]) -> Markup | None:
    """The learning curves; None where no training kept weights on its way."""
    if not any(len(m.learning) > 1 for m in models):
        return None

    def of_model(model: Model) -> str:
        first, last = model.learning[0], model.learning[-1]
        values = {"first": number(first.value), "last": number(last.value, last.interval)}
        return translated("{name} from {first} to {last}", name=model.name, **values)

    text = (
        translated("Kernel distance over the training")
        + ": "
        + "; ".join(of_model(m) for m in models if len(m.learning) > 1)
    )
    return _svg(figures.learning(models), text)


def _samplers(document: Document) -> Markup | None:
    """The models under settings of their samplers; None where each has one at most."""
    models = [m for m in document.models if m.samplers]
    if not any(len(m.samplers) > 1 for m in models):
        return None
    names = listed([m.name for m in models])
    text = translated(
        "Coverage and density over images per second of {names}; the values are in the table below", names=names
    )
    return _svg(figures.samplers(document.models, most_density(document.controls)), text)


def _curve(model: str, curve: CurvePlot) -> tuple[Markup, str | None]:
    """The plot, and what is healthy."""
    first, last = curve.values[0], curve.values[-1]
    values = {"first": number(first), "last": number(last)}
    text = translated(
        "{title} of {model} over training: from {first} to {last}", title=curve.title, model=model, **values
    )
    return _svg(figures.curve(curve.title, curve.seconds, curve.values), text), curve.healthy


def _validation(values: Mapping[str, float]) -> dict[str, float]:
    """The last validation values by their names in words."""
    return {capital(curve_title(name)): value for name, value in values.items() if root_of(name) not in values}


def _svg(figure: "Figure", label: str) -> Markup:
    return Markup(plots.svg(figure, label))


def _triangle_text(models: Sequence[Model]) -> str:
    def of_model(model: Model) -> str:
        return f"{model.name}: " + ", ".join(
            f"{translated(axis.name)} {number(place.value, place.interval)}"
            for axis in triangle.AXES
            if (place := model.place.get(axis.name))
        )

    return translated("Triangle of fidelity, diversity and speed.") + " " + "; ".join(map(of_model, models))


def _dots_text(models: Sequence[Model], axis: triangle.Axis) -> str:
    def of_model(model: Model) -> str:
        place = model.place.get(axis.name)
        if not place:
            return f"{model.name} {translated('none')}"
        within = f" ({span(place.value, place.interval)})" if place.interval else ""
        return f"{model.name} {number(place.value, place.interval)}{within}"

    return f"{translated(axis.name.capitalize())}, {translated(axis.short)}: " + "; ".join(map(of_model, models))


@cache
def _template(name: str) -> "Template":
    filters = {"number": number, "counted": counted, "duration": duration, "ends": ends, "listed": listed}
    return template(name, ("comparison",), {**filters, "text": _text, "bold": _bold, "percent": _percent})


def _text(value: object) -> str:
    """A setting as a person writes it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else "none"
    return "none" if value is None else str(value)


def _bold(text: str, names: Sequence[str]) -> Markup:
    """A sentence with the names of models in bold."""
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if name)
    parts = re.split(rf"(?<![\w-])({longest_first})(?![\w-])", text) if longest_first else [text]
    return Markup().join(Markup("<strong>{}</strong>").format(p) if p in names else escape(p) for p in parts)


def _percent(share: float) -> str:
    """
    >>> _percent(0.01), _percent(0.1234), _percent(1.0)
    ('1%', '12.3%', '100%')
    """
    return f"{100 * share:.1f}".removesuffix(".0") + "%"
