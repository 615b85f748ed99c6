"""One HTML file that needs nothing else: plots and pictures inside, no script, no request, fit for print.

The page is the document of `document.py` poured into templates/report.html, every text escaped. The pictures come
beside it: they are the only part of the page that report.json does not hold.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from trilemma.comparison import figures, triangle
from trilemma.comparison.document import further
from trilemma.comparison.words import TITLES, counted, ends, listed, number, span
from trilemma.errors import UserError

if TYPE_CHECKING:
    from jinja2 import Template
    from torch import Tensor

    from trilemma.comparison.document import Entry
    from trilemma.data import Data

SAMPLES, LARGE_SAMPLES, LARGE = 64, 16, 64  # images in a grid; fewer where a side is larger than LARGE px
PAIRS = 8  # samples shown with their nearest training image
WIDTH = 340  # px on the page that a grid of samples is enlarged towards


def render(values: Mapping[str, Any], pictures: Mapping[str, Any]) -> str:
    """The page.

    Args:
        values: what `document` made, with "nearest" for each model.
        pictures: what `pictures_of` made.
    """
    return _template("report.html").render(**_context(values), pictures=pictures)


def fragment(values: Mapping[str, Any]) -> str:
    """The triangle and the table alone, for a notebook."""
    return _template("fragment.html").render(**_context(values))


def pictures_of(
    entries: Sequence["Entry"], data: "Data", split: str, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pictures of real images of a split and of generated ones, and what was found of the nearest training images.

    Returns:
        {"real": image, "models": {name: {"samples": image, "nearest": image or None}}} with each image as
        {"uri", "width", "enlarged", "n"}; and {name: {"index", "distance", "median", "real_median"} or {"refused"}}.
    """
    count = SAMPLES if max(data.shape[1:]) <= LARGE else LARGE_SAMPLES
    real, held_out = (_some(part.images, count, seed) for part in (data.splits[split], data.held_out[1]))
    fakes = {e.name: e.evaluation.fakes[:count] for e in entries if e.evaluation is not None}
    found = _nearest(fakes, held_out, data)
    shown = {name: {"samples": picture(images), "nearest": None} for name, images in fakes.items()}
    for name, images in fakes.items():
        if "index" in found[name]:
            near = data.train.images[found[name]["index"][:PAIRS]]
            shown[name]["nearest"] = picture(_levels([images[:PAIRS], near]), columns=len(near))
    return {"real": picture(real), "models": shown}, found


def picture(images: "Tensor", columns: int | None = None) -> dict[str, Any]:
    """Images (N, C, H, W) in a grid as a data URI, one pixel for one pixel, and the width to show it at, px."""
    from trilemma.pictures import grid

    sheet, buffer = grid(images, columns=columns, scale=1), io.BytesIO()
    sheet.save(buffer, "png", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    factor = max(1, round(WIDTH / sheet.width))
    return {"uri": uri, "width": sheet.width * factor, "enlarged": factor > 1, "n": len(images)}


def _nearest(fakes: Mapping[str, "Tensor"], real: "Tensor", data: "Data") -> dict[str, Any]:
    """Nearest training images of all models' samples, and of held-out ones as the yardstick, in one pass."""
    from trilemma.metrics.features import feature_network
    from trilemma.metrics.nearest import nearest_training_images

    try:
        network = feature_network("auto", data.shape, data.name)
        index, distance = nearest_training_images(_levels([*fakes.values(), real]), data.train.images, network)
    except UserError as error:
        return {name: {"refused": str(error)} for name in fakes}
    sizes = [len(images) for images in [*fakes.values(), real]]
    distances = distance.split(sizes)
    yardstick = distances[-1].median().item()
    parts = zip(fakes, index.split(sizes), distances, strict=False)
    return {
        name: {"index": i.tolist(), "distance": d.tolist(), "median": d.median().item(), "real_median": yardstick}
        for name, i, d in parts
    }


def _some(images: "Tensor", n: int, seed: int) -> "Tensor":
    from trilemma import rng

    return images[rng.permutation(len(images), seed, "report")[:n]]


def _levels(parts: Sequence["Tensor"]) -> "Tensor":
    import torch

    from trilemma.pictures import to_uint8

    return torch.cat([to_uint8(part) for part in parts])


def _context(values: Mapping[str, Any]) -> dict[str, Any]:
    models = values["models"]
    shown = [m for m in models if any(m["place"].values())]
    return {
        "doc": values,
        "further": further(values),
        "titles": {name: title.long for name, title in TITLES.items()},
        "triangle": _svg(triangle.draw(models), _triangle_text(shown)),
        "dots": [_svg(figures.dots(models, axis), _dots_text(models, axis)) for axis in triangle.AXES],
        "small": {
            m["name"]: _svg(triangle.draw(models, only=m["name"]), f"{m['name']} among the others") for m in shown
        },
        "curves": {m["name"]: [_curve(m["name"], curve) for curve in m["curves"] if _worth(curve)] for m in models},
        "size": " x ".join(str(side) for side in values["data"]["shape"][1:]),
        "colour": {1: "grey", 3: "colour", 4: "colour with alpha"}.get(values["data"]["shape"][0], ""),
    }


def _worth(curve: Mapping[str, Any]) -> bool:
    """A single figure on held-out images is no curve; it stands among the facts."""
    return len(curve["values"]) > (1 if curve["name"].startswith("valid_") else 0)


def _curve(model: str, curve: Mapping[str, Any]) -> Markup:
    first, last = curve["values"][0], curve["values"][-1]
    text = f"{curve['name']} of {model} over training: from {number(first)} to {number(last)}"
    return _svg(figures.curve(curve["name"], curve["seconds"], curve["values"]), text)


def _svg(figure: Any, label: str) -> Markup:
    return Markup(figures.svg(figure, label))


def _triangle_text(models: Sequence[Mapping[str, Any]]) -> str:
    def say(model: Mapping[str, Any]) -> str:
        return f"{model['name']}: " + ", ".join(
            f"{axis.name} {number(found['value'], found['interval'])}"
            for axis in triangle.AXES
            if (found := model["place"][axis.name])
        )

    return "Triangle of fidelity, diversity and speed. " + "; ".join(map(say, models))


def _dots_text(models: Sequence[Mapping[str, Any]], axis: triangle.Axis) -> str:
    def say(model: Mapping[str, Any]) -> str:
        found = model["place"][axis.name]
        if not found:
            return f"{model['name']} none"
        within = f" ({span(found['value'], found['interval'])})" if found["interval"] else ""
        return f"{model['name']} {number(found['value'], found['interval'])}{within}"

    return f"{axis.name.capitalize()}, {axis.short}: " + "; ".join(map(say, models))


@cache
def _template(name: str) -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "counted": counted, "ends": ends, "listed": listed, "text": _text}
    return environment.get_template(name)


def _text(value: Any) -> str:
    """A setting as a person writes it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else "none"
    return "none" if value is None else str(value)
