"""Plots in one style: colours and markers of models, SVG for pages in light and dark, PNG for the rest."""

import io
import re
import warnings
from html import escape
from typing import TYPE_CHECKING, Any

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
