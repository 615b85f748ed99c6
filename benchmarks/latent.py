"""Diffusion of codes against diffusion of pixels, trained for the same time, the autoencoder's counted in:

    python benchmarks/latent.py [DATA ...] [--minutes 40] [--size 64] [--images 2500] [--seed 0] [--out runs/latent]

DATA: shapes, or a folder of images (default: shapes). Printed for each: the Frechet distance with its interval,
precision and recall of both by as many held-out images; the same distance of the autoencoder's reconstructions of these
images, as papers give it, with its share of the distance of the samples (at most 30% is the bar), and of
reconstructions of as many training images, which are no pairs; and seconds for an image, in turns. A training that is
there is not made again. Each run gets pictures: grid.png; failures.png, the samples that are farthest from all held-out
images in features, each above the nearest of these; and for codes reconstruction-failures.png, the images that are
farthest from their reconstructions, each above its own.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

import trilemma
from trilemma.metrics.features import extract, feature_network, to_levels
from trilemma.metrics.frechet import frechet_distance
from trilemma.metrics.intervals import Spread
from trilemma.metrics.neighbours import nearest, neighbour_scores
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import to_float
from trilemma.pictures.png import save_png

MODELS = ("diffusion", "diffusion-latent")
TURNS, DRAWN = 3, 64
LEAST = 200  # images for a distance: its bias is that of all rows
MOST_SHARE = 0.3  # of the distance of samples that reconstructions may be at
FAILURES = 16  # in a picture


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["shapes"])
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/latent"))
    given = parser.parse_args()
    for data in given.data:
        measure(data, given)


def distance(real: Tensor, fake: Tensor) -> tuple[float, str]:
    """The Frechet distance of features, and in words with its interval."""
    spread = frechet_distance(real=real, fake=fake, minimum=LEAST)
    assert isinstance(spread, Spread)
    value, (low, high) = spread.estimate()
    return value, f"{value:.3f} ({low:.3f} to {high:.3f})"


def write_pairs(file: Path, above: Tensor, below: Tensor) -> None:
    """Two rows of images, in lines of eight."""
    rows = [part for pair in zip(above.split(8), below.split(8), strict=True) for part in pair]
    save_png(grid(torch.cat(rows), columns=8), file, {"verb": "benchmark"}, replace=True)


def measure(source: str, given: argparse.Namespace) -> None:
    """Both models of one source."""
    data = trilemma.load_data(source, size=given.size, channels=3)
    network = feature_network("auto", data.shape, data.name)
    held_out = data.held_out[1]
    n = min(given.images, len(held_out), len(data.train))
    real = extract(network, held_out.images[:n])
    runs, values = {}, {}
    for name in MODELS:
        out = given.out / f"{name}-{data.name}-{given.size}px-{given.minutes:g}min-seed{given.seed}"
        runs[name] = trilemma.train(name, data, minutes=given.minutes, seed=given.seed, out=out, quiet=True)
    print(f"{data.name}, {given.size} px, {given.minutes:g} minutes, {n} images, features {network.name}", flush=True)
    for name, run in runs.items():
        images = to_levels(run.sample(n, seed=given.seed))
        save_png(grid(images[:64]), run.path / "grid.png", {"verb": "benchmark", "model": name}, replace=True)
        fake = extract(network, images)
        index, far = nearest(fake, [real])
        worst = far.argsort(descending=True)[:FAILURES]
        write_pairs(run.path / "failures.png", images[worst], held_out.images[index[worst]])
        shares = neighbour_scores(real=real, fake=fake)
        values[name], text = distance(real, fake)
        line = f"  {name:30} distance {text}"
        print(f"{line}  precision {shares['precision'].value:.3f}  recall {shares['recall'].value:.3f}", flush=True)
    latent = runs["diffusion-latent"]
    for what, split in (("these images", held_out), ("training images", data.train)):
        rebuilt = to_levels(latent.reconstruct(to_float(split.images[:n])))
        features = extract(network, rebuilt)
        value, text = distance(real, features)
        print(f"  {f'reconstructed {what}':30} distance {text}", flush=True)
        if split is held_out:
            share = value / values["diffusion-latent"]
            verdict = "within" if share <= MOST_SHARE else "above"
            print(f"  {'its share of the samples':30} {share:.1%}, {verdict} the bar of {MOST_SHARE:.0%}", flush=True)
            worst = (features - real).square().sum(1).argsort(descending=True)[:FAILURES]
            write_pairs(latent.path / "reconstruction-failures.png", split.images[worst], rebuilt[worst])
    seconds = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, run in runs.items():
            start = time.perf_counter()
            run.sample(DRAWN, seed=1)
            seconds[name].append((time.perf_counter() - start) / DRAWN)
    least = {name: min(values) for name, values in seconds.items()}
    ratio = least["diffusion"] / least["diffusion-latent"]
    print(f"  seconds per image {least}: {ratio:.2f} times as quick ({torch.get_num_threads()} threads)", flush=True)


if __name__ == "__main__":
    main()
