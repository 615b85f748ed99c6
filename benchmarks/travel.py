"""Do the presets travel? python benchmarks/travel.py [models=a,b] [data=x,y] [minutes=0.5] [out=FOLDER] [key=value]

Trains each preset on each data set for the same training time and prints a line for each: the reconstruction error on
held-out images beside that of the mean image of the training split, the active units of a code, the variance of
samples over that of the data (both about their own mean image: 0 for a model that draws one image, about 1 for a good
one), their recall, and the warnings of the training. Recall is the share of 64 training images that are like one of 64
samples, as the warning of a collapse has it (training/monitor.py), here without regard to whether it still gets better.
The exit code is 1 where a recall is below the bar of that warning, 0.3, or a training diverged. Further keys go to
every training. The same line resumes the runs in FOLDER.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import trilemma
from trilemma.arguments import parse_settings
from trilemma.data.split import Split
from trilemma.errors import Diverged
from trilemma.metrics.neighbours import recall
from trilemma.pictures.levels import to_float
from trilemma.training.monitor import NEIGHBOUR, RECALLED, small

MODELS = ("ae-stacked", "vae", "gan-dcgan", "gan-r3", "gan-style", "diffusion-small", "diffusion")
DATA = ("digits", "mnist", "fashion-mnist", "cifar10")
HEAD = ("model", "data", "steps", "images", "rmse", "mean", "active", "spread", "recall", "wall s", "warnings")
FORM = "{:18} {:16} {:>6} {:>8} {:>7} {:>7} {:>6} {:>6} {:>6} {:>6}  {}"
MOST = 2_000  # images of a split that the mean image and its error are taken from
SAMPLES = 64


def images_of(split: Split) -> Tensor:
    """The first images of a split, (n, C, H, W) in [0, 1]."""
    return to_float(split.images[torch.arange(min(MOST, len(split)))])


def spread(images: Tensor) -> float:
    """Mean squared distance from the own mean image, per pixel: (n, C, H, W) -> a number."""
    return float((images - images.mean(0)).square().mean())


def recall_of(samples: Tensor, train: Split) -> float:
    """Share of as many training images, from all of the split, that are like one of the samples (n, C, H, W)."""
    rows = torch.linspace(0, len(train) - 1, len(samples)).long()
    return recall(real=small(to_float(train.images[rows])), fake=small(samples), k=NEIGHBOUR)


def line(model: str, source: str, out: Path, minutes: float, **keys: Any) -> tuple[str, bool]:
    """Train, look, and put it into one line; and whether the model collapsed or diverged."""
    data = trilemma.load_data(source, size=keys.pop("size", None))
    folder, start = out / f"{model}-{Path(source).name}", time.perf_counter()
    try:
        run = trilemma.train(model, data, minutes=minutes, out=folder, quiet=True, **keys)
    except trilemma.UserError as error:
        return f"{model:18} {Path(source).name:16} {error}", isinstance(error, Diverged)
    wall = time.perf_counter() - start
    train, valid = images_of(data.train), images_of(data.valid)
    mean_rmse = float((valid - train.mean(0)).square().mean().sqrt())
    samples = run.sample(SAMPLES, seed=0)
    ratio, recalled = spread(samples) / spread(train), recall_of(samples, data.train)
    rmse, active = run.summary.get("valid_rmse"), run.summary.get("valid_active_units")
    active = active if active is not None else last(run.log, "valid_active_units")
    warnings = "; ".join(row["warning"] for row in run.log if "warning" in row) or "-"
    shown = ["-" if value is None else f"{value:.4g}" for value in (rmse, mean_rmse, active, ratio, recalled)]
    length = run.summary["steps"], run.summary["images"]
    return FORM.format(model, Path(source).name, *length, *shown, f"{wall:.0f}", warnings), recalled < RECALLED


def last(log: list[dict[str, Any]], name: str) -> float | None:
    """The last value of a column of a log."""
    return next((row[name] for row in reversed(log) if name in row), None)


def names(value: Any) -> list[str]:
    """One word or several, as `parse_settings` gives them."""
    return [value] if isinstance(value, str) else list(value)


def main(words: list[str]) -> int:
    """Print the table, line by line; 1 if a model failed, else 0."""
    keys = {"models": MODELS, "data": DATA, "out": "runs/travel", "minutes": 0.5} | parse_settings(words)
    models, sources, out = names(keys.pop("models")), names(keys.pop("data")), Path(keys.pop("out"))
    print(FORM.format(*HEAD))
    any_failed = False
    for source in sources:
        for model in models:
            text, failed = line(model, source, out, **keys)
            print(text, flush=True)
            any_failed |= failed
    return int(any_failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
