"""The card of a shared run: that of its folder, with what the hub reads of it and the scores that were measured."""

from collections.abc import Mapping
from typing import Any

from trilemma.errors import UserError
from trilemma.files import read_json
from trilemma.metrics.receipt import METRICS, Score
from trilemma.run.hub import GRID
from trilemma.run.locate import HUB
from trilemma.run.run import Run
from trilemma.training.card import FILES, model_card
from trilemma.types import ReadsCaptions, Samples, Upscales

LARGEST_SCORE = 1 << 20  # bytes
UNSHARED = {"log.jsonl", "checkpoints"}  # files of a run folder


def hub_card(
    run: Run,
    repository: str,
    config: dict[str, Any],
    summary: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    has_grid: bool,
) -> str:
    """README.md of a repository.

    Args:
        config, summary, environment: as they are shared; has_grid: whether a grid of samples is.
    """
    files = {name: what for name, what in FILES.items() if name not in UNSHARED}
    files |= {"samples": f"samples at the end of the training, `{GRID}`"} if has_grid else {}
    environment = {"device": "unknown device", "precision": "unknown precision", **environment}
    card = model_card(
        f"{HUB}{repository}", config["data"], config, run.recipe, dict(summary), environment, files, scores_of(run)
    )
    return _head(run) + card


def _head(run: Run) -> str:
    """What the hub reads of a card."""
    task = task_of(run.model)
    tags = [] if task is None else [f"pipeline_tag: {task}"]
    return "\n".join(
        ["---", "library_name: trilemma", *tags, "tags:", "- trilemma", f"- {run.recipe.family}", "---", ""]
    )


def task_of(model: object) -> str | None:
    """What a model does, in the word of the hub; None: it draws no images."""
    if isinstance(model, Upscales):
        return "image-to-image"
    if isinstance(model, ReadsCaptions):
        return "text-to-image"
    return "unconditional-image-generation" if isinstance(model, Samples) else None


def scores_of(run: Run) -> list[Score]:
    """The scores that were measured of a run, with its present weights, by protocol."""
    scores = []
    for path in sorted((run.path / METRICS).glob("*.json")):
        try:
            score = Score.from_json(read_json(path, LARGEST_SCORE))
        except (UserError, ValueError, TypeError, OSError):
            continue
        if score.value is not None and score.weights in ("", run.weights_id):
            scores.append(score)
    return scores
