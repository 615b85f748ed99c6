"""What the trainer costs: python benchmarks/overhead.py [MODEL ...]

Trainings in which the bare step of the same network, at the same batch, precision and layout and on batches that lie
ready, is made before each step of the trainer: what disturbs the machine disturbs both alike. Printed are the medians
of both over STEPS steps, in microseconds, and by how much the trainer's is longer; then what its clock of training
seconds counts outside the steps, as a share of the steps. Validation, pictures and checkpoints are not in that clock.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bare import BareStep

import trilemma
from trilemma.data import Data, load_data
from trilemma.hardware import supports_fast_bf16, tune_allocator
from trilemma.registry import get_recipe
from trilemma.training.loop import Trainer

STEPS, SECONDS = 500, 20.0  # of each model; the smaller one of the two
WARM_UP = 10  # steps
MODELS = ("ae-stacked", "vae", "ae-conv", "ae-recurrent", "gan", "gan-dcgan-28", "gan-dcgan", "diffusion-small")


def timed(action: Callable[[], object], device: str) -> float:
    """Seconds that an action takes."""
    start = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(name: str, data: Data, device: str) -> tuple[float, float, float]:
    """Median seconds of a bare step and of one of the trainer's; the share of its clock outside its steps."""
    training = get_recipe(name).training
    layout = {"bf16": supports_fast_bf16(device), "channels_last": training.get("channels_last", False)}
    step, bare, ours = BareStep(name, data, **layout, device=device), [], []
    own_step = Trainer.take_step

    def both(trainer: Trainer) -> None:
        bare.append(timed(lambda: step(trainer.calendar.step), device))
        ours.append(timed(lambda: own_step(trainer), device))

    once = statistics.median(timed(lambda: step(0), device) for _ in range(WARM_UP))
    steps = max(3 * WARM_UP, min(STEPS, int(SECONDS / (2 * once))))
    Trainer.take_step = both
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            clock = trilemma.train(name, data, steps=steps, out=out, quiet=True, device=device).summary["seconds"]
    finally:
        Trainer.take_step = own_step
    outside = clock - sum(bare) - sum(ours)
    return statistics.median(bare[WARM_UP:]), statistics.median(ours[WARM_UP:]), outside / sum(ours)


def main() -> None:
    """Print a line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_intermixed_args()
    tune_allocator()
    data = load_data("fashion-mnist")
    print(f"{'model':18}{'batch':>6}{'bare, us':>12}{'trilemma, us':>14}{'overhead':>10}{'outside':>9}")
    for name in given.models or MODELS:
        bare, ours, outside = measure(name, data, given.device)
        batch = get_recipe(name).training["batch"]
        print(
            f"{name:18}{batch:6}{1e6 * bare:12,.0f}{1e6 * ours:14,.0f}{ours / bare - 1:10.1%}{outside:9.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
