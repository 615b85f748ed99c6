"""How fast a training is on this machine, and how much memory it takes: measured over a few seconds of its steps."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trilemma.data import Data
from trilemma.data.load import Source
from trilemma.hardware import supports_fast_bf16
from trilemma.progress import Display
from trilemma.run.config import LENGTHS
from trilemma.run.log import read_log
from trilemma.run.run import Run
from trilemma.training.loop import Trainer
from trilemma.training.order import order_of
from trilemma.training.prepare import Plan, plan_of, read_images
from trilemma.training.request import keywords, request_of
from trilemma.training.train import train
from trilemma.types import Precomputes

MEASURE_S = 5.0  # seconds of steps
FEW = 512  # images of which a measurement works out what a training works out of all
STATUS = Path("/proc/self/status")  # of Linux
OTHER = {"quiet", "out"}  # keys of `train` that change nothing of its pace


@dataclass(frozen=True)
class Pace:
    """The pace of a training, and its length.

    name: of its part, "" for the training itself; images: the length in images, None where it is given in minutes;
    minutes: likewise; rate: images a second; before_s: seconds before the first step, for what it works out of each
    image once; steps, seconds: of the measurement; memory_bytes: the most that the process took, gpu_bytes: likewise on
    a GPU, None where the system does not tell.
    """

    name: str
    images: int | None
    minutes: float | None
    rate: float
    before_s: float
    steps: int
    seconds: float
    device: str
    memory_bytes: int | None
    gpu_bytes: int | None


def measure_pace(
    model: str, data: Source, keys: Mapping[str, Any], folder: Path, seconds: float = MEASURE_S
) -> list[Pace]:
    """The pace of the training that `train(model, data, **keys)` begins, after those of its parts that are trained
    first: some of their steps are taken, and thrown away.

    Args:
        folder: an empty one, for the files of the measurement.
        seconds: of steps of each; a step that takes longer is finished.
    Raises:
        UserError: as `train`.
    """
    named = [key for key in keywords(train) if key not in OTHER]
    auto = {key: value for key, value in keys.items() if not (key == "precision" and value == "auto")}
    given = {key: value for key, value in auto.items() if key in named}
    own = {key: value for key, value in auto.items() if key not in named}
    order = order_of(request_of(model), given, own, keywords(train))
    plan = plan_of(order, read_images(order, data, None, quiet=True), _silent)
    return _paces(plan, "", folder, seconds)[0]


def _paces(plan: Plan, name: str, folder: Path, seconds: float) -> tuple[list[Pace], nn.Module]:
    """The paces of a plan's parts and its own, and the module after the measured steps."""
    paces: list[Pace] = []
    modules: dict[str, nn.Module] = {}
    for part, order in plan.order.parts.items():
        if isinstance(order, Run):
            modules[part] = order.model
            continue
        own = f"{name}.{part}" if name else part
        before, modules[part] = _paces(plan_of(order, plan.data, _silent), own, folder / part, seconds)
        paces += before
    if plan.recipe.parts:
        plan = plan.with_parts(modules, plan.record["parts"])
    return [*paces, _pace(plan, name, folder, seconds)], plan.module


def _pace(plan: Plan, name: str, folder: Path, seconds: float) -> Pace:
    """The pace of a plan whose parts are there."""
    folder.mkdir(parents=True, exist_ok=True)
    short = plan.training.with_(**{**dict.fromkeys(LENGTHS), "minutes": seconds / 60, "keep_weights": 0})
    device = next(plan.module.parameters()).device
    bf16 = short.precision == "bf16" or (short.precision == "auto" and supports_fast_bf16(device))
    data = _first_images(plan.data) if isinstance(plan.module, Precomputes) else plan.data
    trainer = Trainer(plan.module, data, short, folder, Display("pace", quiet=True), bf16=bf16)
    total = plan.training.total_images(len(plan.data.train), trainer.calendar.stride)
    start = time.perf_counter()
    trainer.precompute()
    before_s = (time.perf_counter() - start) * len(plan.data.train) / len(data.train)
    trainer.run()
    return Pace(
        name,
        total,
        plan.training.minutes,
        _rate(folder / "log.jsonl", trainer),
        before_s,
        trainer.calendar.step,
        trainer.calendar.seconds,
        str(device),
        _most_memory(),
        torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def _first_images(data: Data) -> Data:
    """The data with FEW of its training images: what is worked out of each takes as long as there are images."""
    few = torch.arange(min(FEW, len(data.train)))
    return replace(data, splits={**data.splits, "train": data.train.take(few)})


def _silent(text: str) -> None:
    """Nobody reads what a training would say."""


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
