"""What is in a source, before anything is trained on it: bad files, silent changes, duplicates, leaks

It reads the source exactly as loading does (the same decoding, the same cache), so the two can never disagree.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trilemma.data.decoding.decoded import DecodedSource
from trilemma.data.decoding.duplicates import exact_groups, near_pairs
from trilemma.data.decoding.size import Size
from trilemma.data.hold_out import too_few
from trilemma.data.load import Source, load_data, read_image_files, source_word
from trilemma.data.options import Options, change
from trilemma.data.sources.consent import note_source
from trilemma.data.sources.folder import IMAGES
from trilemma.data.split import Data
from trilemma.errors import UserError
from trilemma.files import read_plain, refuse_foreign, write_atomic
from trilemma.keys import Channels, Frames, Resize
from trilemma.results import claim, out_path
from trilemma.text import printable
from trilemma.values import checked_call

SHOWN = 5  # examples of a kind that is not a fault, in the short text
ENDS = ("ok", "not ok: see above")
SKIPPED = "files skipped"
FIRST_LINE = re.compile(
    r".*: [0-9,]+ (images|image files), [0-9,]+ read, [0-9,]+ bad"
    rf"(, [0-9,]+ ({SKIPPED}|files left out))?"  # the latter in reports of an earlier version
)
LARGEST_TEXT = 2**30  # bytes of a report that are read
SHARED = "in the training images and in another split"


@dataclass(frozen=True)
class Report:
    """The result of a check.

    files: images by their names; read: how many could be read; bad: (file, reason) for the others;
    left_out: why, and which files were not opened at all (of them, those outside the split folders and beside the class
    folders count as images); changes: what was done to images on the way, in words, and to which files; duplicates:
    groups of files that decode to the same pixels; near: pairs that nearly do; overlap: pairs of equal images (training
    file, file of another split); near_overlap: nearly equal ones; unmatched: rows of metadata without a file and files
    without a row; searched: whether all images were compared for near duplicates; frames: as in `load_data`; for "all"
    each frame counts as a file.
    """

    source: str
    files: int
    read: int
    bad: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    changes: dict[str, list[str]] = field(default_factory=dict)
    duplicates: list[tuple[str, ...]] = field(default_factory=list)
    near: list[tuple[str, str]] = field(default_factory=list)
    overlap: list[tuple[str, str]] = field(default_factory=list)
    near_overlap: list[tuple[str, str]] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    searched: bool = True
    frames: str = "first"
    few: str | None = None

    @property
    def ok(self) -> bool:
        """Every file could be read, no training image is in another split, all metadata has its file, and there are
        images enough to train."""
        return not (self.bad or self.overlap or self.unmatched or self.few)

    def __str__(self) -> str:
        """Everything that is a fault by name, and of everything else the count with some examples."""
        return self.text(SHOWN)

    def text(self, shown: int | None = None) -> str:
        """The report in words.

        Args:
            shown: names of each kind that is not a fault (default: all, each on a line of its own).
        """
        what = "images" if self.frames == "all" else "image files"
        left = sum(map(len, self.left_out.values()))
        counts = f"{self.source}: {self.files:,} {what}, {self.read:,} read, {len(self.bad):,} bad"
        lines = [f"{counts}, {left:,} {SKIPPED}" if left else counts, *self.notes]
        lines += [f"bad: {name}: {reason}" for name, reason in self.bad]
        for why, names in self.left_out.items():
            lines += _named(f"skipped, {why}", names, shown)
        for words, names in self.changes.items():
            lines += _named(f"changed: {words}", names, shown)
        lines += _named("duplicates (equal pixels)", _joined(self.duplicates), shown)
        lines += _named("near duplicates", _joined(self.near), shown)
        lines += _named(f"nearly the same {SHARED}", _joined(self.near_overlap), shown)
        lines += _named(SHARED, _joined(self.overlap), None)
        lines += _named("unmatched metadata", self.unmatched, None)
        if self.few:
            lines.append(self.few)
        if not self.searched:
            lines.append(
                "so many images, or so many alike, that near duplicates were searched among the first ones only"
            )
        return "\n".join([*map(printable, lines), ENDS[0] if self.ok else ENDS[1]])


@checked_call
def check(
    source: Annotated[Source, Field(description="a word from `trilemma data list`, or a path")],
    *,
    size: Resize = None,
    frames: Frames = None,
    channels: Channels = None,
    out: Annotated[
        str | Path | None, Field(description="write the full report, with every file name, to this file")
    ] = None,
) -> Report:
    """Look through a source.

    Args:
        size, frames, channels: as in `load_data`; duplicates are searched among the images decoded so.
        out: a text file for the report with every name.
    Raises:
        UserError: the source is not known, or holds no images at all; `out` cannot be written.
    """
    path = None if out is None else out_path(out)
    if path is not None:
        claim([path], path.parent, _is_report)
    report = _inspect(source, size, frames, channels)
    if path is not None:
        refuse_foreign(path, _is_report)
        write_atomic(path, report.text() + "\n")
    return report


def _is_report(path: Path) -> bool:
    """Whether a file begins and ends as the text of a report does."""
    try:
        lines = read_plain(path, LARGEST_TEXT).decode().splitlines()
    except (UserError, UnicodeDecodeError):
        return False
    return bool(lines) and lines[-1] in ENDS and FIRST_LINE.fullmatch(lines[0]) is not None


def _inspect(source: Source, size: Size | None, frames: str | None, channels: int | None) -> Report:
    options = change(Options(), size=size, channels=channels, frames=frames)
    decoded = read_image_files(source, options) if isinstance(source, str | Path) else None
    if decoded is None:
        data = load_data(source, size=size, channels=channels, frames=frames)
        images = [split.images for split in data.splits.values()]
        return _report(_without_images(data), images, data.source, data.options.frames)
    note_source(source_word(str(source)))
    return _report(decoded, [decoded.images], str(source), options.frames)


def _without_images(data: Data) -> DecodedSource:
    """A Data as a decoded source whose images stay in their splits: they may be more than memory holds."""
    splits = [part for part, split in data.splits.items() for _ in range(len(split))]
    names = [
        name
        for part, split in data.splits.items()
        for name in split.names or [f"{part} image {k}" for k in range(len(split))]
    ]
    return DecodedSource(
        torch.empty(0, *data.shape, dtype=torch.uint8),
        tuple(names),
        tuple(splits),
        None,
        None,
        data.classes,
        tuple(data.splits),
        data.notes,  # which hold the counts of what the report cannot name
        data.skipped,
    )


def _report(decoded: DecodedSource, images: Sequence[Tensor], source: str, frames: str) -> Report:
    exact = exact_groups(*images)
    near, searched = near_pairs(*images, exact=exact)
    training = [split == "train" for split in decoded.splits]
    overlap = [
        (decoded.names[next(k for k in group if training[k])], decoded.names[k])
        for group in exact
        if any(training[k] for k in group)
        for k in group
        if not training[k]
    ]
    crossing = [(i, j) if training[i] else (j, i) for i, j in near if training[i] != training[j]]
    return Report(
        source,
        len(decoded.names) + len(decoded.skipped) + sum(len(decoded.left_out.get(why, ())) for why in IMAGES),
        len(decoded.names),
        [(name, reason) for name, _, reason in (line.partition(": ") for line in decoded.skipped)],
        decoded.left_out,
        decoded.changes,
        [tuple(decoded.names[k] for k in group) for group in exact],
        [(decoded.names[i], decoded.names[j]) for i, j in near],
        overlap,
        [(decoded.names[i], decoded.names[j]) for i, j in crossing],
        list(decoded.unmatched),
        decoded.notes,
        searched,
        frames,
        too_few({key: decoded.splits.count(key) for key in ("train", *decoded.expected)}),
    )


def _joined(groups: Sequence[tuple[str, ...]]) -> list[str]:
    """Names that belong together, as a text each."""
    return [" = ".join(group) for group in groups]


def _named(what: str, names: Sequence[str], shown: int | None) -> list[str]:
    """A line with how many and the first `shown` (default: a line for each); no line without names."""
    if shown is None and len(names) > 1:
        return [f"{what}: {len(names):,}:", *(f"    {name}" for name in names)]
    more = f" and {len(names) - shown:,} more" if shown and len(names) > shown else ""
    return [f"{what}: {len(names):,}: {', '.join(names[:shown])}{more}"] if names else []
