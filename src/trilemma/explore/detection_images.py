"""Whose images detection looks at: normal ones for the threshold and for false alarms, abnormal and unknown ones."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data import Data, Split
from trilemma.data.labels import class_number
from trilemma.data.parts import ALL, Part, all_splits, one_split
from trilemma.data.pixels import SUFFIXES
from trilemma.data.sources import slug
from trilemma.errors import UserError, unknown
from trilemma.explore.images import is_own, load, load_image, unseen
from trilemma.pictures import to_uint8
from trilemma.run import Run

CALIBRATION, NORMAL, ABNORMAL, UNKNOWN = "calibration", "normal", "abnormal", "unknown"
NONE = "none"
Source = str | Path | Data
Classes = str | int | Sequence[str | int]


class Group(NamedTuple):
    """Images of one kind: CALIBRATION (normal, for the threshold), NORMAL, ABNORMAL or UNKNOWN.

    source: where they come from, in words; numbers: their positions there; split: images, labels and names.
    """

    kind: str
    source: str
    split: Split
    numbers: Tensor
    classes: tuple[str, ...] = ()


def groups_of(
    run: Run,
    data: Source | None,
    against: Source | None,
    normal: Classes | None,
    n: int,
    seed: int,
) -> tuple[str, list[Group]]:
    """The short name of what is looked at, and the images by kind; those that are looked at stand last."""
    if against is None:
        if normal is not None:
            raise UserError(
                f"normal={normal} names classes of `against`, which is missing; {run.path} was trained on all of "
                f"{run.config['data']}, so that none of its classes is abnormal to it: train on a folder of normal "
                "images alone, and give the others with against="
            )
        return run.data.name, _normals(run, run.data if data is None else load(run, data), False, n, seed)
    source, found = _looked_at(run, against, normal, n, seed)
    has_normals = found[0].kind == NORMAL
    return source, [*_normals(run, run.data if data is None else load(run, data), has_normals, n, seed), *found]


def _normals(run: Run, data: Data, whole: bool, n: int, seed: int) -> list[Group]:
    """Normal images that the run was not trained on: for the threshold, and others for counting false alarms.

    Args:
        whole: the second kind comes from elsewhere.
    """
    if is_own(run, data) and "test" in data.splits:
        own = [one_split(data, name) for name in ("valid", "test")]
        pieces = [(f"{part.name} split", part, torch.arange(len(part))) for part in own]
    else:
        part = unseen(run, data)
        place = "all images" if part.name == ALL else "the validation split"
        pieces = [(place, part, torch.arange(len(part)))]
        if not whole:
            pieces = [(f"half of {place}", part, half) for half in _halves(data, part, seed)]
    kinds = (CALIBRATION,) if whole else (CALIBRATION, NORMAL)
    return [
        _group(kind, f"{data.name}, {where}", part, at, data.classes, n, seed)
        for kind, (where, part, at) in zip(kinds, pieces, strict=False)
    ]


def _halves(data: Data, part: Part, seed: int) -> list[Tensor]:
    """The numbers of the images in two halves, drawn by the seed."""
    halves = rng.permutation(len(part), seed, "detect halves").chunk(2)
    if len(halves) < 2:
        raise UserError(
            f"{data.name} has {len(part)} held-out image; one is needed for the threshold and one to count "
            "false alarms on: give more normal images with data="
        )
    return [half.sort().values for half in halves]


def _looked_at(run: Run, against: Source, normal: Classes | None, n: int, seed: int) -> tuple[str, list[Group]]:
    """The images of `against` by kind: normal ones if there are any, then abnormal or unknown ones."""
    if _is_image(against):
        if normal not in (None, NONE):
            raise _no_classes(normal, against)
        split = Split(to_uint8(load_image(run, Path(str(against)))).cpu(), names=(str(against),))
        kind = UNKNOWN if normal is None else ABNORMAL
        return slug(Path(str(against))), [Group(kind, str(against), split, torch.tensor([0]))]
    data = load(run, against)
    if data.fingerprint == run.data.fingerprint:
        raise UserError(
            f"{data.source} is what {run.path} was trained on: all of it is normal to the model. Leave against out to "
            "find the odd ones among its held-out images, or give images that it was not trained on"
        )
    part = one_split(data, "test") if "test" in data.splits else all_splits(data)
    where = data.name if part.name == ALL else f"{data.name}, test split"
    numbers = torch.arange(len(part))
    make = partial(_group, part=part, classes=data.classes, n=n, seed=seed)
    if normal in (None, NONE):
        kind = ABNORMAL if data.classes or normal == NONE else UNKNOWN
        return data.name, [make(kind, where, at=numbers)]
    wanted = _classes(normal, data)
    if part.labels is None:
        raise _no_classes(normal, where)
    is_normal = torch.isin(part.labels, torch.tensor(sorted(wanted)))
    names = ", ".join(data.classes[k] for k in sorted(wanted))
    if not is_normal.any():
        raise UserError(f"{where} has no images of {names}; without normal images there is nothing to compare with")
    if is_normal.all():
        raise UserError(f"{where} has no images but those of {names}, which are normal: nothing there is abnormal")
    return data.name, [
        make(NORMAL, f"{where}, {names}", at=numbers[is_normal]),
        make(ABNORMAL, f"{where}, the other classes", at=numbers[~is_normal]),
    ]


def _classes(normal: Classes, data: Data) -> set[int]:
    """The numbers of the classes that are named."""
    if not data.classes:
        raise _no_classes(normal, data.source)
    if isinstance(normal, str):
        words: Sequence[str | int] = [normal] if normal in data.classes else normal.split(",")
    else:
        words = [normal] if isinstance(normal, int) else normal
    numbers = set()
    for word in words:
        index = class_number(str(word).strip(), data.classes)
        if index is None:
            raise unknown(f"class of {data.name}", str(word), data.classes)
        numbers.add(index)
    return numbers


def _no_classes(normal: object, source: object) -> UserError:
    return UserError(f"normal={normal}: {source} has no classes; leave normal out, or put its images in folders")


def _group(kind: str, source: str, part: Part, at: Tensor, classes: tuple[str, ...], n: int, seed: int) -> Group:
    """At most n of the images numbered `at`, chosen by the seed, in their order."""
    at = at[rng.permutation(len(at), seed, "detect", n)[:n].sort().values]
    return Group(kind, source, part.take(at), at, classes)


def _is_image(against: Source) -> bool:
    return not isinstance(against, Data) and Path(against).suffix.lower() in SUFFIXES and Path(against).is_file()
