"""Capabilities that the trainer, its monitors and the detection of outliers ask for."""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from trilemma.team import Team
from trilemma.types.batch import Batch


@runtime_checkable
class Precomputes(Protocol):
    """Works out something of each training image once, for its losses."""

    def precompute(self, images: Callable[[int, int], Tensor], total: int, team: Team) -> str | None:
        """Before the first step in a process.

        Args:
            images: (first, count) -> so many training images as they are, from number `first` of their split on; total:
                their number; team: the processes that divide the work.
        Returns:
            What the user is to know of it, in a sentence, if anything.
        """
        ...


@runtime_checkable
class Finishes(Protocol):
    """Has a last step after (or between) training: for instance a density fitted on the codes."""

    def finish(self, batches: Iterable[Batch], *, seed: int) -> dict[str, float]:
        """Sees some training images once; the result is stored in the model's buffers. Returns values for the card."""
        ...


@runtime_checkable
class Validates(Protocol):
    """Has values of its own to follow on held-out images."""

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Named values per image, each (B,), or of some of the images. The trainer averages them over the split; a name
        that ends in `mse` is also reported as its square root with `rmse` in its place."""
        ...


@runtime_checkable
class HasCritic(Protocol):
    """Has a critic, which gives real images higher logits than generated ones."""

    def critic_logits(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Logits of a batch's images and of as many generated ones, each (B,), by the critic as it is in training."""
        ...


@runtime_checkable
class JudgesRealness(Protocol):
    """Says how real an image looks."""

    def realness(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B,), higher for what looks more real."""
        ...
