"""The model card of a run: README.md, filled from what the run folder holds."""

from pathlib import Path
from typing import Any

from jinja2 import Template

from trilemma.registry import Recipe

TEMPLATE = Path(__file__).with_name("card.md")


def model_card(
    path: Path, config: dict[str, Any], recipe: Recipe, summary: dict[str, Any], environment: dict[str, Any]
) -> str:
    """The card as Markdown; its figures are the summary's `valid_*` and `train_*` entries."""
    figures = {name: value for name, value in summary.items() if name.startswith(("valid_", "train_"))}
    template = Template(TEMPLATE.read_text("utf-8"))
    return template.render(
        path=path, config=config, recipe=recipe, summary=summary, environment=environment, figures=figures
    )
