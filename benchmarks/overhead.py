"""What the trainer costs: python benchmarks/overhead.py [MODEL ...]

Images per second of a training against the bare step of the same network at the same batch, precision and layout, on
batches that lie ready. Both for SECONDS, in turns, ROUNDS times in this process; medians. The training's clock runs
while it trains and stands while it validates, draws and saves; the last column is the share of that in the whole.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from bare import BareStep

import trilemma
from trilemma.data import Data, load_data
from trilemma.hardware import supports_fast_bf16, tune_allocator
from trilemma.registry import get_recipe

SECONDS, ROUNDS = 6.0, 5
MODELS = ("ae-stacked", "vae", "ae-conv", "ae-recurrent", "gan", "gan-dcgan-28", "gan-dcgan", "diffusion-small")


def trained(name: str, data: Data, device: str) -> tuple[float, float]:
    """Images per second of a training, and the share of the whole time that it spent on other things."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = trilemma.train(name, data, minutes=SECONDS / 60, out=Path(folder) / "run", quiet=True, device=device)
        whole = time.perf_counter() - start
        return run.summary["images_per_second"], 1 - run.summary["seconds"] / whole


def main() -> None:
    """Print a line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    tune_allocator()
    data = load_data("fashion-mnist")
    print(f"{'model':18}{'batch':>6}{'bare step':>12}{'trilemma':>12}{'overhead':>10}{'else':>7}   ", end="")
    print(f"(images/s, medians of {ROUNDS})")
    for name in given.models or MODELS:
        training = get_recipe(name).training
        layout = {"bf16": supports_fast_bf16(given.device), "channels_last": training.get("channels_last", False)}
        bare = BareStep(name, data, **layout, device=given.device)
        found = [(bare.speed(SECONDS), *trained(name, data, given.device)) for _ in range(ROUNDS)]
        most, ours, rest = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"{name:18}{training['batch']:6}{most:12,.0f}{ours:12,.0f}{most / ours - 1:10.1%}{rest:7.0%}", flush=True)


if __name__ == "__main__":
    main()
