"""Labelled synthetic images from a conditional model, and whether they are worth having.

The verdict trains one small classifier (see `classifiers`) on real images, on real images with classical augmentation,
on real and synthetic images together, and on synthetic images alone (the classification accuracy score of Ravuri &
Vinyals 2019), each for the same number of steps, and tests it on real images that were held out. Training k of each
kind starts from the same weights and has the same real images, so the kinds are compared by the differences
d_k = a_k - b_k of their accuracies: mean(d) +- t_{0.975, K - 1} s / sqrt(K), which leaves the chance that is common to
both out. The standard deviation s is taken to be at least one test image, the least that accuracies can differ by.
"""

import io
import json
import re
import tempfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from trilemma import __version__, rng
from trilemma.classifiers.classifier import figures_of
from trilemma.config import make
from trilemma.data import Data, Split
from trilemma.data.decoding.pixels import SUFFIXES
from trilemma.data.transform import check_transforms
from trilemma.errors import UserError
from trilemma.explore.images import run_receipt
from trilemma.explore.sample import receipt_of
from trilemma.files import json_text, remove
from trilemma.hardware import supports_fast_bf16
from trilemma.keys import BatchSize, Quiet, Seed
from trilemma.metrics.classification import class_counts, draw_classes
from trilemma.metrics.features import BUNDLED, choose
from trilemma.metrics.intervals import Estimate, half_width
from trilemma.modes import own_modes
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import save_png
from trilemma.progress import Display
from trilemma.registry import Recipe, build, get_recipe
from trilemma.results import Results, out_path
from trilemma.run.config import LENGTHS, TrainConfig
from trilemma.run.run import Run, RunLike, as_run
from trilemma.text import csv_cell, csv_text
from trilemma.training.loop import Trainer
from trilemma.values import checked_call

if TYPE_CHECKING:
    from PIL import Image

REAL, CLASSICAL, BOTH, SYNTHETIC = "real", "real + classical", "real + synthetic", "synthetic"
REAL_DEFAULT = 2_000  # real images that the classifier learns from where the user does not say
LEAST_TEST = 20  # real images to test on
BATCH = 128  # images in a step
SHOWN = 10  # images of each class in the grid
WARMUP = 0.1  # share of the training over which the learning rate rises
LABELS, VERDICT = "metadata.csv", "verdict.json"
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


@dataclass(frozen=True)
class Augmentation:
    """The folder with a folder of PNG files for each class, how many are in each, and a grid of some of them.

    archive: the folder as a zip, or None; verdict: None where none was asked for.
    """

    folder: Path
    grid: Path
    counts: dict[str, int]
    archive: Path | None
    verdict: Verdict | None


@checked_call
@own_modes()
def augment(
    run: RunLike,
    *,
    n: Annotated[int, Field(ge=1, description="number of images, the same for each class")] = 5_000,
    seed: Seed = 0,
    batch: BatchSize = 256,
    out: Annotated[str | Path | None, Field(description="folder to write (default: inside the run folder)")] = None,
    archive: Annotated[bool, Field(description="also write a zip")] = False,
    verdict: Annotated[bool, Field(description="train classifiers to see whether the images help")] = True,
    seeds: Annotated[int, Field(ge=2, description="classifiers trained per data mix")] = 3,
    steps: Annotated[int, Field(ge=1, description="training steps per classifier")] = 300,
    real: Annotated[
        int | None,
        Field(description="number of real training images for the classifiers (default: all, at most 2,000)"),
    ] = None,
    classical: Annotated[
        Sequence[str] | None,
        Field(description="classical augmentation to compare with: flip,shift (default: what fits the data)"),
    ] = None,
    quiet: Quiet = False,
    **settings: Any,
) -> Augmentation:
    """Draw `n` labelled images, the classes equally often, write them as class folders, and say whether they help.

    Args:
        seed: of the images, and of the trainings of the verdict.
        batch: images drawn at a time.
        out: the folder, beside which a grid lies; RUN/synthetic/N-seed-SEED where None.
        archive: also OUT.zip.
        verdict: train classifiers to see whether the images help; also written to OUT/verdict.json.
        seeds: trainings of each kind; steps: of each of them, of BATCH images.
        real: training images that the classifier learns from, others in each training; all, at most 2,000, where None.
        classical: the classical augmentation, flip, shift or both with a comma; what fits the data where None.
        quiet: print no progress.
        settings: of the model's sampler, see `Run.sample`.
    Raises:
        UserError: the model takes no class, the folder holds other images, or the verdict has too little to go by.
    """
    run = as_run(run)
    counts = class_counts(run, n)
    folder = out_path(out) if out is not None else run.path / "synthetic" / f"{n}-seed-{seed}"
    files, found = _files(folder, counts), folder / VERDICT
    labels = _labels(folder, files)
    zipped = folder.with_name(f"{folder.name}.zip")
    singles = [path for paths in files.values() for path in paths]
    results = Results(
        folder.with_name(f"{folder.name}.png"),
        [*labels, found, *([zipped] if archive else [])],
        verb="augment",
        within=run.path if out is None else folder,
        pictures=singles,
    )
    _refuse_others(folder, singles)
    plan = _plan(run, seed, seeds, steps, real, classical) if verdict else None
    remove(found)  # of an earlier call
    display = Display("augment", quiet=quiet)
    try:
        synthetic = _write(run, counts, files, seed, batch, settings)
        receipt = run_receipt(run, "augment", n=n, seed=seed, settings=settings, grid=True)
        picture = _preview(synthetic)
        results.write(picture, receipt, labels)
        display.say(f"{folder}: {n:,} images of {len(counts)} classes")
        said = _try(plan, synthetic, display) if plan else None
    finally:
        display.close()
    if said:
        results.write(picture, receipt, {found: json_text(said.to_json())})
    if archive:
        results.write(picture, receipt, {zipped: _zip(folder, [p for p in (*singles, *labels, found) if p.exists()])})
    return Augmentation(folder, results.picture, counts, zipped if archive else None, said)


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
class _Plan:
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


def _plan(run: Run, seed: int, seeds: int, steps: int, real: int | None, classical: Sequence[str] | None) -> _Plan:
    """The trainings, checked before anything is drawn."""
    data = run.data
    split, held_out = data.held_out
    there = len(data.train)
    real = min(there, REAL_DEFAULT) if real is None else real
    if not 1 <= real <= there:
        raise UserError(f"real={real}: {data.name} has {there:,} training images; choose from 1 to {there:,}")
    if len(held_out) < LEAST_TEST:
        raise UserError(
            f"the {split} split of {data.name} has {len(held_out)} images, and a verdict needs {LEAST_TEST} to test "
            "on; give more images, or verdict=false"
        )
    network, _ = choose(data.shape, data.name)
    recipe = get_recipe(f"features-{next(name for name, own in BUNDLED.items() if own == network)}")
    words = recipe.training["augment"] if classical is None else classical
    words = tuple(words)
    keys = {key: value for key, value in recipe.training.items() if key not in LENGTHS}
    keys |= {"steps": steps, "batch": BATCH, "warmup_images": round(WARMUP * steps * BATCH), "augment": ()}
    notes = [f"tested on the {split} split of {data.name}, {len(held_out):,} images"]
    if real < there:
        notes.append(
            f"the model was trained on {there:,} images, and the classifier sees {real:,} of them: what synthetic "
            "images add may be what the model knows of the others"
        )
    return _Plan(
        data, recipe, make(TrainConfig, keys), run.device, seed, seeds, real, check_transforms(words), tuple(notes)
    )


def _try(plan: _Plan, synthetic: Split, display: Display) -> Verdict:
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


def _accuracy(plan: _Plan, images: Split, words: tuple[str, ...], seed: int, test: Split) -> float:
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
    return figures_of(model, test)[0]  # type: ignore[arg-type]


def _together(one: Split, other: Split) -> Split:
    assert one.labels is not None and other.labels is not None
    return Split(torch.cat([one.images, other.images]), torch.cat([one.labels, other.labels]))


def _text(accuracy: Mapping[str, Estimate], difference: Estimate, gain: Estimate, plan: _Plan, n_test: int) -> str:
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


def _files(folder: Path, counts: Mapping[str, int]) -> dict[str, list[Path]]:
    """The file of each image by class, numbered as the images are."""
    files, first = {}, 0
    for (name, count), own in zip(counts.items(), _folders(list(counts)), strict=True):
        files[name] = [folder / own / f"{k:05d}.png" for k in range(first, first + count)]
        first += count
    return files


def _folders(classes: Sequence[str]) -> list[str]:
    """The name of each class as the name of a folder of its own.

    >>> _folders(["T-shirt/top", "A", "a", "a-2", "猫"])
    ['T-shirt-top', 'A-1', 'a-2-', 'a-2', '猫']
    """
    names = [re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", name).strip(" .") or "class" for name in classes]
    count = Counter(map(_alike, names))
    taken, folders = {name for name, times in count.items() if times == 1}, []
    for k, name in enumerate(names):
        folder = name if count[_alike(name)] == 1 else f"{name}-{k}"
        while folder != name and _alike(folder) in taken:
            folder += "-"
        taken.add(_alike(folder))
        folders.append(folder)
    return folders


def _alike(name: str) -> str:
    """What a name is to a file system that takes A for a, and one way to write a letter for another."""
    return unicodedata.normalize("NFC", name).casefold()


def _refuse_others(folder: Path, ours: Sequence[Path]) -> None:
    """Images of another call among these would be taken for them."""
    others = [p for p in sorted({*folder.rglob("*")} - {*ours}) if p.suffix.lower() in SUFFIXES]
    if others:
        raise UserError(f"{folder} holds other images, as {others[0]}; choose another out=, or remove them")


def _write(
    run: Run, counts: dict[str, int], files: Mapping[str, list[Path]], seed: int, batch: int, settings: dict[str, Any]
) -> Split:
    """Draw the images, and write each with how it was made."""
    receipt = receipt_of(
        run, seed=seed, label=None, exact=False, settings=settings, first=0, n=1, grid=False, batches=()
    )
    names, paths = list(files), [path for own in files.values() for path in own]
    parts, labels = [], []
    for label, part in draw_classes(run, counts, seed=seed, batch=batch, **settings):
        levels = to_uint8(part.images)
        parts.append(levels)
        labels.append(torch.full((len(levels),), label))
        for k, image in enumerate(levels, start=part.first):
            made = receipt.with_(label=names[label], first=k, batches=(part.batch,))
            save_png(image, paths[k], made.to_json())
    return Split(torch.cat(parts), torch.cat(labels))


def _labels(folder: Path, files: Mapping[str, list[Path]]) -> dict[Path, str]:
    """metadata.csv with the classes, where a class cannot be the name of a folder (T-shirt/top); metadata.jsonl where
    a spreadsheet would compute a name."""
    if all(paths[0].parent.name == name for name, paths in files.items()):
        return {}
    rows = [(p.relative_to(folder).as_posix(), name) for name, paths in files.items() for p in paths]
    if all(csv_cell(cell) == cell for row in rows for cell in row):
        return {folder / LABELS: csv_text([("file_name", "label"), *rows])}
    lines = (json.dumps({"file_name": file, "label": label}) for file, label in rows)
    return {folder / "metadata.jsonl": "".join(f"{line}\n" for line in lines)}


def _preview(synthetic: Split) -> "Image.Image":
    """A row of images for each class."""
    assert synthetic.labels is not None
    counts = synthetic.labels.bincount()
    columns = min(SHOWN, int(counts.min()))
    rows = [synthetic.images[synthetic.labels == k][:columns] for k in range(len(counts))]
    return grid(torch.cat(rows), columns=columns)


def _zip(folder: Path, ours: Sequence[Path]) -> bytes:
    """The files of ours in a folder, as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in ours:
            archive.write(path, path.relative_to(folder))
    return buffer.getvalue()
