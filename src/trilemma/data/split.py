"""What a source becomes: uint8 images in splits, with everything that was inferred about them in words."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trilemma.data.decoding.duplicates import exact_groups
from trilemma.data.decoding.size import SCALED, choose_size, fit
from trilemma.data.decoding.storage import blocks
from trilemma.data.options import Options
from trilemma.words import names_counted

LEAST = 12  # images that can be measured


@dataclass(frozen=True)
class Split:
    """Images with their labels, captions and names; row i of everything belongs to image i.

    images: uint8 (N, C, H, W).
    labels: class index, int64 (N,), or None where the data has no classes.
    captions: one text per image, or None.
    names: the file of each image, or None.
    factors: what each image was drawn from, by name, (N,) each; only for data drawn by the project.
    mapped: the images are too large for memory and lie in a file, from which rows are read as they are asked for.
    """

    images: Tensor
    labels: Tensor | None = None
    captions: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    factors: dict[str, Tensor] | None = None
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor) -> "Split":
        """The images numbered `index`, int64 (n,), in that order."""
        at = index.tolist()
        return Split(
            self.images[index],
            None if self.labels is None else self.labels[index],
            None if self.captions is None else tuple(self.captions[i] for i in at),
            None if self.names is None else tuple(self.names[i] for i in at),
            None if self.factors is None else {name: values[index] for name, values in self.factors.items()},
        )


@dataclass(frozen=True)
class Data:
    """A source, decoded.

    name: short, fit for a folder's name; source: as the user gave it; shape: (channels, height, width);
    classes: names, or (); splits: "train", "valid" and, if there is one, "test";
    notes: everything inferred or done, in words; skipped: "path: reason" for each image that could not be read;
    fingerprint: hex, of the decoded training images and labels; options: with which loading gives it again;
    given: the arrays that it was made of, if it was.
    """

    name: str
    source: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    fingerprint: str
    options: Options = field(default_factory=Options)
    given: Any = field(default=None, repr=False, compare=False)

    @cached_property
    def captions_fingerprint(self) -> str:
        """See `captions_fingerprint_of`: of the training images."""
        return captions_fingerprint_of(self.train)

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def valid(self) -> Split:
        return self.splits["valid"]

    @property
    def held_out(self) -> tuple[str, Split]:
        """The split to measure on, with its name, as `held_out_split` says."""
        name = held_out_split(self.splits)
        return name, self.splits[name]

    @property
    def reading_notes(self) -> list[str]:
        """How images were brought to one size, and which could not be read, in words; empty where all are as they
        were."""
        scaled = [note for note in self.notes if SCALED in note]
        return [*scaled, *filter(None, [names_counted("unreadable and skipped", self.skipped)])]


def held_out_split(splits: Mapping[str, Split], least: int = LEAST) -> str:
    """The name of the split to measure on: the test split, or the validation split if that alone has so many images.

    If neither has, it is the first of them that exists; the caller decides whether that is enough.
    """
    names = [name for name in ("test", "valid") if name in splits]
    return next((name for name in names if len(splits[name]) >= least), names[0])


def make_data(
    name: str,
    source: str,
    splits: dict[str, Split],
    options: Options = Options(),
    *,
    classes: Sequence[str] = (),
    notes: Iterable[str] = (),
    skipped: Sequence[str] = (),
    fingerprint: str | None = None,
    given: Any = None,
) -> Data:
    """A Data from its splits: the shape, the summary in words and the fingerprint follow; empty notes are dropped."""
    _, channels, height, width = splits["train"].images.shape
    colour = {1: "grey", 3: "colour"}[channels]
    counts = ", ".join(f"{len(split):,} {key}" for key, split in splits.items())
    summary = f"{name}: {counts}; {colour} {height}x{width} (height x width); {len(classes) or 'no'} classes"
    return Data(
        name,
        source,
        (channels, height, width),
        tuple(classes),
        splits,
        (summary, *filter(None, notes)),
        tuple(skipped),
        fingerprint or fingerprint_of(splits["train"]),
        options._replace(size=(height, width), channels=channels, most_px=None),
        given,
    )


def fingerprint_of(split: Split) -> str:
    """SHA-256, in hex, of the shape, the images and the labels."""
    digest = hashlib.sha256(str(tuple(split.images.shape)).encode())
    for rows in blocks(split.images):
        digest.update(rows.contiguous().numpy().data)
    if split.labels is not None:
        digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()


def captions_fingerprint_of(split: Split) -> str:
    """SHA-256, in hex, of the captions in their order."""
    digest = hashlib.sha256()
    for caption in split.captions or ():
        digest.update(json.dumps(caption).encode() + b"\n")  # which has no end of a line inside
    return digest.hexdigest()


def resized(
    name: str, splits: dict[str, Split], classes: tuple[str, ...], options: Options, notes: Sequence[str] = ()
) -> Data:
    """The data of a source whose images are all of one size, in the size and the channels asked for."""
    shape = splits["train"].images.shape
    target, rule = choose_size([shape[2:]], options.size, options.most_px)
    channels = options.channels or shape[1]
    splits = {key: Split(fit(split.images, target, channels), split.labels) for key, split in splits.items()}
    return make_data(name, name, splits, options, classes=classes, notes=[rule, *notes])


def equal_images(split: Split) -> list[list[int]]:
    """Groups of images whose pixels are equal, by number."""
    return exact_groups(split.images)


def cut_last(split: Split, count: int) -> tuple[Split, Split]:
    """(all but the last `count` images, the last `count` images)."""
    first = len(split) - count
    return split.take(torch.arange(first)), split.take(torch.arange(first, len(split)))
