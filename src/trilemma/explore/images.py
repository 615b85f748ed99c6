"""Images that a verb works on: of the data of a run or of other data, in the size and channels that its model takes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data import Data, load_data
from trilemma.data.load import Source, is_given, source_word
from trilemma.data.selection import Selection, all_splits, one_split
from trilemma.data.sources.builtin import is_named
from trilemma.data.sources.consent import note_source
from trilemma.errors import UserError, unknown
from trilemma.pictures.levels import to_float
from trilemma.pictures.png import png_content, receipt_for
from trilemma.run.run import Run
from trilemma.types import Batch, Condition, codes_need


def source_of(run: Run, data: Source | None = None) -> Data:
    """The run's own data, or other data in its size and channels; where codes need labels, classes of one name are one.

    Raises:
        UserError: the data cannot be read, or have classes that such a model does not know.
    """
    if data is None:
        return run.data
    source, classes = load(run, data), run.config["classes"]
    if "label" not in codes_need(run.model) or not source.classes or list(source.classes) == list(classes):
        return source
    strange = [name for name in source.classes if name not in classes]
    if strange:
        raise unknown("class", strange[0], classes)
    number = torch.tensor([classes.index(name) for name in source.classes])
    splits = {
        name: replace(part, labels=None if part.labels is None else number[part.labels])
        for name, part in source.splits.items()
    }
    return replace(source, classes=tuple(classes), splits=splits)


def load(run: Run, data: Source) -> Data:
    """Images in the size and channels that a run was trained on; its own data, if named, are split as in training.

    Raises:
        UserError: the data cannot be read, or are the run's own and have changed.
    """
    if isinstance(data, str | Path) and (word := source_word(data)) == run.config["data"]:
        note_source(word)
        return run.data
    if is_given(data) and load_data(data).source == run.config["data"]:
        return run.read(data)
    channels, height, width = run.model_config.shape
    return load_data(data, size=(height, width), channels=channels)


def is_own(run: Run, source: Data) -> bool:
    """Whether a run was trained on images of this source.

    Data that are drawn in any number (shapes, shapes:500) are one source: the first of them are the same.
    """
    word, own = source_word(source.source), run.config["data"]
    if is_named(word):
        word, own = word.partition(":")[0], own.partition(":")[0]
    return word == own or source.fingerprint == run.config["fingerprint"]


def unseen(run: Run, source: Data) -> Selection:
    """The images of a source that a run was not trained on: the held-out split of its own data, all of any other."""
    return one_split(source, source.held_out[0]) if is_own(run, source) else all_splits(source)


def part_of(run: Run, source: Data, split: str | None) -> Selection:
    """A split by name; default: the images that the run was not trained on.

    Raises:
        UserError: the split does not exist.
    """
    if split is None:
        return unseen(run, source)
    if split not in source.splits:
        raise unknown("split", split, source.splits)
    return one_split(source, split)


def pick_images(
    run: Run, data: Source | None = None, n: int | None = None, split: str | None = None, *, seed: int | None = None
) -> Batch:
    """Images that the run was not trained on, or of a split, with their positions among them, on the run's device.

    Args:
        data: other images than the run's own; they are brought to the size and channels it was trained on.
        n: how many at most; default: all.
        split: "train", "valid" or "test"; default: the run's held-out split, or all images of other data.
        seed: chooses which, spread over all of them; default: the first n.
    Raises:
        UserError: n is less than 1, or the split does not exist.
    """
    if n is not None and n < 1:
        raise UserError(f"n={n}: at least 1 image is needed")
    return choose(run, part_of(run, source_of(run, data), split), n, seed)


def choose(run: Run, part: Selection, n: int | None, seed: int | None) -> Batch:
    """The first n images at most, or n drawn by the seed, in their order, on the run's device."""
    count = len(part) if n is None else min(n, len(part))
    index = torch.arange(count) if seed is None else rng.permutation(len(part), seed, "images")[:count].sort().values
    return take(run, part, index)


def name_of(data: Source | None) -> str | None:
    """The source of images as a text; None for the run's own."""
    if data is None:
        return None
    return load_data(data).source if isinstance(data, Data) or is_given(data) else str(data)


def run_receipt(run: Run, verb: str, **asked: Any) -> dict[str, Any]:
    """How a picture of a run is made: with the model, the run's folder and the hash of its weights."""
    return receipt_for(verb, model=run.recipe.name, **run.origin, **asked)


def take(run: Run, part: Selection, index: Tensor) -> Batch:
    """The images numbered `index`, on the run's device."""
    split = part.take(index)
    return Batch(
        to_float(split.images.to(run.device)),
        Condition(split.labels, split.captions).to(run.device),
        index.to(run.device),
    )


def rows_of(batch: Batch, source: Data, part: Selection) -> list[dict[str, Any]]:
    """A record of each image: its position in the part of the source, its class and its file."""
    assert batch.index is not None
    names = part.take(batch.index.cpu()).names
    rows: list[dict[str, Any]] = [{"index": int(k)} for k in batch.index]
    for k, row in enumerate(rows):
        if batch.condition.label is not None:
            row["class"] = class_name(source, int(batch.condition.label[k]))
        if names is not None:
            row["file"] = names[k]
    return rows


def class_name(source: Data, label: int) -> str:
    """The name of a class, or its number where the classes have none."""
    return source.classes[label] if source.classes else str(label)


def numbered_paths(picture: Path, first: int, n: int) -> list[Path]:
    """The files of n images beside a picture of them: NAME-K.png for each number from `first` on."""
    return [picture.with_name(f"{picture.stem}-{k}.png") for k in range(first, first + n)]


def numbered_contents(paths: Sequence[Path], images: Tensor, receipt: dict[str, Any], first: int) -> dict[Path, bytes]:
    """The PNG of each image (n, C, H, W), with the picture's receipt for that image alone."""
    return {
        path: png_content(image, {**receipt, "first": first + k, "n": 1})
        for k, (path, image) in enumerate(zip(paths, images, strict=True))
    }
