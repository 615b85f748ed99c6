"""Training seconds until samples cover a quarter of the held-out images: for `trilemma list`.

Each preset trains on its own data (grey ones on MNIST or Fashion-MNIST) and is measured after 5, 10, 20, ... seconds,
with 500 images on either side. One thread unless OMP_NUM_THREADS says otherwise.

    python benchmarks/first_samples.py [MODEL ...] [--most SECONDS]
"""

import argparse
import tempfile
from pathlib import Path

from trilemma import evaluate, list_models, train
from trilemma.registry import get_recipe
from trilemma.types import Samples

ENOUGH = 0.25  # coverage
SECONDS = (5, 10, 20, 40, 80, 160)
N = 500


def first(model: str, folder: Path, most: int) -> str:
    data = get_recipe(model).data
    for seconds in filter(lambda seconds: seconds <= most, SECONDS):
        run = train(model, data, minutes=seconds / 60, out=folder / f"{model}-{seconds}", quiet=True)
        if not isinstance(run.model, Samples):
            return "does not sample"
        result = evaluate(run, n=min(N, len(run.data.held_out[1])), bound_samples=0)
        score = result["coverage"]
        print(
            f"  {model} on {data}, {seconds} s: coverage {score.value:.3f}, density {result['density'].value:.3f}",
            flush=True,
        )
        if score.value is not None and score.value >= ENOUGH:
            return f"{seconds} s"
    return f"more than {most} s"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*")
    parser.add_argument("--most", type=int, default=SECONDS[-1])
    given = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        for model in given.models or list_models():
            print(f"{model}: {first(model, Path(folder), given.most)}", flush=True)


if __name__ == "__main__":
    main()
