"""Whose images detection looks at: normal ones for the threshold and for false alarms, abnormal and unknown ones."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data import Data, Split, load_data
from trilemma.data.pixels import SUFFIXES
from trilemma.data.sources import slug
from trilemma.errors import UserError, unknown
from trilemma.explore.edit import class_index
from trilemma.explore.images import load_image
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
        calibration, held_out = _held_out(run.data if data is None else _load(run, data), False, n, seed)
        return run.data.name, [calibration, held_out]
    source, found = _looked_at(run, against, normal, n, seed)
    has_normals = found[0].kind == NORMAL
    held_out = _held_out(run.data if data is None else _load(run, data), has_normals, n, seed)
    return source, [held_out[0], *(() if has_normals else held_out[1:]), *found]


def _held_out(data: Data, whole: bool, n: int, seed: int) -> list[Group]:
    """Normal images for the threshold and for counting false alarms.

    Args:
        whole: the second kind comes from elsewhere.
    """
    if "test" in data.splits or whole:
        names = ["valid"] if whole else ["valid", "test"]
        parts = [(f"{name} split", data.splits[name], torch.arange(len(data.splits[name]))) for name in names]
    else:
        halves = rng.permutation(len(data.valid), seed, "detect halves").chunk(2)
        if len(halves) < 2:
            raise UserError(
                f"{data.name} has {len(data.valid)} held-out image; one is needed for the threshold and one to count "
                "false alarms on: give more normal images with data="
            )
        parts = [("half of the validation split", data.valid, half.sort().values) for half in halves]
    return [
        _group(kind, f"{data.name}, {where}", split, at, data.classes, n, seed)
        for kind, (where, split, at) in zip((CALIBRATION, NORMAL), parts, strict=False)
    ]


def _looked_at(run: Run, against: Source, normal: Classes | None, n: int, seed: int) -> tuple[str, list[Group]]:
    """The images of `against` by kind: normal ones if there are any, then abnormal or unknown ones."""
    if _is_image(against):
        if normal not in (None, NONE):
            raise _no_classes(normal, against)
        split = Split(to_uint8(load_image(run, Path(str(against)))).cpu(), names=(str(against),))
        kind = UNKNOWN if normal is None else ABNORMAL
        return slug(Path(str(against))), [Group(kind, str(against), split, torch.tensor([0]))]
    data = _load(run, against)
    if data.fingerprint == run.data.fingerprint:
        raise UserError(
            f"{data.source} is what {run.path} was trained on: all of it is normal to the model. Leave against out to "
            "find the odd ones among its held-out images, or give images that it was not trained on"
        )
    split, where = _all_images(data)
    numbers = torch.arange(len(split))
    make = partial(_group, split=split, classes=data.classes, n=n, seed=seed)
    if normal in (None, NONE):
        kind = ABNORMAL if data.classes or normal == NONE else UNKNOWN
        return data.name, [make(kind, where, at=numbers)]
    wanted = _classes(normal, data)
    assert split.labels is not None  # a source with class names has labels
    is_normal = torch.isin(split.labels, torch.tensor(sorted(wanted)))
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
        index = class_index(str(word).strip(), data.classes)
        if index is None:
            raise unknown(f"class of {data.name}", str(word), data.classes)
        numbers.add(index)
    return numbers


def _no_classes(normal: object, source: object) -> UserError:
    return UserError(f"normal={normal}: {source} has no classes; leave normal out, or put its images in folders")


def _all_images(data: Data) -> tuple[Split, str]:
    """The test split, or, where a source has none, all its images."""
    if "test" in data.splits:
        return data.splits["test"], f"{data.name}, test split"
    parts = list(data.splits.values())
    first = parts[0]
    joined = Split(
        torch.cat([part.images for part in parts]),
        None if first.labels is None else torch.cat([part.labels for part in parts if part.labels is not None]),
        None,
        None if first.names is None else tuple(name for part in parts for name in part.names or ()),
    )
    if joined.names is not None:  # files in the order of their names again
        joined = joined.take(torch.tensor(sorted(range(len(joined)), key=joined.names.__getitem__)))
    return joined, data.name


def _group(kind: str, source: str, split: Split, at: Tensor, classes: tuple[str, ...], n: int, seed: int) -> Group:
    """At most n of the images numbered `at`, chosen by the seed, in their order."""
    at = at[rng.permutation(len(at), seed, "detect", n)[:n].sort().values]
    return Group(kind, source, split.take(at), at, classes)


def _load(run: Run, source: Source) -> Data:
    channels, height, width = run.model_config.shape
    return load_data(source, size=(height, width), channels=channels)


def _is_image(against: Source) -> bool:
    return not isinstance(against, Data) and Path(against).suffix.lower() in SUFFIXES and Path(against).is_file()
