"""Multi-layer perceptron: y = W_k f(... f(W_1 x + b_1) ...) + b_k."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from trilemma.nets import critic
from trilemma.nets.precision import full

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def mlp(widths: Sequence[int], last: str = "none") -> nn.Sequential:
    """Linear layers of the given widths, ReLU between them and `last` (a key of ACTIVATIONS) at the end.

    Maps (B, widths[0]) to (B, widths[-1]).
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    layers[-1] = ACTIVATIONS[last]()
    return nn.Sequential(*layers)


class Generator(nn.Module):
    """z (B, latent) -> image (B, C, H, W) in [0, 1], through hidden layers of width and 2 width."""

    def __init__(self, shape: tuple[int, int, int], latent: int, width: int) -> None:
        super().__init__()
        self.shape = shape
        self.body = mlp([latent, width, 2 * width, math.prod(shape)])

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [0, 1]."""
        return full(self.body(z)).sigmoid().unflatten(1, self.shape)


class Critic(critic.Critic):
    """Image (B, C, H, W) in [0, 1] -> logits (B,), high for real, through hidden layers of 2 width and width."""

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__(nn.Sequential(*list(mlp([math.prod(shape), 2 * width, width, 1]))[:-1]))

    def features(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, width)."""
        return super().features(image.flatten(1))
