"""Which images are held out for validation, where a source has no validation images of its own.

They are the first of a permutation that depends on their number and the seed; but images of one file, and equal images,
stay on one side, and every class keeps a training image.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence, Sized
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data.options import FRACTION, Options, share
from trilemma.errors import UserError
from trilemma.words import names_counted

ENOUGH, MOST = 200, 1 / 3  # images to measure by: of fewer than 2,000 so many are held out, but no more than a third


class Divisible(Protocol):
    """Images, or what stands for them, that can be taken by number; labels: their classes, int64 (N,), or None."""

    @property
    def labels(self) -> Tensor | None: ...

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Self: ...


Unit = TypeVar("Unit", bound=Hashable)  # what is drawn for validation: a file, or the number of an image
Images = TypeVar("Images", bound=Divisible)


def check_enough(splits: Mapping[str, Sized], source: str, skipped: Sequence[str] = ()) -> None:
    """Refuse a source with an empty split, or too few images to set one aside.

    Args:
        splits: "train" and all that must not be empty.
    Raises:
        UserError: with the number of images in each.
    """
    if few := too_few({key: len(split) for key, split in splits.items()}):
        because = f"; {names_counted('unreadable and skipped', skipped)}" if skipped else ""
        raise UserError(f"{source} has {few}{because}")


def hold_out(
    splits: dict[str, Images],
    options: Options,
    equal_in: Callable[[Images], Sequence[Sequence[int]]],
    *,
    files: Sequence[str] | None = None,
    classes: Sequence[str] = (),
) -> tuple[dict[str, Images], str]:
    """Add a validation split where the source has none; returns what was done, in words.

    Args:
        equal_in: groups of equal images, by number, which are not divided.
        files: as in `split_off`, of the training images.
        classes: names of the classes, for the words.
    """
    if "valid" in splits:
        unused = f"valid={options.valid} is not used: the source has its own validation images"
        return splits, "" if options.valid is None else unused
    whole = splits["train"]
    tenth = options.rule == "tenth"
    more = options.valid is None and "test" not in splits and not tenth
    count = enough(len(whole)) if more else share(len(whole), options.valid)
    equal = equal_in(whole)
    train, held = split_off(whole, count, options.seed, files, equal, None if tenth else whole.labels)
    few = " (a tenth would be too few to measure by)" if more and count > share(len(whole), FRACTION) else ""
    words = f"{len(held):,} of {len(whole):,} images are held out for validation{few}, chosen by the seed"
    if files:
        words += ", in whole files" if len(set(files)) > 1 else "; neighbouring frames of the one file may be in both"
    if equal:
        words += f"; {_duplicates(equal, len(whole))}"
    if whole.labels is not None and train.labels is not None and (lacking := lost(whole.labels, train.labels)):
        names = [classes[k] if classes else str(k) for k in lacking]
        words += f"; {names_counted('classes without a training image', names)}"
    return {"train": train, "valid": held} | {key: split for key, split in splits.items() if key != "train"}, words


def _duplicates(equal: Sequence[Sequence[int]], n: int) -> str:
    """How many of n images equal another, and what follows, in words."""
    if len(equal[0]) == n:
        return "all images are exact duplicates"
    return f"{sum(map(len, equal)):,} are exact duplicates; duplicates are kept in the same split"


def split_off(
    images: Images,
    count: int,
    seed: int,
    files: Sequence[str] | None = None,
    equal: Sequence[Sequence[int]] = (),
    labels: Tensor | None = None,
) -> tuple[Images, Images]:
    """Set aside images for validation: which ones depends on their number, the seed and what must stay together; and on
    their classes where one would lose all its training images.

    Args:
        count: images that are set aside.
        files: the file of each image, where the images of a file must stay together.
        equal: groups of images, by number, that must stay together because they are equal.
        labels: int64 (N,); every class keeps an image in the rest, as far as one image at least can be set aside.
    Returns:
        (the rest, the images set aside), each in their former order; at least one image in each.
    """
    n = len(images)
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
    return images.take(at[~held]), images.take(at[held])


def lost(labels: Tensor, remaining: Tensor) -> list[int]:
    """The classes of `labels` that are not in `remaining`."""
    return sorted(set(labels.unique().tolist()) - set(remaining.unique().tolist()))


def together(units: Sequence[Unit], equal: Sequence[Sequence[int]]) -> Sequence[Unit]:
    """The group of each image: its unit, or the first of those that equal images join; only units if all are in one.

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
    the smallest if none fits. With labels, groups that hold the last images of a class do not fit."""
    group_of, sizes, chosen = dict(zip(units, groups, strict=True)), Counter(groups), set()
    candidates = list(group_of.values())
    order = dict.fromkeys(candidates[k] for k in rng.permutation(len(candidates), seed, "valid").tolist())
    classes, left = _classes_of(groups, labels), Counter([] if labels is None else labels.tolist())

    def fits(group: Unit) -> bool:
        return all(left[label] > n for label, n in classes[group].items())

    for group in order:
        if sizes[group] <= count and fits(group):
            chosen.add(group)
            count -= sizes[group]
            left.subtract(classes[group])
    chosen = chosen or {min(list(filter(fits, order)) or order, key=sizes.__getitem__)}
    return torch.tensor([group in chosen for group in groups])


def _classes_of(groups: Sequence[Unit], labels: Tensor | None) -> dict[Unit, Counter[int]]:
    """How many images of each class a group has; none without labels."""
    classes: dict[Unit, Counter[int]] = {group: Counter() for group in groups}
    for group, label in () if labels is None else zip(groups, labels.tolist(), strict=True):
        classes[group][label] += 1
    return classes


def enough(n: int) -> int:
    """How many of n images are held out to measure by: a tenth, but at least min(ENOUGH, n / 3), and at least 1.

    It is continuous in n, and so is the number that is left. Scores on fewer than ENOUGH images are rough; below three
    times as many, training keeps two thirds of the images.

    >>> enough(30), enough(197), enough(600), enough(1999), enough(60_000)
    (10, 66, 200, 200, 6000)
    """
    return max(share(n, FRACTION), min(ENOUGH, share(n, MOST)))


def too_few(counts: dict[str, int]) -> str | None:
    """Whether so many images in the splits of a source, "train" among them, are too few to train and to validate on."""
    if all(counts.values()) and sum(counts.values()) > 1 and ("valid" in counts or counts["train"] > 1):
        return None
    numbers = ", ".join(f"{count} {key}" for key, count in counts.items())
    return f"too few readable images ({numbers}); training and validation need one each"
