"""A source as it was read, before anything is set aside for validation; and from there to Data.

Everything that does not depend on the seed is here, so that a decoded source can be kept and opened again.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trilemma.data.decoding.decode import Item, Room, decode
from trilemma.data.decoding.duplicates import exact_groups
from trilemma.data.decoding.levels import few_levels
from trilemma.data.decoding.pixels import frames_of, name_of
from trilemma.data.decoding.storage import gather, let_go, load_rows, read_checked, write_checked
from trilemma.data.decoding.workers import each
from trilemma.data.sources.labels import UNLABELLED, labelled_splits, marks_unlabelled
from trilemma.data.split import RULES, Data, Split, complete, counted, fingerprint_of, make_data
from trilemma.errors import UserError

LARGE = "{:,} bytes decoded, more than memory is given: images are read from their file as they are needed"
NO_CLASS = -1  # the number of an image in a split without classes
KEPT = 2**23  # bytes; of more images the fingerprint and the groups of equal ones are kept with them


@dataclass(frozen=True)
class Entry:
    """One image of a source: its file, split, class and caption."""

    item: Item
    split: str = "train"
    label: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class DecodedSource:
    """images: uint8 (N, C, H, W); names (or none), splits, labels (class numbers, -1 in a split without classes),
    captions: one per image, or None.

    expected: splits that must not be empty; notes: in words what was inferred; counts: in words how many files are in
    the fields that name all of them, which are skipped ("path: reason"), changes (what was done, and to which files),
    left_out (why, and which files were never opened) and unmatched (rows of metadata without a file, and files
    without); large: the images stay in a file; folder: where they are kept.
    """

    images: Tensor
    names: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[int, ...] | None
    captions: tuple[str, ...] | None
    classes: tuple[str, ...]
    expected: tuple[str, ...]
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    counts: tuple[str, ...] = ()
    changes: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    large: bool = False
    folder: Path | None = None


def read_entries(
    entries: Sequence[Entry],
    size: tuple[int, int] | None,
    channels: int | None,
    room: Room,
    frames: str = "first",
    *,
    classes: tuple[str, ...] | None = None,
    notes: Sequence[str] = (),
    counts: Sequence[str] = (),
    skipped: Sequence[str] = (),
    left_out: dict[str, list[str]] | None = None,
    unmatched: Sequence[str] = (),
) -> DecodedSource:
    """Decode the images of a source.

    Args:
        frames: "all" makes an image of each frame of a file.
        classes: in their order; those that occur, sorted, where None.
        notes, counts, skipped, left_out, unmatched: what there is to say before; see `DecodedSource`.
    """
    words = {entry.label for entry in entries if entry.label is not None}
    expected = tuple({entry.split: None for entry in entries})
    if frames == "all":
        entries, note, lost = _all_frames(entries)
        notes, skipped = [*notes, note], [*skipped, *lost]
    decoded = decode([entry.item for entry in entries], size, channels, room)
    kept = [entries[i] for i in decoded.kept]
    names = [name_of(entry.item) for entry in entries]
    total = Counter(entry.split for entry in kept)
    used, missing = labelled_splits(total, Counter(entry.split for entry in kept if entry.label is None))
    if classes is None:
        classes = sort_classes(words) if used else ()
    number = {name: k for k, name in enumerate(classes)}
    numbers = tuple(number[str(entry.label)] if entry.split in used else NO_CLASS for entry in kept)
    skipped, left_out = [*skipped, *decoded.skipped], {what: files for what, files in (left_out or {}).items() if files}
    changes = {what: [names[i] for i in which] for what, which in decoded.changes.items()}
    counts = [
        *counts,
        *(counted(f"files skipped ({what})", files) for what, files in left_out.items()),
        *(f"{len(files):,} of the images: {what}" for what, files in changes.items()),
        counted("unreadable and skipped", skipped),
    ]
    return DecodedSource(
        decoded.images,
        tuple(names[i] for i in decoded.kept),
        tuple(entry.split for entry in kept),
        numbers if used else None,
        tuple(entry.caption or "" for entry in kept) if any(entry.caption for entry in kept) else None,
        classes if used else (),
        expected,
        tuple(filter(None, (*notes, decoded.rule, few_levels(decoded.images), missing))),
        tuple(skipped),
        tuple(filter(None, counts)),
        changes,
        left_out,
        tuple(unmatched),
    )


def without_unlabelled(entries: list[Entry]) -> list[Entry]:
    """The entries of a table, where the label -1 may mean "no class"."""
    if not marks_unlabelled({entry.label for entry in entries}):
        return entries
    return [replace(entry, label=None) if entry.label == UNLABELLED else entry for entry in entries]


def _all_frames(entries: Sequence[Entry]) -> tuple[list[Entry], str, list[str]]:
    """An entry for each frame, what that made in words, and "name: reason" for the files that cannot be opened."""
    bad: dict[int, str] = {}
    items = each(lambda i: frames_of(entries[i].item), range(len(entries)), bad)
    several = [len(found) for found in items.values() if len(found) > 1]
    note = f"frames=all: {len(several):,} files hold {sum(several):,} frames or pages, each an image of its own"
    found = [replace(entries[i], item=item) for i in sorted(items) for item in items[i]]
    return found, note, [f"{entries[i].item.name}: {bad[i]}" for i in sorted(bad)]


def _files(names: Sequence[str]) -> list[str] | None:
    """The file of each image where some are frames, whose names end in #k and not in a file's suffix; else None."""
    files = [re.sub(r"#\d+$", "", name) if "#" in name else name for name in names]
    return None if files == [*names] else files


def sort_classes(names: set[str]) -> tuple[str, ...]:
    """Names of classes in order: as numbers where all are.

    >>> sort_classes({"10", "9"}), sort_classes({"b", "a"})
    (('9', '10'), ('a', 'b'))
    """
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if all(map(str.isdecimal, names)) else None))


def finish(raw: DecodedSource, name: str, source: str, valid: float | None, seed: int, rule: str = RULES[0]) -> Data:
    """Set images aside for validation where the source has none, and put each split together.

    Args:
        rule: of RULES.
    Raises:
        UserError: a split is empty, or there are too few images to set one aside.
    """
    at = torch.arange(len(raw.splits))
    parts = [part for part in ("train", "valid", "test") if part in raw.splits]
    labels = None if raw.labels is None else torch.tensor(raw.labels, dtype=torch.int64)
    whole = Split(at, labels)  # the number of each image stands for it
    rows = {part: whole.take(at[torch.tensor([split == part for split in raw.splits])]) for part in parts}
    named = raw.names and "train" in rows
    files = _files([raw.names[i] for i in rows["train"].images.tolist()]) if named else None
    equal = partial(_equal, raw, rows["train"].images) if "train" in rows else None
    found, how = complete(
        rows, raw.expected, source, raw.skipped, valid, seed, files, equal, classes=raw.classes, rule=rule
    )
    splits = {part: _rows(raw, split.images) for part, split in found.items()}
    kept = f"fingerprint-{_hash(found['train'].images)}.txt"
    fingerprint = _kept(raw, kept, lambda: fingerprint_of(splits["train"]))
    return make_data(
        name,
        source,
        splits,
        classes=raw.classes,
        notes=[*raw.notes, *raw.counts, LARGE.format(raw.images.numel()) if raw.large else "", how],
        skipped=raw.skipped,
        fingerprint=fingerprint,
    )


def _rows(raw: DecodedSource, index: Tensor) -> Split:
    """The images numbered `index` with all that is known of them."""
    at = index.tolist()
    labels = torch.tensor([raw.labels[i] for i in at], dtype=torch.int64) if raw.labels else None
    return Split(
        _pixels(raw, index),
        None if labels is None or NO_CLASS in labels else labels,
        None if raw.captions is None else tuple(raw.captions[i] for i in at),
        tuple(raw.names[i] for i in at) if raw.names else None,
        mapped=raw.large,
    )


def _pixels(raw: DecodedSource, index: Tensor) -> Tensor:
    """The images numbered `index`: in memory, unless they are too many."""
    if raw.large:
        return gather(raw.images, index, raw.folder and raw.folder / f"rows-{_hash(index)}.u8")
    if raw.folder is None:
        return raw.images if len(index) == len(raw.images) else raw.images[index]
    return load_rows(raw.images, index)


def _equal(raw: DecodedSource, index: Tensor) -> list[list[int]]:
    """Groups of equal images among those numbered `index`, by their place in it."""
    groups = json.loads(_kept(raw, "equal.json", lambda: json.dumps(exact_groups(raw.images))))
    if raw.folder is not None:
        let_go(raw.images)  # all of it was read, and it is read again to be put into splits
    place = {k: at for at, k in enumerate(index.tolist())} if groups else {}
    found = [[place[k] for k in group if k in place] for group in groups]
    return [group for group in found if len(group) > 1]


def _kept(raw: DecodedSource, name: str, make: Callable[[], str]) -> str:
    """What takes a reading of all pixels: of many it is written beside them, so that it is made once."""
    if raw.folder is None or raw.images.numel() < KEPT:
        return make()
    path = raw.folder / name
    with suppress(OSError, ValueError):
        return read_checked(path)
    text = make()
    with suppress(OSError, UserError):
        write_checked(path, text)
    return text


def _hash(index: Tensor) -> str:
    return hashlib.sha256(index.numpy().data).hexdigest()[:16]
