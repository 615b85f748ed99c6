"""What the trainer costs: python benchmarks/overhead.py [MODEL ...]

Images per second of a training as a user gets it against the bare step of the same network at the same batch, precision
and layout, on batches that lie ready. Both for SECONDS, in turns, ROUNDS times in this process; medians.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from bare import BareStep

import trilemma
from trilemma.data import Data, load_data
from trilemma.hardware import supports_fast_bf16, tune_allocator
from trilemma.registry import get_recipe

SECONDS, ROUNDS = 6.0, 5
MODELS = ("ae-stacked", "vae", "ae-conv", "ae-recurrent", "gan", "gan-dcgan-28", "gan-dcgan", "diffusion-small")


def trained(name: str, data: Data) -> float:
    """Images per second of a training."""
    with tempfile.TemporaryDirectory() as folder:
        run = trilemma.train(name, data, minutes=SECONDS / 60, out=Path(folder) / "run", quiet=True)
        return run.summary["images_per_second"]


def main(names: list[str]) -> None:
    """Print a line per model."""
    tune_allocator()
    data = load_data("fashion-mnist")
    print(
        f"{'model':18}{'batch':>6}{'bare step':>12}{'trilemma':>12}{'overhead':>10}   (images/s, medians of {ROUNDS})"
    )
    for name in names or MODELS:
        training = get_recipe(name).training
        layout = {"bf16": supports_fast_bf16("cpu"), "channels_last": training.get("channels_last", False)}
        bare = BareStep(name, data, **layout)
        pairs = [(bare.speed(SECONDS), trained(name, data)) for _ in range(ROUNDS)]
        most, ours = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"{name:18}{training['batch']:6}{most:12,.0f}{ours:12,.0f}{most / ours - 1:10.1%}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
