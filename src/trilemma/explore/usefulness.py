"""Whether synthetic images are worth having: what they do for a classifier of real ones.

One small classifier (see `classifiers`) is trained on real images, on real images with classical augmentation, on real
and synthetic images together, and on synthetic images alone (the classification accuracy score of Ravuri & Vinyals
2019), each for the same number of steps, and tested on real images that were held out. Training k of each kind starts
from the same weights and has the same real images, so the kinds are compared by the differences d_k = a_k - b_k of
their accuracies: mean(d) +- t_{0.975, K - 1} s / sqrt(K), which leaves the chance that is common to both out. The
standard deviation s is taken to be at least one test image, the least that accuracies can differ by.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trilemma import __version__, rng
from trilemma.classifiers.bundled import BUNDLED
from trilemma.classifiers.classifier import Classifier, scores_of
from trilemma.config import make
from trilemma.data import Data, Split
from trilemma.data.transform import check_transforms
from trilemma.errors import UserError
from trilemma.hardware import supports_fast_bf16
from trilemma.metrics.catalogue import CATALOGUE
from trilemma.metrics.features import choose
from trilemma.metrics.intervals import Estimate, half_width
from trilemma.metrics.receipt import Score, protocol_name, score_of
from trilemma.progress import Display
from trilemma.registry import Recipe, build, get_recipe
from trilemma.run.config import LENGTHS, TrainConfig
from trilemma.run.run import Run
from trilemma.training.loop import Trainer

REAL, CLASSICAL, BOTH, SYNTHETIC = "real", "real + classical", "real + synthetic", "synthetic"
REAL_DEFAULT = 2_000  # real images that the classifier learns from, unless the user says how many
LEAST_TEST = 20  # real images to test on
BATCH = 128  # images in a step
WARMUP = 0.1  # share of the training over which the learning rate rises
NO_EFFECT = "No effect of the synthetic images could be shown"  # which is not to say that there is none
INTERVAL_IS = "95% over the trainings (Student's t), the real test images held fixed"


@dataclass(frozen=True)
class Verdict:
    """What synthetic images did for a classifier of real ones.

    accuracies: of each training, by what it learnt from; accuracy: their means with 95% intervals.
    difference: to real images alone, paired over the trainings; gain: of real + synthetic over real + classical.
    word: "help", "no effect shown" or "hurt", by the interval of difference["real + synthetic"]; text: in full.
    """

    word: str
    text: str
    accuracies: dict[str, tuple[float, ...]]
    accuracy: dict[str, Estimate]
    difference: dict[str, Estimate]
    gain: Estimate
    n_real: int
    n_synthetic: int
    n_test: int
    steps: int
    batch: int
    classifier: str
    classical: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[tuple[str, Estimate, Estimate | None]]:
        """What was learnt from, accuracy, and difference to real images alone."""
        return [(name, value, self.difference.get(name)) for name, value in self.accuracy.items()]

    def to_json(self) -> dict[str, Any]:
        """Plain values only."""
        estimates = {key: {k: v._asdict() for k, v in getattr(self, key).items()} for key in ("accuracy", "difference")}
        more = {**estimates, "gain": self.gain._asdict(), "interval_is": INTERVAL_IS, "trilemma": __version__}
        return asdict(self) | more


def usefulness_scores(verdict: Verdict, run: Run, *, seed: int, settings: Mapping[str, Any]) -> Iterator[Score]:
    """What a verdict says of a run, with its receipt: `settings` of its sampler, seed of the images."""
    split = run.data.held_out[0]
    how = f"{verdict.steps}-steps", f"{len(verdict.accuracies[REAL])}-trainings"
    classical = "-".join(verdict.classical) or "none"
    values = {
        "usefulness": (verdict.difference[BOTH], how),
        "usefulness_over_classical": (verdict.gain, (*how, classical)),
        "synthetic_accuracy": (verdict.accuracy[SYNTHETIC], how),
    }
    for name, (value, parts) in values.items():
        yield score_of(
            name,
            protocol_name(CATALOGUE[name].word, verdict.classifier, *parts, verdict.n_real, verdict.n_synthetic, split),
            value,
            interval_is=INTERVAL_IS,
            split=split,
            n_real=verdict.n_real,
            n_fake=verdict.n_synthetic,
            seed=seed,
            settings=dict(settings),
            data=run.data.name,
            data_fingerprint=run.data.fingerprint,
            weights=run.weights_id,
            unfinished=run.unfinished,
        )


def decide(
    accuracies: Mapping[str, Sequence[float]], n_test: int
) -> tuple[str, dict[str, Estimate], dict[str, Estimate], Estimate]:
    """The verdict's word, means, differences to real images alone and gain over classical augmentation.

    Args:
        accuracies: of the trainings, by what they learnt from; the k-th of each kind belong together.
        n_test: images they were tested on.
    """

    def mean(values: Sequence[float]) -> Estimate:
        centre, half = sum(values) / len(values), half_width(values, 1 / n_test)
        return Estimate(centre, (centre - half, centre + half))

    def paired(one: str, other: str) -> Estimate:
        return _within(mean([a - b for a, b in zip(accuracies[one], accuracies[other], strict=True)]), -1.0)

    difference = {name: paired(name, REAL) for name in accuracies if name != REAL}
    word = _word(difference[BOTH], "help", "no effect shown", "hurt")
    return word, {name: _within(mean(a), 0.0) for name, a in accuracies.items()}, difference, paired(BOTH, CLASSICAL)


def _within(estimate: Estimate, least: float) -> Estimate:
    """With an interval inside [least, 1]: a share is at least 0, a difference of shares at least -1."""
    low, high = estimate.interval
    return Estimate(estimate.value, (max(least, low), min(1.0, high)))


def _word(difference: Estimate, above: str, between: str, below: str) -> str:
    """By whether the interval lies above 0, holds it, or lies below."""
    low, high = difference.interval
    return above if low > 0 else below if high < 0 else between


@dataclass(frozen=True)
class Plan:
    """The trainings of a verdict."""

    data: Data
    recipe: Recipe
    training: TrainConfig
    device: torch.device
    seed: int
    seeds: int
    real: int
    classical: tuple[str, ...]
    notes: tuple[str, ...]


def plan_verdict(
    run: Run, seed: int, seeds: int, steps: int, real: int | None, classical: Sequence[str] | None
) -> Plan:
    """The trainings, checked before anything is drawn."""
    data = run.data
    split, held_out = data.held_out
    available = len(data.train)
    real = min(available, REAL_DEFAULT) if real is None else real
    if not 1 <= real <= available:
        raise UserError(f"real={real}: {data.name} has {available:,} training images; choose from 1 to {available:,}")
    if len(held_out) < LEAST_TEST:
        raise UserError(
            f"the {split} split of {data.name} has {len(held_out)} images, and a verdict needs {LEAST_TEST} to test "
            "on; give more images, or verdict=false"
        )
    network, _ = choose(data.shape, data.name)  # of large images one that is not trained here
    instead = "fashion-mnist" if data.shape[0] == 1 else "cifar10"
    name = next((name for name, own in BUNDLED.items() if own == network), instead)
    recipe = get_recipe(f"features-{name}")
    words = tuple(recipe.training["augment"] if classical is None else classical)
    keys = {key: value for key, value in recipe.training.items() if key not in LENGTHS}
    keys |= {"steps": steps, "batch": BATCH, "warmup_images": round(WARMUP * steps * BATCH), "augment": ()}
    notes = [f"tested on the {split} split of {data.name}, {len(held_out):,} images"]
    if real < available:
        notes.append(
            f"the model was trained on {available:,} images, and the classifier sees {real:,} of them: what synthetic "
            "images add may be what the model knows of the others"
        )
    return Plan(
        data, recipe, make(TrainConfig, keys), run.device, seed, seeds, real, check_transforms(words), tuple(notes)
    )


def compare_classifiers(plan: Plan, synthetic: Split, display: Display) -> Verdict:
    """Train the classifiers and compare them."""
    test = plan.data.held_out[1]
    accuracies: dict[str, list[float]] = {name: [] for name in (REAL, CLASSICAL, BOTH, SYNTHETIC)}
    for k in range(plan.seeds):
        seed = rng.seed_of(plan.seed, "augment", k)
        some = plan.data.train.take(rng.permutation(len(plan.data.train), seed, "real")[: plan.real])
        kinds: dict[str, tuple[Split, tuple[str, ...]]] = {
            REAL: (some, ()),
            CLASSICAL: (some, plan.classical),
            BOTH: (_together(some, synthetic), ()),
            SYNTHETIC: (synthetic, ()),
        }
        for name, (images, words) in kinds.items():
            accuracies[name].append(_accuracy(plan, images, words, seed, test))
            display.say(f"learnt from {name}, training {k + 1} of {plan.seeds}: {accuracies[name][-1]:.2%} right")
    word, accuracy, difference, gain = decide(accuracies, len(test))
    return Verdict(
        word,
        _text(accuracy, difference[BOTH], gain, plan, len(test)),
        {name: tuple(values) for name, values in accuracies.items()},
        accuracy,
        difference,
        gain,
        plan.real,
        len(synthetic),
        len(test),
        plan.training.steps or 0,
        plan.training.batch,
        plan.recipe.name,
        plan.classical,
        plan.notes,
    )


def _accuracy(plan: Plan, images: Split, words: tuple[str, ...], seed: int, test: Split) -> float:
    """Share of the test images that a classifier gets right which learnt from some images."""
    config = plan.recipe.config.with_(shape=plan.data.shape, n_classes=len(plan.data.classes))
    model = build(plan.recipe, config, seed=seed).to(plan.device)
    few = plan.data.valid.take(torch.arange(min(BATCH, len(plan.data.valid))))  # the trainer's own look; not used
    data = replace(plan.data, splits={"train": images, "valid": few})
    training = plan.training.with_(seed=seed, augment=words)
    with tempfile.TemporaryDirectory() as folder:
        display = Display("classifier", quiet=True)
        trainer = Trainer(model, data, training, Path(folder), display, bf16=supports_fast_bf16(plan.device))
        trainer.run()
    assert isinstance(model, Classifier)
    return scores_of(model, test)[0]


def _together(one: Split, other: Split) -> Split:
    assert one.labels is not None and other.labels is not None
    return Split(torch.cat([one.images, other.images]), torch.cat([one.labels, other.labels]))


def _text(accuracy: Mapping[str, Estimate], difference: Estimate, gain: Estimate, plan: Plan, n_test: int) -> str:
    """The verdict in two sentences."""
    than = _word(gain, "They are better than", "No difference could be shown from", "They are worse than")
    words = ", ".join(plan.classical) or "none"
    effect = _word(difference, "Synthetic images help", NO_EFFECT, "Synthetic images hurt")
    return (
        f"{effect}: a classifier gets {accuracy[BOTH].value:.2%} of {n_test:,} real images right with "
        f"them and {accuracy[REAL].value:.2%} without ({_points(difference)}, {plan.seeds} trainings each). "
        f"{than} classical augmentation ({words}; {accuracy[CLASSICAL].value:.2%}): {_points(gain)}."
    )


def _points(difference: Estimate) -> str:
    """A difference of shares in percentage points.

    >>> _points(Estimate(0.0125, (-0.001, 0.026)))
    '+1.25 points, 95% interval -0.10 to +2.60'
    """
    value, low, high = (100 * x for x in (difference.value, *difference.interval))
    return f"{value:+.2f} points, 95% interval {low:+.2f} to {high:+.2f}"
