"""Stand-ins for data, runs and evaluations, so that a whole comparison takes a second."""

import hashlib
import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.data.split import Split, make_data
from trilemma.metrics.controls import Reference
from trilemma.metrics.quality import Setup
from trilemma.metrics.receipt import Score
from trilemma.run.run import Run

FAMILIES = {"ae-stacked": "autoencoder", "vae": "vae", "gan-dcgan": "gan", "diffusion": "diffusion"}
FIGURES = {  # precision, recall, kernel distance, ms per image, calls per image
    "ae-stacked": (0.6203, 0.3501, 0.0071, 0.0451, 1),
    "vae": (0.7102, 0.6004, 0.0060, 0.0452, 1),
    "gan-dcgan": (0.8506, 0.4307, 0.0041, 0.2109, 1),
    "diffusion": (0.8308, 0.8009, 0.0016, 27.011, 50),
}


class StandIn(Run):
    """A run that is in no folder; what a folder says is set."""

    path = name = summary = warnings = log = command = weights_id = unfinished = None

    def __init__(self, **values):
        vars(self).update(values)


class Flat(torch.nn.Module):
    """Features of an image: its pixels."""

    def features(self, image):
        return image.flatten(1)


FLAT = FeatureNetwork("flat", Flat(), (1, 8, 8))


def reference(data, split="test", n=14, *, features="auto", own=True, seed=0):
    """What everything is measured by, without controls and scores."""
    setup = Setup(data, split, own, FLAT, n, seed)
    features = data.splits[split].images[:n].double().flatten(1) / 255
    return Reference(setup, SimpleNamespace(features=features), (), "no classes")


@dataclass
class Measured:
    """What compare asks of an evaluation."""

    scores: tuple[Score, ...]
    fakes: torch.Tensor
    features: torch.Tensor
    notes: tuple[str, ...] = ("features: digits-cnn",)
    spreads: dict = field(default_factory=dict)
    controls: tuple = ()
    learned_nothing: str | None = None
    reference: object = None


def make(name="digits", source="digits", seed=0, without=()):
    """12 training, 2 validation and 14 test images, 8 x 8, grey."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (28, 1, 8, 8), generator=g, dtype=torch.uint8)
    splits = {"train": Split(images[:12]), "valid": Split(images[12:14]), "test": Split(images[14:])}
    splits = {key: split for key, split in splits.items() if key not in without}
    return make_data(name, source, splits, classes=("a", "b"), notes=("seen as grey",), skipped=("x.png: cut off",))


def score(name, value, interval, better, refused=None, n=10, **changes):
    receipt = {"n_real": n, "n_fake": n, "features": "digits-cnn", "split": "test", "seed": 0, "resize": "none"}
    fields = {"protocol": f"{name}_digits-cnn_{n}_test", "unit": "units", "versions": {"torch": "2.13.0"}, **receipt}
    return Score(name=name, value=value, interval=interval, better=better, refused=refused, **(fields | changes))


def evaluation(name, n=10, **changes):
    """The scores of FIGURES with intervals of 10% around them, and a refused Frechet distance."""
    known = zip(("density", "coverage", "kernel_distance", "ms_per_image"), FIGURES[name][:4], strict=True)
    better = {"density": "higher", "coverage": "higher"}
    scores = [score(m, v, (0.95 * v, 1.05 * v), better.get(m, "lower"), n=n, **changes) for m, v in known]
    calls = float(FIGURES[name][4])
    scores.append(score("calls_per_image", calls, (calls, calls), "lower", n=n))
    scores.append(score("frechet_distance", None, None, "lower", "10 images are too few", n=n))
    generator = torch.Generator().manual_seed(len(name))
    fakes = torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Measured(tuple(scores), fakes, fakes.double().flatten(1) / 255)


def finished(name, path, data, seconds=30.0, seed=0):
    """What compare asks of a run."""
    settings = {"shape": list(data.shape), "width": 32}
    rows = [
        {"step": i, "images": 64 * i, "seconds": i / 10, "a/loss": math.exp(-i / 9), "lr": 0.1} for i in range(1, 301)
    ]
    rows[-1]["valid_rmse"] = 0.25
    rows[5]["a/loss"] = "nan"
    summary = {"images": 19200, "steps": 300, "seconds": seconds, "images_per_second": 640.0, "valid_rmse": 0.25}
    return StandIn(
        path=Path(path),
        name=Path(path).name,
        recipe=SimpleNamespace(name=name, family=FAMILIES[name], summary="a small model", source="A & B (2014)"),
        config={
            "data": data.source,
            "fingerprint": data.fingerprint,
            "model_config": settings,
            "training": {"minutes": 0.5, "seed": seed, "steps": None},
            "data_config": {},
            "parts": {},
        },
        command=shlex.join(["trilemma", "train", name, data.source]),
        model_config=SimpleNamespace(**settings),
        summary=summary | {"parameters": 1234567, "best": {}},
        log=rows,
        warnings=(),
        device=torch.device("cpu"),
        model=None,
        weights_id=hashlib.sha256(f"{path}, seed {seed}".encode()).hexdigest()[:16],
        data=data,
    )
