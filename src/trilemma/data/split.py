"""What a source becomes: uint8 images in splits, with everything that was inferred about them in words."""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data.decoding.duplicates import exact_groups
from trilemma.data.decoding.storage import blocks
from trilemma.errors import UserError

SHOWN = 5  # names in a note
LEAST = 12  # images that can be measured
FRACTION = 0.1  # of the images become the validation split where nothing else is said
ENOUGH, MOST = 200, 1 / 3  # images to measure by: of fewer than 2,000 so many are held out, but no more than a third
# How a source is divided. "tenth" is the rule of earlier versions: a tenth, without a look at the classes.
RULES = ("enough", "tenth")

Unit = TypeVar("Unit", bound=Hashable)  # what is drawn for validation: a file, or the number of an image


@dataclass(frozen=True)
class Split:
    """Images with what is known of them; row i of everything belongs to image i.

    images: uint8 (N, C, H, W).
    labels: class index, int64 (N,), or None where the data has no classes.
    captions: one text per image, or None.
    names: the file each image came from, or None.
    factors: what each image was drawn from, by name, (N,) each; only for data drawn by the project.
    mapped: the images are too many for memory and lie in a file, from which rows are read as they are asked for.
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
    classes: names, () where there are none; splits: "train", "valid" and, where there is one, "test";
    notes: everything inferred or done, in words; skipped: "path: reason" for each image that could not be read;
    fingerprint: hex, of the decoded training images and labels; frames: "first" or "all", those of a file that are
    images; fraction: asked for validation, or None; seed: chose the validation images, or drew all of them; rule: of
    RULES, by which they were chosen; given: the arrays that it was made of, where it was.
    """

    name: str
    source: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    fingerprint: str
    frames: str = "first"
    fraction: float | None = None
    seed: int = 0
    rule: str = RULES[0]
    given: Any = field(default=None, repr=False, compare=False)

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


def held_out_split(splits: Mapping[str, Split], least: int = LEAST) -> str:
    """The name of the split to measure on: the test split, or the validation split where that alone has so many images.

    Where neither has, it is the test split where there is one; the caller decides whether that is enough.
    """
    there = [name for name in ("test", "valid") if name in splits]
    return next((name for name in there if len(splits[name]) >= least), there[0])


def make_data(
    name: str,
    source: str,
    splits: dict[str, Split],
    *,
    classes: Sequence[str] = (),
    notes: Iterable[str] = (),
    skipped: Sequence[str] = (),
    fingerprint: str | None = None,
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
    )


def fingerprint_of(split: Split) -> str:
    """SHA-256, in hex, of the shape, the images and the labels."""
    digest = hashlib.sha256(str(tuple(split.images.shape)).encode())
    for rows in blocks(split.images):
        digest.update(rows.contiguous().numpy().data)
    if split.labels is not None:
        digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()


def split_off(
    split: Split,
    count: int,
    seed: int,
    files: Sequence[str] | None = None,
    equal: Sequence[Sequence[int]] = (),
    labels: Tensor | None = None,
) -> tuple[Split, Split]:
    """Set aside images for validation: which ones depends on their number, the seed and what must stay together; and on
    their classes where one would lose all its training images.

    Args:
        count: images that are set aside.
        files: the file that each image came from, where the images of a file must stay together.
        equal: groups of images, by number, that must stay together because they are equal.
        labels: int64 (N,); every class keeps an image in the rest, as far as one image at least can be set aside.
    Returns:
        (the rest, the images set aside), each in the order they came; at least one image in each.
    """
    n = len(split)
    units = files if files and len(set(files)) > 1 else range(n)
    groups = together(units, equal)
    if units is files or equal:
        held = _whole_groups(units, groups, count, seed)
    else:
        held = torch.zeros(n, dtype=torch.bool)
        held[rng.permutation(n, seed, "valid")[:count]] = True
    if labels is not None and len(lost(labels, labels[~held])):
        held = _whole_groups(units, groups, count, seed, labels)
    at = torch.arange(n)
    return split.take(at[~held]), split.take(at[held])


def lost(labels: Tensor, kept: Tensor) -> list[int]:
    """The classes of `labels` that are not in `kept`."""
    return sorted(set(labels.unique().tolist()) - set(kept.unique().tolist()))


def together(units: Sequence[Unit], equal: Sequence[Sequence[int]]) -> Sequence[Unit]:
    """The group of each image: its unit, or the first of those that equal images join; only units where all are one.

    >>> together(range(5), [[1, 3]]), together("aabbc", [[1, 2]]), together("aab", [[0, 2]])
    ([0, 1, 2, 1, 4], ['a', 'a', 'a', 'a', 'c'], 'aab')
    """
    joined: dict[Unit, Unit] = {}

    def first(unit: Unit) -> Unit:
        while unit in joined:
            unit = joined[unit]
        return unit

    for group in equal:
        to = first(units[group[0]])
        for k in group[1:]:
            if (unit := first(units[k])) != to:
                joined[unit] = to
    groups = [first(unit) for unit in units]
    return groups if len(set(groups)) > 1 else units


def _whole_groups(
    units: Sequence[Unit], groups: Sequence[Unit], count: int, seed: int, labels: Tensor | None = None
) -> Tensor:
    """Which images are set aside, bool (N,): groups while they fit, in the order in which the seed draws the units;
    the smallest where none does. With labels, groups that hold the last images of a class do not fit."""
    group_of, sizes, taken = dict(zip(units, groups, strict=True)), Counter(groups), set()
    drawn = list(group_of.values())
    order = dict.fromkeys(drawn[k] for k in rng.permutation(len(drawn), seed, "valid").tolist())
    classes, left = _classes_of(groups, labels), Counter([] if labels is None else labels.tolist())

    def fits(group: Unit) -> bool:
        return all(left[label] > n for label, n in classes[group].items())

    for group in order:
        if sizes[group] <= count and fits(group):
            taken.add(group)
            count -= sizes[group]
            left.subtract(classes[group])
    taken = taken or {min(list(filter(fits, order)) or order, key=sizes.__getitem__)}
    return torch.tensor([group in taken for group in groups])


def _classes_of(groups: Sequence[Unit], labels: Tensor | None) -> dict[Unit, Counter[int]]:
    """How many images of each class a group has; none where there are no labels."""
    classes: dict[Unit, Counter[int]] = {group: Counter() for group in groups}
    for group, label in () if labels is None else zip(groups, labels.tolist(), strict=True):
        classes[group][label] += 1
    return classes


def cut_last(split: Split, count: int) -> tuple[Split, Split]:
    """(all but the last `count` images, the last `count` images)."""
    first = len(split) - count
    return split.take(torch.arange(first)), split.take(torch.arange(first, len(split)))


def enough(n: int) -> int:
    """How many of n images are held out to measure by: a tenth, but at least min(ENOUGH, n / 3), and at least 1.

    It is continuous in n, and so is the number that is left. Figures of fewer than ENOUGH images are rough; below three
    times as many, training keeps two thirds of the images.

    >>> enough(30), enough(197), enough(600), enough(1999), enough(60_000)
    (10, 66, 200, 200, 6000)
    """
    return max(share(n, FRACTION), min(ENOUGH, share(n, MOST)))


def share(n: int, fraction: float | None) -> int:
    """How many of n images are that fraction: at least 1, at most n - 1."""
    fraction = FRACTION if fraction is None else fraction
    if not 0 < fraction < 1:
        raise UserError(f"valid={fraction}: the fraction for validation lies between 0 and 1, for instance 0.1")
    return max(1, min(n - 1, round(n * fraction)))


def too_few(counts: dict[str, int]) -> str | None:
    """Whether so many images in the splits of a source, "train" among them, are too few to train and to validate on."""
    if all(counts.values()) and sum(counts.values()) > 1 and ("valid" in counts or counts["train"] > 1):
        return None
    found = ", ".join(f"{count} {key}" for key, count in counts.items())
    return f"too few readable images ({found}); training and validation need one each"


def complete(
    splits: dict[str, Split],
    expected: Iterable[str],
    source: str,
    skipped: Sequence[str],
    valid: float | None,
    seed: int,
    files: Sequence[str] | None = None,
    find_equal: Callable[[], Sequence[Sequence[int]]] | None = None,
    *,
    classes: Sequence[str] = (),
    rule: str = RULES[0],
) -> tuple[dict[str, Split], str]:
    """Add a validation split where the source has none; returns what was done, in words.

    Args:
        files: as in `split_off`, of the training images.
        find_equal: finds groups of equal training images, which are not divided; by their pixels where None.
        classes: names of the classes, for the words.
        rule: of RULES.
    Raises:
        UserError: an expected split is empty, or there are too few images to set one aside.
    """
    if few := too_few({key: len(splits.get(key, ())) for key in ("train", *expected)}):
        because = f"; {counted('unreadable and skipped', skipped)}" if skipped else ""
        raise UserError(f"{source} has {few}{because}")
    if "valid" in splits:
        return splits, "" if valid is None else f"valid={valid} is not used: the source has its own validation images"
    whole = splits["train"]
    more = valid is None and "test" not in splits and rule != "tenth"
    count = enough(len(whole)) if more else share(len(whole), valid)
    equal = find_equal() if find_equal else exact_groups(whole.images)
    labels = None if rule == "tenth" else whole.labels
    train, held = split_off(whole, count, seed, files, equal, labels)
    few = " (a tenth would be too few to measure by)" if more and count > share(len(whole), FRACTION) else ""
    words = f"{len(held):,} of {len(whole):,} images are held out for validation{few}, chosen by the seed"
    if files:
        words += ", in whole files" if len(set(files)) > 1 else "; neighbouring frames of the one file may be in both"
    words += f"; {sum(map(len, equal)):,} images are duplicates, and stay on one side unless all are" if equal else ""
    if whole.labels is not None and train.labels is not None and (none := lost(whole.labels, train.labels)):
        words += f"; {counted('classes without a training image', [classes[k] if classes else str(k) for k in none])}"
    return {"train": train, "valid": held} | {key: split for key, split in splits.items() if key != "train"}, words


def counted(what: str, names: Sequence[str]) -> str:
    """How many, with the first few; "" for none."""
    return f"{len(names):,} {what}: {some(names)}" if names else ""


def some(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
