"""Plots in one style: colours and markers of models, SVG for pages in light and dark, PNG for the rest."""

import io
import re
import warnings
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

# Stand-ins in a plot: variables of the page in an SVG, the colours of the light page in a PNG.
INK, MUTED, FAINT, PAPER, SOFT = "#123401", "#123402", "#123403", "#123404", "#123405"
LIGHT = {INK: "#1b1f24", MUTED: "#59636e", FAINT: "#d0d7de", PAPER: "#ffffff", SOFT: "#f5f7f9"}
VARIABLES = {INK: "ink", MUTED: "muted", FAINT: "line", PAPER: "paper", SOFT: "soft"}
MODEL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)  # Okabe & Ito (2008)
CLASS_COLOURS = (  # Petroff (2021), "Accessible color sequences for data visualization"
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)))
GREY = LIGHT[MUTED]  # of what is not data: references, notes
DPI = 100


def style(k: int) -> tuple[str, str, Any]:
    """Colour, marker and dashes of the k-th model; the three cycles differ in length, so 35 models look different."""
    return MODEL_COLOURS[k % len(MODEL_COLOURS)], MARKERS[k % len(MARKERS)], DASHES[k % len(DASHES)]


def class_style(k: int) -> tuple[str, str]:
    """Colour and marker of the points of class k: a new marker after each round of colours."""
    return CLASS_COLOURS[k % len(CLASS_COLOURS)], MARKERS[k // len(CLASS_COLOURS) % len(MARKERS)]


def line_style(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th line."""
    colour, _, dashes = style(k)
    return {"color": colour, "linestyle": dashes}


def row_of_plots(columns: int, width: float = 9.6, height: float = 3.2) -> "tuple[Figure, list[Axes]]":
    """A row of empty plots; width and height of the whole in inches of 100 px."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=GREY)
    return figure, axes


def label_axes(ax: "Axes", title: str, x: str, y: str = "") -> None:
    """Title and names of the axes."""
    ax.set_title(title, fontsize=9.5, loc="left")
    ax.set_xlabel(x, fontsize=8.5)
    ax.set_ylabel(y, fontsize=8.5)


def lines_across(ax: "Axes", size: float) -> None:
    """Faint lines across a plot at the ticks, of letters of this size, and no frame but the axis below."""
    ax.tick_params(length=2, labelsize=size, color=FAINT, labelcolor=MUTED)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    for side, line in ax.spines.items():
        line.set_visible(side == "bottom")
        line.set_color(FAINT)


def short(name: str, most: int = 20) -> str:
    """A name that fits beside a plot: the middle of a long one is left out.

    >>> short("runs/compare-digits/runs/vae")
    'runs/com...s/runs/vae'
    """
    return name if len(name) <= most + 1 else f"{name[: most // 2 - 2]}...{name[-most // 2 :]}"


def svg(figure: "Figure", label: str) -> str:
    """The figure as an inline SVG element; `label` describes it to a reader who cannot see it."""
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
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var(--{variable})")
    return text


def png(figure: "Figure", dpi: int = 150, margin: float | None = None) -> bytes:
    """The figure as a PNG file's content, on white: the stand-in colours become those of the light page.

    Args:
        margin: inches around what is drawn, whatever the figure's own size is; None keeps that size.
    """
    from matplotlib.text import Text

    texts = [text.get_bbox_patch() for text in figure.findobj(match=Text)]
    for artist in [*figure.findobj(), *filter(None, texts)]:
        for kind in ("color", "facecolor", "edgecolor", "markeredgecolor", "markerfacecolor"):
            if hasattr(artist, f"get_{kind}") and hasattr(artist, f"set_{kind}"):
                colours = _light(getattr(artist, f"get_{kind}")())
                if colours is not None:
                    getattr(artist, f"set_{kind}")(colours)
    buffer = io.BytesIO()
    edges: dict[str, Any] = {} if margin is None else {"bbox_inches": "tight", "pad_inches": margin}
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", **edges)
    return buffer.getvalue()


def pixels(figure: "Figure", dpi: int = DPI, margin: float | None = None) -> "Image.Image":
    """The figure as a picture; the arguments are those of `png`."""
    from PIL import Image

    return Image.open(io.BytesIO(png(figure, dpi, margin))).convert("RGB")


def _light(colour: Any) -> Any:
    """A colour, or several, with those of the light page in place of stand-ins; None if there is no stand-in."""
    from matplotlib.colors import to_hex, to_rgba, to_rgba_array

    colours = list(to_rgba_array(colour))
    light = [LIGHT.get(to_hex(one)) for one in colours]
    if not any(light):
        return None
    values = [to_rgba(new or old, alpha=old[3]) for new, old in zip(light, colours, strict=True)]
    return values[0] if len(values) == 1 else values
