"""The figures that need no run: every curve against its closed form, an integral or a law."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from trilemma import rng
from trilemma.lessons import gumbel, jensen, penalty


def test_penalties_and_their_slopes():
    p = 0.1
    q, result = penalty.curves(p, 199)
    assert q.dtype == torch.float64 and len(q) == 199 and q.min() > 0 and q.max() < 1
    (kl, kl_slope), (l1, l1_slope), (l2, l2_slope) = result.values()
    expected = kl_divergence(Bernoulli(torch.tensor(p).double()), Bernoulli(q))
    torch.testing.assert_close(kl, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(kl_slope, (1 - p) / (1 - q) - p / q, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(l1, (q - p).abs(), rtol=1e-12, atol=1e-12)
    away = (q - p).abs() > 1e-9  # no slope at the target itself
    torch.testing.assert_close(l1_slope[away], (q - p).sign()[away])
    torch.testing.assert_close(l2, (q - p).square(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(l2_slope, 2 * (q - p), rtol=1e-9, atol=1e-9)


@pytest.fixture
def model():
    return jensen.LinearGaussian(weight=1.3, bias=-0.4, variance=0.3)


X = 1.1
GRID = torch.linspace(-12, 12, 24_001, dtype=torch.float64)  # of z


def joint(model):
    """log p(x, z) on the grid."""
    return Normal(0.0, 1.0).log_prob(GRID) + Normal(model.weight * GRID + model.bias, model.variance**0.5).log_prob(
        torch.tensor(X, dtype=torch.float64)
    )


def test_the_evidence_and_the_posterior_are_the_integrals(model):
    density = joint(model).exp()
    evidence = torch.trapezoid(density, GRID)
    assert float(model.log_evidence(X)) == pytest.approx(float(evidence.log()), abs=1e-9)
    mean = torch.trapezoid(density * GRID, GRID) / evidence
    std = (torch.trapezoid(density * (GRID - mean).square(), GRID) / evidence).sqrt()
    assert model.posterior(X) == pytest.approx((float(mean), float(std)), abs=1e-9)


@pytest.mark.parametrize("q", [(0.2, 0.3), (-1.0, 1.2), (1.5, 0.4)])
def test_the_elbo_and_its_gap_are_the_integrals(model, q):
    mean, std = (torch.tensor([value], dtype=torch.float64) for value in q)
    log_q = Normal(mean, std).log_prob(GRID)
    elbo = torch.trapezoid(log_q.exp() * (joint(model) - log_q), GRID)
    assert float(model.elbo(X, mean, std)) == pytest.approx(float(elbo), abs=1e-8)
    assert float(model.gap(X, mean, std)) == pytest.approx(float(model.log_evidence(X) - elbo), abs=1e-8)
    assert float(model.gap(X, mean, std)) > 0.01


def test_at_the_posterior_every_weight_is_the_evidence(model):
    """log p(x, z) - log q(z|x) is log p(x) for every z, and so the ELBO and all bounds are exact."""
    m, s = model.posterior(X)
    exact = float(model.log_evidence(X))
    vae = model.as_vae(m, s)
    image = torch.full((50, 1, 1, 1), X, dtype=torch.float64)
    with torch.no_grad():
        weights = vae.log_weight(image, rng.generator(0, "test"))
    torch.testing.assert_close(weights, torch.full_like(weights, exact), rtol=0, atol=1e-9)
    assert float(model.elbo(X, torch.tensor([m]).double(), torch.tensor([s]).double())) == pytest.approx(
        exact, abs=1e-9
    )
    assert jensen.measured(vae, X, 20, 3, 0) == pytest.approx(exact, abs=1e-9)


def test_the_model_measures_the_elbo_and_more_samples_close_the_gap(model):
    m, s = model.posterior(X)
    vae, q = model.as_vae(m + s, s), (torch.tensor([m + s]).double(), torch.tensor([s]).double())
    bounds = [jensen.measured(vae, X, k, 4000, 0) for k in (1, 10, 1000)]
    # log w has the standard deviation 1 for a mean that is off by one posterior standard deviation.
    assert bounds[0] == pytest.approx(float(model.elbo(X, *q)), abs=4 / math.sqrt(4000))
    gaps = [float(model.log_evidence(X)) - bound for bound in bounds]
    assert float(model.gap(X, *q)) == pytest.approx(0.5)
    # The gap of k samples is Var(w) / (2 k p(x)^2) for large k, with Var(w) / p(x)^2 = e - 1.
    assert 0.05 < gaps[1] < 0.15 and gaps[2] == pytest.approx((math.e - 1) / 2000, abs=4 * 1.31 / math.sqrt(4e6))


def test_a_gumbel_softmax_chooses_by_its_probabilities():
    probabilities, n = torch.tensor([0.5, 0.3, 0.15, 0.05]), 40_000
    error = (probabilities * (1 - probabilities) / n).sqrt()
    assert ((gumbel.chosen(probabilities.log(), n, 0) - probabilities).abs() < 4 * error).all()


def test_relaxed_draws_are_weights_that_become_choices():
    probabilities = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    once, warm, cold = gumbel.relaxed(probabilities.log(), (1.0, 2.0, 1e-4), 1000, 0)
    torch.testing.assert_close(once.sum(1), torch.ones(1000).double())
    # The same noise at every temperature: log weights are (logits + noise) / temperature, up to a constant of the draw.
    one, other = once.log(), 2 * warm.log()
    torch.testing.assert_close(one - one[:, :1], other - other[:, :1], rtol=1e-9, atol=1e-9)
    assert (once.argmax(1) == cold.argmax(1)).all() and cold.max(1).values.median() > 0.999 > once.max(
        1
    ).values.median()
    # Gumbel noise has the mean of Euler's constant in each category, so the mean log ratios are those of the logits;
    # a difference of two has the variance pi^2 / 3.
    ratios = (once[:, 0] / once[:, 2]).log().mean()
    assert abs(float(ratios) - math.log(0.5 / 0.2)) < 4 * math.pi / math.sqrt(3 * 1000)
