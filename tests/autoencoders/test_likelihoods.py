"""p(x|z) against torch.distributions, in float64, and the optimal variance in closed form."""

import math

import pytest
import torch
from torch.distributions import Normal

from trilemma.autoencoders.hierarchical import HierarchicalConfig
from trilemma.autoencoders.likelihoods import (
    FOLLOW,
    LEAST_LOGVAR,
    LEAST_VARIANCE,
    Bernoulli,
    Gaussian,
    at_least_one_level,
)
from trilemma.autoencoders.losses import squared_error
from trilemma.autoencoders.vae import VAEConfig
from trilemma.config import VARIANCE, make
from trilemma.errors import UserError
from trilemma.run.migration import stated_variance
from trilemma.values import shown

D = 2 * 4 * 5


def draw(channels=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, channels, 4, 5, dtype=torch.float64, generator=generator)


IMAGE = torch.rand(6, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_bernoulli():
    outputs, image = draw(), IMAGE.round()
    expected = torch.distributions.Bernoulli(outputs.sigmoid()).log_prob(image).flatten(1).sum(1)
    assert Bernoulli().log_prob(outputs, image).sub(expected).abs().max() < 1e-10
    assert torch.equal(Bernoulli().mean(outputs), outputs.sigmoid())


@pytest.mark.parametrize("output", ["sigmoid", "none"])
def test_fixed_variance(output):
    outputs = draw()
    mean = outputs.sigmoid() if output == "sigmoid" else outputs
    expected = Normal(mean, math.sqrt(0.2)).log_prob(IMAGE).flatten(1).sum(1)
    assert Gaussian(0.2, output).log_prob(outputs, IMAGE).sub(expected).abs().max() < 1e-10


def test_learned_variance():
    outputs, likelihood = draw(4), Gaussian("learned")
    mean, logvar = outputs[:, :2].sigmoid(), at_least_one_level(outputs[:, 2:])
    expected = Normal(mean, (0.5 * logvar).exp()).log_prob(IMAGE).flatten(1).sum(1)
    assert likelihood.log_prob(outputs, IMAGE).sub(expected).abs().max() < 1e-10
    assert torch.equal(likelihood.mean(outputs), mean)
    assert likelihood.channels_per_channel == 2


def test_learned_variance_stays_above_a_level_and_is_otherwise_what_the_network_says():
    raw = torch.tensor([-1e6, LEAST_LOGVAR, -3.0, 2.0], dtype=torch.float64)
    result = at_least_one_level(raw)
    assert result[0] == pytest.approx(LEAST_LOGVAR)
    assert result[1] == pytest.approx(LEAST_LOGVAR + math.log(2))
    assert result[2:].tolist() == pytest.approx([-3, 2], abs=4e-4)  # exp(-8.08) = 3.1e-4 above


def test_optimal_variance_is_the_mean_squared_error():
    """Closed form: -log p = D/2 (log(2 pi mse) + 1), the least over all variances."""
    outputs, likelihood = draw(), Gaussian("optimal").double()
    nats = -likelihood.log_prob(outputs, IMAGE).mean()
    error = squared_error(outputs.sigmoid(), IMAGE).mean()
    assert nats.item() == pytest.approx(D / 2 * (math.log(2 * math.pi * error) + 1), rel=1e-12)
    for factor in (0.97, 1.03):
        assert -Gaussian(float(factor * error)).log_prob(outputs, IMAGE).mean() > nats


def test_gradient_of_the_optimal_variance_is_that_of_the_log_error():
    outputs, likelihood = draw().requires_grad_(), Gaussian("optimal").double()
    (gradient,) = torch.autograd.grad(-likelihood.log_prob(outputs, IMAGE).mean(), outputs)
    closed = D / 2 * squared_error(outputs.sigmoid(), IMAGE).mean().log()
    (expected,) = torch.autograd.grad(closed, outputs)
    assert gradient.sub(expected).abs().max() < 1e-12
    assert expected.abs().max() > 1e-2


def test_optimal_variance_of_images_outside_training_is_the_running_mean():
    """Each batch has 1 - FOLLOW times the weight of the next, and the weights add up to 1 from the first batch on."""
    outputs, likelihood = draw(), Gaussian("optimal").double()
    errors, weights = [], [(1 - FOLLOW) ** k for k in (2, 1, 0)]
    for n in (1, 2, 3):
        errors.append(float(squared_error((n * outputs).sigmoid(), IMAGE).mean()))
        likelihood.log_prob(n * outputs, IMAGE)
    variance = sum(w * error for w, error in zip(weights, errors, strict=True)) / sum(weights)
    assert max(errors) - min(errors) > 0.01
    assert float(likelihood.state_dict()["variance"]) == pytest.approx(variance)
    likelihood.eval()
    expected = Normal(outputs.sigmoid(), math.sqrt(variance)).log_prob(IMAGE).flatten(1).sum(1)
    for rows in (slice(0, 6), slice(2, 3)):  # each image by itself
        assert likelihood.log_prob(outputs[rows], IMAGE[rows]).sub(expected[rows]).abs().max() < 1e-9
    assert float(likelihood.state_dict()["variance"]) == pytest.approx(variance)


def test_the_running_mean_of_an_earlier_version_is_taken_as_it_is():
    likelihood = Gaussian("optimal")
    likelihood.load_state_dict({"variance": torch.tensor(0.3)})
    assert (float(likelihood.variance), float(likelihood.weight)) == (pytest.approx(0.3), 1)
    likelihood.double().log_prob(draw(), IMAGE)
    error = float(squared_error(draw().sigmoid(), IMAGE).mean())
    assert float(likelihood.variance) == pytest.approx((1 - FOLLOW) * 0.3 + FOLLOW * error)


def test_optimal_variance_of_a_perfect_reconstruction_is_one_level():
    likelihood = Gaussian("optimal", "none").double()
    nats = -likelihood.log_prob(IMAGE, IMAGE)
    assert nats.tolist() == pytest.approx([D / 2 * (LEAST_LOGVAR + math.log(2 * math.pi))] * 6)


def test_a_density_of_one_level_is_near_the_probability_of_the_level():
    """The claim at the head of likelihoods.py: 0.06 bits for the best reconstructed pixel."""
    step = 1 / 255
    normal = Normal(torch.tensor(0.5, dtype=torch.float64), step)
    probability = normal.cdf(torch.tensor(0.5 + step / 2)) - normal.cdf(torch.tensor(0.5 - step / 2))
    density = normal.log_prob(torch.tensor(0.5, dtype=torch.float64)).exp() * step
    assert 0 < float((density / probability).log2()) < 0.061


def test_the_default_variance_is_the_optimal_one_and_half_behind_a_squared_error():
    assert Gaussian(None).name == Gaussian("optimal").name
    for default in (None, "optimal"):  # as this version and earlier ones write it
        stated = [
            stated_variance({"reconstruction": kind, "variance": default})["variance"]
            for kind in ("mse", "gaussian", "bce")
        ]
        assert stated == [VARIANCE, None, None]
    assert stated_variance({"variance": None})["variance"] == VARIANCE  # vae-discrete, always a squared error
    for other in ({"hidden": 3}, {"reconstruction": "mse", "variance": 0.2}, {"variance": "learned"}):
        assert stated_variance(other) == other


def test_names_and_what_needs_the_whole_batch():
    assert [Gaussian(v).name for v in (0.5, "learned", "optimal")] == [
        "gaussian-0.5",
        "gaussian-learned",
        "gaussian-optimal",
    ]
    assert [Gaussian(v).batch_statistics for v in (0.5, "learned", "optimal")] == [False, False, True]
    assert (Bernoulli.name, Bernoulli.density, Gaussian.density) == ("bernoulli", False, True)


@pytest.mark.parametrize("kind", [VAEConfig, HierarchicalConfig])
def test_every_model_takes_the_same_variances(kind):
    for variance in (LEAST_VARIANCE, 1, "learned", "optimal", None):
        assert make(kind, {"reconstruction": "gaussian", "variance": variance}).variance == variance
    for variance in (1e-12, 0, -1.0, math.inf, math.nan, True, "lerned", [0.5]):
        with pytest.raises(UserError) as refused:
            make(kind, {"reconstruction": "gaussian", "variance": variance})
        allowed = "give learned, optimal, or a number of at least 1.5e-05 (one level squared)"
        assert str(refused.value) == f"variance={shown(variance)}: {allowed}"
