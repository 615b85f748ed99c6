"""Consistency tuning: one, two and four calls after it against the calls of the model that was tuned:

    python benchmarks/few.py [DATA] --teacher RUN [--minutes 15] [--images 10000] [--seed 0] [--out runs/few]

Printed: the Frechet distance of the tuned model in 1, 2 and 4 calls, and of the teacher in 50 of ddim and in its own
default number; on the held-out images, in bundled features; and those of 1 and 2 calls over that of the 50, beside
their bars. Extra KEY=VALUE go to the tuning.
"""

import argparse
from pathlib import Path

from bars import verdict

import trilemma
from trilemma.arguments import parse_settings
from trilemma.metrics.features import extract, feature_network
from trilemma.metrics.frechet import frechet_distance
from trilemma.pictures.grid import grid
from trilemma.pictures.png import save_png

CALLS = (1, 2, 4)  # of the tuned model, for an image
BARS = {2: 1.3, 1: 2.0}  # by the calls: their distance over that of 50 calls of the teacher


def beside_bars(distances: dict[int, float], fifty: float) -> str:
    """The distances by calls over that of the teacher in 50, beside their bars."""
    ratios = {calls: distances[calls] / fifty for calls in BARS}
    parts = [f"in {calls} {ratio:.2f} x, {verdict(ratio, BARS[calls])}" for calls, ratio in ratios.items()]
    return f"distance over that of the teacher in 50 calls: {'; '.join(parts)}"


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
    given = parser.parse_intermixed_args()
    keys = parse_settings(given.keys)
    lengths = {"minutes": given.minutes, "seed": given.seed, "out": given.out, "quiet": True}
    run = trilemma.train("diffusion-few", given.data, init=given.teacher, **lengths, **keys)
    teacher = trilemma.load(given.teacher)
    network = feature_network("auto", run.shape, run.data.name)
    real = extract(network, run.data.held_out[1].images)
    settings = [
        *((run, {"steps": calls}) for calls in CALLS),
        (teacher, {"sampler": "ddim", "steps": 50}),
        (teacher, {}),
    ]
    values = []
    for one, how in settings:
        images = one.sample(given.images, seed=given.seed, **how)
        values.append(frechet_distance(real=real, fake=extract(network, images)).value)
        name = "-".join([one.recipe.name, *(f"{key}{word}" for key, word in how.items())])
        save_png(grid(images[:64]), given.out / f"{name}.png", {"verb": "benchmark", "model": name}, replace=True)
        print(f"{one.recipe.name:16} {how or 'by default'!s:36} distance {values[-1]:.2f}", flush=True)
    print(beside_bars(dict(zip(CALLS, values, strict=False)), values[len(CALLS)]), flush=True)


if __name__ == "__main__":
    main()
