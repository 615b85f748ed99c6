"""What the parts of the project hand to each other: a batch, a phase of training, and what a model can do.

Nothing here imports the project. Ask what a model can do (`isinstance(model, Encodes)`), never what it is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

Logs = dict[str, Tensor]
Loss = Callable[["Batch", torch.Generator], tuple[Tensor, Logs]]


@dataclass(frozen=True)
class Batch:
    """Images with what is known of them.

    image: float32 in [0, 1], shape (B, C, H, W).
    label: class index, int64 (B,), or None where the data has no classes.
    caption: one text per image, or None.
    index: position of each image in its split, int64 (B,), or None for images from elsewhere.
    progress: share of the training that is done, in [0, 1], for what changes in the course of it (a temperature).
    """

    image: Tensor
    label: Tensor | None = None
    caption: Sequence[str] | None = None
    index: Tensor | None = None
    progress: float = 1.0


@dataclass(frozen=True)
class Phase:
    """One player: the parameters it moves and the loss it lowers.

    `loss(batch, rng)` returns the scalar to minimise and its named parts. The phase runs in every `every`-th
    step, `repeats` times, each time on a batch of its own (a Wasserstein critic has repeats=5). It is active from
    the share `begin` of the training to the share `end`, and its learning rate goes through its whole schedule in
    that span: stages that follow each other are phases with spans that do.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Loss
    every: int = 1
    repeats: int = 1
    begin: float = 0.0
    end: float = 1.0

    def progress(self, of_training: float) -> float | None:
        """Share of the span that is over; None outside it."""
        active = self.begin <= of_training < self.end
        return (of_training - self.begin) / (self.end - self.begin) if active else None


def players(phases: Sequence[Phase]) -> int:
    """How many phases move at the same time, at most: 2 for a GAN, 1 for stages that follow each other."""
    return max(sum(other.progress(phase.begin) is not None for other in phases) for phase in phases)


@runtime_checkable
class Samples(Protocol):
    """Draws new images. Image k of a call depends on (seed, first + k) alone."""

    sampling_network: nn.Module  # the network whose forward calls are the cost of sampling

    def sample(self, n: int, *, seed: int, first: int = 0, labels: Tensor | None = None, **settings: Any) -> Tensor:
        """(n, C, H, W) in [0, 1]; the images numbered first ... first + n - 1 of `seed`."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """Turns images into codes; where `codes_need_labels`, it is given their labels, too."""

    def encode(self, image: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, Z)."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """Turns codes into images."""

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, Z) -> (B, C, H, W) in [0, 1]."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """Gives an image back after passing it through the model."""

    def reconstruct(self, image: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape and range."""
        ...


@runtime_checkable
class Denoises(Protocol):
    """Estimates the clean image behind a noisy one."""

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, C, H, W) in the family's own range, t (B,) in [0, 1] with 1 = noise -> x0_hat, as x_t."""
        ...


@runtime_checkable
class BoundsLikelihood(Protocol):
    """Bounds the log-likelihood of an image from below."""

    def elbo(self, image: Tensor, rng: torch.Generator, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> nats per image (B,)."""
        ...

    def log_weight(self, image: Tensor, rng: torch.Generator, labels: Tensor | None = None) -> Tensor:
        """log p(x, z) - log q(z|x) of one z ~ q(z|x): (B, C, H, W) -> nats per image (B,). Its mean is the ELBO, and
        the log of the mean exponential of k of them the importance-weighted bound."""
        ...


@runtime_checkable
class Conditional(Protocol):
    """Draws what is asked for: `sample(labels=...)` is obeyed.

    Its codes, too, are made and read with the class of each image, unless it says `codes_need_labels = False`.
    """

    n_classes: int


def codes_need_labels(model: object) -> TypeGuard[Conditional]:
    """Whether `encode`, `decode` and `reconstruct` of a model need the labels of the images."""
    return isinstance(model, Conditional) and getattr(model, "codes_need_labels", True)


@runtime_checkable
class Finishes(Protocol):
    """Has a last step after (or between) training: for instance a density fitted on the codes."""

    def finish(self, batches: Iterable[Batch], *, seed: int) -> dict[str, float]:
        """Sees some training images once; the result is stored in the model's buffers. Returns figures for the card."""
        ...


@runtime_checkable
class Validates(Protocol):
    """Has figures of its own to follow on held-out images."""

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Named values per image, each (B,). The trainer averages them over the split; a name that ends in
        `mse` is also reported as its square root with `rmse` in its place."""
        ...
