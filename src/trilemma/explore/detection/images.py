"""Whose images detection looks at: normal ones for the threshold and for false alarms, abnormal and unknown ones."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data import Data, Split
from trilemma.data.decoding.pixels import SUFFIXES
from trilemma.data.load import Source, slug
from trilemma.data.selection import ALL, Selection, all_splits, one_split
from trilemma.data.sources.folder_layout import class_advice
from trilemma.data.sources.labels import class_number
from trilemma.errors import UserError, unknown
from trilemma.explore.images import is_own, load
from trilemma.explore.naming import load_image
from trilemma.files import user_path
from trilemma.pictures.levels import to_uint8
from trilemma.run.run import Run

CALIBRATION, NORMAL, ABNORMAL, UNKNOWN = "calibration", "normal", "abnormal", "unknown"
NONE = "none"
BLOCK = 1024  # images that are compared at a time
Classes = str | int | Sequence[str | int]


class Group(NamedTuple):
    """Images of one kind: CALIBRATION (normal, for the threshold), NORMAL, ABNORMAL or UNKNOWN.

    source: what they are, in words; numbers: their positions there; split: images, labels and names.
    """

    kind: str
    source: str
    split: Split
    numbers: Tensor
    classes: tuple[str, ...] = ()


class DetectionImages(NamedTuple):
    """The images of a detection.

    source: the short name of what is looked at; groups: by kind, those that are looked at last; counted: whether the
    NORMAL images are others than those of CALIBRATION, so that false alarms can be counted; notes: what was decided.
    """

    source: str
    groups: list[Group]
    counted: bool
    notes: tuple[str, ...]


def groups_of(
    run: Run, data: Source | None, against: Source | None, normal: Classes | None, n: int, seed: int
) -> DetectionImages:
    """The images by kind."""
    if against is not None and not _is_image(against):
        against = load(run, against)
        if not is_own(run, against):
            return _with_normals(run, data, *_screened(run, against, normal, n, seed), n, seed)
    elif against is not None:
        return _with_normals(run, data, *_one_image(run, against, normal), (), n, seed)
    strange = _strange_classes(run)
    _check_own(run, against, normal, strange)
    source = run.data if data is None else load(run, data)
    groups, notes = _normals(run, source, n, seed)
    if strange and is_own(run, source):
        part = one_split(run.data, run.data.held_out[0])
        at = (~_is_normal(run, part.labels)).nonzero()[:, 0]
        if len(at):
            notes += (f"classes that training never had are abnormal: {', '.join(strange)}",)
            groups.append(
                _group(ABNORMAL, f"{run.data.name}, {', '.join(strange)}", part, at, run.data.classes, n, seed)
            )
    return DetectionImages(source.name, groups, _counted(groups), notes)


def _with_normals(
    run: Run, data: Source | None, source: str, others: list[Group], notes: tuple[str, ...], n: int, seed: int
) -> DetectionImages:
    """Images that are looked at, after normal ones of the run or of `data`."""
    normals, more = _normals(run, run.data if data is None else load(run, data), n, seed)
    groups = [*(normals[:1] if others[0].kind == NORMAL else normals), *others]
    return DetectionImages(source, groups, _counted(groups), more + notes)


def _counted(groups: Sequence[Group]) -> bool:
    return groups[0].source != groups[1].source


def _normals(run: Run, data: Data, n: int, seed: int) -> tuple[list[Group], tuple[str, ...]]:
    """Normal images that the run was not trained on: for the threshold, and for counting false alarms. These are the
    validation and the test images of its own data. Where there are no test images, or the data are others, all set the
    threshold, and both kinds are the same images."""
    make = partial(_group, classes=data.classes, n=n, seed=seed)
    if not is_own(run, data):
        part = all_splits(data)
        at, notes = _new(run, data, part)
        pieces = [(f"{data.name}, all images", part, at)]
    else:
        parts, notes = [one_split(data, name) for name in ("valid", "test") if name in data.splits], ()
        pieces = [(f"{data.name}, {p.name} split", p, _is_normal(run, p.labels, len(p)).nonzero()[:, 0]) for p in parts]
        pieces = [piece for piece in pieces if len(piece[2])]
    if not pieces or not len(pieces[0][2]):
        raise UserError(f"{data.name} has no normal images that {run.path} was not trained on; give some with data=")
    both = zip((CALIBRATION, NORMAL), (pieces[0], pieces[-1]), strict=True)
    return [make(kind, where, part, at) for kind, (where, part, at) in both], notes


def _strange_classes(run: Run) -> list[str]:
    """Classes of the run's data that no training image has."""
    trained = run.data.train.labels
    return [] if trained is None else [c for k, c in enumerate(run.data.classes) if not (trained == k).any()]


def _is_normal(run: Run, labels: Tensor | None, count: int | None = None) -> Tensor:
    """Which images of the run's data have a class that training had, bool (N,); all if there are no classes."""
    trained = run.data.train.labels
    if labels is None or trained is None or not run.data.classes:
        return torch.ones(count or 0 if labels is None else len(labels), dtype=torch.bool)
    return torch.isin(labels, trained.unique())


def _check_own(run: Run, against: Data | None, normal: Classes | None, strange: Sequence[str]) -> None:
    """Refuse what makes no sense of the run's own data."""
    if against is not None and not strange:
        raise UserError(
            f"{against.source} is what {run.path} was trained on: all of it is normal to the model. Leave against out "
            "to find the odd ones among its held-out images, or give images that it was not trained on"
        )
    if normal is None:
        return
    if not strange:
        raise UserError(
            f"normal={normal} names classes of `against`, which is missing; {run.path} was trained on all of "
            f"{run.config['data']}, so that none of its classes is abnormal to it: train on a folder of normal "
            "images alone, and give the others with against="
        )
    trained = {name for name in run.data.classes if name not in strange}
    named = {run.data.classes[k] for k in _classes(normal, run.data)}
    if named != trained:
        raise UserError(
            f"normal={normal}: {run.path} was trained on {', '.join(sorted(trained))}, which is what is normal to it; "
            "leave normal out"
        )


def _one_image(run: Run, against: Source, normal: Classes | None) -> tuple[str, list[Group]]:
    if normal not in (None, NONE):
        raise _no_classes(normal, against)
    split = Split(to_uint8(load_image(run, Path(str(against)))).cpu(), names=(str(against),))
    kind = UNKNOWN if normal is None else ABNORMAL
    return slug(Path(str(against))), [Group(kind, str(against), split, torch.tensor([0]))]


def _screened(
    run: Run, data: Data, normal: Classes | None, n: int, seed: int
) -> tuple[str, list[Group], tuple[str, ...]]:
    """The images of another source by kind: normal ones if there are any, then abnormal or unknown ones."""
    part = one_split(data, "test") if "test" in data.splits else all_splits(data)
    where = data.name if part.name == ALL else f"{data.name}, test split"
    numbers, notes = _new(run, data, part)
    if not len(numbers):
        raise UserError(f"{run.path} was trained on every image of {where}: all of it is normal to the model")
    make = partial(_group, part=part, classes=data.classes, n=n, seed=seed)
    wanted = _shared_classes(run, data) if normal is None else set() if normal == NONE else _classes(normal, data)
    labels = part.labels if data.classes else None
    if wanted and normal is not None and labels is None:
        raise _no_classes(normal, where, data.notes)
    if labels is None or not wanted:
        kind = UNKNOWN if labels is None and normal != NONE else ABNORMAL
        return data.name, [make(kind, where, at=numbers)], notes
    is_normal = torch.isin(labels[numbers], torch.tensor(sorted(wanted)))
    names = ", ".join(data.classes[k] for k in sorted(wanted))
    if not is_normal.any():
        raise UserError(f"{where} has no images of {names}; without normal images there is nothing to compare with")
    if is_normal.all():
        raise UserError(f"{where} has no images but those of {names}, which are normal: nothing there is abnormal")
    if normal is None:
        notes += (f"classes that training had are normal: {names} (normal=none: all of them are abnormal)",)
    groups = [
        make(NORMAL, f"{where}, {names}", at=numbers[is_normal]),
        make(ABNORMAL, f"{where}, the other classes", at=numbers[~is_normal]),
    ]
    return data.name, groups, notes


def _shared_classes(run: Run, data: Data) -> set[int]:
    """The numbers of the classes that the run was trained on, by name; none if it was trained on all of them."""
    strange = _strange_classes(run)
    trained = {name for name in run.data.classes if name not in strange}
    shared = {k for k, name in enumerate(data.classes) if name in trained}
    return shared if len(shared) < len(data.classes) else set()


def _new(run: Run, data: Data, part: Selection) -> tuple[Tensor, tuple[str, ...]]:
    """The numbers of the images of another source that equal no training image, and how many do, in words."""
    keys = [_keys(part.take(at).images) for at in torch.arange(len(part)).split(BLOCK)]
    seen = torch.isin(torch.cat(keys), torch.cat([_keys(rows) for rows in run.data.train.images.split(BLOCK)]))
    count = int(seen.sum())
    notes = (f"{count:,} images of {data.name} were trained on and are skipped",) if count else ()
    return (~seen).nonzero()[:, 0], notes


def _keys(images: Tensor) -> Tensor:
    """A number for each image, int64 (N,): equal for equal ones, and for others with a probability of 2^-64."""
    pixels = images.flatten(1).long()
    weights = torch.randint(-(2**63), 2**63 - 1, pixels.shape[1:], generator=torch.Generator().manual_seed(0))
    return (pixels * weights).sum(1)


def _classes(normal: Classes, data: Data) -> set[int]:
    """The numbers of the classes that are named."""
    if not data.classes:
        raise _no_classes(normal, data.source, data.notes)
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


def _no_classes(normal: object, source: object, notes: Sequence[str] = ()) -> UserError:
    return UserError(f"normal={normal}: {source} has no classes; leave normal out, or {class_advice(notes)}")


def _group(kind: str, source: str, part: Selection, at: Tensor, classes: tuple[str, ...], n: int, seed: int) -> Group:
    """At most n of the images numbered `at`, chosen by the seed, in their order."""
    at = at[rng.permutation(len(at), seed, "detect", n)[:n].sort().values]
    return Group(kind, source, part.take(at), at, classes)


def _is_image(against: Source) -> bool:
    if not isinstance(against, str | Path):
        return False
    path = user_path(against)
    return path.suffix.lower() in SUFFIXES and path.is_file()
