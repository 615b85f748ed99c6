"""Diagonal Gaussians over the codes of a hierarchy, and how the terms of its levels enter the loss."""

from typing import NamedTuple

import torch
from torch import Tensor

from trilemma.autoencoders.losses import gaussian_log_likelihood
from trilemma.nets.precision import full
from trilemma.whole_batch import batch_mean


class Normal(NamedTuple):
    """N(mu, exp(logvar)) with independent entries: mean and natural log of the variance, of one shape (B, ...)."""

    mu: Tensor
    logvar: Tensor

    def at(self, eps: Tensor) -> Tensor:
        """The point mu + std * eps."""
        return self.mu + (0.5 * self.logvar).exp() * eps

    def inverse(self, z: Tensor) -> Tensor:
        """The eps of a point."""
        return (z - self.mu) * (-0.5 * self.logvar).exp()

    def log_prob(self, z: Tensor) -> Tensor:
        """log density at z, summed over the entries of a code; nats, (B,)."""
        return gaussian_log_likelihood(self.mu, z, self.logvar)


def normal(parameters: Tensor) -> Normal:
    """A network's output (B, 2 Z, ...), means first, as a Gaussian over (B, Z, ...)."""
    return Normal(*full(parameters).chunk(2, dim=1))


def combine(one: Normal, other: Normal) -> Normal:
    """The normalised product of two Gaussians: precisions add up, and weigh the means.

    Sonderby et al. (2016), section 2.2: 1/var = 1/var_1 + 1/var_2,  mu = var (mu_1/var_1 + mu_2/var_2).
    """
    logvar = -torch.logaddexp(-one.logvar, -other.logvar)
    share = (logvar - one.logvar).exp()  # of the first precision in the sum
    return Normal(share * one.mu + (1 - share) * other.mu, logvar)


def shifted(by: Normal, prior: Normal) -> Normal:
    """The prior with its mean and its log variance moved, the mean in standard deviations of the prior; `by` = 0 is the
    prior itself. After Vahdat & Kautz (2020), "NVAE", section 3.2."""
    return Normal(prior.mu + (0.5 * prior.logvar).exp() * by.mu, prior.logvar + by.logvar)


def warm_up(progress: float, share: float) -> float:
    """Weight of the terms: linearly from 0 to 1 over the first `share` of the training (Sonderby et al. 2016)."""
    return min(1.0, progress / share) if share else 1.0


def free_bits(kl: Tensor, free_nats: float) -> Tensor:
    """Sum over levels of max(free_nats, mean over the batch); the free bits of Kingma et al. (2016).

    Theirs are KL divergences, as the terms of a ladder are. That of a level of a chain, E[log q(z_t|z_{t-1}) -
    log p(z_t|z_{t+1})], is not one: it may be negative while the level tells much, and then counts free_nats, too.

    Args:
        kl: the term of each level and image, nats, (T, B).
    """
    means = kl.mean(1)
    return (batch_mean(means).clamp(min=free_nats) if free_nats else means).sum()
