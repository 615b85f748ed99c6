"""What the scores cost beside other libraries: python benchmarks/metrics.py [--images 10000] [--width 1280 2048]

Of two sets of features, in turns in this process, each once after a small set to warm up:

- Frechet and kernel distance together, with their intervals: ours; FrechetInceptionDistance and KernelInceptionDistance
  of torchmetrics with its defaults (100 subsets of 1,000 images), which take the features as they are;
- precision, recall, density and coverage together, with their intervals: ours; compute_prdc of prdc.

Printed are seconds, their ratio, how far the values are from each other, and the most memory of all scores of ours in a
process of their own. First of all come the relative differences of values that are to be the same: of Frechet and
kernel distance on a small set, all of which is the one subset that torchmetrics takes. --lite measures the seconds of
EfficientNet-Lite0 for images of 64x64, too.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.classifiers.imagenet import load_efficientnet
from trilemma.metrics.features import extract
from trilemma.metrics.frechet import frechet_distance
from trilemma.metrics.kernel import kernel_distance
from trilemma.metrics.neighbours import neighbour_scores

SMALL = 2_100  # images of the sets that warm up


class Given(nn.Module):
    """Features that are there already, as a network of torchmetrics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def sets(n: int, width: int) -> tuple[Tensor, Tensor]:
    """Two sets of features (n, width): positive, as after a ReLU, of laws that differ a little."""
    start = torch.Generator().manual_seed(0)
    root = torch.randn(width, width, generator=start) / width**0.5
    one, other = (torch.randn(n, width, generator=start) @ root for _ in range(2))
    return one.relu(), (1.05 * other + 0.02).relu()


def our_distances(real: Tensor, fake: Tensor) -> list[float]:
    values = frechet_distance(real=real.double(), fake=fake.double()), kernel_distance(real=real, fake=fake)
    return [spread.estimate().value for spread in values]


def their_distances(real: Tensor, fake: Tensor, **subsets: int) -> list[float]:
    """Those of torchmetrics; `subsets`: their number and size, of the kernel distance."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    values = []
    for kind, keys in ((FrechetInceptionDistance, {}), (KernelInceptionDistance, subsets)):
        metric = kind(feature=Given(real.shape[1]), **keys)
        metric.update(real, real=True)
        metric.update(fake, real=False)
        result = metric.compute()
        values.append(float(result[0] if isinstance(result, tuple) else result))
    return values


def our_neighbours(real: Tensor, fake: Tensor) -> list[float]:
    scores = neighbour_scores(real=real, fake=fake)
    return [scores[name].value for name in ("density", "coverage")]


def their_neighbours(real: Tensor, fake: Tensor) -> list[float]:
    from prdc import compute_prdc

    values = compute_prdc(real_features=real.numpy(), fake_features=fake.numpy(), nearest_k=5)
    return [float(values[name]) for name in ("density", "coverage")]


PAIRS: dict[str, tuple[Callable[..., list[float]], Callable[..., list[float]]]] = {
    "Frechet, kernel": (our_distances, their_distances),
    "density, coverage, precision, recall": (our_neighbours, their_neighbours),
}


def timed(work: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work(*args)
    return time.perf_counter() - start, result


def compare(n: int, width: int) -> None:
    """Print a line for each pair."""
    small, whole = sets(SMALL, width), sets(n, width)
    exact = (x.double() for x in small)  # in float32 torchmetrics is off by 1e-4 of its value itself
    pairs = zip(our_distances(*small), their_distances(*exact, subsets=1, subset_size=SMALL), strict=True)
    apart = ", ".join(f"{abs(own / other - 1):.1e}" for own, other in pairs)
    print(f"{SMALL:,} x {width}: Frechet and kernel distance differ by {apart} of their value", flush=True)
    for name, (ours, theirs) in PAIRS.items():
        for work in (ours, theirs):
            work(*small)
        (own, values), (other, others) = timed(ours, *whole), timed(theirs, *whole)
        apart = ", ".join(f"{a:.5g} and {b:.5g}" for a, b in zip(values, others, strict=True))
        print(f"{n:,} x {width}: {name}: {own:.1f} s, {other:.1f} s, {other / own:.1f} x; values {apart}", flush=True)


def memory(n: int, width: int) -> None:
    """Print the most memory of a process that computes all scores."""
    whole = sets(n, width)
    our_distances(*whole)
    our_neighbours(*whole)
    print(f"{n:,} x {width}: at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB", flush=True)


def lite(n: int) -> None:
    """Print the seconds of the features of n images of 64x64."""
    images = torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = load_efficientnet()
    extract(network, images[:256])
    seconds, _ = timed(extract, network, images)
    print(f"EfficientNet-Lite0, {n:,} images of 64x64: {seconds:.0f} s", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--width", type=int, nargs="+", default=[1280, 2048])
    parser.add_argument("--lite", action="store_true")
    parser.add_argument("--memory", action="store_true", help="only the memory, in this process")
    given = parser.parse_args()
    for width in given.width:
        if given.memory:
            memory(given.images, width)
            continue
        compare(given.images, width)
        words = ["--memory", "--images", str(given.images), "--width", str(width)]
        subprocess.run([sys.executable, __file__, *words], check=True)
    if given.lite:
        lite(given.images)


if __name__ == "__main__":
    main()
