"""The model card of a run: README.md, filled from what the run folder holds."""

import re
import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment

from trilemma.registry import Recipe

TEMPLATE = Path(__file__).with_name("card.md")
FILES = {  # that a run folder always has
    "config.json": "the settings, all that is needed to train it again",
    "environment.json": "versions, device and precision",
    "weights.safetensors": "the weights to use",
    "summary.json": "figures and warnings at the end of the training",
    "log.jsonl": "figures in the course of the training, one report per line",
    "checkpoints": "the state to resume from",
}
PICTURES = {  # that it may lack
    "curves.png": "the log as curves",
    "batch.png": "a batch as the network sees it",
    "samples": "samples in the course of the training, `last.png` at its end",
}


def model_card(
    path: Path, name: str, config: dict[str, Any], recipe: Recipe, summary: dict[str, Any], environment: dict[str, Any]
) -> str:
    """The card as Markdown; its figures are the summary's `valid_*` and `train_*` entries.

    Args:
        path: the run folder; name: of the data, short.
    """
    figures = {name: value for name, value in summary.items() if name.startswith(("valid_", "train_"))}
    files = FILES | {file: what for file, what in PICTURES.items() if (path / file).exists()}
    pages = Environment(autoescape=False)  # Markdown: what stands in it is escaped by `plain`
    pages.filters["plain"] = plain
    return pages.from_string(TEMPLATE.read_text("utf-8")).render(
        path=shlex.quote(str(path)),
        name=name,
        config=config,
        recipe=recipe,
        summary=summary,
        environment=environment,
        figures=figures,
        files=files,
    )


def plain(text: str) -> str:
    r"""Text that Markdown shows as it is, in one line.

    >>> plain("a_b <img> # 1\n")
    'a\\_b \\<img\\> \\# 1 '
    """
    return re.sub(r"([\\`*_\[\]<>#|!])", r"\\\1", re.sub(r"\s", " ", text))
