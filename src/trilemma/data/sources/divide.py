"""From a decoded source to Data: images are held out for validation, and each split is put together."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from trilemma.data.decoding.decoded import NO_CLASS, DecodedSource
from trilemma.data.decoding.drafts import read_checked, write_checked
from trilemma.data.decoding.duplicates import exact_groups
from trilemma.data.decoding.storage import gather, let_go, load_rows
from trilemma.data.hold_out import check_enough, hold_out
from trilemma.data.options import Options
from trilemma.data.split import Data, Split, fingerprint_of, make_data
from trilemma.errors import UserError

LARGE = "{:,} bytes decoded, more than memory allows: images are read from their file as they are needed"
CACHED_FROM = 2**23  # bytes; of more images the fingerprint and the groups of equal ones are cached beside them
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Rows:
    """Images of a decoded source before they are looked up: their row numbers, int64 (n,), and their classes."""

    index: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: Tensor) -> Self:
        """The rows numbered `index` among these."""
        return type(self)(self.index[index], None if self.labels is None else self.labels[index])


def divide(source: DecodedSource, name: str, where: str, options: Options) -> Data:
    """Hold images out for validation where the source has none for it, and put each split together.

    Args:
        name: short; where: the source as it was given.
    Raises:
        UserError: a split is empty, or there are too few images to set one aside.
    """
    rows = _rows_of(source)
    check_enough({split: rows.get(split, ()) for split in ("train", *source.expected)}, where, source.skipped)
    rows, how = hold_out(
        rows,
        options,
        lambda train: _equal(source, train.index),
        files=_files([source.names[i] for i in rows["train"].index.tolist()]) if source.names else None,
        classes=source.classes,
    )
    splits = {split: _take_rows(source, part.index) for split, part in rows.items()}
    fingerprint = _cached(
        source, f"fingerprint-{_hash(rows['train'].index)}.txt", lambda: fingerprint_of(splits["train"])
    )
    large = LARGE.format(source.images.numel()) if source.large else ""
    return make_data(
        name,
        where,
        splits,
        options,
        classes=source.classes,
        notes=[*source.notes, *source.counts, large, how],
        skipped=source.skipped,
        fingerprint=fingerprint,
    )


def _rows_of(source: DecodedSource) -> dict[str, Rows]:
    """The rows of each split that has some."""
    labels = None if source.labels is None else torch.tensor(source.labels, dtype=torch.int64)
    number = {split: k for k, split in enumerate(SPLITS)}
    numbers = torch.tensor([number[split] for split in source.splits], dtype=torch.int64)
    whole = Rows(torch.arange(len(numbers)), labels)
    return {split: whole.take((numbers == k).nonzero()[:, 0]) for split, k in number.items() if (numbers == k).any()}


def _files(names: Sequence[str]) -> list[str] | None:
    """The file of each image where some are frames, whose names end in #k and not in a file's suffix; else None."""
    files = [re.sub(r"#\d+$", "", name) if "#" in name else name for name in names]
    return None if files == [*names] else files


def _take_rows(source: DecodedSource, index: Tensor) -> Split:
    """The images numbered `index` with their labels, captions and names."""
    at = index.tolist()
    labels = torch.tensor([source.labels[i] for i in at], dtype=torch.int64) if source.labels else None
    return Split(
        _pixels(source, index),
        None if labels is None or NO_CLASS in labels else labels,
        None if source.captions is None else tuple(source.captions[i] for i in at),
        tuple(source.names[i] for i in at) if source.names else None,
        mapped=source.large,
    )


def _pixels(source: DecodedSource, index: Tensor) -> Tensor:
    """The images numbered `index`: in memory, unless they are too many."""
    if source.large:
        return gather(source.images, index, source.folder and source.folder / f"rows-{_hash(index)}.u8")
    if source.folder is None:
        return source.images if len(index) == len(source.images) else source.images[index]
    return load_rows(source.images, index)


def _equal(source: DecodedSource, index: Tensor) -> list[list[int]]:
    """Groups of equal images among those numbered `index`, by their place in it."""
    groups = json.loads(_cached(source, "equal.json", lambda: json.dumps(exact_groups(source.images))))
    if source.folder is not None:
        let_go(source.images)  # they have all been read, and are read again for the splits
    place = {k: at for at, k in enumerate(index.tolist())} if groups else {}
    groups = [[place[k] for k in group if k in place] for group in groups]
    return [group for group in groups if len(group) > 1]


def _cached(source: DecodedSource, name: str, make: Callable[[], str]) -> str:
    """A text that takes a reading of all pixels: of many it is written beside them, so that it is made once."""
    if source.folder is None or source.images.numel() < CACHED_FROM:
        return make()
    path = source.folder / name
    with suppress(OSError, ValueError):
        return read_checked(path)
    text = make()
    with suppress(OSError, UserError):
        write_checked(path, text)
    return text


def _hash(index: Tensor) -> str:
    return hashlib.sha256(index.numpy().data).hexdigest()[:16]
