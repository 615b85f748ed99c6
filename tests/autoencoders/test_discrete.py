"""The discrete code: Gumbel's law and its limits, and a model so small that all its codes can be counted."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from trilemma.autoencoders.codes import gumbel_noise, gumbel_softmax, kl_to_uniform, one_hot, straight_through
from trilemma.autoencoders.discrete import DiscreteConfig, DiscreteVAE
from trilemma.config import VARIANCE
from trilemma.errors import UserError
from trilemma.types import Batch, Condition

LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(**settings: object) -> DiscreteVAE:
    """Two variables of three categories: nine codes."""
    torch.manual_seed(0)
    config = DiscreteConfig(shape=(1, 2, 3), hidden=(8,), variables=2, categories=3, **settings)
    model = DiscreteVAE(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def all_codes() -> Tensor:
    """The nine codes, one-hot, (9, 6)."""
    categories = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    return one_hot(categories, torch.zeros(3, dtype=torch.float64)).flatten(1)


def exact(model: DiscreteVAE, image: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) and the ELBO of each image, by summing over all codes; (B,) each."""
    codes, elbo, log_p = all_codes(), [], []
    for x, log_q in zip(image, model.log_posterior(image).flatten(1), strict=True):
        squared = (model.decode(codes) - x).square().flatten(1).sum(1)
        log_joint = -squared / (2 * VARIANCE) - 3 * math.log(2 * math.pi * VARIANCE) - math.log(9)  # 6 pixels / 2
        log_q_of = codes @ log_q
        log_p.append(log_joint.logsumexp(0))
        elbo.append((log_q_of.exp() * (log_joint - log_q_of)).sum())
    return torch.stack(log_p), torch.stack(elbo)


def test_noise_has_the_moments_of_gumbel() -> None:
    n = 200_000
    noise = gumbel_noise(torch.zeros(n), generator()).double()
    mean, variance = 0.5772156649, math.pi**2 / 6  # Euler's constant
    error = math.sqrt(variance / n)
    assert abs(float(noise.mean()) - mean) < 4 * error < abs(float(noise.mean()) - mean - 0.05)
    assert abs(float(noise.var()) / variance - 1) < 0.02 < abs(float(noise.var()) - 1)


@pytest.mark.parametrize("faulty", [0.0, 1.0])
def test_noise_is_finite_where_uniform_numbers_touch_their_ends(faulty: float, monkeypatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, faulty))
    noise = gumbel_noise(torch.zeros(3), generator())
    assert noise.isfinite().all() and noise.abs().max() < 20
    draw = gumbel_softmax(torch.zeros(3, 4, requires_grad=True), 0.1, generator())
    draw.square().sum().backward()
    assert draw.isfinite().all()


def test_draws_have_the_probabilities_of_the_softmax() -> None:
    n = 50_000
    shares = gumbel_softmax(LOGITS.expand(n, 4), 0.3, generator()).mean(0)
    expected = LOGITS.softmax(0)
    error = (expected * (1 - expected) / n).sqrt()
    assert ((shares - expected).abs() < 4.5 * error).all()
    assert ((shares - LOGITS.mul(1.1).softmax(0)).abs() > 4.5 * error).any()  # the tolerance sees other logits


def test_temperature_limits() -> None:
    logits = LOGITS.expand(200, 4)
    hard = gumbel_softmax(logits, 1.0, generator())
    soft = {t: gumbel_softmax(logits, t, generator(), hard=False) for t in (1e-4, 1.0, 1e4)}
    noisy = logits + gumbel_noise(logits, generator())
    assert (hard.sum(1) == 1).all() and ((hard == 0) | (hard == 1)).all()
    apart = noisy.sort(1).values.diff(dim=1)[:, -1] > 0.01  # where the largest is the largest by far at 1e-4
    assert apart.sum() > 190 and (soft[1e-4] - hard)[apart].abs().max() < 1e-12
    assert (soft[1e4] - 0.25).abs().max() < 0.25 * 1e-3
    assert (soft[1.0] - noisy.softmax(1)).abs().max() < 1e-12
    assert (soft[1.0] - hard).abs().max() > 0.1


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_gradient_of_a_hard_draw_is_that_of_the_soft_one(temperature: float) -> None:
    logits = LOGITS.clone().requires_grad_()
    weights = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=torch.float64)
    draw = gumbel_softmax(logits, temperature, generator(3))
    (draw @ weights).backward()
    p = ((LOGITS + gumbel_noise(LOGITS, generator(3))) / temperature).softmax(0)
    expected = (p.diag() - torch.outer(p, p)) @ weights / temperature  # the softmax's Jacobian
    assert (logits.grad - expected).abs().max() < 1e-12
    assert expected.abs().max() > 1e-6


def test_straight_through_has_the_values_of_one_and_the_gradient_of_the_other() -> None:
    forward = torch.tensor([0.1, 1 / 3], requires_grad=True)
    backward = torch.tensor([1e6, 0.7], requires_grad=True)
    out = straight_through(forward, backward)
    (out * torch.tensor([2.0, 5.0])).sum().backward()
    assert torch.equal(out, forward) and forward.grad is None
    assert torch.equal(backward.grad, torch.tensor([2.0, 5.0]))


def test_divergence_from_uniform() -> None:
    log_q = torch.randn(5, 7, 4, dtype=torch.float64, generator=generator()).log_softmax(2)
    expected = kl_divergence(Categorical(logits=log_q), Categorical(logits=torch.zeros_like(log_q))).sum(1)
    assert (kl_to_uniform(log_q) - expected).abs().max() < 1e-12
    one = one_hot(torch.zeros(1, 7, dtype=torch.int64), log_q).log().clamp(min=-1e9)
    assert abs(float(kl_to_uniform(one)) - 7 * math.log(4)) < 1e-9


@torch.no_grad()
def test_bounds_are_those_of_all_codes() -> None:
    model, rng = tiny(), generator(1)
    image = torch.rand(3, 1, 2, 3, dtype=torch.float64, generator=rng)
    log_p, elbo = exact(model, image)
    assert (elbo < log_p).all()
    n = 4000
    many = image.repeat(n, 1, 1, 1)
    closed = model.elbo(many, rng).view(n, 3)
    drawn = model.log_weight(many, rng).view(n, 3)
    for estimate in (closed, drawn):
        error = estimate.std(0) / math.sqrt(n)
        assert ((estimate.mean(0) - elbo).abs() < 4.5 * error).all()
        assert ((estimate.mean(0) - log_p).abs() > 4.5 * error).any()
    weights = (drawn - log_p).exp()  # their mean is 1
    error = weights.std(0) / math.sqrt(n)
    assert ((weights.mean(0) - 1).abs() < 4.5 * error).all() and (error < 0.1).all()


@pytest.mark.parametrize(("variance", "settings"), [(VARIANCE, {}), (0.03, {"variance": 0.03})])
def test_loss_in_units_of_the_variance_is_the_negative_elbo_up_to_its_constant(variance, settings) -> None:
    model = tiny(**settings)
    image = torch.rand(6, 1, 2, 3, dtype=torch.float64, generator=generator(1))
    loss, parts = model.loss(Batch(image), generator(2))
    elbo = model.elbo(image, generator(2)).mean()
    constant = 3 * math.log(2 * math.pi * variance)
    assert abs(float((6 / (2 * variance) * loss + elbo + constant).detach())) < 1e-10
    assert abs(float(parts["mse"] + 2 * variance * parts["kl_nats"] / 6 - loss.detach())) < 1e-12


def test_temperature_moves_with_the_training() -> None:
    model = tiny(temperature_first=1.0, temperature_last=0.1)
    assert [round(model.temperature(p), 12) for p in (0.0, 0.5, 1.0)] == [1.0, 0.55, 0.1]
    image = torch.rand(4, 1, 2, 3, dtype=torch.float64)
    norms = []
    for progress in (0.0, 1.0):
        model.zero_grad()
        model.loss(Batch(image, progress=progress), generator(2))[0].backward()
        norms.append(torch.stack([p.grad.norm() for p in model.encoder.parameters()]).norm())
    assert abs(norms[0] - norms[1]) > 1e-3 * norms[0]


def test_codes_are_one_hot_and_any_weights_are_decoded() -> None:
    model = DiscreteVAE(DiscreteConfig(shape=(3, 9, 12), variables=5, categories=4))
    image = torch.rand(6, 3, 9, 12)
    z = model.encode(image)
    assert z.shape == (6, 20) and torch.equal(z.view(6, 5, 4).sum(2), torch.ones(6, 5))
    best = model.log_posterior(image).argmax(2)
    assert torch.equal(z.view(6, 5, 4).argmax(2), best)
    between = model.decode(0.3 * z + 0.7 * z.roll(1, 0))
    assert between.shape == image.shape and between.min() >= 0 and between.max() <= 1
    with pytest.raises(UserError, match="leave label out"):
        model.encode(image, Condition(torch.zeros(6, dtype=torch.int64)))


def test_prior_is_uniform_and_an_image_depends_on_its_number_alone(monkeypatch) -> None:
    model = DiscreteVAE(DiscreteConfig(shape=(1, 4, 4), variables=5, categories=4))
    assert torch.allclose(model.sample(6, seed=2)[4:], model.sample(2, seed=2, first=4), atol=1e-6)
    monkeypatch.setattr(model, "decode", lambda z, condition: z)
    shares = model.sample(8000, seed=2).view(8000, 5, 4).mean(0)
    assert (shares - 0.25).abs().max() < 4.5 * math.sqrt(0.25 * 0.75 / 8000)
