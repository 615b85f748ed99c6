"""Images that occur twice: exactly (equal decoded pixels) or nearly (recompressed, rescaled, brightened).

Exact: equal SHA-256 of the decoded pixels (their first 128 bits). Near: candidates have difference hashes (each of 8 x
8 cells against its right neighbour, 64 bits) within HAMMING bits; a candidate pair (x, y) counts where y = gain * x +
offset explains the colours of the cells and the lightness of the pixels (colour is what JPEG keeps least of) each to
within a residual of RESIDUAL standard deviations. Images that are nearly flat have no such pattern: they count only
where they are equal.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from trilemma.data.decoding.storage import blocks

HAMMING = 6  # bits of 64
RESIDUAL = 0.12  # of the standard deviation
SIDE = 32  # cells each way in which the lightness is compared, at most
FLAT = 4.0  # levels: a smaller standard deviation is called flat
NEAR_LIMIT = 50_000  # images that are compared each with each
PAIR_LIMIT = 1_000_000  # candidate pairs that are compared
ROWS = 256  # images compared with all others at a time
PAIRS = 1024  # pairs compared at once: at most twice as many images in SIDE x SIDE cells, 8 MiB

Pair = tuple[int, int]


def exact_groups(*images: Tensor) -> list[list[int]]:
    """Numbers of images whose pixels are equal: uint8 (N, C, H, W) to groups of two or more, each in order.

    Costs one reading of all pixels: 1 GB/s or so, as the fingerprint does, and 16 bytes of memory per image.

    Args:
        images: one tensor, or several that are numbered as if they were one.
    """
    rows = chain.from_iterable(map(blocks, images))
    digests = np.concatenate([np.empty((0, 2), np.uint64), *map(_digests, rows)])
    order = np.lexsort(digests.T)  # equal ones side by side, each in its former order
    ends = np.flatnonzero(np.any(np.diff(digests[order], axis=0), axis=1)) + 1
    groups = np.split(order, ends) if len(ends) < len(order) - 1 else []
    return sorted(group.tolist() for group in groups if len(group) > 1)


def near_pairs(*images: Tensor, exact: Sequence[Sequence[int]] = ()) -> tuple[list[Pair], bool]:
    """Pairs (i, j), i < j, that show the same picture without being equal; of `exact` groups only the first counts.

    Args:
        images: as in `exact_groups`.
    Returns:
        The pairs, and whether all were compared: not with more than NEAR_LIMIT images or PAIR_LIMIT candidates.
    """
    repeats = {k for group in exact for k in group[1:]}
    count = sum(map(len, images))
    cells, spread = _cells(_numbered(images, torch.arange(min(count, NEAR_LIMIT))))
    use = np.array([k not in repeats for k in range(len(spread))], bool) & (spread >= FLAT)
    numbers = torch.from_numpy(np.flatnonzero(use))
    hashes, cells, total = _hashes(cells[numbers]), _unit(cells[numbers]), 0
    pairs: list[Pair] = []
    for left, right in _candidates(hashes):
        total += len(left)
        same = _near(cells, left, right)
        i, j = numbers[left[same]], numbers[right[same]]
        for at in range(0, len(i), PAIRS):
            a, b = i[at : at + PAIRS], j[at : at + PAIRS]
            alike = _near_whole(images, a, b)
            pairs += zip(a[alike].tolist(), b[alike].tolist(), strict=True)
        if total > PAIR_LIMIT:
            return sorted(pairs), False
    return sorted(pairs), count <= NEAR_LIMIT


def _digests(rows: Tensor) -> np.ndarray:
    """(N, 2), uint64."""
    digests = b"".join(hashlib.sha256(row.data).digest()[:16] for row in rows.contiguous().numpy())
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def _numbered(images: Sequence[Tensor], index: Tensor) -> Iterator[Tensor]:
    """The images numbered `index`, which rises, through all tensors: some megabytes at a time."""
    first = 0
    for part in images:
        inside = (index >= first) & (index < first + len(part))
        yield from blocks(part, index[inside] - first)
        first += len(part)


def _cells(images: Iterable[Tensor]) -> tuple[Tensor, np.ndarray]:
    """Each image in 8 x 9 cells, float32 (N, C, 8, 9), and the standard deviation of its pixels, (N,)."""
    cells, spread = [], [np.empty(0, np.float32)]
    for rows in images:
        values = rows.float()
        cells.append(torch.nn.functional.interpolate(values, (8, 9), mode="area"))
        spread.append(values.flatten(1).std(1, correction=0).numpy())
    return torch.cat(cells or [torch.empty(0, 1, 8, 9, dtype=torch.float32)]), np.concatenate(spread)


def _hashes(cells: Tensor) -> np.ndarray:
    """Difference hashes of the grey cells, uint64 (N,)."""
    bits = (cells.mean(1).diff(dim=2) > 0).flatten(1).numpy()  # (N, 64)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _candidates(hashes: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of positions whose hashes differ in few bits."""
    rows = min(ROWS, max(1, PAIR_LIMIT // max(1, len(hashes))))  # so that no more than the limit come in one go
    for first in range(0, len(hashes), rows):
        distance = np.bitwise_count(hashes[first : first + rows, None] ^ hashes[None, first:])  # (rows, the rest)
        left, right = np.nonzero(distance <= HAMMING)
        upper = right > left
        yield torch.from_numpy(left[upper] + first), torch.from_numpy(right[upper] + first)


def _unit(values: Tensor) -> Tensor:
    """Each row without its mean and of length 1, so that the product of two is their correlation."""
    rows = values.flatten(1).float()
    return torch.nn.functional.normalize(rows - rows.mean(1, keepdim=True), dim=1)


def _near(units: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Whether the best gain > 0 and offset leave little of row j given row i: sqrt(1 - r^2) <= RESIDUAL; bool (n,)."""
    near = [torch.empty(0, dtype=torch.bool)]
    for at in range(0, len(i), PAIRS):
        r = (units[i[at : at + PAIRS]] * units[j[at : at + PAIRS]]).sum(1)
        near.append(1 - r.clamp(0, 1).square() <= RESIDUAL**2)
    return torch.cat(near)


def _near_whole(images: Sequence[Tensor], i: Tensor, j: Tensor) -> Tensor:
    """`_near` by the lightness of images i and j; each image is read once, however many pairs it is in; bool (n,)."""
    which, place = torch.cat([i, j]).unique(return_inverse=True)
    units = torch.cat([_unit(_small(rows)) for rows in _numbered(images, which)])
    return _near(units, place[: len(i)], place[len(i) :])


def _small(images: Tensor) -> Tensor:
    """Lightness, at no more than SIDE cells each way: what a rescaled copy keeps."""
    size = min(images.shape[2], SIDE), min(images.shape[3], SIDE)
    return torch.nn.functional.interpolate(images.float().mean(1, keepdim=True), size, mode="area")
