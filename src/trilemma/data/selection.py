"""Images that a verb looks at: one split of a source, or all of its splits as one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from trilemma.data import Data, Split

ALL = "all"

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """Images of a source by number. They are read as they are taken: those of all splits may be too many for memory.

    name: of the split, or ALL; order: where each image lies if the splits are laid end to end, int64 (N,).
    """

    name: str
    splits: tuple[Split, ...]
    order: Tensor

    def __len__(self) -> int:
        return len(self.order)

    @property
    def labels(self) -> Tensor | None:
        """The class of each image, int64 (N,)."""
        labels = _if_all(split.labels for split in self.splits)
        return None if labels is None else torch.cat(labels)[self.order]

    @property
    def captions(self) -> tuple[str, ...] | None:
        """The caption of each image, (N,)."""
        captions = _if_all(split.captions for split in self.splits)
        if captions is None:
            return None
        joined = tuple(chain.from_iterable(captions))
        return tuple(joined[k] for k in self.order.tolist())

    def take(self, index: Tensor) -> Split:
        """The images numbered `index`, int64 (n,), in that order, without the factors they were drawn from."""
        at, first, splits, places = self.order[index], 0, [], []
        for split in self.splits:
            inside = (at >= first) & (at < first + len(split))
            splits.append(split.take(at[inside] - first))
            places.append(inside.nonzero()[:, 0])
            first += len(split)
        return _joined(splits).take(torch.cat(places).argsort())


def one_split(data: Data, name: str) -> Selection:
    """A split by name."""
    return Selection(name, (data.splits[name],), torch.arange(len(data.splits[name])))


def part_named(data: Data, split: str) -> Selection:
    """A split, or with "all" every image."""
    return all_splits(data) if split == ALL else one_split(data, split)


def all_splits(data: Data) -> Selection:
    """All images: files in the order of their names, others split by split."""
    splits = tuple(data.splits.values())
    names = _if_all(split.names for split in splits)
    if names is None:
        return Selection(ALL, splits, torch.arange(sum(map(len, splits))))
    files = list(chain.from_iterable(names))
    return Selection(ALL, splits, torch.tensor(sorted(range(len(files)), key=files.__getitem__)))


def _joined(splits: Sequence[Split]) -> Split:
    """Splits end to end."""
    labels, captions, names = (
        _if_all(split.labels for split in splits),
        _if_all(split.captions for split in splits),
        _if_all(split.names for split in splits),
    )
    return Split(
        torch.cat([split.images for split in splits]),
        None if labels is None else torch.cat(labels),
        None if captions is None else tuple(chain.from_iterable(captions)),
        None if names is None else tuple(chain.from_iterable(names)),
    )


def _if_all(values: Iterable[T | None]) -> list[T] | None:
    """The values, if every split has one."""
    values = list(values)
    present = [value for value in values if value is not None]
    return present if len(present) == len(values) else None
