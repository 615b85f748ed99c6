"""The page of a detection: what was flagged, how well, and where in each image the model sees something strange.

A heat map shows |x - x_hat| per pixel, the mean over channels, on one scale for all images of the page. The page is
one HTML file that needs nothing else; its pictures also lie beside it.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from markupsafe import Markup
from torch import Tensor

from trilemma.comparison import figures
from trilemma.comparison.words import ends, leaders, listed, number, span
from trilemma.explore.detection_images import ABNORMAL, NORMAL, UNKNOWN, Group
from trilemma.explore.detection_scores import reconstructions
from trilemma.explore.images import made_by, table
from trilemma.files import remove, write_atomic
from trilemma.pictures import TILE, grid, save_png
from trilemma.run import Run
from trilemma.types import Reconstructs

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure
    from PIL import Image

FLAGGED, HEATED, OTHERS = 96, 32, 16  # flagged images in the grid, with heat maps; false alarms and misses
WIDTH, COLUMNS = 960, 16  # px and images in a row, at most
BINS = 60
WORDS = {NORMAL: "normal", ABNORMAL: "abnormal", UNKNOWN: "unknown"}


class Shown(NamedTuple):
    """Images of one kind, with their reconstructions where the model makes them, and the texts over them."""

    images: Tensor
    results: Tensor | None
    texts: list[str]


def write_report(
    run: Run,
    folder: Path,
    document: Mapping[str, Any],
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
) -> tuple[Path, Path]:
    """Write histogram.png, flagged.png, heatmaps.png (the last two if anything is flagged) and report.html.

    Args:
        document: what `detect` found, as in figures.json.
        scores: those that flag, by kind of image; found: positions of hits, alarms and misses in their groups.
    Returns:
        The histogram and the page.
    """
    by_kind, kind = {group.kind: group for group in groups}, document["kind"]
    parts = {"hits": (kind, FLAGGED), "alarms": (NORMAL, OTHERS), "misses": (ABNORMAL, OTHERS)}
    shown = {
        name: _shown(run, by_kind[parts[name][0]], scores[parts[name][0]], at[: parts[name][1]])
        for name, at in found.items()
        if len(at)
    }
    brightest = max((_difference(part).max().item() for part in shown.values() if part.results is not None), default=0)
    sheets = {name: _sheets(part, brightest) for name, part in shown.items()}
    made = made_by(run, "detect", against=document["source"], score=document["score"])
    for name in ("flagged", "heatmaps"):
        remove(folder / f"{name}.png")
    pages: dict[str, Any] = {name: [_inline(sheet) for sheet in part] for name, part in sheets.items()}
    if "hits" in shown:
        part = shown["hits"]
        gallery = grid(part.images, columns=min(len(part.images), _columns(part.images)), texts=part.texts)
        save_png(gallery, folder / "flagged.png", made)
        save_png(_stacked(sheets["hits"]), folder / "heatmaps.png", made)
        pages["gallery"] = _inline(gallery)
    drawn = _histogram(document, scores)
    text = f"Histograms of the {document['title']} with the threshold {number(document['threshold'])}"
    histogram = Markup(figures.svg(drawn, text))
    picture = save_png(figures.png(drawn), folder / "histogram.png", made)  # after the SVG: it changes the colours
    page = _template().render(
        doc=document,
        words=WORDS,
        in_short=in_short(document),
        histogram=histogram,
        pictures=pages,
        brightest=brightest,
        heated=isinstance(run.model, Reconstructs),
        shown={name: len(part.images) for name, part in shown.items()},
    )
    return picture, write_atomic(folder / "report.html", page)


def in_short(document: Mapping[str, Any]) -> list[str]:
    """What was found, in sentences."""
    row, counts = document["rows"][document["score"]], document["counts"]
    texts = [
        f"{_capital(row['title'])}: an image is flagged above {number(row['threshold'])}. {counts['calibration']:,} "
        "held-out normal images set this threshold, so that at most "
        f"{100 * document['false_alarms']:.3g}% of new normal images are flagged."
    ]
    texts.append(f"Of {counts['normal']:,} other normal images {_percent(row['false_alarm_rate'])} were flagged.")
    if document["kind"] == UNKNOWN:
        texts.append(f"Of {counts['unknown']:,} unknown images {document['flagged']:,} were flagged.")
    if document["kind"] == ABNORMAL:
        texts.append(f"Of {counts['abnormal']:,} abnormal images {_percent(row['detection_rate'])} were flagged.")
        texts.append(_ranked(document["rows"]))
    return texts


def _ranked(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Which scores tell abnormal from normal images best."""
    areas = {row["title"]: (row["auroc"]["value"], row["auroc"]["interval"]) for row in rows.values()}
    first = leaders(areas)
    value, interval = areas[first[0]]
    text = f"AUROC {number(value, interval)}" + (f", {span(value, interval)}" if interval[0] < interval[1] else "")
    if len(first) == 1:
        return f"Best of all scores: {first[0]} ({text})."
    return f"No clear difference between {listed(first)} (highest value: {text})."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _percent(share: Mapping[str, Any]) -> str:
    low, high = share["interval"]
    return f"{share['value']:.1%} ({low:.1%} to {high:.1%})"


def _shown(run: Run, group: Group, scores: Tensor, at: Tensor) -> Shown:
    images = group.split.images[at]
    results = reconstructions(run, images) if isinstance(run.model, Reconstructs) else None
    return Shown(images.float() / 255, results, [number(scores[k].item()) for k in at.tolist()])


def _difference(shown: Shown) -> Tensor:
    """|x - x_hat|, mean over channels: (N, H, W)."""
    assert shown.results is not None
    return (shown.images - shown.results).abs().mean(1)


def heat(values: Tensor, brightest: float) -> Tensor:
    """Values (N, H, W) from 0 to `brightest` as colours from black to yellow: (N, 3, H, W) in [0, 1]."""
    from matplotlib import colormaps

    colours = colormaps["inferno"]((values / max(brightest, 1e-12)).clamp(0, 1).numpy())
    return torch.as_tensor(colours[..., :3], dtype=torch.float32).permute(0, 3, 1, 2)


def _sheets(shown: Shown, brightest: float) -> list["Image.Image"]:
    """Rows of images over their reconstructions and heat maps, as many blocks as HEATED images need."""
    count = min(HEATED, len(shown.images))
    columns = min(_columns(shown.images), count)
    colour = shown.images.expand(-1, 3, -1, -1)
    blocks = []
    for start in range(0, count, columns):
        at = slice(start, min(start + columns, count))
        rows = {"image": colour[at]}
        if shown.results is not None:
            rows["reconstruction"] = shown.results.expand(-1, 3, -1, -1)[at]
            rows["difference"] = heat(_difference(shown)[at], brightest)
        blocks.append(table(torch.cat(list(rows.values())), list(rows), heads=shown.texts[at]))
    return blocks


def _columns(images: Tensor) -> int:
    side = images.shape[3]
    return max(1, min(COLUMNS, WIDTH // (side * max(1, TILE // max(images.shape[2:])) + 1)))


def _stacked(sheets: Sequence["Image.Image"]) -> "Image.Image":
    """Pictures below each other."""
    from PIL import Image

    whole = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), "white")
    y = 0
    for sheet in sheets:
        whole.paste(sheet, (0, y))
        y += sheet.height
    return whole


def _inline(sheet: "Image.Image") -> dict[str, Any]:
    """A picture as a data URI, with its width in px."""
    buffer = io.BytesIO()
    sheet.save(buffer, "png", optimize=True)
    return {"uri": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), "width": sheet.width}


def _histogram(document: Mapping[str, Any], scores: Mapping[str, Tensor]) -> "Figure":
    """Shares of the normal images, and of those looked at, over the score; the threshold as a line."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    kinds = list(dict.fromkeys((NORMAL, document["kind"])))
    threshold = document["threshold"]
    ends_of = [scores[kind].quantile(torch.tensor([0.001, 0.995], dtype=torch.float64)) for kind in kinds]
    low, high = min(threshold, *(e[0].item() for e in ends_of)), max(threshold, *(e[1].item() for e in ends_of))
    edges = np.linspace(low, high + 1e-9 * max(1, abs(high)), BINS + 1)
    figure = Figure(figsize=(8.6, 3.3))
    ax = figure.add_axes((0.07, 0.15, 0.91, 0.69))
    for k, kind in enumerate(kinds):
        values, colour = scores[kind].clamp(edges[0], edges[-1]).numpy(), figures.look(k)[0]
        weights = np.full(len(values), 1 / len(values))
        label = f"{WORDS[kind]}, {len(values):,} images"
        ax.hist(values, edges, weights=weights, histtype="stepfilled", color=colour, alpha=0.3)
        ax.hist(values, edges, weights=weights, histtype="step", color=colour, linewidth=1.3, label=label)
    ax.axvline(threshold, color=figures.INK, linewidth=1.1, linestyle=(0, (4, 2)))
    ax.text(threshold, 1.02, f"threshold {number(threshold)}", transform=ax.get_xaxis_transform(), ha="center",
            fontsize=8.5, color=figures.INK)  # fmt: skip
    ax.set_xlim(edges[0], edges[-1])
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol="%"))
    ax.set_xlabel(_capital(document["title"]), fontsize=9, color=figures.INK, labelpad=3)
    ax.tick_params(length=2, labelsize=8, color=figures.FAINT, labelcolor=figures.MUTED)
    ax.grid(axis="y", color=figures.FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=9, labelcolor=figures.INK, loc="lower left", bbox_to_anchor=(0, 1.08), ncols=2,
              borderpad=0, borderaxespad=0)  # fmt: skip
    for side, line in ax.spines.items():
        line.set_visible(side == "bottom")
        line.set_color(figures.FAINT)
    return figure


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader([here / "templates", here.parent / "comparison" / "templates"]),  # the same style sheet
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "ends": ends, "capital": _capital}
    return environment.get_template("detection.html")
