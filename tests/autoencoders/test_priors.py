"""The mixture of Gaussians over codes: what it is fitted on, it gives back."""

import torch

from trilemma.autoencoders.priors import GaussianMixture


def codes(n: int) -> torch.Tensor:
    """Two clusters, a quarter at (-4, 0) with covariance I / 4 and the rest at (4, 0), tilted."""
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(n, 2, generator=generator)
    left = torch.rand(n, 1, generator=generator) < 0.25
    tilted = eps @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]) + torch.tensor([4.0, 0.0])
    return torch.where(left, eps / 2 - torch.tensor([4.0, 0.0]), tilted)


def test_fit_finds_weights_means_and_covariances() -> None:
    prior = GaussianMixture(2, 2)
    prior.fit(codes(20_000), seed=0)
    order = prior.means[:, 0].argsort()
    covariance = (prior.factors @ prior.factors.mT)[order]
    assert (prior.weights[order] - torch.tensor([0.25, 0.75])).abs().max() < 0.02
    assert (prior.means[order] - torch.tensor([[-4.0, 0.0], [4.0, 0.0]])).abs().max() < 0.05
    expected = torch.tensor([[[0.25, 0.0], [0.0, 0.25]], [[1.0, 0.8], [0.8, 1.0]]])  # A.T A of the draws above
    assert (covariance - expected).abs().max() < 0.05


def test_samples_have_the_moments_of_the_mixture() -> None:
    prior, data = GaussianMixture(2, 2), codes(20_000)
    prior.fit(data, seed=0)
    drawn = prior.sample(torch.arange(40_000), seed=3)
    assert (drawn.mean(0) - data.mean(0)).abs().max() < 0.1
    assert (drawn.T.cov() - data.T.cov()).abs().max() < 0.3
    assert abs(float((drawn[:, 0] < 0).float().mean()) - 0.25) < 0.02


def test_one_component_is_the_gaussian_of_the_codes() -> None:
    prior, data = GaussianMixture(2, 1), codes(5_000)
    prior.fit(data, seed=0)
    assert (prior.means[0] - data.mean(0)).abs().max() < 1e-4
    assert (prior.factors[0] @ prior.factors[0].T - data.T.cov(correction=0)).abs().max() < 0.01


def test_a_code_depends_on_its_number_alone() -> None:
    prior = GaussianMixture(3, 4)
    prior.fit(torch.randn(100, 3, generator=torch.Generator().manual_seed(1)), seed=0)
    assert torch.equal(prior.sample(torch.arange(10), seed=5)[7:], prior.sample(torch.arange(7, 10), seed=5))
    assert not torch.equal(prior.sample(torch.arange(10), seed=5), prior.sample(torch.arange(10), seed=6))


def test_fewer_codes_than_components() -> None:
    prior = GaussianMixture(3, 10)
    prior.fit(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), seed=0)
    assert (prior.weights > 0).sum() <= 4
    assert prior.sample(torch.arange(50), seed=0).isfinite().all()
