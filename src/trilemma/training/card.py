"""The model card of a run: README.md, filled from what the run folder holds."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, Template

from trilemma.arguments import typed
from trilemma.registry import Recipe
from trilemma.text import markdown, quoted

if TYPE_CHECKING:
    from trilemma.metrics.receipt import Score

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


def files_of(path: Path) -> dict[str, str]:
    """The files of a run folder, and what each holds."""
    return FILES | {file: what for file, what in PICTURES.items() if (path / file).exists()}


def model_card(
    run: str,
    name: str,
    config: dict[str, Any],
    recipe: Recipe,
    summary: dict[str, Any],
    environment: dict[str, Any],
    files: Mapping[str, str],
    scores: "Sequence[Score]" = (),
) -> str:
    """The card as Markdown; its values are the summary's `valid_*` and `train_*` entries.

    Args:
        run: as it is given to a command; name: of the data, short.
        files: those beside the card, and what each holds; scores: of its samples, that were measured.
    """
    values = {name: value for name, value in summary.items() if name.startswith(("valid_", "train_"))}
    return _template().render(
        sample=quoted(["trilemma", "sample", run, "n=64", "seed=0"]),
        name=name,
        config=config,
        recipe=recipe,
        summary=summary,
        environment=environment,
        values=values,
        files=files,
        scores=scores,
    )


@cache
def _template() -> Template:
    pages = Environment(autoescape=False)  # Markdown: what stands in it is escaped by `markdown`
    pages.filters["markdown"] = markdown
    pages.filters["typed"] = lambda values: " ".join(typed(values))
    return pages.from_string(TEMPLATE.read_text("utf-8"))
