"""Training speed against the loop of a notebook, both in this process: python benchmarks/plain_loop.py [MODEL ...]

The plain loop takes one image at a time through PIL and a DataLoader, batches of 32, float32, and reads the loss as a
number in every step. The network and its loss are the same. Both are run for SECONDS after a warm-up, in turns, ROUNDS
times; the ratio of the medians is printed.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

import trilemma
from trilemma.data import Data, load_data
from trilemma.hardware import tune_allocator
from trilemma.registry import create, get_recipe
from trilemma.types import Batch

SECONDS, ROUNDS = 6.0, 3
MODELS = ("ae-stacked", "vae", "gan-dcgan-28", "diffusion-small")


class OneByOne(torch.utils.data.Dataset):
    """Images decoded one at a time, as a tutorial does it."""

    def __init__(self, data: Data) -> None:
        self.images = data.train.images.squeeze(1).numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.fromarray(self.images[index])
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return pixels.view(1, *image.size[::-1]).float() / 255


def plain(name: str, data: Data) -> float:
    """Images per second of the plain loop."""
    model = create(name, shape=data.shape)
    recipe = get_recipe(name).training
    rate = (
        recipe["lr"] if isinstance(recipe["lr"], dict) else dict.fromkeys((p.name for p in model.phases), recipe["lr"])
    )
    optimizers = [torch.optim.NAdam(phase.parameters, rate[phase.name], foreach=False) for phase in model.phases]
    generator = torch.default_generator
    seen, start = 0, 0.0
    loader = torch.utils.data.DataLoader(OneByOne(data), batch_size=32, shuffle=True)
    for step, image in enumerate(loader):
        if step == 20:
            start, seen = time.perf_counter(), 0
        for phase, optimizer in zip(model.phases, optimizers, strict=True):
            loss, _ = phase.loss(Batch(image), generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(phase.parameters, 1.0)
            optimizer.step()
            loss.item()
        seen += len(image)
        if step > 20 and time.perf_counter() - start > SECONDS:
            break
    return seen / (time.perf_counter() - start)


def ours(name: str, data: Data) -> float:
    """Images per second of training steps, as a user gets them."""
    with tempfile.TemporaryDirectory() as folder:
        run = trilemma.train(name, data, minutes=SECONDS / 60, out=Path(folder) / "run", quiet=True)
        return run.summary["images_per_second"]


def main(names: list[str]) -> None:
    """Print a line per model."""
    tune_allocator()
    data = load_data("fashion-mnist")
    print(f"{'model':18}{'plain loop':>12}{'trilemma':>12}{'ratio':>8}   (images/s, medians of {ROUNDS})")
    for name in names or MODELS:
        pairs = [(plain(name, data), ours(name, data)) for _ in range(ROUNDS)]
        slow, quick = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"{name:18}{slow:12,.0f}{quick:12,.0f}{quick / slow:8.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
