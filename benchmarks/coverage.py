"""How often the 95% intervals of the scores hold the truth, and how often a lead is said that is none.

The truth of a score at n images is its mean over all draws. Laws that never run out: features of Fashion-MNIST as a
mixture of Gaussians, one for each class, with the moments of the class; and Gaussians. What is generated is of the same
law, noisier, softer, less various, narrower or wider. The training images, among which copies are sought, are held
fixed. Scores that are means over images, or counts of classes, have laws of their own: classes drawn right with some
probability, path lengths and errors of reconstructions that are lognormal. Leads are told by the rules of a comparison.
Not simulated: bounds of the likelihood, which are means over images as the PSNR is; gains of classifiers, of which each
draw would be several trainings; times, which are of a machine.

    python benchmarks/coverage.py [--images 360 1000 2500] [--draws 200] [--leads 200]
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma.comparison.differences import RowMetric, differences, unbeaten
from trilemma.data import load_data
from trilemma.metrics.classification import class_diversity, f_score
from trilemma.metrics.features import extract, feature_network
from trilemma.metrics.frechet import frechet_distance, frechet_infinity
from trilemma.metrics.inception import inception_score
from trilemma.metrics.intervals import Estimate, Spread, wilson
from trilemma.metrics.kernel import kernel_distance
from trilemma.metrics.nearest import BLOCK, authenticity, near_copies
from trilemma.metrics.neighbours import nearest, neighbour_scores
from trilemma.metrics.path_length import STEP, of_moves
from trilemma.metrics.reconstruction import feature_distance, frechet_of_pairs, reconstruction_values

NAMES = ("density", "coverage", "precision", "recall", "kernel_distance", "frechet_distance")
BESIDE = ("frechet_infinity", "authenticity", "near_copies")
FURTHER = ("class_diversity", "inception_score")  # by the classifier behind the features, where there is one
RECONSTRUCTIONS = tuple(f"reconstruction_{name}" for name in ("rmse", "psnr", "ssim", "features", "frechet"))
MEANS = ("class_obeyed", "class_f_score", "path_length", *RECONSTRUCTIONS)
TRAINING = 2_000  # training images
CLASSES, SIDE = 10, 16  # of the images whose classes are counted; px of those that are reconstructed
RIGHT, WIDTH = (0.6, 0.9, 0.99), (0.3, 0.6, 1.2)  # share of right classes; scatter of the logarithm of an error
MODELS = 4
Law = Callable[[int], Tensor]
Score = Spread | Estimate | str


def scores(real: Tensor, fake: Tensor) -> dict[str, Spread]:
    kernel, frechet = kernel_distance(real=real, fake=fake), frechet_distance(real=real, fake=fake, minimum=2)
    return {**neighbour_scores(real=real, fake=fake), "kernel_distance": kernel, "frechet_distance": frechet}


def further(real: Tensor, fake: Tensor) -> dict[str, Spread]:
    """The scores that need the classes of clothes, by the features of its network."""
    network = feature_network("auto", (1, 28, 28), "fashion-mnist").network
    of_real, of_fake = (network.classify(x.float()) for x in (real, fake))
    diversity = class_diversity(real=real, fake=fake, real_class=of_real.argmax(1), fake_class=of_fake.argmax(1))
    assert isinstance(diversity, Spread)
    return {"class_diversity": diversity, "inception_score": inception_score(of_fake)}


def beside(real: Tensor, fake: Tensor, train: Tensor, at_n: Spread) -> dict[str, Score]:
    """The extrapolated distance, and the scores that look for generated images among the training images."""
    index, distance = nearest(torch.cat([fake, real]), train.split(BLOCK))
    n = len(fake)
    return {
        "frechet_infinity": frechet_infinity(real=real, fake=fake, at_n=at_n, minimum=2),
        "authenticity": authenticity(index[:n], distance[:n], train),
        "near_copies": near_copies(index[:n], distance[:n], real=distance[n:]),
    }


def means(n: int, right: float, width: float, generator: torch.Generator) -> dict[str, Score]:
    """The scores MEANS of n images, of which the classifier takes a share for the class asked for, and whose moves and
    errors scatter."""
    asked = torch.arange(n) % CLASSES
    other = (asked + torch.randint(1, CLASSES, (n,), generator=generator)) % CLASSES
    taken = torch.where(torch.rand(n, generator=generator) < right, asked, other)
    size = (width * torch.randn(n, generator=generator, dtype=torch.float64)).exp()
    moved = STEP * size[:, None] * torch.ones(1, 4, dtype=torch.float64)
    real = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    image = torch.rand(n, 1, SIDE, SIDE, generator=generator)
    error = 0.05 * size[:, None, None, None] * torch.randn(image.shape, generator=generator)
    made = real + 0.1 * size[:, None] * torch.randn(real.shape, generator=generator, dtype=torch.float64)
    return {
        "class_obeyed": wilson(int((taken == asked).sum()), n),
        "class_f_score": f_score(taken, asked, CLASSES),
        "path_length": of_moves(torch.zeros_like(moved), moved, real=real),
        **reconstruction_values(image, (image + error).clamp(0, 1)),
        "reconstruction_features": feature_distance(real=real, fake=made),
        "reconstruction_frechet": frechet_of_pairs(real=real, fake=made, minimum=2),
    }


def mixture(features: Tensor, labels: Tensor, generator: torch.Generator, classes: range = range(10)) -> Law:
    """One Gaussian for each class, with the mean and covariance of its features (N, D); all classes equally often."""
    parts = [features[labels == k] for k in classes]
    means = torch.stack([x.mean(0) for x in parts])
    roots = torch.stack([torch.linalg.cholesky(x.T.cov() + 1e-6 * torch.eye(x.shape[1]).double()) for x in parts])

    def draw(n: int) -> Tensor:
        k = torch.randint(len(parts), (n,), generator=generator)
        noise = torch.randn(n, means.shape[1], generator=generator, dtype=torch.float64)
        return means[k] + (roots[k] @ noise[:, :, None])[:, :, 0]

    return draw


def laws(generator: torch.Generator) -> dict[str, tuple[Law, Law]]:
    """Name -> (real, generated)."""
    data = load_data("fashion-mnist")
    network = feature_network("auto", data.shape, data.name)
    images, labels = data.train.images[:10_000], data.train.labels[:10_000]  # type: ignore[index]
    noise = 25 * torch.randn(images.shape, generator=generator)
    noisy = (images + noise).clamp(0, 255).round().to(torch.uint8)
    soft = (0.5 * images.float() + 0.5 * F.avg_pool2d(images.float(), 3, 1, 1)).round().to(torch.uint8)
    clothes = extract(network, images)
    real = mixture(clothes, labels, generator)

    def normal(scale: float) -> Law:
        return lambda n: scale * torch.randn(n, 16, generator=generator, dtype=torch.float64)

    return {
        "clothes, alike": (real, real),
        "clothes, noisy": (real, mixture(extract(network, noisy), labels, generator)),
        "clothes, soft": (real, mixture(extract(network, soft), labels, generator)),
        "clothes, 7 of 10 classes": (real, mixture(clothes, labels, generator, range(7))),
        "Gaussian, narrower": (normal(1.0), normal(0.8)),
        "Gaussian, wider": (normal(1.0), normal(1.3)),
    }


def coverage(real: Law, fake: Law, n: int, draws: int, *, clothes: bool) -> dict[str, float]:
    """Share of draws whose interval holds the mean over all draws; scores that are refused have none."""
    train, drawn = real(TRAINING), []
    for _ in range(draws):
        x, y = real(n), fake(n)
        of_sets = scores(x, y)
        more = further(x, y) if clothes else {}
        drawn.append({**of_sets, **beside(x, y, train, of_sets["frechet_distance"]), **more})
    return _held(drawn)


def coverage_of_means(n: int, draws: int, right: float, width: float, generator: torch.Generator) -> dict[str, float]:
    """The same of MEANS."""
    return _held([means(n, right, width, generator) for _ in range(draws)])


def _held(drawn: Sequence[Mapping[str, Score]]) -> dict[str, float]:
    held = {}
    for name in drawn[0]:
        scores_of = [s[name] for s in drawn]
        estimates = [s.estimate() if isinstance(s, Spread) else s for s in scores_of if not isinstance(s, str)]
        if estimates:
            truth = sum(estimate.value for estimate in estimates) / len(estimates)
            hits = (low <= truth <= high for _, (low, high) in estimates)
            held[name] = sum(hits) / len(estimates)
    return held


def leads(real: Law, fakes: list[Law], n: int, draws: int) -> dict[str, tuple[float, float]]:
    """Shares of draws in which a model leads that is not the only best one (false), and a truly worse one (wrong-way).

    Which model is best is told by the means over all draws; equal laws are equally good.
    """
    rounds = []
    for _ in range(draws):
        x = real(n)
        rounds.append([scores(x, fake(n)) for fake in fakes])
    return {name: _rates([[model[name] for model in models] for models in rounds], fakes, name) for name in NAMES}


def _rates(rounds: list[list[Spread]], fakes: list[Law], name: str) -> tuple[float, float]:
    better = "lower" if name.endswith("distance") else "higher"
    means = [sum(models[k].value for models in rounds) / len(rounds) for k in range(len(fakes))]
    best = fakes[(min if better == "lower" else max)(range(len(fakes)), key=means.__getitem__)]
    leaders = [leader for models in rounds if (leader := _leader(models, better)) is not None]
    false = sum(fakes[k] is not best or fakes.count(best) > 1 for k in leaders)
    return false / len(rounds), sum(fakes[k] is not best for k in leaders) / len(rounds)


def _leader(spreads: list[Spread], better: str) -> int | None:
    """The model that leads, if one does."""
    figures = {str(k): RowMetric(s.value, spread=s) for k, s in enumerate(spreads)}
    first = unbeaten({name: f.value for name, f in figures.items()}, differences(figures), better)
    return int(first[0]) if len(first) == 1 else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[360, 1000, 2500])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--leads", type=int, default=200)
    options = parser.parse_args()
    families = laws(torch.Generator().manual_seed(0))
    columns = (*NAMES, *BESIDE, *FURTHER)
    print(f"| images | law | {' | '.join(columns)} |\n|{' --- |' * (2 + len(columns))}", flush=True)
    for n in options.images:
        for name, (real, fake) in families.items():
            held = coverage(real, fake, n, options.draws, clothes=name.startswith("clothes"))
            cells = (f"{held[s]:.3f}" if s in held else "" for s in columns)
            print(f"| {n} | {name} | {' | '.join(cells)} |", flush=True)
    generator = torch.Generator().manual_seed(1)
    print(f"| images | right classes, scatter | {' | '.join(MEANS)} |\n|{' --- |' * (2 + len(MEANS))}", flush=True)
    for n in options.images:
        for right, width in zip(RIGHT, WIDTH, strict=True):
            held = coverage_of_means(n, options.draws, right, width, generator)
            print(f"| {n} | {right}, {width} | {' | '.join(f'{held[s]:.3f}' for s in MEANS)} |", flush=True)
    if not options.leads:
        return
    real, alike = families["clothes, alike"]
    soft, noisy = families["clothes, soft"][1], families["clothes, noisy"][1]
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
