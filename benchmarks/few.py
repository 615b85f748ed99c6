"""Consistency tuning: one, two and four calls after it against the calls of the model that was tuned:

    python benchmarks/few.py [DATA] --teacher RUN [--minutes 15] [--images 10000] [--seed 0] [--out runs/few]

Printed: the Frechet distance of the tuned model in 1, 2 and 4 calls, and of the teacher in 50 of ddim and in its own
default number; on the held-out images, in bundled features. Extra KEY=VALUE go to the tuning.
"""

import argparse
from pathlib import Path

import trilemma
from trilemma.arguments import parse_settings
from trilemma.metrics.features import extract, feature_network
from trilemma.metrics.frechet import frechet_distance
from trilemma.pictures.grid import grid
from trilemma.pictures.png import save_png


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="fashion-mnist")
    parser.add_argument("keys", nargs="*")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/few"))
    given = parser.parse_args()
    keys = parse_settings(given.keys)
    lengths = {"minutes": given.minutes, "seed": given.seed, "out": given.out, "quiet": True}
    run = trilemma.train("diffusion-few", given.data, init=given.teacher, **lengths, **keys)
    teacher = trilemma.load(given.teacher)
    network = feature_network("auto", run.shape, run.data.name)
    real = extract(network, run.data.held_out[1].images)
    settings = [(run, {"steps": calls}) for calls in (1, 2, 4)]
    settings += [(teacher, {"sampler": "ddim", "steps": 50}), (teacher, {})]
    for one, how in settings:
        images = one.sample(given.images, seed=given.seed, **how)
        value = frechet_distance(real=real, fake=extract(network, images)).value
        name = "-".join([one.recipe.name, *(f"{key}{word}" for key, word in how.items())])
        save_png(grid(images[:64]), given.out / f"{name}.png", {"verb": "benchmark", "model": name}, replace=True)
        print(f"{one.recipe.name:16} {how or 'by default'!s:36} distance {value:.2f}", flush=True)


if __name__ == "__main__":
    main()
