"""Batches out of a split that lives on the device as uint8: one look-up per batch, no per-image work.

A split too large for memory stays in its file, and the batches are looked up there; their order is the same.

The training order is an endless stream, the shuffled epochs joined end to end: epoch e is a permutation that depends on
(seed, e) alone, so any position of the stream can be had at once, and a run continues exactly where it stopped.
A level v becomes the float v / 255, correctly rounded.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data.split import Split
from trilemma.data.transform import check_transforms, draws, draws_needed, transform
from trilemma.errors import UserError
from trilemma.hardware import memory_bytes
from trilemma.pictures.levels import to_float
from trilemma.types import Batch, Condition

EPOCHS_KEPT = 2  # orders held in memory: a batch seldom needs more
FINISH_IMAGES = 10_000  # training images for a model's last step
VALID_BATCH = 500


class Loader:
    """The training stream of a split.

    Args:
        split: the images; all of them go to `device`, unless they lie in a file.
        batch: images per batch.
        seed: of the order and the augmentation.
        augment: names from `transform.TRANSFORMS`.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch: int,
        seed: int,
        device: torch.device | str = "cpu",
        augment: tuple[str, ...] = (),
    ) -> None:
        if len(split) < 1 or batch < 1:
            raise UserError(f"batch={batch} of {len(split)} images; both must be at least 1")
        if (count := batch * 4 * split.images[0].numel()) > (memory_bytes() or count):
            raise UserError(
                f"batch={batch:,} images take {count:,} bytes, more memory than the machine has; give a smaller batch="
            )
        self.split, self.batch, self.seed = split, batch, seed
        self.device = torch.device(device)
        self.images = split.images if split.mapped else split.images.to(device)
        self.labels = None if split.labels is None else split.labels.to(device)
        self.transforms = check_transforms(augment)
        self._orders: dict[int, Tensor] = {}

    def batch_at(self, position: int, size: int | None = None) -> Batch:
        """Images position ... position + size - 1 of the stream; `size` defaults to `batch`.

        `Batch.index` stays on the CPU, where random numbers per image are drawn.
        """
        parts = list(self._parts(position, self.batch if size is None else size))
        index = torch.cat([part for _, part in parts]) if len(parts) > 1 else parts[0][1]
        at = index.to(self.device, non_blocking=True)
        rows = index if self.split.mapped else at
        images = self.images.index_select(0, rows).to(self.device, non_blocking=True)
        if self.transforms:
            count = draws_needed(self.transforms, images[0].numel())
            numbers = torch.cat([draws(part, self.seed, epoch, count) for epoch, part in parts])
            images = transform(images, self.transforms, numbers)
        captions = self.split.captions
        return Batch(
            image=to_float(images),
            condition=Condition(
                label=None if self.labels is None else self.labels.index_select(0, at),
                caption=None if captions is None else [captions[i] for i in index.tolist()],
            ),
            index=index,
        )

    def _parts(self, position: int, size: int) -> Iterator[tuple[int, Tensor]]:
        """(epoch, images of it) in the order of the stream."""
        n = len(self.split)
        while size > 0:
            epoch, first = divmod(position, n)
            part = self._order(epoch)[first : first + size]
            yield epoch, part
            position, size = position + len(part), size - len(part)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            while len(self._orders) >= EPOCHS_KEPT:
                del self._orders[next(iter(self._orders))]
            self._orders[epoch] = rng.permutation(len(self.split), self.seed, "order", epoch)
        return self._orders[epoch]


def batches(split: Split, batch: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """All images once, in order; the last batch may be short."""
    for first in range(0, len(split), batch):
        rows = slice(first, first + batch)
        images = split.images[rows].to(device)
        yield Batch(
            image=to_float(images),
            condition=Condition(split.labels, split.captions).rows(rows).to(device),
            index=torch.arange(first, first + len(images)),
        )


def training_images(
    split: Split, n: int, *, seed: int, device: torch.device, size: int = VALID_BATCH
) -> Iterator[Batch]:
    """The first `n` images of the training order, `size` at a time, as they are; only those go to a GPU."""
    loader, n = Loader(split, batch=size, seed=seed), min(n, len(split))
    for position in range(0, n, size):
        batch = loader.batch_at(position, min(size, n - position))
        yield replace(batch, image=batch.image.to(device), condition=batch.condition.to(device))
