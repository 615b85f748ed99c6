"""The images of a source by file, split, class and caption; and from there to a decoded source."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from trilemma.data.decoding.decode import Item, Room, decode
from trilemma.data.decoding.decoded import NO_CLASS, DecodedSource
from trilemma.data.decoding.levels import few_levels
from trilemma.data.decoding.pixels import frames_of, name_of
from trilemma.data.decoding.workers import each
from trilemma.data.options import Options
from trilemma.data.sources.labels import UNLABELLED, labelled_splits, marks_unlabelled
from trilemma.words import names_counted


@dataclass(frozen=True)
class Entry:
    """One image of a source: its file, split, class and caption."""

    item: Item
    split: str = "train"
    label: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Remarks:
    """What there is to say of a source beside its images.

    notes: in words, what was inferred; counts: in words, how many files are in the fields that name all of them, which
    are skipped ("path: reason"), left_out (why, and which files were never opened) and unmatched (rows of metadata
    without a file, and files without).
    """

    notes: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    left_out: dict[str, list[str]] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()


def read_entries(
    entries: Sequence[Entry],
    options: Options,
    room: Room,
    remarks: Remarks,
    classes: tuple[str, ...] | None = None,
) -> DecodedSource:
    """Decode the images of a source.

    Args:
        remarks: on the source; what decoding adds follows.
        classes: in their order (default: those that occur, sorted).
    """
    labels = {entry.label for entry in entries if entry.label is not None}
    expected = tuple({entry.split: None for entry in entries})
    if options.frames == "all":
        entries, remarks = _all_frames(entries, remarks)
    decoded = decode([entry.item for entry in entries], options.size, options.channels, room, options.most_px)
    readable = [entries[i] for i in decoded.numbers]
    names = [name_of(entry.item) for entry in entries]
    total = Counter(entry.split for entry in readable)
    used, lacking = labelled_splits(total, Counter(entry.split for entry in readable if entry.label is None))
    if classes is None:
        classes = sort_classes(labels) if used else ()
    number = {name: k for k, name in enumerate(classes)}
    numbers = tuple(number[str(entry.label)] if entry.split in used else NO_CLASS for entry in readable)
    skipped = (*remarks.skipped, *decoded.skipped)
    left_out = {why: files for why, files in remarks.left_out.items() if files}
    changes = {change: [names[i] for i in which] for change, which in decoded.changes.items()}
    counts = (
        *remarks.counts,
        *(names_counted(f"files skipped ({why})", files) for why, files in left_out.items()),
        *(f"{len(files):,} of the images: {change}" for change, files in changes.items()),
        names_counted("unreadable and skipped", skipped),
    )
    return DecodedSource(
        decoded.images,
        tuple(names[i] for i in decoded.numbers),
        tuple(entry.split for entry in readable),
        numbers if used else None,
        tuple(entry.caption or "" for entry in readable) if any(entry.caption for entry in readable) else None,
        classes if used else (),
        expected,
        tuple(filter(None, (*remarks.notes, decoded.rule, few_levels(decoded.images), lacking))),
        skipped,
        tuple(filter(None, counts)),
        changes,
        left_out,
        remarks.unmatched,
    )


def without_unlabelled(entries: list[Entry]) -> list[Entry]:
    """The entries of a table, where the label -1 may mean "no class"."""
    if not marks_unlabelled({entry.label for entry in entries}):
        return entries
    return [replace(entry, label=None) if entry.label == UNLABELLED else entry for entry in entries]


def _all_frames(entries: Sequence[Entry], remarks: Remarks) -> tuple[list[Entry], Remarks]:
    """An entry for each frame; the number of frames joins the notes, and files that cannot be opened are skipped."""
    bad: dict[int, str] = {}
    items = each(lambda i: frames_of(entries[i].item), range(len(entries)), bad)
    several = [len(frames) for frames in items.values() if len(frames) > 1]
    note = f"frames=all: {len(several):,} files hold {sum(several):,} frames or pages, each an image of its own"
    skipped = [f"{entries[i].item.name}: {bad[i]}" for i in sorted(bad)]
    remarks = replace(remarks, notes=(*remarks.notes, note), skipped=(*remarks.skipped, *skipped))
    return [replace(entries[i], item=item) for i in sorted(items) for item in items[i]], remarks


def sort_classes(names: set[str]) -> tuple[str, ...]:
    """Names of classes in order: as numbers where all are.

    >>> sort_classes({"10", "9"}), sort_classes({"b", "a"})
    (('9', '10'), ('a', 'b'))
    """
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if all(map(str.isdecimal, names)) else None))
