"""What is in a source, before anything is trained on it: bad files, silent changes, duplicates, leaks

It reads the source exactly as loading does (the same decoding, the same cache), so the two can never disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trilemma.data.duplicates import exact_groups, near_pairs
from trilemma.data.raw import Raw
from trilemma.data.size import Size, parse_size
from trilemma.data.sources import check_channels, check_frames, load_data, read_raw
from trilemma.data.split import Data

SHOWN = 5  # examples of a kind in the text


@dataclass(frozen=True)
class Report:
    """What was found.

    files: images by their names; read: those that could be read; bad: (file, reason) for the others;
    changes: what was done to images on the way, in words, and to which files; duplicates: groups of files that decode
    to the same pixels; near: pairs that nearly do; overlap: pairs of equal images (training file, file of another
    split); near_overlap: nearly equal ones; unmatched: rows of metadata without a file and files without a row;
    searched: whether all images were compared for near duplicates; frames: as in `load_data`; for "all" each frame
    counts as a file.
    """

    source: str
    files: int
    read: int
    bad: list[tuple[str, str]] = field(default_factory=list)
    changes: dict[str, list[str]] = field(default_factory=dict)
    duplicates: list[tuple[str, ...]] = field(default_factory=list)
    near: list[tuple[str, str]] = field(default_factory=list)
    overlap: list[tuple[str, str]] = field(default_factory=list)
    near_overlap: list[tuple[str, str]] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    searched: bool = True
    frames: str = "first"

    @property
    def ok(self) -> bool:
        """Every file could be read, no training image is in another split, and all metadata has its file."""
        return not (self.bad or self.overlap or self.unmatched or not self.read)

    def __str__(self) -> str:
        """All bad files, and of everything else the count with some examples."""
        what = "images" if self.frames == "all" else "image files"
        lines = [f"{self.source}: {self.files:,} {what}, {self.read:,} read, {len(self.bad):,} bad", *self.notes]
        lines += [f"bad: {name}: {reason}" for name, reason in self.bad]
        lines += [_line(f"changed: {what}", names) for what, names in self.changes.items()]
        lines += _pairs("duplicates (equal pixels)", self.duplicates)
        lines += _pairs("near duplicates", self.near)
        lines += _pairs("in the training images and in another split", self.overlap)
        lines += _pairs("nearly the same in the training images and in another split", self.near_overlap)
        lines += [_line("unmatched metadata", self.unmatched)] if self.unmatched else []
        if not self.searched:
            lines.append(
                "so many images, or so many alike, that near duplicates were looked for in the first ones only"
            )
        return "\n".join([*lines, "ok" if self.ok else "not ok: see above"])


def check(
    source: str | Path | Data, *, size: Size | None = None, frames: str | None = None, channels: int | None = None
) -> Report:
    """Look through a source.

    Args:
        size, frames, channels: as in `load_data`; duplicates are looked for among the images as they are decoded so.
    Raises:
        UserError: the source is not known, or holds no images at all.
    """
    check_frames(frames)
    check_channels(channels)
    raw = None if isinstance(source, Data) else read_raw(source, parse_size(size), channels, frames or "first")
    if raw is None:
        data = load_data(source, size=size, channels=channels, frames=frames)
        return _report(_raw_of(data), data.source, data.frames)
    return _report(raw, str(source), frames or "first")


def _raw_of(data: Data) -> Raw:
    """The splits of a Data side by side."""
    splits = [part for part, split in data.splits.items() for _ in range(len(split))]
    names = [
        name
        for part, split in data.splits.items()
        for name in split.names or [f"{part} image {k}" for k in range(len(split))]
    ]
    return Raw(
        torch.cat([split.images for split in data.splits.values()]),
        tuple(names),
        tuple(splits),
        None,
        None,
        data.classes,
        tuple(data.splits),
        data.notes,
        data.skipped,
    )


def _report(raw: Raw, source: str, frames: str) -> Report:
    exact = exact_groups(raw.images)
    near, searched = near_pairs(raw.images, exact)
    training = [split == "train" for split in raw.splits]
    overlap = [
        (raw.names[next(k for k in group if training[k])], raw.names[k])
        for group in exact
        if any(training[k] for k in group)
        for k in group
        if not training[k]
    ]
    crossing = [(i, j) if training[i] else (j, i) for i, j in near if training[i] != training[j]]
    return Report(
        source,
        len(raw.names) + len(raw.skipped),
        len(raw.names),
        [(name, reason) for name, _, reason in (line.partition(": ") for line in raw.skipped)],
        raw.changes,
        [tuple(raw.names[k] for k in group) for group in exact],
        [(raw.names[i], raw.names[j]) for i, j in near],
        overlap,
        [(raw.names[i], raw.names[j]) for i, j in crossing],
        list(raw.unmatched),
        tuple(note for note in raw.notes if not note.startswith(tuple("0123456789"))),
        searched,
        frames,
    )


def _pairs(what: str, groups: Sequence[tuple[str, ...]]) -> list[str]:
    """A line for groups of names, none where there are none."""
    return [_line(what, [" = ".join(group) for group in groups])] if groups else []


def _line(what: str, names: Sequence[str]) -> str:
    """How many, with the first few."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{what}: {len(names):,}: {', '.join(names[:SHOWN])}{more}"
