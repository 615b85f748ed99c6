"""Training against the loop of a notebook: python benchmarks/plain_loop.py [MODEL ...] [--figure]

The plain loop takes one image at a time through PIL and a DataLoader, in batches of 32 and float32, with the published
settings, and reads its metric and its loss as numbers in every batch. The network is the same.

- Images per second (the default): both for SECONDS after a warm-up, in turns, ROUNDS times; medians and their ratio.
- With --figure, the time from the start of a training to the published validation figure, both validated after every
  epoch; ours with its pictures and checkpoints on the way. Where the plain loop would take longer than LONGEST_S, it
  is the time of the published epochs at the speed measured over SECONDS. That, and a figure that the published epochs
  did not reach, is said in the line.

Each measurement has a process of its own: the plain loop does not get what trilemma does to its process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import trilemma
from trilemma.data import Data, batches, load_data
from trilemma.registry import create, get_recipe
from trilemma.training.validation import Validation
from trilemma.types import Batch

SECONDS, ROUNDS, WARM_UP, LONGEST_S = 5.0, 3, 20, 600.0


@dataclass(frozen=True)
class Published:
    """Settings and figure of a notebook; batch 32 and NAdam throughout."""

    lr: float | dict[str, float]
    epochs: int
    figure: tuple[str, float] | None = None


PUBLISHED = {
    "ae-stacked": Published(0.01, 10, ("mse", 0.120)),
    "vae": Published(0.001, 20, ("mse", 0.148)),
    "ae-conv": Published(0.005, 10, ("mse", 0.110)),
    "ae-recurrent": Published(0.001, 10, ("mse", 0.109)),
    "gan": Published({"critic": 0.0005, "generator": 0.001}, 20),
    "gan-dcgan-28": Published({"critic": 0.0005, "generator": 0.001}, 20),
    "gan-dcgan": Published({"critic": 0.0002, "generator": 0.0002}, 10),
    "diffusion-small": Published(0.003, 20, ("noise_mse", 0.285)),
}


class OneByOne(torch.utils.data.Dataset):
    """Images opened one at a time, as a tutorial does it."""

    def __init__(self, data: Data) -> None:
        self.images = data.train.images.squeeze(1).numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.fromarray(self.images[index])
        return torch.from_numpy(np.array(image))[None].float() / 255


class Plain:
    """The loop of a notebook."""

    def __init__(self, name: str, data: Data, device: str) -> None:
        self.name, self.data, self.device = name, data, device
        self.model, self.published = create(name, shape=data.shape).to(device), PUBLISHED[name]
        rate = self.published.lr
        self.optimizers = {
            player.name: torch.optim.NAdam(player.parameters, rate[player.name] if isinstance(rate, dict) else rate)
            for player in self.model.players
        }
        self.loader = torch.utils.data.DataLoader(OneByOne(data), batch_size=32, shuffle=True)

    def epoch(self) -> Iterator[int]:
        """Train; yields the number of images after every batch."""
        self.model.train()
        for image in self.loader:
            image = image.to(self.device)
            for phase in self.model.phases:
                loss, parts = phase.loss(Batch(image), torch.default_generator)
                optimizer = self.optimizers[phase.player.name]
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(phase.player.parameters, 1.0)
                optimizer.step()
                for value in (loss, *parts.values()):
                    value.item()
            yield len(image)

    def speed(self) -> float:
        """Images per second."""
        seen = start = 0.0
        for step, count in enumerate(self.epoch()):
            if step == WARM_UP:
                start, seen = time.perf_counter(), 0
            seen += count
            if step > WARM_UP and time.perf_counter() - start > SECONDS:
                break
        return seen / (time.perf_counter() - start)

    def time_to(self, figure: tuple[str, float]) -> dict[str, Any]:
        """Seconds until the validation figure is reached, the learning rate halved after two epochs without a better
        one; or, where it would take too long, those of the published epochs at the speed of the first batches."""
        quick = Plain(self.name, self.data, self.device).speed()  # of a model of its own: this one is to start anew
        expected = self.published.epochs * len(self.data.train) / quick
        if expected > LONGEST_S:
            return {"seconds": expected, "how": f"{self.published.epochs} epochs at the speed measured"}
        name, bar = figure
        plateaus = [
            torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=1) for o in self.optimizers.values()
        ]
        start, results = time.perf_counter(), []
        for _ in range(self.published.epochs):
            for _ in self.epoch():
                pass
            results.append(self.validate(name))
            if results[-1] <= bar:
                break
            for plateau in plateaus:
                plateau.step(results[-1])
        how = f"{len(results)} epochs, {min(results):.4f}" + ("" if results[-1] <= bar else ": not reached")
        return {"seconds": time.perf_counter() - start, "how": how}

    @torch.no_grad()
    def validate(self, name: str) -> float:
        """The square root of the mean of a validation figure."""
        self.model.eval()
        parts = [
            self.model.validation(b, torch.default_generator)[name]
            for b in batches(self.data.valid, 500, torch.device(self.device))
        ]
        return float(torch.cat(parts).mean().sqrt())


def our_speed(name: str, data: Data, device: str) -> float:
    """Images per second of training steps, as a user gets them."""
    with tempfile.TemporaryDirectory() as folder:
        trilemma.train(name, data, steps=WARM_UP, out=Path(folder) / "warm-up", quiet=True, device=device)
        run = trilemma.train(name, data, minutes=SECONDS / 60, out=Path(folder) / "run", quiet=True, device=device)
        return run.summary["images_per_second"]


def our_time(name: str, data: Data, figure: tuple[str, float], device: str) -> dict[str, Any]:
    """Seconds from the start of a training by the recipe until a validation reached the figure."""
    key, bar = f"valid_{figure[0].replace('mse', 'rmse')}", figure[1]
    validate, rows = Validation.validate, []

    def noted(validation: Validation, images: int, most: int | None = None) -> dict[str, float]:
        values = validate(validation, images, most)
        rows.append((time.perf_counter(), images, values[key]))
        return values

    with tempfile.TemporaryDirectory() as folder:
        trilemma.train(name, data, steps=WARM_UP, out=Path(folder) / "warm-up", quiet=True, device=device)
        Validation.validate = noted
        start = time.perf_counter()
        trilemma.train(name, data, out=Path(folder) / "run", quiet=True, device=device)
    end, images, value = next((row for row in rows if row[2] <= bar), rows[-1])
    how = f"{images / len(data.train):.1f} epochs, {value:.4f}" + ("" if value <= bar else ": not reached")
    return {"seconds": end - start, "how": how}


def measure(what: str, name: str, device: str) -> Any:
    """One measurement, in this process."""
    data = load_data("fashion-mnist")
    figure = PUBLISHED[name].figure
    if what == "plain":
        return Plain(name, data, device).speed()
    if what == "ours":
        return our_speed(name, data, device)
    assert figure is not None
    return Plain(name, data, device).time_to(figure) if what == "plain-figure" else our_time(name, data, figure, device)


def apart(what: str, name: str, device: str) -> Any:
    """One measurement, in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, name, "--device", device]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def speeds(names: list[str], device: str) -> None:
    """Print a line per model."""
    print(f"{'model':18}{'batch':>6}{'plain loop':>12}{'trilemma':>12}{'ratio':>8}   (images/s, medians of {ROUNDS})")
    for name in names or PUBLISHED:
        pairs = [(apart("plain", name, device), apart("ours", name, device)) for _ in range(ROUNDS)]
        slow, quick = (statistics.median(values) for values in zip(*pairs, strict=True))
        batch = get_recipe(name).training["batch"]
        print(f"{name:18}{batch:6}{slow:12,.0f}{quick:12,.0f}{quick / slow:8.1f}", flush=True)


def times(names: list[str], device: str) -> None:
    """Print a line per model that has a figure."""
    for name in names or [name for name, published in PUBLISHED.items() if published.figure]:
        slow, quick = apart("plain-figure", name, device), apart("our-figure", name, device)
        ratio = slow["seconds"] / quick["seconds"]
        one, other = (f"{result['seconds']:.1f} s ({result['how']})" for result in (slow, quick))
        print(f"{name}: plain {one}, trilemma {other}: {ratio:.1f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--figure", action="store_true", help="time to the published figure")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_intermixed_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.models[0], given.device)))
    else:
        (times if given.figure else speeds)(given.models, given.device)


if __name__ == "__main__":
    main()
