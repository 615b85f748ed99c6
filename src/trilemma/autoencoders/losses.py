"""Reconstruction errors, the KL divergence and the Gaussian log-likelihoods, each written once.

All of them give one value per image; the caller decides how to average.
"""

import math

import torch.nn.functional as F
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def squared_error(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Mean squared error over the pixels of each image: (B, C, H, W) twice -> (B,)."""
    return (reconstruction - image).square().flatten(1).mean(1)


def bernoulli_nats(logits: Tensor, image: Tensor) -> Tensor:
    """Binary cross-entropy summed over the pixels of each image, from logits; nats, (B,).

    With pixels in {0, 1} this is -log p(x) of a Bernoulli decoder; with grey pixels it is a loss, not a likelihood.
    """
    return F.binary_cross_entropy_with_logits(logits, image, reduction="none").flatten(1).sum(1)


def gaussian_log_likelihood(mean: Tensor, image: Tensor, logvar: Tensor) -> Tensor:
    """log N(x; mean, exp(logvar)), summed over pixels; nats per image, (B,).

    Args:
        mean, image: (B, C, H, W).
        logvar: natural log of the variance, of any shape that broadcasts to the image's: () is one for all pixels.
    """
    scaled = (mean - image).square() * (-logvar).exp()
    return -0.5 * (scaled + logvar + LOG_2PI).flatten(1).sum(1)


def log_prior_ratio(eps: Tensor, z: Tensor, logvar: Tensor) -> Tensor:
    """log p(z) - log q(z|x) at z = mu + exp(logvar / 2) * eps, with p = N(0, I); nats per image, (B,).

    The mean over eps is minus the KL divergence. eps, z, logvar: (B, Z).
    """
    return 0.5 * (eps.square() + logvar - z.square()).sum(1)


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


def kl_between_normals(mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor) -> Tensor:
    """KL divergence from N(mu_q, exp(logvar_q)) to N(mu_p, exp(logvar_p)), summed over all entries of a code.

    0.5 * sum(exp(logvar_q - logvar_p) + (mu_q - mu_p)**2 / exp(logvar_p) - 1 - logvar_q + logvar_p)

    Args:
        mu_q, logvar_q, mu_p, logvar_p: means and natural logs of the variances, (B, ...).
    Returns:
        Nats per image, (B,).
    """
    ratio = logvar_q - logvar_p
    return 0.5 * (ratio.exp() + (mu_q - mu_p).square() * (-logvar_p).exp() - 1 - ratio).flatten(1).sum(1)
