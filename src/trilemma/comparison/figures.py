"""Pictures of a report as text: vector plots that follow the page's colours, and images as data URIs.

Plots are drawn by matplotlib (Agg figures, no global state) and inlined as SVG. Four stand-in colours become CSS
variables, so that one plot serves a light page, a dark page and print. The colours of the models are those of
Okabe & Ito (2008), which stay apart for colour-blind readers; markers and dashes tell them apart in grey.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from trilemma.comparison.words import number, span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, FAINT, PAPER, SOFT = "#123401", "#123402", "#123403", "#123404", "#123405"
LIGHT: dict[str, str] = dict(
    zip((INK, MUTED, FAINT, PAPER, SOFT), ("#1b1f24", "#59636e", "#d0d7de", "#ffffff", "#f5f7f9"), strict=True)
)
_variables = dict(zip((INK, MUTED, FAINT, PAPER, SOFT), ("ink", "muted", "line", "paper", "soft"), strict=True))
_colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
_markers = ("o", "s", "^", "D", "v", "P", "X")
_dashes = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)))


def look(k: int) -> tuple[str, str, Any]:
    """Colour, marker and dashes of the k-th model; the three cycles differ in length, so 35 models look different."""
    return _colours[k % len(_colours)], _markers[k % len(_markers)], _dashes[k % len(_dashes)]


def short(name: str, most: int = 20) -> str:
    """A name that fits beside a plot: the middle of a long one is left out.

    >>> short("runs/compare-digits/runs/vae")
    'runs/com...s/runs/vae'
    """
    return name if len(name) <= most + 1 else f"{name[: most // 2 - 2]}...{name[-most // 2 :]}"


def svg(figure: "Figure", label: str) -> str:
    """The figure as an inline SVG element; `label` is what a reader who cannot see it is told."""
    import matplotlib

    buffer = io.StringIO()
    settings: Any = {"svg.hashsalt": label, "svg.fonttype": "none"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the drawing machine's font lacks is drawn by the reader's
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])  # names that would be there twice on the page
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", text)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    opening = (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}" '
        f'style="width:{float(width) / 72 * 96:.0f}px" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'xmlns="http://www.w3.org/2000/svg">'
    )
    text = opening + text[text.index(">") + 1 :]
    for stand_in, variable in _variables.items():
        text = text.replace(stand_in, f"var(--{variable})")
    return text


def png(figure: "Figure") -> bytes:
    """The figure as a PNG file's content, on white: the stand-in colours become those of the light page."""
    from matplotlib.text import Text

    texts = [text.get_bbox_patch() for text in figure.findobj(match=Text)]
    for artist in [*figure.findobj(), *filter(None, texts)]:
        for kind in ("color", "facecolor", "edgecolor", "markeredgecolor", "markerfacecolor"):
            if hasattr(artist, f"get_{kind}") and hasattr(artist, f"set_{kind}"):
                getattr(artist, f"set_{kind}")(_light(getattr(artist, f"get_{kind}")()))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()


def _light(colour: Any) -> Any:
    """A colour, or several, with those of the light page in place of stand-ins."""
    from matplotlib.colors import to_hex, to_rgba, to_rgba_array

    rows: list[Any] = list(to_rgba_array(colour))
    rows = [to_rgba(LIGHT.get(to_hex(row)) or row, alpha=row[3]) for row in rows]
    return rows[0] if len(rows) == 1 else rows


def dots(models: Sequence[Mapping[str, Any]], axis: Any) -> "Figure":
    """One axis of the triangle by itself: every model's value with its interval, on a full scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.9, 0.62 + 0.27 * len(models)))
    height = figure.get_figheight()
    ax = figure.add_axes((0.28, 0.3 / height, 0.33, 1 - 0.62 / height))
    places = [tick for tick, _ in axis.ticks]
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xticks([axis.place(p) for p in places], [text for _, text in axis.ticks], fontsize=7.5, color=MUTED)
    ax.set_yticks(range(len(models)), [""] * len(models))
    ax.tick_params(length=0)
    ax.grid(axis="x", color=FAINT, linewidth=0.7)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.text(0, 1 + 0.06 / (height - 0.62), f"{axis.name.capitalize()}: {axis.short}", transform=ax.transAxes,
            color=INK, fontsize=9.5, fontweight="bold", va="bottom")  # fmt: skip
    for k, model in enumerate(models):
        _row(ax, k, model, model["place"][axis.name], axis)
    return figure


def _row(ax: Any, k: int, model: Mapping[str, Any], place: Mapping[str, Any] | None, axis: Any) -> None:
    colour, marker, _ = look(k)
    side = ax.get_yaxis_transform()
    ax.text(
        -0.03, k, short(model["name"]), transform=side, ha="right", va="center", fontsize=9, color=INK, parse_math=False
    )
    if place is None:
        why = "failed" if model["error"] else "refused" if axis.metric in model["scores"] else "not measured"
        ax.text(1.03, k, why, transform=side, va="center", fontsize=8.5, color=MUTED)
        return
    if place["reach"]:
        ax.plot(place["reach"], [k, k], color=colour, linewidth=3, solid_capstyle="butt", alpha=0.75)
        ax.plot(place["reach"], [k, k], color=colour, linestyle="", marker="|", markersize=10)
    ax.scatter([place["place"]], [k], s=34, marker=marker, color=colour, edgecolors=PAPER, linewidths=0.8, zorder=3)
    value, interval = place["value"], place["interval"]
    text = f"{number(value, interval)}  ({span(value, interval)})" if interval else number(value)
    ax.text(1.03, k, text, transform=side, va="center", fontsize=8.5, color=INK)


def curve(title: str, seconds: Sequence[float], values: Sequence[float]) -> "Figure":
    """One line of a training over its seconds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(2.5, 1.55))
    ax = figure.add_axes((0.2, 0.24, 0.76, 0.6))
    ax.plot(seconds, values, color=INK, linewidth=1.1, marker="" if len(values) > 1 else "o", markersize=3)
    size = min(8.5, 8.5 * 36 / max(len(title), 1))  # points: about 36 letters of 8.5 fill the width
    ax.set_title(title, fontsize=size, color=INK, x=-0.26, ha="left", loc="left", pad=4, parse_math=False)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel("training seconds", fontsize=7.5, color=MUTED, labelpad=1)
    ax.tick_params(length=2, labelsize=7.5, color=FAINT, labelcolor=MUTED)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    for side, line in ax.spines.items():
        line.set_visible(side == "bottom")
        line.set_color(FAINT)
    return figure
