"""Do the warnings come when they should, and only then? python benchmarks/health.py [gans] [healthy]

Trainings on the 8x8 digits, each with a seed of its own:

- GANs: 10 with their recipe's settings, 10 with the critic's learning rate 20 times as high (collapse, or a critic that
  leaves nothing to learn), and 10 with both rates 100 times as high (divergence). Counted are the runs with a warning,
  and the share of the training after which the first one came. Which of them went wrong in truth is for the eye:
  their samples lie in the folder while this runs.
- A healthy training of every model: counted are warnings of any kind, which would be false. Models that would truly
  collapse on such small images have a divergence that weighs less, or more time; ae-linear trains on its own points.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import trilemma
from trilemma.registry import get_recipe

STEPS = 600
GAN = "gan-dcgan-28"
LIGHT = {"beta": 0.1}
SETTINGS: dict[str, dict[str, object]] = {
    "ae-linear": {"data": "ellipse"},
    "vae": LIGHT,
    "vae-beta": LIGHT,
    "vae-conditional": LIGHT,
    "gan": {"batch": 32, "steps": 3_000},
}


def warnings_of(
    model: str, seed: int, lr: dict[str, float] | None, folder: Path, **keys: object
) -> list[tuple[float, str]]:
    """(share of the training, text) of every warning of a training."""
    keys = {"data": "digits", "steps": STEPS, "sample_every": 60 * 32} | keys
    run = trilemma.train(model, seed=seed, lr=lr, quiet=True, out=folder, **keys)
    return [(row["step"] / run.summary["steps"], row["warning"]) for row in run.log if "warning" in row]


def gans(folder: Path) -> bool:
    """Print a line per kind of training; whether at most one healthy training warned."""
    rates = get_recipe(GAN).training["lr"]
    kinds = {
        "healthy": dict(rates),
        "critic x 20": {**rates, "critic": 20 * rates["critic"]},
        "both x 100": {name: 100 * rate for name, rate in rates.items()},
    }
    quiet = True
    for kind, lr in kinds.items():
        found = [warnings_of(GAN, seed, lr, folder / f"{kind}-{seed}", batch=32) for seed in range(10)]
        told = [warnings for warnings in found if warnings]
        when = f", the first at {statistics.median(w[0][0] for w in told):.0%} of the training (median)" if told else ""
        print(f"{GAN}, {kind}: {len(told)} of 10 warned{when}", flush=True)
        for text in sorted({text[:100] for warnings in told for _, text in warnings})[:4]:
            print(f"    {text}")
        quiet &= kind != "healthy" or len(told) <= 1
    return quiet


def healthy(folder: Path) -> bool:
    """Print how many of the healthy trainings warned; whether none did."""
    false = []
    for seed, model in enumerate(names := trilemma.list_models(), start=10):
        found = warnings_of(model, seed, None, folder / model, **SETTINGS.get(model, {}))
        false += [f"{model}, seed {seed}: {text}" for _, text in found]
    print(f"{len(names)} healthy trainings: {len(false)} warnings", *false, sep="\n    ", flush=True)
    return not false


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asked = [kind for kind in (gans, healthy) if kind.__name__ in sys.argv[1:]] or [gans, healthy]
        missed = [kind for kind in asked if not kind(Path(name))]
    sys.exit(1 if missed else 0)
