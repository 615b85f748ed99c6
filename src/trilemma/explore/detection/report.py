"""The page of a detection: what was flagged, how well, and where in each image the model sees something strange.

A heat map shows |x - x_hat| per pixel, the mean over channels, on one scale for all images of the page. The page is
one HTML file that needs nothing else; its pictures also lie beside it.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from markupsafe import Markup
from torch import Tensor

from trilemma.explore.detection.images import ABNORMAL, NORMAL, UNKNOWN, Group
from trilemma.explore.detection.scores import reconstructions
from trilemma.pictures import plots
from trilemma.pictures.grid import enlarged, grid, tile_scale, to_image
from trilemma.pictures.levels import to_float
from trilemma.pictures.page import below, template
from trilemma.pictures.table import table
from trilemma.run.run import Run
from trilemma.types import Reconstructs
from trilemma.words import capital, ends, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

FLAGGED, HEATED, OTHERS = 96, 32, 16  # flagged images, those with heat maps; others of each kind
WIDTH, COLUMNS = 960, 16  # px and images in a row, at most
BINS = 60
WORDS = {NORMAL: "normal", ABNORMAL: "abnormal", UNKNOWN: "unknown"}


class TileSet(NamedTuple):
    """Images of one kind, with their reconstructions where the model makes them, and the texts over them."""

    images: Tensor
    results: Tensor | None
    texts: list[str]


class Page(NamedTuple):
    """The page as HTML; its histogram as PNG; the sheets of the highest scores, and of what is flagged if any is."""

    html: str
    histogram: bytes
    heatmaps: "Image.Image"
    flagged: "Image.Image | None"


def draw_report(
    run: Run,
    document: Mapping[str, Any],
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    positions: Mapping[str, Tensor],
) -> Page:
    """The page of a detection, and the pictures to lie beside it.

    Args:
        document: what `detect` found, as in figures.json.
        scores: those that flag, by kind of image; positions: of hits, of the highest scores below the threshold,
            of alarms and misses in their groups.
    """
    by_kind, kind = {group.kind: group for group in groups}, document["kind"]
    parts = {"hits": (kind, FLAGGED), "below": (kind, OTHERS), "alarms": (NORMAL, OTHERS), "misses": (ABNORMAL, OTHERS)}
    sets = {
        name: _shown(run, by_kind[parts[name][0]], scores[parts[name][0]], at[: parts[name][1]])
        for name, at in positions.items()
        if len(at)
    }
    brightest = max((_difference(part).max().item() for part in sets.values() if part.results is not None), default=0)
    gallery = None
    if "hits" in sets:
        part = sets["hits"]
        gallery = grid(part.images, columns=min(len(part.images), _columns(part.images)), texts=part.texts)
    highest = [sheet for name in ("hits", "below") if name in sets for sheet in _sheets(sets[name], brightest)]
    text = f"Histograms of the {document['title']} with the threshold {number(document['threshold'])}"
    drawn = [_histogram(document, scores, narrow) for narrow in (False, True)]
    histograms = [Markup(plots.svg(figure, f"{text}{end}")) for figure, end in zip(drawn, ("", " "), strict=True)]
    picture = plots.png(drawn[0])  # after the SVG: it changes the colours
    filters = {"number": number, "ends": ends, "capital": capital}
    page = template("detection.html", ("explore", "comparison"), filters).render(  # the same style sheet
        doc=document,
        words=WORDS,
        histograms=histograms,
        pictures={name: _tiles(part, brightest) for name, part in sets.items()},
        brightest=brightest,
        heated=isinstance(run.model, Reconstructs),
        most=HEATED,
    )
    return Page(page, picture, below(highest, gap=0), gallery)


def _shown(run: Run, group: Group, scores: Tensor, at: Tensor) -> TileSet:
    images = group.split.images[at]
    results = reconstructions(run, images) if isinstance(run.model, Reconstructs) else None
    return TileSet(to_float(images), results, [number(scores[k].item()) for k in at.tolist()])


def _difference(part: TileSet) -> Tensor:
    """|x - x_hat|, mean over channels: (N, H, W)."""
    assert part.results is not None
    return (part.images - part.results).abs().mean(1)


def heat(values: Tensor, brightest: float) -> Tensor:
    """Values (N, H, W) from 0 to `brightest` as colours from black to yellow: (N, 3, H, W) in [0, 1]."""
    from matplotlib import colormaps

    colours = colormaps["inferno"]((values / max(brightest, 1e-12)).clamp(0, 1).numpy())
    return torch.as_tensor(colours[..., :3], dtype=torch.float32).permute(0, 3, 1, 2)


def _sheets(part: TileSet, brightest: float) -> list["Image.Image"]:
    """Rows of images over their reconstructions and heat maps, as many blocks as HEATED images need."""
    count = min(HEATED, len(part.images))
    columns = min(_columns(part.images), count)
    colour = part.images.expand(-1, 3, -1, -1)
    blocks = []
    for start in range(0, count, columns):
        at = slice(start, min(start + columns, count))
        rows = {"image": colour[at]}
        if part.results is not None:
            rows["reconstruction"] = part.results.expand(-1, 3, -1, -1)[at]
            rows["difference"] = heat(_difference(part)[at], brightest)
        blocks.append(table(torch.cat(list(rows.values())), list(rows), heads=part.texts[at]))
    return blocks


def _columns(images: Tensor) -> int:
    side = images.shape[3]
    return max(1, min(COLUMNS, WIDTH // (side * tile_scale(*images.shape[2:]) + 1)))


def _tiles(part: TileSet, brightest: float) -> list[dict[str, Any]]:
    """Of each image its score as text, and itself, its reconstruction and its heat map as data URIs; of those after
    the first HEATED the image alone."""
    rows = [part.images]
    if part.results is not None:
        rows += [part.results, heat(_difference(part), brightest)]
    return [
        {"text": text, "parts": [_inline(row[k]) for row in (rows if k < HEATED else rows[:1])]}
        for k, text in enumerate(part.texts)
    ]


def _inline(image: Tensor) -> dict[str, Any]:
    """An image (C, H, W), enlarged as a picture's tile, as a data URI with its width in px."""
    scale, buffer = tile_scale(*image.shape[1:]), io.BytesIO()
    to_image(enlarged(image, scale)).save(buffer, "png", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"uri": uri, "width": image.shape[2] * scale}


def _histogram(document: Mapping[str, Any], scores: Mapping[str, Tensor], narrow: bool = False) -> "Figure":
    """Shares of the normal images, and of those looked at, over the score; the threshold as a line."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    kinds = list(dict.fromkeys((NORMAL, document["kind"])))
    threshold = document["threshold"]
    ends_of = [scores[kind].quantile(torch.tensor([0.001, 0.995], dtype=torch.float64)) for kind in kinds]
    low, high = min(threshold, *(e[0].item() for e in ends_of)), max(threshold, *(e[1].item() for e in ends_of))
    edges = np.linspace(low, high + 1e-9 * max(1, abs(high)), (BINS // 2 if narrow else BINS) + 1)
    figure = Figure(figsize=(3.9, 3.5) if narrow else (8.6, 3.3))
    ax = figure.add_axes((0.12, 0.15, 0.85, 0.62) if narrow else (0.07, 0.15, 0.91, 0.69))
    for k, kind in enumerate(kinds):
        values, colour = scores[kind].clamp(edges[0], edges[-1]).numpy(), plots.style(k)[0]
        weights = np.full(len(values), 1 / len(values))
        label = f"{WORDS[kind]}, {len(values):,} images"
        ax.hist(values, edges, weights=weights, histtype="stepfilled", color=colour, alpha=0.3)
        ax.hist(values, edges, weights=weights, histtype="step", color=colour, linewidth=1.3, label=label)
    ax.axvline(threshold, color=plots.INK, linewidth=1.1, linestyle=(0, (4, 2)))
    share = (threshold - edges[0]) / (edges[-1] - edges[0])
    side = "left" if share < 0.2 else "right" if share > 0.8 else "center"  # the words stay over the axis
    ax.text(threshold, 1.02, f"threshold {number(threshold)}", transform=ax.get_xaxis_transform(), ha=side,
            fontsize=8.5, color=plots.INK)  # fmt: skip
    ax.set_xlim(edges[0], edges[-1])
    ax.xaxis.set_major_locator(MaxNLocator(4 if narrow else 9))
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol="%"))
    ax.set_xlabel(capital(document["title"]), fontsize=9, color=plots.INK, labelpad=3)
    plots.lines_across(ax, 8)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=9, labelcolor=plots.INK, loc="lower left", bbox_to_anchor=(0, 1.08),
              ncols=1 if narrow else 2, borderpad=0, borderaxespad=0)  # fmt: skip
    return figure
