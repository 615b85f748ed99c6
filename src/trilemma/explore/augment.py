"""Labelled synthetic images from a conditional model, and whether they are worth having (usefulness.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from trilemma.config import Config
from trilemma.data import Split
from trilemma.explore.class_folders import files_by_class, label_files, refuse_other_images, zip_of
from trilemma.explore.images import run_receipt
from trilemma.explore.sample import receipt_of
from trilemma.explore.usefulness import Verdict, compare_classifiers, plan_verdict, usefulness_scores
from trilemma.files import json_text, remove
from trilemma.keys import BatchSize, Quiet, Seed
from trilemma.metrics.classification import class_counts, draw_classes
from trilemma.metrics.receipt import METRICS, claim_scores, write_score
from trilemma.modes import own_modes
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import save_png
from trilemma.progress import Display
from trilemma.results import Results, out_path
from trilemma.run.run import Run, RunLike, as_run
from trilemma.values import checked_call

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 10  # images of each class in the grid
VERDICT = "verdict.json"


@dataclass(frozen=True)
class Augmentation:
    """The folder with a folder of PNG files for each class, how many are in each, and a grid of some of them.

    archive: the folder as a zip, or None; verdict: None if it was not asked for.
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
        out: the folder, beside which a grid lies, and with `archive` a zip; default: RUN/synthetic/N-seed-SEED.
        verdict: train classifiers, in steps of BATCH images; also written to OUT/verdict.json and, as scores,
            to RUN/metrics.
        real: training images that the classifier learns from, others in each training.
        settings: of the model's sampler, see `Run.sample`.
    Raises:
        UserError: the model takes no class, the folder holds other images, or the verdict has too little to go by.
    """
    run = as_run(run)
    counts = class_counts(run, n)
    folder = out_path(out) if out is not None else run.path / "synthetic" / f"{n}-seed-{seed}"
    files, verdict_file = files_by_class(folder, counts), folder / VERDICT
    labels = label_files(folder, files)
    zipped = folder.with_name(f"{folder.name}.zip")
    singles = [path for paths in files.values() for path in paths]
    results = Results(
        folder.with_name(f"{folder.name}.png"),
        [*labels, verdict_file, *([zipped] if archive else [])],
        verb="augment",
        within=run.path if out is None else folder,
        pictures=singles,
    )
    refuse_other_images(folder, singles)
    keys = run.sampling(settings, augment)
    plan = plan_verdict(run, seed, seeds, steps, real, classical) if verdict else None
    if plan:
        claim_scores(run.path / METRICS)
    remove(verdict_file)  # of an earlier call
    display = Display("augment", quiet=quiet)
    try:
        synthetic = _write(run, counts, files, seed, batch, keys)
        receipt = run_receipt(run, "augment", n=n, seed=seed, settings=keys.given(), grid=True)
        picture = _preview(synthetic)
        results.write(picture, receipt, labels)
        display.say(f"{folder}: {n:,} images of {len(counts)} classes")
        usefulness = compare_classifiers(plan, synthetic, display) if plan else None
    finally:
        display.close()
    if usefulness:
        results.write(picture, receipt, {verdict_file: json_text(usefulness.to_json())})
    if archive:
        ours = [path for path in (*singles, *labels, verdict_file) if path.exists()]
        results.write(picture, receipt, {zipped: zip_of(folder, ours)})
    if usefulness:
        for score in usefulness_scores(usefulness, run, seed=seed, settings=keys.given()):
            write_score(run.path / METRICS, score)
    return Augmentation(folder, results.picture, counts, zipped if archive else None, usefulness)


def _write(
    run: Run, counts: dict[str, int], files: Mapping[str, list[Path]], seed: int, batch: int, keys: Config
) -> Split:
    """Draw the images, and write each with its receipt."""
    receipt = receipt_of(
        run, seed=seed, label=None, exact=False, settings=keys.given(), first=0, n=1, grid=False, batches=()
    )
    names, paths = list(files), [path for singles in files.values() for path in singles]
    parts, labels = [], []
    for label, part in draw_classes(run, counts, seed=seed, batch=batch, keys=keys):
        levels = to_uint8(part.images)
        parts.append(levels)
        labels.append(torch.full((len(levels),), label))
        for k, image in enumerate(levels, start=part.first):
            own = receipt.with_(label=names[label], first=k, batches=(part.batch,))
            save_png(image, paths[k], own.to_json())
    return Split(torch.cat(parts), torch.cat(labels))


def _preview(synthetic: Split) -> "Image.Image":
    """A row of images for each class."""
    assert synthetic.labels is not None
    counts = synthetic.labels.bincount()
    columns = min(SHOWN, int(counts.min()))
    rows = [synthetic.images[synthetic.labels == k][:columns] for k in range(len(counts))]
    return grid(torch.cat(rows), columns=columns)
