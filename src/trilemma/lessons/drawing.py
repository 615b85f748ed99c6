"""The manner of all figures: plots in one style, and plots and tables of images on one page."""

import io
from typing import TYPE_CHECKING, Any

from trilemma.pictures.plots import LIGHT, MUTED, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

DPI = 100
GREY = LIGHT[MUTED]  # of what is not data: references, notes
GAP = 12  # px between the parts of a page


def plots(columns: int, width: float = 9.6, height: float = 3.2) -> "tuple[Figure, list[Axes]]":
    """A row of empty plots; width and height of the whole in inches of 100 px."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=GREY)
    return figure, axes


def label(ax: "Axes", title: str, x: str, y: str = "") -> None:
    """Title and names of the axes."""
    ax.set_title(title, fontsize=9.5, loc="left")
    ax.set_xlabel(x, fontsize=8.5)
    ax.set_ylabel(y, fontsize=8.5)


def style(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th line, those of the reports."""
    colour, _, dashes = look(k)
    return {"color": colour, "linestyle": dashes}


def rendered(figure: "Figure") -> "Image.Image":
    """A figure as pixels."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return Image.open(buffer).convert("RGB")


def below(*parts: "Image.Image") -> "Image.Image":
    """Pictures under each other on white, at the left edge."""
    return _on_a_page(parts, down=True)


def side_by_side(*parts: "Image.Image") -> "Image.Image":
    """Pictures beside each other on white, at the upper edge."""
    return _on_a_page(parts, down=False)


def _on_a_page(parts: "tuple[Image.Image, ...]", *, down: bool) -> "Image.Image":
    from PIL import Image

    along, across = (1, 0) if down else (0, 1)
    size = [0, 0]
    size[across] = max(part.size[across] for part in parts)
    size[along] = sum(part.size[along] for part in parts) + GAP * (len(parts) - 1)
    page, at = Image.new("RGB", (size[0], size[1]), "white"), 0
    for part in parts:
        page.paste(part, (0, at) if down else (at, 0))
        at += part.size[along] + GAP
    return page
