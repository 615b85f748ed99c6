"""What a source becomes: uint8 images in splits, with everything that was inferred about them in words."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma import rng
from trilemma.errors import UserError

FRACTION = 0.1  # of the images become the validation split where nothing else is said


@dataclass(frozen=True)
class Split:
    """Images with what is known of them; row i of everything belongs to image i.

    images: uint8 (N, C, H, W).
    labels: class index, int64 (N,), or None where the data has no classes.
    captions: one text per image, or None.
    names: the file each image came from, or None.
    factors: what each image was drawn from, by name, (N,) each; only for data drawn by the project.
    """

    images: Tensor
    labels: Tensor | None = None
    captions: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    factors: dict[str, Tensor] | None = None

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
    classes: names, () where there are none; splits: "train", "valid" and, where there is one, "test";
    notes: everything inferred or done, in words; skipped: "path: reason" for each image that could not be read;
    fingerprint: hex, of the decoded training images and labels.
    """

    name: str
    source: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    fingerprint: str

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def valid(self) -> Split:
        return self.splits["valid"]

    @property
    def held_out(self) -> tuple[str, Split]:
        """The split to measure on, with its name: the test split where there is one, else the validation split."""
        name = "test" if "test" in self.splits else "valid"
        return name, self.splits[name]


def make_data(
    name: str,
    source: str,
    splits: dict[str, Split],
    *,
    classes: Sequence[str] = (),
    notes: Iterable[str] = (),
    skipped: Sequence[str] = (),
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
        fingerprint_of(splits["train"]),
    )


def fingerprint_of(split: Split) -> str:
    """SHA-256, in hex, of the shape, the images and the labels."""
    digest = hashlib.sha256(str(tuple(split.images.shape)).encode())
    digest.update(split.images.contiguous().numpy().data)
    if split.labels is not None:
        digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()


def split_off(split: Split, fraction: float | None, seed: int) -> tuple[Split, Split]:
    """Set aside images for validation: which ones depends on the number of images and the seed alone.

    Returns:
        (the rest, the images set aside), each in the order they came; at least one image in each.
    """
    n = len(split)
    order = rng.permutation(n, seed, "valid")
    count = share(n, fraction)
    return split.take(order[count:].sort().values), split.take(order[:count].sort().values)


def cut_last(split: Split, count: int) -> tuple[Split, Split]:
    """(all but the last `count` images, the last `count` images)."""
    first = len(split) - count
    return split.take(torch.arange(first)), split.take(torch.arange(first, len(split)))


def share(n: int, fraction: float | None) -> int:
    """How many of n images are that fraction: at least 1, at most n - 1."""
    fraction = FRACTION if fraction is None else fraction
    if not 0 < fraction < 1:
        raise UserError(f"valid={fraction}: the fraction for validation lies between 0 and 1, for instance 0.1")
    return max(1, min(n - 1, round(n * fraction)))
