"""Figures of the GANs, and of what stands beside them, that need several trainings or a classifier:

    python benchmarks/gans.py classes RUN [RUN ...]    of 1,000 samples of each run, how many are of each class, as a
                                                       bundled classifier sees them
    python benchmarks/gans.py estimate MODEL DATA      the loss against the Frechet distance over a training, of
                                                       --points lengths: Spearman's rank correlation
    python benchmarks/gans.py few MODEL DATA           with --images training images: the Frechet distance with and
                                                       without adaptive augmentation, --seeds of each, and the interval
                                                       of the difference
    python benchmarks/gans.py rates MODEL DATA         of --seeds trainings with the recipe's rates and as many with
                                                       --factor times these, how many failed: they ended with
                                                       numbers that are not finite, or precision or recall of their
                                                       samples is less than half of the median of the recipe's

Of a Wasserstein loss, `estimate` takes the critic's estimate of the distance, E D(x) - E D(G(z)); of another GAN its
generator's loss, and of any other model its loss: the mean over the rows of the log since the length before. Each
length resumes the one before, so only a rate that is constant after its warm-up is that of one long training: one that
falls to the end of each length is refused. --images counts those of all of the critic's steps: a step of gan-wgan-gp
takes 5 batches. Keys of the training follow as key=value. Trainings lie in --out, and the same line resumes where it
was stopped; the lengths that are measured already are in a .json beside the training. Distances and scores are of --n
samples and the held-out images, in the bundled features.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import trilemma
from trilemma.arguments import parse_settings
from trilemma.data import load_data
from trilemma.errors import Diverged
from trilemma.files import json_text, parse_json, read_json, write_json
from trilemma.metrics.classification import classes_seen, classifier_of
from trilemma.metrics.intervals import difference_of_trainings, mean_estimate
from trilemma.registry import get_recipe
from trilemma.run.config import TrainConfig

SAMPLES = 1000
DIVERGED = -1.0  # in place of a share


def classes(run: trilemma.Run) -> str:
    """The shares of the classes among samples."""
    network = classifier_of(run.data)
    counts = torch.bincount(classes_seen(network, run.sample(SAMPLES, seed=0)), minlength=len(run.classes)) / SAMPLES
    shares = ", ".join(f"{name} {share:.1%}" for name, share in zip(run.classes, counts.tolist(), strict=True))
    return f"{run.path}: least {counts.min():.1%}: {shares}"


def loss_of(rows: Sequence[dict[str, Any]], is_wasserstein: bool) -> float:
    """What a training says of itself, over some rows of its log."""
    values = [row for row in rows if any(name.endswith("/loss") for name in row)]
    if is_wasserstein:
        return statistics.mean(row["critic/logit_real"] - row["critic/logit_fake"] for row in values)
    name = "generator/loss" if "generator/loss" in values[0] else next(k for k in values[0] if k.endswith("/loss"))
    return statistics.mean(row[name] for row in values if name in row)


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the smallest; no two are alike."""
    return [1.0 + sum(other < value for other in values) for value in values]


def estimate(given: argparse.Namespace) -> str:
    """One training, looked at after equal parts; what was measured before is taken from its file."""
    check_constant(given)
    folder = given.out / f"estimate-{given.model}-{given.data}"
    file = folder.with_name(f"{folder.name}.json")
    asked = parse_json(json_text({name: getattr(given, name) for name in ("images", "points", "n", "keys")}))
    rows = measured_in(file, asked, folder)
    for row in rows:
        print(row_text(row), flush=True)
    for point in range(len(rows) + 1, given.points + 1):
        images, seen = given.images * point // given.points, rows[-1]["images"] if rows else 0
        run = trilemma.train(given.model, given.data, images=images, out=folder, quiet=True, **given.keys)
        is_wasserstein = run.model_config.get("loss") == "wasserstein"
        loss = loss_of([row for row in run.log if row["images"] > seen], is_wasserstein)
        rows.append({"images": run.summary["images"], "loss": loss, "distance": distance(run, given.n)})
        write_json(file, {"asked": asked, "rows": rows})
        print(row_text(rows[-1]), flush=True)
    correlation = statistics.correlation(*(ranks([row[name] for row in rows]) for name in ("loss", "distance")))
    return f"{given.model}, {given.data}: rank correlation {correlation:.2f} over {given.points} lengths"


def check_constant(given: argparse.Namespace) -> None:
    """Refuse a rate that falls to the end of a training, which each length would have for itself."""
    usual = get_recipe(given.model).training.get("schedule", TrainConfig.model_fields["schedule"].default)
    if (schedule := given.keys.get("schedule", usual)) in ("cosine", "linear"):
        raise SystemExit(
            f"{given.model} has schedule={schedule}, by which the rate falls to 0 at the end of each length, and "
            "several lengths are not one training; add schedule=constant"
        )


def measured_in(file: Path, asked: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What the same line has measured of a training so far."""
    if not folder.exists():
        write_json(file, {"asked": asked, "rows": []})
    elif not file.exists():
        raise SystemExit(f"{folder} is there without {file.name}; delete it, or give another --out")
    content = read_json(file)
    if content["asked"] != asked:
        raise SystemExit(
            f"{file} was measured with {content['asked']}, and asked for is {asked}; give the same, or another --out"
        )
    return content["rows"]


def row_text(row: dict[str, Any]) -> str:
    """A length in words."""
    return f"{row['images']:9,} images: {row['loss']:9.4f} {row['distance']:9.2f}"


def few(given: argparse.Namespace) -> str:
    """Trainings on the first images of a data set."""
    data = load_data(given.data)
    part = replace(data, splits={**data.splits, "train": data.train.take(torch.arange(given.images))})
    results: dict[str, list[float]] = {"none": [], "adaptive": []}
    for seed in range(given.seeds):
        for augment, distances in results.items():
            folder = given.out / f"few-{given.model}-{given.data}-{given.images}-{augment}-{seed}"
            keys = {**given.keys, "critic_augment": augment, "seed": seed, "out": folder, "quiet": True}
            run = trilemma.train(given.model, part, **keys)
            distances.append(distance(run, given.n))
            print(f"{augment}, seed {seed}: {distances[-1]:.2f}", flush=True)
    lines = [f"{name}: {_interval(mean_estimate(distances))}" for name, distances in results.items()]
    gain = difference_of_trainings(results["none"], results["adaptive"])
    return "\n".join([*lines, f"none - adaptive: {_interval(gain)}"])


def rates(given: argparse.Namespace) -> str:
    """Trainings whose rates are too high."""
    own = [attempt(given, 1.0, seed) for seed in range(given.seeds)]
    bars = [statistics.median(values) / 2 for values in zip(*own, strict=True)]
    lines = [f"{given.model}, {given.data}; failed: precision below {bars[0]:.2f} or recall below {bars[1]:.2f}"]
    fast = [attempt(given, given.factor, seed) for seed in range(given.seeds)]
    for name, results in (("recipe", own), (f"rates x {given.factor:g}", fast)):
        failed = sum(any(value < bar for value, bar in zip(values, bars, strict=True)) for values in results)
        lines.append(f"{name}: {failed} of {given.seeds} failed")
    return "\n".join(lines)


def attempt(given: argparse.Namespace, factor: float, seed: int) -> tuple[float, float]:
    """Precision and recall after a training with so many times the recipe's rates; below any bar where it diverged."""
    rate = get_recipe(given.model).training["lr"]
    lr = {name: factor * own for name, own in rate.items()} if isinstance(rate, dict) else factor * rate
    folder = given.out / f"rates-{given.model}-{given.data}-{factor:g}-{seed}"
    try:
        run = trilemma.train(given.model, given.data, lr=lr, seed=seed, out=folder, quiet=True, **given.keys)
    except Diverged:
        print(f"rates x {factor:g}, seed {seed}: diverged", flush=True)
        return DIVERGED, DIVERGED
    scores = trilemma.evaluate(run, n=given.n, split="test", bound_samples=0)
    precision, recall = (scores[name].value or 0.0 for name in ("precision", "recall"))
    print(f"rates x {factor:g}, seed {seed}: precision {precision:.2f}, recall {recall:.2f}", flush=True)
    return precision, recall


def distance(run: trilemma.Run, n: int) -> float:
    """Frechet distance of so many samples from the held-out images."""
    score = trilemma.evaluate(run, n=n, split="test", bound_samples=0)["frechet_distance"]
    if score.value is None:
        raise SystemExit(f"--n {n}: {score.refused}")
    return score.value


def _interval(estimate: Any) -> str:
    low, high = estimate.interval
    return f"{estimate.value:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("classes", "estimate", "few", "rates"))
    parser.add_argument("words", nargs="+", help="runs; or MODEL DATA and keys")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--images", type=int, help="of the training: 500 for few, else 300,000")
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--factor", type=float, default=100.0, help="of the rates")
    parser.add_argument("--out", type=Path, default=Path("runs/gans"))
    given = parser.parse_args()
    if given.what == "classes":
        for path in given.words:
            print(classes(trilemma.load(path)), flush=True)
        return
    (given.model, given.data), given.keys = given.words[:2], parse_settings(given.words[2:])
    given.images = given.images or (500 if given.what == "few" else 300_000)
    print({"few": few, "estimate": estimate, "rates": rates}[given.what](given))


if __name__ == "__main__":
    main()
