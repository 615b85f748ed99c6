"""From image files of any kind to one uint8 tensor (N, C, H, W), each written straight into its place.

Each is decoded as pixels.py says, and the rule of size.py applies. Files that cannot be read are named with the reason
and left out. If the first headers are of one size, all images are decoded at once, and it is checked afterwards that
the others have it too; else all headers are read first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trilemma.data.decoding.pixels import FORMATS, SUFFIXES, Header, Item, decode_into, header
from trilemma.data.decoding.size import choose_size
from trilemma.data.decoding.workers import each

__all__ = ["FORMATS", "SUFFIXES", "Decoded", "Item", "Room", "decode"]

SAMPLED = 64  # headers that are read before all images are decoded


class Room:
    """Where the images of one source go while they are decoded: memory.

    shared: processes that are forked write into the same images.
    """

    shared = False

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Room for a uint8 tensor; a former one is given up."""
        return torch.empty(shape, dtype=torch.uint8)


@dataclass(frozen=True)
class Decoded:
    """images: uint8 (N, C, H, W); numbers: of the items they were decoded from; rule: of their size, in words;
    skipped: "name: reason" of the others; changes: what was done to images, in words, with the numbers of their items.
    """

    images: Tensor
    numbers: list[int]
    rule: str
    skipped: list[str]
    changes: dict[str, list[int]]


def decode(
    items: Sequence[Item],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    room: Room | None = None,
    most_px: int | None = None,
) -> Decoded:
    """Decode all items that can be read, to one size and number of channels.

    Args:
        size: the target (height, width) (default: inferred).
        channels: 1 or 3 (default: 1 if every image is stored as grey, else 3).
        room: where the images go (default: memory).
        most_px: of a side, where the size is inferred.
    """
    room = room or Room()
    bad: dict[int, str] = {}
    forks = all(item.forks for item in items)
    headers = _headers(items, size, bad)
    good, rule, changes = [i for i in range(len(items)) if i not in bad], "", {}
    images = torch.empty(0, 1, 1, 1, dtype=torch.uint8)
    while good:
        target, depth, rule = _plan([headers[i] for i in good if i in headers], size, channels, most_px)
        images = room.empty((len(good), depth, *target))
        places = dict(zip(good, images.numpy(), strict=True))
        results = _decode_files(items, places, bad, shared=room.shared and forks)
        headers = {i: head for i, (head, _) in results.items()}
        changes = _changes({i: words for i, (_, words) in results.items()})
        images = _close_up(images, [k for k, i in enumerate(good) if i not in bad])
        good = [i for i in good if i not in bad]
        if not good:
            break
        plan = _plan([headers[i] for i in good], size, channels, most_px)
        rule = plan[2]
        # A file that broke only now must not have decided the size or the colours: then all are decoded without it.
        if plan[:2] == (target, depth):
            break
    return Decoded(images, good, rule, [f"{items[i].name}: {bad[i]}" for i in sorted(bad)], changes)


def _headers(items: Sequence[Item], size: tuple[int, int] | None, bad: dict[int, str]) -> dict[int, Header]:
    """Headers: of some spread over the items where they are of one size, else of all."""
    some = range(0, len(items), max(1, len(items) // SAMPLED))
    headers = each(lambda i: header(items[i]), some, bad)
    if headers and (size or len({head.size for head in headers.values()}) == 1):
        return headers
    rest = [i for i in range(len(items)) if i not in headers and i not in bad]
    return headers | each(lambda i: header(items[i]), rest, bad)


def _decode_files(
    items: Sequence[Item], places: dict[int, np.ndarray], bad: dict[int, str], *, shared: bool
) -> dict[int, tuple[Header, list[str]]]:
    """Decode those that have a place; the frames of a file together, because each may need those before it."""
    files, first = {}, -1
    for i in places:
        if items[i].frame is None or first < 0 or items[i].open is not items[first].open:
            first = i
        files.setdefault(first, []).append(i)
    failed: dict[int, str] = {}

    def work(i: int) -> list[tuple[Header, list[str]] | str]:
        return decode_into([places[k] for k in files[i]], [items[k] for k in files[i]])

    decoded = each(work, [*files], failed, shared=shared)
    bad.update({k: why for i, why in failed.items() for k in files[i]})
    results = {k: result for i, frames in decoded.items() for k, result in zip(files[i], frames, strict=True)}
    bad.update({k: result for k, result in results.items() if isinstance(result, str)})
    return {k: result for k, result in results.items() if not isinstance(result, str)}


def _plan(
    headers: Sequence[Header], size: tuple[int, int] | None, channels: int | None, most_px: int | None
) -> tuple[tuple[int, int], int, str]:
    """The target (height, width), the number of channels, and the size rule in words."""
    target, rule = choose_size([head.size for head in headers], size, most_px)
    return target, channels or (1 if all(head.grey for head in headers) else 3), rule


def _changes(words: dict[int, list[str]]) -> dict[str, list[int]]:
    """From changes by item to items by change, both in order."""
    items: dict[str, list[int]] = {}
    for i in sorted(words):
        for word in words[i]:
            items.setdefault(word, []).append(i)
    return dict(sorted(items.items()))


def _close_up(images: Tensor, rows: list[int]) -> Tensor:
    """The images numbered `rows`, which rise, moved to the front in place."""
    for to, row in enumerate(rows):
        if to != row:
            images[to] = images[row]
    return images[: len(rows)]
