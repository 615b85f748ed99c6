"""Do the warnings come when they should, and only then? python benchmarks/health.py [gans] [healthy]

Trainings on the 8x8 digits, each with a seed of its own:

- GANs: ten with their recipe's settings and ten of each kind in KINDS, whose rates are so high that many go wrong.
  Which of them did, the feature network of the digits says, of which the warnings know nothing: precision or
  recall of the final samples is less than half of the median of the recipe's trainings. Counted are the failures with
  a warning of the samples or of the critic, the sound trainings with one, and the share of a training after which the
  first one came.
- A healthy training of every model: counted are warnings of any kind, which would be false. Models that would truly
  collapse on such small images have a divergence that weighs less, or more time; ae-linear trains on its own points.
"""

import re
import statistics
import sys
import tempfile
from pathlib import Path

import trilemma
from trilemma.registry import get_recipe

STEPS = 600
GAN = "gan-dcgan-28"
SEEDS = range(10, 20)
KINDS: dict[str, dict[str, float]] = {  # times the recipe's rates
    "recipe": {},
    "critic x 20": {"critic": 20},
    "generator x 20": {"generator": 20},
    "both x 100": {"critic": 100, "generator": 100},
    "both x 300": {"critic": 300, "generator": 300},
}
UNHURRIED = ("ae-recurrent", "vae-ladder")  # after STEPS these still give the mean image, and rightly say so
UNHURRIED += ("gan-wgan", "gan-r3", "gan-style")  # and these few kinds of digits
LIGHT = {"beta": 0.1}
SMALL_UNET: dict[str, object] = {"width": 16, "multipliers": (1, 2), "depth": 1}
SETTINGS: dict[str, dict[str, object]] = {
    "ae-linear": {"data": "ellipse"},
    "vae": LIGHT,
    "vae-beta": LIGHT,
    "vae-conditional": LIGHT,
    "gan": {"batch": 32, "steps": 6_000},  # at half of them it still draws few kinds of digits
    **dict.fromkeys(
        ("diffusion", "diffusion-flow", "diffusion-edm", "diffusion-upscale", "diffusion-inpaint"), SMALL_UNET
    ),
    "diffusion-cifar": {**SMALL_UNET, "batch": 64, "warmup_images": 4_000, "ema_halflife_images": 4_000},
    "diffusion-dit": {"width": 64, "depth": 2, "heads": 4},
    "diffusion-text": {**SMALL_UNET, "data": "scenes"},
    "diffusion-latent": {**SMALL_UNET, "autoencoder.steps": STEPS},
}


def warnings_of(
    model: str, seed: int, lr: dict[str, float] | None, folder: Path, **keys: object
) -> list[tuple[float, str]]:
    """(share of the training, text) of every warning of a training."""
    keys = {"data": "digits", "steps": STEPS, "sample_every": 60 * 32} | keys
    run = trilemma.train(model, seed=seed, lr=lr, quiet=True, out=folder, **keys)
    return [(row["step"] / run.summary["steps"], row["warning"]) for row in run.log if "warning" in row]


def rivals(factors: dict[str, float], seed: int, folder: Path) -> tuple[list[tuple[float, str]], list[float]]:
    """Warnings of a GAN with so many times its rates, and the samples' precision and recall against the test split."""
    lr = {name: factors.get(name, 1) * rate for name, rate in get_recipe(GAN).training["lr"].items()}
    warnings = warnings_of(GAN, seed, lr, folder, batch=32)
    scores = {score.name: score.value for score in trilemma.evaluate(folder, n=360).scores}
    return warnings, [scores["precision"], scores["recall"]]


def gans(folder: Path) -> bool:
    """Print a line per kind of training; whether nine of ten failures warned, and at most one of ten sound ones."""
    runs = {kind: [rivals(times, n, folder / f"{kind}-{n}") for n in SEEDS] for kind, times in KINDS.items()}
    bars = [statistics.median(values) / 2 for values in zip(*(scores for _, scores in runs["recipe"]), strict=True)]
    print(f"{GAN}; failed: precision below {bars[0]:.2f} or recall below {bars[1]:.2f}")
    warned: dict[bool, list[bool]] = {True: [], False: []}  # failed: whether each was warned of
    for kind, result in runs.items():
        of_kind: dict[bool, list[bool]] = {True: [], False: []}
        for warnings, scores in result:
            of_kind[any(value < bar for value, bar in zip(scores, bars, strict=True))].append(bool(warnings))
        first = [warnings[0][0] for warnings, _ in result if warnings]
        when = f", first after {statistics.median(first):.0%} of the training (median)" if first else ""
        print(f"{kind}: warned of {sum(of_kind[True])} of {len(of_kind[True])} that failed", end=" ")
        print(f"and {sum(of_kind[False])} of {len(of_kind[False])} that did not{when}")
        for text in sorted({re.sub("[0-9.]+", "#", text)[:60] for warnings, _ in result for _, text in warnings}):
            print(f"    {text}")
        warned = {fails: warned[fails] + of_kind[fails] for fails in warned}
    shares = {fails: sum(warned[fails]) / max(1, len(warned[fails])) for fails in warned}
    counts = {fails: f"{shares[fails]:.0%} of {len(warned[fails])}" for fails in warned}
    print(f"warned of {counts[True]} failures, {counts[False]} others")
    return shares[True] >= 0.9 and shares[False] <= 0.1


def healthy(folder: Path) -> bool:
    """Print how many of the healthy trainings warned; whether none did."""
    false = []
    names = [name for name in trilemma.list_models() if name not in UNHURRIED]
    for seed, model in enumerate(names, start=10):
        begins_with = {"init": folder / "diffusion"} if model == "diffusion-few" else {}  # which is trained by then
        result = warnings_of(model, seed, None, folder / model, **SETTINGS.get(model, {}), **begins_with)
        false += [f"{model}, seed {seed}: {text}" for _, text in result]
    print(f"{len(names)} healthy trainings: {len(false)} warnings", *false, sep="\n    ", flush=True)
    return not false


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asked = [kind for kind in (gans, healthy) if kind.__name__ in sys.argv[1:]] or [gans, healthy]
        missed = [kind for kind in asked if not kind(Path(name))]
    sys.exit(1 if missed else 0)
