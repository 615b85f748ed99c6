"""The model card of a run: README.md, filled from what the run folder holds."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template

from trilemma.arguments import typed
from trilemma.registry import Recipe
from trilemma.text import markdown, quoted

TEMPLATE = Path(__file__).with_name("card.md")
FILES = {  # that a run folder always has
    "config.json": "the settings, all that is needed to train it again",
    "environment.json": "versions, device and precision",
    "weights.safetensors": "the weights to use",
    "summary.json": "values and warnings at the end of the training",
    "log.jsonl": "values during training, one report per line",
    "checkpoints": "the state to resume from",
}
PICTURES = {  # that it may lack
    "curves.png": "the log as curves",
    "batch.png": "a batch as the network sees it",
    "samples": "samples during training, `last.png` at its end",
    "parts": "runs of the parts, which were trained first",
}


def model_card(
    path: Path, name: str, config: dict[str, Any], recipe: Recipe, summary: dict[str, Any], environment: dict[str, Any]
) -> str:
    """The card as Markdown; its values are the summary's `valid_*` and `train_*` entries.

    Args:
        path: the run folder; name: of the data, short.
    """
    values = {name: value for name, value in summary.items() if name.startswith(("valid_", "train_"))}
    files = FILES | {file: what for file, what in PICTURES.items() if (path / file).exists()}
    return _template().render(
        sample=quoted(["trilemma", "sample", str(path), "n=64", "seed=0"]),
        name=name,
        config=config,
        recipe=recipe,
        summary=summary,
        environment=environment,
        values=values,
        files=files,
    )


@cache
def _template() -> Template:
    pages = Environment(autoescape=False)  # Markdown: what stands in it is escaped by `markdown`
    pages.filters["markdown"] = markdown
    pages.filters["typed"] = lambda values: " ".join(typed(values))
    return pages.from_string(TEMPLATE.read_text("utf-8"))
