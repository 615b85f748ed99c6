"""In which mode a network of a GAN is while something else than its own training is computed."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def measure_statistics(network: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Inside, batch norms use the statistics of a batch, and keep the mean of those of all batches."""
    training, momenta = network.training, [norm.momentum for norm in norms]
    try:
        network.train()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        yield
    finally:
        network.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
