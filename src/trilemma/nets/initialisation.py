"""First values of layers."""

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def start_at_zero(layer: Layer) -> Layer:
    """The layer, which is the constant 0 at first: what it is added to begins as it is."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
