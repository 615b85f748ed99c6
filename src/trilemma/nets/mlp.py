"""Multi-layer perceptron: y = W_k f(... f(W_1 x + b_1) ...) + b_k."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

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
