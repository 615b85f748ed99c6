"""How often the 95% intervals of the scores hold the truth, and how often a lead is said that is none.

The truth of a score at n images is its mean over all draws. Laws: clothes (features of Fashion-MNIST, drawn anew
each time out of 30,000) and Gaussians; what is generated is of the same law, noisier, less various, or narrower.

    python benchmarks/coverage.py [--images 360 1000 2500] [--draws 200] [--leads 200]
"""

import argparse
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma.data import load_data
from trilemma.metrics.features import extract, feature_network
from trilemma.metrics.frechet import frechet_distance
from trilemma.metrics.intervals import Spread, difference
from trilemma.metrics.kernel import kernel_distance
from trilemma.metrics.neighbours import neighbour_scores

NAMES = ("density", "coverage", "precision", "recall", "kernel_distance", "frechet_distance")
MODELS = 4
Law = Callable[[int], Tensor]


def scores(real: Tensor, fake: Tensor) -> dict[str, Spread]:
    kernel, frechet = kernel_distance(real=real, fake=fake), frechet_distance(real=real, fake=fake, minimum=2)
    return {**neighbour_scores(real=real, fake=fake), "kernel_distance": kernel, "frechet_distance": frechet}


def from_pool(pool: Tensor, generator: torch.Generator) -> Law:
    return lambda n: pool[torch.randperm(len(pool), generator=generator)[:n]].double()


def laws(generator: torch.Generator) -> dict[str, tuple[Law, Law]]:
    """Name -> (real, generated)."""
    data = load_data("fashion-mnist")
    network = feature_network("auto", data.shape, data.name)
    images, labels = data.train.images[:30_000], data.train.labels[:30_000]
    features = extract(network, images).float()
    shown = images[15_000:25_000].float()
    noise = 25 * torch.randn(shown.shape, generator=generator)
    noisy = extract(network, (shown + noise).clamp(0, 255).round().to(torch.uint8)).float()
    soft = extract(network, (0.5 * shown + 0.5 * F.avg_pool2d(shown, 3, 1, 1)).round().to(torch.uint8)).float()
    real, rest = from_pool(features[:15_000], generator), features[15_000:]

    def normal(scale: float) -> Law:
        return lambda n: scale * torch.randn(n, 16, generator=generator, dtype=torch.float64)

    return {
        "clothes, alike": (real, from_pool(rest, generator)),
        "clothes, noisy": (real, from_pool(noisy, generator)),
        "clothes, soft": (real, from_pool(soft, generator)),
        "clothes, 7 of 10 classes": (real, from_pool(rest[labels[15_000:] < 7], generator)),
        "Gaussian, narrower": (normal(1.0), normal(0.8)),
        "Gaussian, wider": (normal(1.0), normal(1.3)),
    }


def coverage(real: Law, fake: Law, n: int, draws: int) -> dict[str, float]:
    """Share of draws whose interval holds the mean over all draws."""
    drawn = [scores(real(n), fake(n)) for _ in range(draws)]
    held = {}
    for name in NAMES:
        truth = sum(s[name].value for s in drawn) / draws
        held[name] = sum(low <= truth <= high for low, high in (s[name].estimate().interval for s in drawn)) / draws
    return held


def leads(real: Law, fakes: list[Law], n: int, draws: int) -> dict[str, tuple[float, float]]:
    """Shares of draws in which a model leads that is not the only best one (false), and a truly worse one (wrong-way).

    Which model is best is told by the means over all draws; equal laws are equally good.
    """
    level = 1 - 0.05 / math.comb(len(fakes), 2)
    rounds = []
    for _ in range(draws):
        x = real(n)
        rounds.append([scores(x, fake(n)) for fake in fakes])
    return {
        name: _rates([[model[name] for model in models] for models in rounds], fakes, level, name) for name in NAMES
    }


def _rates(rounds: list[list[Spread]], fakes: list[Law], level: float, name: str) -> tuple[float, float]:
    lower = name.endswith("distance")
    means = [sum(models[k].value for models in rounds) / len(rounds) for k in range(len(fakes))]
    best = fakes[(min if lower else max)(range(len(fakes)), key=means.__getitem__)]
    leaders = [leader for models in rounds if (leader := _leader(models, level, lower=lower)) is not None]
    false = sum(fakes[k] is not best or fakes.count(best) > 1 for k in leaders)
    return false / len(rounds), sum(fakes[k] is not best for k in leaders) / len(rounds)


def _leader(spreads: list[Spread], level: float, *, lower: bool) -> int | None:
    sign = -1 if lower else 1
    best = max(range(len(spreads)), key=lambda k: sign * spreads[k].value)
    for k, other in enumerate(spreads):
        low, high = difference(spreads[best], other, level=level).interval
        if k != best and (low if sign > 0 else -high) <= 0:
            return None
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[360, 1000, 2500])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--leads", type=int, default=200)
    options = parser.parse_args()
    known = laws(torch.Generator().manual_seed(0))
    print(f"| images | law | {' | '.join(NAMES)} |\n|{' --- |' * (2 + len(NAMES))}", flush=True)
    for n in options.images:
        for name, (real, fake) in known.items():
            held = coverage(real, fake, n, options.draws)
            print(f"| {n} | {name} | {' | '.join(f'{held[s]:.3f}' for s in NAMES)} |", flush=True)
    if not options.leads:
        return
    real, alike = known["clothes, alike"]
    soft, noisy = known["clothes, soft"][1], known["clothes, noisy"][1]
    n = options.images[0]
    for title, fakes in (
        (f"{MODELS} models of one law", [alike] * MODELS),
        (f"{MODELS} soft models", [soft] * MODELS),
        ("a soft model and three noisier ones", [soft, noisy, noisy, noisy]),
    ):
        rates = leads(real, fakes, n, options.leads)
        shown = (f"{rates[s][0]:.3f}, {rates[s][1]:.3f}" for s in NAMES)
        print(f"| {n} | {title}: false, wrong-way leads | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
