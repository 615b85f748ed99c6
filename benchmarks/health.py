"""Do the warnings come when they should, and only then? python benchmarks/health.py

Trainings on the 8x8 digits, each with a seed of its own:

- GANs: 10 with their recipe's settings, 10 with the critic's learning rate 20 times as high (collapse, or a critic that
  leaves nothing to learn), and 10 with both rates 100 times as high (divergence). Counted are the runs with a warning,
  and the share of the training after which the first one came.
- 20 healthy trainings over all families: counted are warnings of any kind, which would be false.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import trilemma
from trilemma.registry import get_recipe

STEPS = 600
GAN = "gan-dcgan-28"
HEALTHY = ("ae-stacked", "vae", "gan-dcgan-28", "gan", "diffusion-small")


def warnings_of(
    model: str, seed: int, lr: dict[str, float] | None, folder: Path, **keys: object
) -> list[tuple[float, str]]:
    """(share of the training, text) of every warning of a training."""
    steps = keys.pop("steps", STEPS)
    run = trilemma.train(
        model, "digits", steps=steps, seed=seed, lr=lr, sample_every=60 * 32, quiet=True, out=folder, **keys
    )
    return [(row["step"] / steps, row["warning"]) for row in run.log if "warning" in row]


def gans(folder: Path) -> None:
    """Print a line per kind of training."""
    rates = get_recipe(GAN).training["lr"]
    kinds = {
        "healthy": dict(rates),
        "critic x 20": {**rates, "critic": 20 * rates["critic"]},
        "both x 100": {name: 100 * rate for name, rate in rates.items()},
    }
    for kind, lr in kinds.items():
        found = [warnings_of(GAN, seed, lr, folder / f"{kind}-{seed}", batch=32) for seed in range(10)]
        told = [warnings for warnings in found if warnings]
        when = f", the first at {statistics.median(w[0][0] for w in told):.0%} of the training (median)" if told else ""
        print(f"{GAN}, {kind}: {len(told)} of 10 warned{when}", flush=True)
        for text in sorted({text[:100] for warnings in told for _, text in warnings})[:4]:
            print(f"    {text}")


def healthy(folder: Path) -> None:
    """Print how many of the healthy trainings warned."""
    runs = [(model, seed) for model in HEALTHY for seed in range(10, 14)]
    false = []
    for model, seed in runs:
        keys = {"beta": 0.1} if model == "vae" else {}  # with 1, codes of 8x8 digits do collapse
        found = warnings_of(model, seed, None, folder / f"{model}-{seed}", **keys)
        false += [f"{model}, seed {seed}: {text}" for _, text in found]
    print(f"{len(runs)} healthy trainings: {len(false)} warnings", *false, sep="\n    ", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        if "healthy" not in sys.argv[1:]:
            gans(Path(name))
        healthy(Path(name))
