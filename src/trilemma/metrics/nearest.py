"""Nearest training images: the first look at whether a model has learnt or has copied."""

import torch
from torch import Tensor

from trilemma.metrics.features import FeatureNetwork, extract
from trilemma.metrics.neighbours import distances


def nearest_training_images(
    fakes: Tensor, train_images: Tensor, network: FeatureNetwork, block: int = 4096
) -> tuple[Tensor, Tensor]:
    """For each generated image, the training image nearest in feature space.

    Args:
        fakes, train_images: (N, C, H, W) and (M, C', H', W'), uint8 or float in [0, 1].
        block: training images handled at a time; bounds the memory, changes nothing else.
    Returns:
        Positions in `train_images`, int64 (N,), the first of equals; and the Euclidean distances, float64 (N,).
    """
    queries = extract(network, fakes)
    best = torch.full((len(queries),), torch.inf, dtype=torch.float64)
    index = torch.zeros(len(queries), dtype=torch.int64)
    for start in range(0, len(train_images), block):
        d, where = distances(queries, extract(network, train_images[start : start + block])).min(dim=1)
        closer = d < best
        best, index = torch.where(closer, d, best), torch.where(closer, where + start, index)
    return index, best
