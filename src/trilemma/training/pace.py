"""How fast a training is on this machine, and how much memory it takes: measured over a few seconds of its steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trilemma.data.load import Source
from trilemma.errors import UserError
from trilemma.hardware import supports_fast_bf16
from trilemma.progress import Display
from trilemma.run.config import LENGTHS
from trilemma.run.log import read_log
from trilemma.training.loop import Trainer
from trilemma.training.order import order_of
from trilemma.training.prepare import plan_of, read_images
from trilemma.training.request import keywords, request_of
from trilemma.training.train import train

MEASURE_S = 5.0  # seconds of steps
STATUS = Path("/proc/self/status")  # of Linux
OTHER = {"quiet", "out"}  # keys of `train` that change nothing of its pace


@dataclass(frozen=True)
class Pace:
    """The pace of a training, and its length.

    images: the length in images, None where it is given in minutes; minutes: likewise; rate: images a second; steps,
    seconds: of the measurement; memory_bytes: the most that the process took, gpu_bytes: likewise on a GPU, None where
    the system does not tell.
    """

    images: int | None
    minutes: float | None
    rate: float
    steps: int
    seconds: float
    device: str
    memory_bytes: int | None
    gpu_bytes: int | None


def measure_pace(model: str, data: Source, keys: Mapping[str, Any], folder: Path, seconds: float = MEASURE_S) -> Pace:
    """The pace of the training that `train(model, data, **keys)` begins: some of its steps are taken, and thrown away.

    Args:
        folder: an empty one, for the files of the measurement.
        seconds: of steps; a step that takes longer is finished.
    Raises:
        UserError: as `train`, or the model has parts, which are trained first, at a pace of their own.
    """
    named = [key for key in keywords(train) if key not in OTHER]
    auto = {key: value for key, value in keys.items() if not (key == "precision" and value == "auto")}
    given = {key: value for key, value in auto.items() if key in named}
    own = {key: value for key, value in auto.items() if key not in named}
    order = order_of(request_of(model), given, own, keywords(train))
    if order.recipe.parts:
        parts = ", ".join(order.recipe.parts)
        raise UserError(f"{order.recipe.name} has parts ({parts}), which are trained first, at a pace of their own")
    plan = plan_of(order, read_images(order, data, None, quiet=True), lambda text: None)
    short = plan.training.with_(**{**dict.fromkeys(LENGTHS), "minutes": seconds / 60, "keep_weights": 0})
    device = next(plan.module.parameters()).device
    bf16 = short.precision == "bf16" or (short.precision == "auto" and supports_fast_bf16(device))
    trainer = Trainer(plan.module, plan.data, short, folder, Display("pace", quiet=True), bf16=bf16)
    total = plan.training.total_images(len(plan.data.train), trainer.calendar.stride)
    trainer.run()
    return Pace(
        total,
        plan.training.minutes,
        _rate(folder / "log.jsonl", trainer),
        trainer.calendar.step,
        trainer.calendar.seconds,
        str(device),
        _most_memory(),
        torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def _rate(log: Path, trainer: Trainer) -> float:
    """Images a second: between the first and the last report where these are most of it, as the first step is slow."""
    at, rows = trainer.calendar, [row for row in read_log(log) if "warning" not in row]
    images, seconds = ((rows[-1][key] - rows[0][key]) if rows else 0 for key in ("images", "seconds"))
    if seconds > 0 and 2 * images > at.images:
        return images / seconds
    return at.images / max(at.seconds, 1e-9)


def _most_memory() -> int | None:
    """The most main memory that this process has held, in bytes; None where the system does not tell."""
    try:
        lines = STATUS.read_text("ascii", "replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
