"""Plots and tables of images on one page, as a picture or in HTML."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma.text import shown

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image

GAP = 12  # px between the parts of a page


def below(parts: "Sequence[Image.Image]", gap: int = GAP) -> "Image.Image":
    """Pictures under each other on white, at the left edge."""
    return _on_a_page(parts, gap, down=True)


def side_by_side(parts: "Sequence[Image.Image]", gap: int = GAP) -> "Image.Image":
    """Pictures beside each other on white, at the upper edge."""
    return _on_a_page(parts, gap, down=False)


def _on_a_page(parts: "Sequence[Image.Image]", gap: int, *, down: bool) -> "Image.Image":
    from PIL import Image

    along, across = (1, 0) if down else (0, 1)
    size = [0, 0]
    size[across] = max(part.size[across] for part in parts)
    size[along] = sum(part.size[along] for part in parts) + gap * (len(parts) - 1)
    page, at = Image.new("RGB", (size[0], size[1]), "white"), 0
    for part in parts:
        page.paste(part, (0, at) if down else (at, 0))
        at += part.size[along] + gap
    return page


def template(name: str, packages: Sequence[str], filters: Mapping[str, Callable[..., Any]]) -> "Template":
    """A page of HTML from the templates of these packages; what it shows is escaped, and a missing name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folders = [Path(__file__).parents[1] / package / "templates" for package in packages]
    environment = Environment(loader=FileSystemLoader(folders), autoescape=True, finalize=shown,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    environment.filters |= filters
    return environment.get_template(name)
