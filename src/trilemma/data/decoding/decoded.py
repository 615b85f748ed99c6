"""A source as it was decoded, before anything is held out for validation.

Everything that does not depend on the seed is here, so that a decoded source can be cached and opened again: the names
of the fields are the keys of an entry of the cache.
"""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

NO_CLASS = -1  # the number of an image in a split without classes


@dataclass(frozen=True)
class DecodedSource:
    """images: uint8 (N, C, H, W); names (or none), splits, labels (class numbers, -1 in a split without classes),
    captions: one per image, or None.

    expected: splits that must not be empty; notes: in words what was inferred; counts: in words how many files are in
    the fields that name all of them, which are skipped ("path: reason"), changes (what was done, and to which files),
    left_out (why, and which files were never opened) and unmatched (rows of metadata without a file, and files
    without); large: the images stay in a file; folder: of the cache, in which they are, or None.
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
