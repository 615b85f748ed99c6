"""What a training leaves when it ends: the weights to use, the last pictures, the summary and the model card."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn

from trilemma.data import Data, Loader, texts_of
from trilemma.errors import Diverged, UserError
from trilemma.files import sha256_of, write_atomic, write_json
from trilemma.pictures.grid import grid
from trilemma.pictures.png import save_png
from trilemma.progress import Display
from trilemma.registry import Recipe, count_parameters
from trilemma.run.command import command_of
from trilemma.run.config import TrainConfig
from trilemma.run.locate import CONFIG, WEIGHTS
from trilemma.run.log import read_log
from trilemma.run.record import DIVERGED, HASH, SUMMARY, read_config, read_summary, written_hash
from trilemma.run.tensor_files import write_tensors
from trilemma.training.card import files_of, model_card
from trilemma.training.loop import Trainer
from trilemma.training.pictures import draw_curves, made_by_training
from trilemma.types import Samples

CURVES, CARD, LAST_SAMPLES = "curves.png", "README.md", "samples/last.png"


@contextmanager
def optional(name: str, display: Display) -> Iterator[None]:
    """Inside, a disk that refuses a file which can be missing costs a warning."""
    try:
        yield
    except (OSError, UserError) as error:
        display.say(f"warning: {name} was not written ({error}); continuing without it")


def draw_batch(path: Path, data: Data, training: TrainConfig, command: str) -> None:
    """A batch as the network sees it."""
    batch = Loader(data.train, batch=64, seed=training.seed, augment=training.augment).batch_at(0)
    made_by = made_by_training(command, "batch")
    save_png(grid(batch.image, texts=texts_of(batch, data)), path, made_by, replace=True)


def has_results(path: Path, steps: int, module: nn.Module) -> bool:
    """Whether all results of a training of so many steps exist, the weights as they were written; the summary, written
    last, says of how many."""
    names = [WEIGHTS, CURVES, CARD, *([LAST_SAMPLES] if isinstance(module, Samples) else [])]
    if not all((path / name).exists() for name in names):
        return False
    try:
        written = written_hash(path)
        summary = read_summary(path)
        is_end = summary.get("steps") == steps and DIVERGED not in summary
        return is_end and written in (None, sha256_of(path / WEIGHTS))
    except (OSError, UserError):
        return False


def update_source(path: Path, record: dict[str, Any]) -> None:
    """Let a finished run read its images where they lie now, if they were moved."""
    then = read_config(path)
    if then["data"] != record["data"]:
        moved = {**then, "data": record["data"]}
        write_json(path / CONFIG, {**moved, "command": command_of(moved) or record["command"]})


def write_results(
    path: Path, recipe: Recipe, trainer: Trainer, record: dict[str, Any], environment: dict[str, Any]
) -> None:
    """The weights to use, the last pictures, the summary and the card.

    Raises:
        Diverged: if a weight or a value is not finite; nothing is written then.
    """
    if not_finite := trainer.not_finite:
        more = f" and {len(not_finite) - 1} more are" if len(not_finite) > 1 else " is"
        raise Diverged(f"{not_finite[0]}{more} not finite at its end")
    trainer.evaluation.draw_last(Path(LAST_SAMPLES).stem)
    trainer.evaluation.check_final()
    write_tensors(path / WEIGHTS, dict(trainer.model.state_dict()))
    with optional(CURVES, trainer.display):
        draw_curves(read_log(path / "log.jsonl"), path / CURVES, record["command"], trainer.validation.baseline)
    summary = {**_summary(trainer), HASH: sha256_of(path / WEIGHTS)}
    with optional(CARD, trainer.display):
        files = files_of(path)
        card = model_card(str(path), trainer.data.name, record, recipe, summary, environment, files)
        write_atomic(path / CARD, card)
    write_json(path / SUMMARY, summary)


def write_diverged(path: Path, trainer: Trainer, text: str) -> None:
    """The summary of a training that diverged; weights of a shorter one stay as they are, and so does their hash."""
    summary = {**_summary(trainer), DIVERGED: True, "warnings": [text, *trainer.warnings]}
    with suppress(OSError, UserError):
        if (written := written_hash(path)) is not None:
            summary[HASH] = written
    write_json(path / SUMMARY, summary)


def _summary(trainer: Trainer) -> dict[str, Any]:
    at = trainer.calendar
    return {
        **trainer.validation.values,
        "images": at.images,
        "steps": at.step,
        "seconds": round(at.seconds, 3),
        "images_per_second": round(at.images / max(at.seconds, 1e-9), 1),
        "parameters": count_parameters(trainer.model),
        "best": trainer.validation.best,
        "mean_image_rmse": trainer.validation.baseline,
        "warnings": trainer.warnings,
    }
