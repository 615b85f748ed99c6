"""Capabilities: bounds on the likelihood of an image."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from trilemma.types.batch import UNCONDITIONAL, Condition


@runtime_checkable
class BoundsLikelihood(Protocol):
    """Bounds the log-likelihood of an image from below."""

    def elbo(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, C, H, W) -> nats per image (B,)."""
        ...


@runtime_checkable
class WeighsCodes(BoundsLikelihood, Protocol):
    """Bounds it by codes, so that several of them give a tighter bound."""

    def log_weight(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """log p(x, z) - log q(z|x) of one z ~ q(z|x): (B, C, H, W) -> nats per image (B,). Its mean is the ELBO, and
        the log of the mean exponential of k of them the importance-weighted bound."""
        ...


@runtime_checkable
class BoundsByPath(BoundsLikelihood, Protocol):
    """Bounds it for images of 256 levels, by a path to noise; `calls` are points of it, for each image."""

    def bound(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL, *, calls: int) -> Tensor:
        """The variational bound: (B, C, H, W) -> nats per image (B,)."""
        ...

    def flow_bound(
        self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL, *, calls: int
    ) -> Tensor:
        """By the density along the probability-flow path: (B, C, H, W) -> nats per image (B,)."""
        ...
