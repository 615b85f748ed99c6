"""What a run's model computes, a batch at a time; in smaller batches where memory runs out."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.memory import halving, is_out_of_memory

MOST_NUMBERS = 2**22  # in the images that a CPU computes together: 341 of 64 px in colour, 5 of 512 px
EXACT_BATCH = 64  # images computed together where each must be bit-equal; image k has place k % 64 in its batch
Compute = Callable[[int, int], Tensor]  # the results of rows `start` and on, as many as the second number


class ImageBatch(NamedTuple):
    """Images number `first` and on (n, C, H, W), and the batch they were computed in: its first number, its size."""

    images: Tensor
    first: int
    batch: tuple[int, int]


def in_batches(compute: Compute, first: int, end: int, batch: int) -> Iterator[tuple[int, Tensor]]:
    """The rows first ... end - 1, each part with its first number; `batch` is halved for good if memory runs out."""
    while first < end:
        part = halving(partial(compute, first), min(batch, end - first), _warn)
        yield first, part
        first, batch = first + len(part), min(batch, len(part))


def in_exact_batches(compute: Compute, first: int, end: int) -> Iterator[tuple[int, Tensor]]:
    """The whole batches of EXACT_BATCH that hold the rows first ... end - 1; they cannot be halved and stay exact."""
    for start in range(first - first % EXACT_BATCH, end, EXACT_BATCH):
        try:
            part = compute(start, EXACT_BATCH)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"exact=true computes {EXACT_BATCH} images at a time, and memory ran out; leave it out"
            ) from error
        yield start, part


@contextmanager
def one_algorithm() -> Iterator[None]:
    """Inside, cuDNN computes equal shapes in one way: no trials of what is fastest, no sums in the order of arrival."""
    cudnn = torch.backends.cudnn
    held = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = held


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
