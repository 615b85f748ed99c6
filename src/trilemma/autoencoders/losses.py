"""Reconstruction errors, the KL divergence and the Gaussian likelihood, each written once.

All of them give one value per image; the caller decides how to average.
"""

import math

import torch.nn.functional as F
from torch import Tensor


def squared_error(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Mean squared error over the pixels of each image: (B, C, H, W) twice -> (B,)."""
    return (reconstruction - image).square().flatten(1).mean(1)


def bernoulli_nats(logits: Tensor, image: Tensor) -> Tensor:
    """Binary cross-entropy summed over the pixels of each image, from logits; nats, (B,).

    With pixels in {0, 1} this is -log p(x) of a Bernoulli decoder; with grey pixels it is a loss, not a likelihood.
    """
    return F.binary_cross_entropy_with_logits(logits, image, reduction="none").flatten(1).sum(1)


def gaussian_log_likelihood(mean: Tensor, image: Tensor, variance: float) -> Tensor:
    """log N(x; mean, variance I), summed over pixels; nats per image, (B,)."""
    n_pixels = image[0].numel()
    squared = (mean - image).square().flatten(1).sum(1)
    return -0.5 * (squared / variance + n_pixels * math.log(2 * math.pi * variance))


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence from N(mu, exp(logvar)) to N(0, I), summed over latent dimensions.

    Kingma & Welling (2014), appendix B: 0.5 * sum(exp(logvar) + mu**2 - 1 - logvar).

    Args:
        mu, logvar: posterior mean and natural log of the variance, shape (B, Z).
    Returns:
        Nats per image, shape (B,); not divided by Z nor by the number of pixels.
    Raises:
        ValueError: if the shapes differ.
    """
    if mu.shape != logvar.shape:
        raise ValueError(f"mu has shape {tuple(mu.shape)} and logvar {tuple(logvar.shape)}; they must be equal")
    return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(1)
