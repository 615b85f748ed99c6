"""Losses against torch.distributions and closed forms, in float64."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from trilemma.autoencoders.losses import (
    bernoulli_nats,
    gaussian_log_likelihood,
    kl_to_standard_normal,
    log_prior_ratio,
    squared_error,
)


def test_kl_equals_torch_distributions() -> None:
    mu, logvar = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros_like(mu), 1.0)).sum(1)
    assert kl_to_standard_normal(mu, logvar).sub(expected).abs().max() < 1e-12


def test_kl_is_zero_at_the_prior_and_grows_from_it() -> None:
    zero = torch.zeros(3, 4, dtype=torch.float64)
    assert kl_to_standard_normal(zero, zero).tolist() == [0, 0, 0]
    assert kl_to_standard_normal(zero + 2, zero).tolist() == pytest.approx([4 * 2**2 / 2] * 3)


def test_kl_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="must be equal"):
        kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(2, 4))


def test_prior_over_posterior_equals_torch_distributions() -> None:
    mu, logvar, eps = torch.randn(3, 5, 7, dtype=torch.float64)
    posterior = Normal(mu, (0.5 * logvar).exp())
    z = mu + posterior.scale * eps
    expected = (Normal(torch.zeros_like(z), 1.0).log_prob(z) - posterior.log_prob(z)).sum(1)
    assert log_prior_ratio(eps, z, logvar).sub(expected).abs().max() < 1e-12


def test_squared_error_is_a_mean_over_pixels() -> None:
    image = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    shifted = image + torch.tensor([0.5, 0.25], dtype=torch.float64)[:, None, None, None]
    assert squared_error(shifted, image).tolist() == [0.25, 0.0625]


@pytest.mark.parametrize("variance", [torch.tensor(0.3), torch.linspace(0.1, 2, 48).view(3, 1, 4, 4)])
def test_gaussian_log_likelihood_equals_torch_distributions(variance) -> None:
    variance = variance.double()
    mean, image = torch.rand(3, 1, 4, 4, dtype=torch.float64), torch.rand(3, 1, 4, 4, dtype=torch.float64)
    expected = Normal(mean, variance.sqrt()).log_prob(image).flatten(1).sum(1)
    assert gaussian_log_likelihood(mean, image, variance.log()).sub(expected).abs().max() < 1e-12


def test_gaussian_log_likelihood_at_the_mean_is_the_constant() -> None:
    image = torch.rand(2, 1, 3, 3, dtype=torch.float64)
    result = gaussian_log_likelihood(image, image, torch.tensor(0.5, dtype=torch.float64).log())
    assert result.tolist() == pytest.approx([-9 / 2 * math.log(math.pi)] * 2)


def test_bernoulli_nats_equals_torch_distributions() -> None:
    logits, image = torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.rand(3, 1, 4, 4, dtype=torch.float64).round()
    expected = -Bernoulli(logits=logits).log_prob(image).flatten(1).sum(1)
    assert bernoulli_nats(logits, image).sub(expected).abs().max() < 1e-12
