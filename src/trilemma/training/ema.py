"""Exponential moving average of the weights: e <- d e + (1 - d) p after every step.

The decay is given as a half-life in images, d = 2**(-images per step / half-life), so that the batch size does not
change it. Early on the half-life is at most 5% of the images seen (Karras et al. 2024, "Analyzing and improving the
training dynamics of diffusion models", section 3), so the first, random weights are soon forgotten.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor, nn

from trilemma.memory import copies

RAMP = 0.05


class EMA:
    """Averaged copy of a module's parameters; its buffers (batch-norm statistics), parameters that are not trained, and
    those of `without`, are taken as they are.

    Args:
        shards: what this process has of parameters that are divided over several, by their names.
    """

    def __init__(
        self,
        model: nn.Module,
        halflife_images: int,
        without: Iterable[nn.Parameter] = (),
        shards: Mapping[str, nn.Parameter] = MappingProxyType({}),
    ) -> None:
        self.halflife_images, left_out = halflife_images, set(map(id, without))
        trained = {name: shards.get(name, p) for name, p in model.named_parameters() if p.requires_grad}
        self.parameters = {name: p for name, p in trained.items() if id(p) not in left_out}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}

    def decay(self, images_seen: int, images: int) -> float:
        """Decay for a step of `images` images that brings the count to `images_seen`."""
        halflife = min(self.halflife_images, RAMP * images_seen)
        return 0.5 ** (images / max(halflife, 1e-8))

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """One step of the average, after the optimisers' steps."""
        averages = list(self.average.values())
        parameters = [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_(averages, parameters, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def is_finite(self) -> Tensor:
        """Whether every averaged weight is a number; a scalar on their device, which is not waited for."""
        norms = torch._foreach_norm(list(self.average.values()))  # pyright: ignore[reportPrivateImportUsage]
        return torch.stack(norms).isfinite().all()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module has the averaged weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by parameter name."""
        return self.average

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Take averaged weights back."""
        for name, tensor in self.average.items():
            tensor.copy_(state[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the module's weights and the averaged ones."""
        for name, parameter in self.parameters.items():
            held = copies({name: parameter})[name]  # one at a time; a failure here would leave half of them exchanged
            parameter.copy_(self.average[name])
            self.average[name].copy_(held)
