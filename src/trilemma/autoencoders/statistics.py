"""By what codes that are maps are standardised."""

from collections.abc import Iterable

import torch
from torch import Tensor

LEAST_VARIANCE = 1e-12  # of a channel, which is divided by its root


def channel_statistics(maps: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all maps (B, C, h, w): two (C,), in float64."""
    n, total, squares = 0, torch.zeros(()), torch.zeros(())
    for code in maps:
        numbers = code.double().transpose(0, 1).flatten(1)  # (C, B * h * w)
        n, total, squares = n + numbers.shape[1], total + numbers.sum(1), squares + numbers.square().sum(1)
    mean = total / n
    return mean, (squares / n - mean.square()).clamp(min=LEAST_VARIANCE).sqrt()
