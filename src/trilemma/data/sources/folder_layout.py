"""What the names of a source's files say: the split and the class of each image.

A level of folders names the splits where a training name and a held-out one are alike but for the word of the split
(train and test, train2017 and val2017, DIV2K_train_HR and DIV2K_valid_HR), or where every name of the level has such a
word. What two such pairs differ in (trainA, testA, trainB, testB) counts as a folder. The files of an archive or of a
table lie in its folder and in its own name, which tell the split alone. The first folders that differ are the classes.
"""

import posixpath
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from trilemma.data.decoding.listing import nfc
from trilemma.words import names_counted

WORDS = {
    "train": ("train", "training", "trainval"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLITS = {word: split for split, words in WORDS.items() for word in words}
SPLITS |= {f"{word}{thing}": split for word, split in SPLITS.items() for thing in ("set", "data", "images")}
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # trainA has two
NUMBER = r"[-_. ]*\d+([-_. ]*of[-_. ]*\d+)?[-_. ]*"  # of a year or a shard: it makes no difference
EDGES = re.compile(f"^{NUMBER}|{NUMBER}$")
LOOSE = 0.2  # of the images beside the class folders are left out at most; more of them, and there are no classes
PACKED = re.compile(r"\d{5,}")  # folders that tools fill one after the other

OUTSIDE = "in none of the split folders"  # why an image is left out
ALONE = "one folder alone counts as none"
BESIDE = "beside the class folders"
UNUSED = "names look like splits and are not taken as such (a split needs a training and a held-out name alike)"

Place = tuple[str, str | None]  # split, class
Parts = list[str]


class Named(NamedTuple):
    """A split, and what is left of the name."""

    split: str
    rest: str


@dataclass(frozen=True)
class Layout:
    """places: (split, class) of each image, None if it is left out; classes: sorted; notes: the reading in words,
    with doubts; left_out: reason by image number."""

    places: list[Place | None]
    classes: tuple[str, ...]
    notes: list[str]
    left_out: dict[int, str] = field(default_factory=dict)


def split_of(name: str) -> Named | None:
    """The split that a word of a name tells; numbers at the ends of what is left of the name are dropped.

    >>> split_of("validation-00001-of-00004"), split_of("DIV2K_train_HR"), split_of("trainers")
    (Named(split='valid', rest='*'), Named(split='train', rest='DIV2K_*_HR'), None)
    """
    for word in WORD.finditer(name):
        if split := SPLITS.get(word[0].lower()):
            ends = (EDGES.sub("", part) for part in (name[: word.start()], name[word.end() :]))
            return Named(split, "*".join(ends))
    return None


def name_splits(names: Iterable[str]) -> dict[str, Named]:
    """The names of one level that tell a split.

    >>> sorted(name_splits(["train2017", "val2017", "notes"])), name_splits(["train_station", "test_tube", "bus"])
    (['train2017', 'val2017'], {})
    """
    names = set(names)
    matches = {name: named for name in sorted(names) if (named := split_of(name))}
    splits: dict[str, set[str]] = {}
    for split, rest in matches.values():
        splits.setdefault(rest.lower(), set()).add(split)
    paired = {rest for rest, kinds in splits.items() if len(kinds) > 1 and "train" in kinds}
    if paired == set(splits) or (paired and len(matches) < len(names)):
        return {name: named for name, named in matches.items() if named.rest.lower() in paired}
    split_names = {named.split for named in matches.values()}
    whole = len(matches) == len(names) and len(split_names) > 1 and "train" in split_names
    return {name: Named(named.split, "*") for name, named in matches.items()} if whole else {}


def arrange(names: Sequence[str], shards: Sequence[str] | None = None, classes: str = "") -> Layout:
    """Splits and classes from relative names with "/" between the folders.

    Args:
        shards: the archive or table that each lies in, without its suffix.
        classes: where they come from, in words, if not from the names.

    >>> arrange(["cat/1.png", "dog/2.png"]).places
    [('train', 'cat'), ('train', 'dog')]
    """
    outer = [_parts(shard) for shard in shards or [""] * len(names)]
    paths = [_parts(name) for name in names]
    splits, paths, words, levels = _split(outer, paths)
    inside = [k for k, split in enumerate(splits) if split]
    plain = ([None] * len(inside), classes, set())
    labels, class_note, loose = (
        plain if classes else _classes([paths[k] for k in inside], [str(splits[k]) for k in inside])
    )
    left_out = {k: OUTSIDE for k, split in enumerate(splits) if not split} | {inside[i]: BESIDE for i in loose}
    label = dict(zip(inside, labels, strict=True))
    places = [None if k in left_out else (str(split), label[k]) for k, split in enumerate(splits)]
    named = tuple(sorted({place[1] for place in places if place and place[1]}))
    notes = [f"layout: {words}{class_note}", *_passed_over(levels, () if words else [path[-1] for path in paths])]
    return Layout(places, named, notes, left_out)


def class_advice(notes: Iterable[str]) -> str:
    """How to give a source classes, which by its notes has none."""
    if any(ALONE in note for note in notes):
        return "one class alone counts as none: give images of two or more classes"
    return "put the images into one folder per class (or name their classes in metadata.csv)"


def _parts(name: str) -> Parts:
    return [part for part in nfc(name).split("/") if part not in ("", ".", "..")]


def _split(outer: list[Parts], paths: list[Parts]) -> tuple[list[str | None], list[Parts], str, list[set[str]]]:
    """The split of each file ("train" where nothing tells it, None outside of the split folders), its path without the
    folders that tell it, the reading in words, and the names of each level that tell no split."""
    folders = [[*out, *path[:-1]] for out, path in zip(outer, paths, strict=True)]
    splits: list[str | None] = ["train"] * len(paths)
    folders_left: list[Parts] = [[] for _ in paths]
    first, words, levels = True, [], []
    for depth in range(max(map(len, folders), default=0)):
        names = {k: folder[depth] for k, folder in enumerate(folders) if len(folder) > depth}
        named = _named(names, len(paths), first, branched=any(len(level) > 1 for level in levels))
        levels.append(set(names.values()) - set(named))
        for k, name in names.items():
            if name in named:
                splits[k] = named[name].split if splits[k] == "train" else splits[k]
                folders_left[k] += _rest(named[name])
            elif depth >= len(outer[k]):
                folders_left[k].append(name)
        if named and first:
            splits = [split if names.get(k) in named else None for k, split in enumerate(splits)]
            words, first = [_shown(named)], False
    paths = [[*part, path[-1]] for part, path in zip(folders_left, paths, strict=True)]
    return splits, paths, "".join(words), levels


def _named(names: dict[int, str], n: int, first: bool, branched: bool) -> dict[str, Named]:
    """The names of a level that are taken for splits. Where folders differ above it, most of the n images must lie in
    them; below a level of splits, all of the level."""
    named = name_splits(names.values())
    inside = sum(name in named for name in names.values())
    if first:
        return named if not branched or 2 * inside > n else {}
    return named if inside == len(names) else {}


def _rest(named: Named) -> Parts:
    """What is left of the name as a folder."""
    rest = re.sub(r"[-_. ]*\*[-_. ]*", "_", named.rest).strip("-_. ")
    return [rest] if rest else []


def _shown(named: dict[str, Named]) -> str:
    if all(name.lower() in SPLITS for name in named):
        return "split folders, "
    of = {split: sorted(name for name, word in named.items() if word.split == split) for split in WORDS}
    words = (
        f"{split}: {names[0]}{f' and {len(names) - 1:,} more' if names[1:] else ''}"
        for split, names in of.items()
        if names
    )
    return f"splits by name ({', '.join(words)}), "


def _passed_over(levels: list[set[str]], files: Sequence[str]) -> list[str]:
    """Names that look like those of splits and are not taken as such, in words.

    Args:
        files: names of files that may tell a split, too.
    """
    names = sorted(name for level in levels if len(level) > 1 for name in level if split_of(name))
    stems = {posixpath.splitext(file)[0]: file for file in files} if any("train" in f.lower() for f in files) else {}
    names += sorted(stems[name] for name in name_splits(stems))
    return [names_counted(UNUSED, names)] if names else []


def _classes(paths: list[Parts], splits: list[str]) -> tuple[list[str | None], str, set[int]]:
    """The class of each file, the reading in words, and the files that are left out since they lie beside the classes.

    Folders that all files lie in are passed over; so are a few files beside them, while folders that differ follow.
    """
    paths, loose, alone = [*paths], set(), ""
    while True:
        loose |= {k for k, path in enumerate(paths) if len(path) == 1}
        heads = {path[0] for k, path in enumerate(paths) if k not in loose}
        if len(heads) != 1:
            break
        (alone,) = heads
        paths = [path if k in loose else path[1:] for k, path in enumerate(paths)]
    against = _against(paths, splits, loose, heads, alone)
    if against is not None:
        return [None] * len(paths), f"no class folders{against}", set()
    flat = _flat(splits, loose)
    exceptions = f" ({', '.join(sorted(flat))}: no class folders)" if flat else ""
    labels = [None if k in loose else path[0] for k, path in enumerate(paths)]
    return labels, f"one folder per class{exceptions}", {k for k in loose if splits[k] not in flat}


def _flat(splits: list[str], loose: Collection[int]) -> set[str]:
    """The splits in which more than a few images lie in no folder."""
    of = {split: [k for k, other in enumerate(splits) if other == split] for split in set(splits)}
    return {split for split, numbers in of.items() if sum(k in loose for k in numbers) > LOOSE * len(numbers)}


def _against(paths: list[Parts], splits: list[str], loose: set[int], heads: set[str], alone: str) -> str | None:
    """Why the folders are not taken for classes, in words; None if they are."""
    if not heads:
        return f" ({ALONE}: {alone})" if alone else ""
    if "train" in _flat(splits, loose):
        beside = next(paths[k][0] for k in sorted(loose))
        return f" ({len(loose):,} of {len(paths):,} images lie in none, such as {beside})"
    if _packed([path for k, path in enumerate(paths) if k not in loose]):
        return f" (the numbered folders {min(heads)} to {max(heads)} hold one series of files, cut into parts)"
    return None


def _packed(paths: list[Parts]) -> bool:
    """Whether numbered folders hold a series of numbered files, cut into equal parts (the last may be smaller)."""
    series: dict[str, list[int]] = {}
    for path in paths:
        digits = re.findall(r"\d+", posixpath.splitext(path[-1])[0])
        if not digits or not PACKED.fullmatch(path[0]):
            return False
        series.setdefault(path[0], []).append(int(digits[-1]))
    parts = [sorted(series[name]) for name in sorted(series)]
    in_order = all(a[-1] < b[0] for a, b in pairwise(parts))
    return in_order and len({len(part) for part in parts[:-1]}) == 1 and len(parts[-1]) <= len(parts[0])
