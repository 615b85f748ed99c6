"""In which mode a network of a GAN is while something else than its own training is computed."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, the network does not train."""
    training = network.training
    try:
        network.eval()
        yield
    finally:
        network.train(training)


@contextmanager
def held(network: nn.Module) -> Iterator[None]:
    """What is computed inside gives the network's parameters no gradient, which also saves computing it."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
