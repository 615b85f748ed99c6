"""Diffusion of codes against diffusion of pixels, trained for the same time, the autoencoder's counted in:

    python benchmarks/latent.py [DATA ...] [--minutes 40] [--size 64] [--images 2500] [--seed 0] [--out runs/latent]
                                [KEY=VALUE ...]
    python benchmarks/latent.py --run RUN [--images 2500] [--seed 0]

DATA: shapes, or a folder of images (default: shapes). Extra KEY=VALUE go to diffusion-latent. Printed for each: the
Frechet distance with its interval, precision and recall of both by as many held-out images; the same distance of the
autoencoder's reconstructions of these images, as papers give it, with its share of the distance of the samples, and of
reconstructions of as many training images, which are no pairs; and seconds for an image, in turns. The share and the
speed are given beside their bars. A training that is there is not made again. Each run gets pictures: grid.png;
failures.png, the samples that are farthest from all held-out images in features, each above the nearest of these; and
for codes reconstruction-failures.png, the images that are farthest from their reconstructions, each above its own.

With --run nothing is trained: a finished run of diffusion-latent gets these pictures, and its distances are printed.
"""

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from bars import verdict
from torch import Tensor, nn

import trilemma
from trilemma.arguments import parse_settings
from trilemma.data import Data
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
MOST_SHARE = 0.3  # bar: of the distance of samples, that reconstructions may be at
QUICKER = 4.0  # bar: how many images of codes are drawn in the time of one of pixels
FAILURES = 16  # in a picture


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="DATA or KEY=VALUE")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/latent"))
    parser.add_argument("--run")
    given = parser.parse_intermixed_args()
    if given.run is not None:
        run = trilemma.load(given.run)
        measure([run], run.data, given)
        return
    keys = [word for word in given.words if "=" in word]
    for source in [word for word in given.words if word not in keys] or ["shapes"]:
        data = trilemma.load_data(source, size=given.size, channels=3)
        print(", ".join([data.name, f"{given.size} px", f"{given.minutes:g} minutes", *keys]), flush=True)
        runs = [train(MODELS[0], data, given), train(MODELS[1], data, given, keys)]
        measure(runs, data, given)
        print(f"  {speed(runs)}", flush=True)


def train(name: str, data: Data, given: argparse.Namespace, keys: Sequence[str] = ()) -> trilemma.Run:
    """A model of one source, in a folder that says its keys KEY=VALUE."""
    place = f"{name}-{data.name}-{given.size}px-{given.minutes:g}min-seed{given.seed}"
    out = given.out / "-".join([place, *(re.sub(r"[^\w.,=-]", "_", key) for key in keys)])
    lengths = {"minutes": given.minutes, "seed": given.seed, "out": out, "quiet": True}
    return trilemma.train(name, data, **lengths, **parse_settings(keys))


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


def measure(runs: list[trilemma.Run], data: Data, given: argparse.Namespace) -> None:
    """The distances and pictures of runs of one source, the last of them of codes."""
    network = feature_network("auto", data.shape, data.name)
    held_out = data.held_out[1]
    n = min(given.images, len(held_out), len(data.train))
    real = extract(network, held_out.images[:n])
    print(f"{n} images, features {network.name}", flush=True)
    values = [measure_samples(run, network, held_out.images, real, given.seed) for run in runs]
    measure_reconstructions(runs[-1], network, data, real, values[-1])


def measure_samples(run: trilemma.Run, network: nn.Module, held_out: Tensor, real: Tensor, seed: int) -> float:
    """Print the distance of as many samples as there are features of held-out images, (n, D), and draw pictures."""
    images = to_levels(run.sample(len(real), seed=seed))
    save_png(grid(images[:64]), run.path / "grid.png", {"verb": "benchmark", "model": run.recipe.name}, replace=True)
    fake = extract(network, images)
    index, far = nearest(fake, [real])
    worst = far.argsort(descending=True)[:FAILURES]
    write_pairs(run.path / "failures.png", images[worst], held_out[index[worst]])
    shares = neighbour_scores(real=real, fake=fake)
    value, text = distance(real, fake)
    line = f"  {run.recipe.name:30} distance {text}"
    print(f"{line}  precision {shares['precision'].value:.3f}  recall {shares['recall'].value:.3f}", flush=True)
    return value


def measure_reconstructions(run: trilemma.Run, network: nn.Module, data: Data, real: Tensor, of_samples: float) -> None:
    """The same of reconstructions; of_samples: the distance of the samples."""
    n, held_out = len(real), data.held_out[1]
    for what, split in (("these images", held_out), ("training images", data.train)):
        rebuilt = to_levels(run.reconstruct(to_float(split.images[:n])))
        features = extract(network, rebuilt)
        value, text = distance(real, features)
        print(f"  {f'reconstructed {what}':30} distance {text}", flush=True)
        if split is held_out:
            share = value / of_samples
            print(f"  {'its share of the samples':30} {share:.1%}, {verdict(share, MOST_SHARE, '.0%')}", flush=True)
            worst = (features - real).square().sum(1).argsort(descending=True)[:FAILURES]
            write_pairs(run.path / "reconstruction-failures.png", split.images[worst], rebuilt[worst])


def speed(runs: list[trilemma.Run]) -> str:
    """Seconds for an image of each, measured in turns, and their ratio beside its bar."""
    seconds = {run.recipe.name: [] for run in runs}
    for _ in range(TURNS):
        for run in runs:
            start = time.perf_counter()
            run.sample(DRAWN, seed=1)
            seconds[run.recipe.name].append((time.perf_counter() - start) / DRAWN)
    return speed_in_words({name: min(values) for name, values in seconds.items()})


def speed_in_words(seconds: dict[str, float]) -> str:
    """Seconds for an image of each of MODELS, and their ratio beside its bar."""
    ratio = seconds["diffusion"] / seconds["diffusion-latent"]
    quicker = f"{ratio:.2f} times as quick, {verdict(ratio, QUICKER, least=True)}"
    return f"seconds per image {seconds}: {quicker} ({torch.get_num_threads()} threads)"


if __name__ == "__main__":
    main()
