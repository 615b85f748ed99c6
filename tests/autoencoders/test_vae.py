"""The VAE on a linear-Gaussian model, where everything is known in closed form; its losses; its labels."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn import functional as F

from trilemma.autoencoders.likelihoods import Gaussian
from trilemma.autoencoders.losses import bernoulli_nats, kl_to_standard_normal
from trilemma.autoencoders.priors import PriorKeys
from trilemma.autoencoders.vae import VAE, VAEConfig
from trilemma.config import VARIANCE, make
from trilemma.errors import UserError
from trilemma.types import UNCONDITIONAL, Batch, BoundsLikelihood, Condition, Conditional


def linear(model: nn.Module) -> nn.Linear:
    """The only layer of a network."""
    (layer,) = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return layer


def linear_gaussian(variance: float, settings: dict) -> tuple[VAE, MultivariateNormal]:
    """A model p(x|z) = N(W z + b, variance I) whose encoder is the exact posterior, and its p(x).

    The columns of W are orthogonal: the exact posterior is then diagonal, and q can be equal to it.
    """
    generator = torch.Generator().manual_seed(3)
    weight = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64, generator=generator)).Q
    weight = weight * torch.tensor([1.5, 0.5], dtype=torch.float64)
    bias = torch.rand(6, dtype=torch.float64, generator=generator)
    covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + weight.T @ weight / variance)
    model = VAE(VAEConfig(shape=(1, 1, 6), hidden=(), latent=2, output="none", **settings)).double()
    to_mu = covariance @ weight.T / variance
    with torch.no_grad():
        linear(model.encoder).weight.copy_(torch.cat([to_mu, torch.zeros(2, 6)]))
        linear(model.encoder).bias.copy_(torch.cat([-to_mu @ bias, covariance.diagonal().log()]))
        linear(model.decoder).weight.copy_(weight)
        linear(model.decoder).bias.copy_(bias)
    return model, MultivariateNormal(bias, weight @ weight.T + variance * torch.eye(6, dtype=torch.float64))


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 1, 1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


EXACT = [
    (VARIANCE, {}),  # the decoder of the published loss
    (0.2, {"variance": 0.2}),
    (0.2, {"reconstruction": "gaussian", "variance": 0.2}),
]


@pytest.mark.parametrize(("variance", "settings"), EXACT)
def test_at_the_exact_posterior_every_weight_is_p(variance, settings) -> None:
    """p(x, z) / q(z|x) = p(x) for every z, so that there is nothing to average."""
    model, evidence = linear_gaussian(variance, settings)
    expected = evidence.log_prob(images().flatten(1))
    for seed in range(3):
        log_weights = model.log_weight(images(), torch.Generator().manual_seed(seed))
        assert log_weights.sub(expected).abs().max() < 1e-10


@pytest.mark.parametrize(("variance", "settings"), EXACT)
def test_elbo_at_the_exact_posterior_is_log_p(variance, settings) -> None:
    model, evidence = linear_gaussian(variance, settings)
    expected, n = evidence.log_prob(images().flatten(1)), 20_000
    with torch.no_grad():
        elbo = model.elbo(images().repeat(n, 1, 1, 1), torch.Generator().manual_seed(0)).view(n, 4)
    error, tolerance = (elbo.mean(0) - expected).abs(), 5 * elbo.std(0) / math.sqrt(n)
    assert (error < tolerance).all()
    assert (tolerance < 0.1).all()  # which sees a wrong bound


@pytest.mark.parametrize(("variance", "settings"), [(VARIANCE, {}), (0.03, {"variance": 0.03})])
def test_loss_in_units_of_the_variance_is_the_negative_elbo_up_to_its_constant(variance, settings) -> None:
    model = VAE(VAEConfig(shape=(1, 4, 5), hidden=(8,), latent=3, **settings)).double()
    batch = Batch(torch.rand(6, 1, 4, 5, dtype=torch.float64))
    loss, _ = model.loss(batch, torch.Generator().manual_seed(1))
    elbo = model.elbo(batch.image, torch.Generator().manual_seed(1)).mean()
    constant = 20 / 2 * math.log(2 * math.pi * variance)
    assert abs(float((20 / (2 * variance) * loss + elbo + constant).detach())) < 1e-9


def test_with_a_variance_that_grows_with_the_pixels_a_larger_copy_of_an_image_has_the_same_loss() -> None:
    """Each pixel as 2 x 2 of them, four times the variance: the same error per pixel, the same weight of the KL."""
    small = VAE(VAEConfig(shape=(1, 4, 4), hidden=(8,), latent=3, variance=0.1)).double()
    large = VAE(VAEConfig(shape=(1, 8, 8), hidden=(8,), latent=3, variance=0.4)).double()
    large.encoder.forward = lambda image, label=None: small.encoder(F.avg_pool2d(image, 2))
    large.decoder.forward = lambda z, label=None: F.interpolate(small.decoder(z), scale_factor=2.0)
    image = torch.rand(6, 1, 4, 4, dtype=torch.float64)
    losses = [
        float(model.loss(Batch(x), torch.Generator().manual_seed(1))[0].detach())
        for model, x in ((small, image), (large, F.interpolate(image, scale_factor=2.0)))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.parametrize("settings", [{"reconstruction": "bce"}, {"reconstruction": "gaussian", "variance": 0.1},
                                      {"reconstruction": "gaussian", "variance": "learned"},
                                      {"reconstruction": "gaussian", "variance": "optimal"}])  # fmt: skip
def test_the_loss_in_nats_is_the_negative_elbo(settings) -> None:
    model = VAE(VAEConfig(shape=(2, 4, 5), hidden=(8,), latent=3, **settings)).double()
    batch = Batch(torch.rand(6, 2, 4, 5, dtype=torch.float64))
    loss, parts = model.loss(batch, torch.Generator().manual_seed(1))
    elbo = model.elbo(batch.image, torch.Generator().manual_seed(1)).mean()
    assert float(loss.detach()) == pytest.approx(-float(elbo.detach()), rel=1e-12)
    assert set(parts) == {f"{settings['reconstruction']}_nats", "kl_nats"}
    assert float(loss.detach()) == pytest.approx(float(sum(parts.values())), rel=1e-12)


def test_validation_reports_the_negative_elbo_whatever_beta_is() -> None:
    model = VAE(VAEConfig(shape=(1, 4, 5), hidden=(8,), latent=3, reconstruction="bce", beta=7)).double()
    batch = Batch(torch.rand(6, 1, 4, 5, dtype=torch.float64))
    values = model.validation(batch, torch.Generator().manual_seed(1))
    elbo = model.elbo(batch.image, torch.Generator().manual_seed(1))
    assert values["neg_elbo_nats"].add(elbo).abs().max() < 1e-10
    mu, logvar = model.posterior(batch.image)
    assert values["kl_nats"].sub(kl_to_standard_normal(mu, logvar)).abs().max() < 1e-12
    assert "neg_elbo_nats" not in VAE(VAEConfig(shape=(1, 4, 5))).validation(Batch(torch.rand(2, 1, 4, 5)), None)


def test_beta_weighs_the_divergence() -> None:
    batch, losses = Batch(torch.rand(6, 1, 4, 5)), {}
    for beta in (0.0, 1.0, 3.0):
        torch.manual_seed(0)
        model = VAE(VAEConfig(shape=(1, 4, 5), hidden=(8,), latent=3, beta=beta))
        loss, parts = model.loss(batch, torch.Generator().manual_seed(1))
        losses[beta] = float(loss.detach())
        kl = float(parts["kl_nats"])
    assert math.isclose(losses[3.0] - losses[0.0], 3 * (losses[1.0] - losses[0.0]), rel_tol=1e-4)
    assert math.isclose(losses[1.0] - losses[0.0], kl / 20, rel_tol=1e-4)


def test_loss_of_vae_conv_is_the_published_one_divided() -> None:
    """B * D * mse + KL with B = 1000 is B * D times mse + KL / (B * D): beta = 1 / B."""
    model = VAE(VAEConfig(shape=(1, 8, 8), network="strided", latent=2, beta=1 / 1000)).double()
    loss, parts = model.loss(Batch(torch.rand(6, 1, 8, 8, dtype=torch.float64)), torch.Generator().manual_seed(1))
    published = 1000 * 64 * parts["mse"] + parts["kl_nats"]
    assert float(loss.detach()) * 1000 * 64 == pytest.approx(float(published), rel=1e-10)


def with_kl(kl: float, **settings) -> VAE:
    """A VAE with a KL divergence of exactly `kl` for every image: mu = (sqrt(2 kl), 0, 0), variance 1."""
    model = VAE(VAEConfig(shape=(1, 4, 5), hidden=(), latent=3, reconstruction="bce", **settings)).double()
    with torch.no_grad():
        linear(model.encoder).weight.zero_()
        linear(model.encoder).bias.zero_()
        linear(model.encoder).bias[0] = math.sqrt(2 * kl)
    return model


@pytest.mark.parametrize(("progress", "capacity"), [(0.0, 0.0), (0.1, 5.0), (0.2, 10.0), (0.4, 20.0), (1.0, 20.0)])
def test_capacity_rises_linearly_and_stays(progress, capacity) -> None:
    model = with_kl(8.0, capacity_nats=20, capacity_share=0.4, beta=50)
    batch = Batch(torch.rand(6, 1, 4, 5, dtype=torch.float64), progress=progress)
    loss, parts = model.loss(batch, torch.Generator().manual_seed(1))
    assert float(parts["kl_nats"]) == pytest.approx(8)
    assert float(loss.detach() - parts["bce_nats"]) == pytest.approx(50 * abs(8 - capacity))


def test_controlled_capacity_costs_nothing_where_the_divergence_is_the_capacity() -> None:
    model = with_kl(20.0, capacity_nats=20, beta=1000)
    batch = Batch(torch.rand(6, 1, 4, 5, dtype=torch.float64))
    loss, parts = model.loss(batch, torch.Generator().manual_seed(1))
    assert float(loss.detach()) == pytest.approx(float(parts["bce_nats"]), abs=1e-9)
    higher, parts = with_kl(20.1, capacity_nats=20, beta=1000).loss(batch, torch.Generator().manual_seed(1))
    assert float(higher.detach() - parts["bce_nats"]) == pytest.approx(100)


def test_samples_are_means_of_the_prior() -> None:
    model = VAE(VAEConfig(shape=(3, 4, 5), hidden=(8,), latent=3))
    spread = [model.sample(400, seed=0, keys=PriorKeys(temperature=t)).std(0).mean() for t in (0.0, 0.5, 1.0)]
    assert spread[0] < 1e-6 < spread[1] < spread[2]
    with pytest.raises(UserError, match="temperature=-1: give a number of at least 0"):
        make(PriorKeys, {"temperature": -1.0})


def test_images_of_a_linear_decoder_stay_in_range() -> None:
    model, _ = linear_gaussian(VARIANCE, {})
    z = torch.tensor([[9.0, 0.0], [-9.0, 0.0]], dtype=torch.float64)
    outputs = model.decode_outputs(z)
    assert outputs.min() < 0 and outputs.max() > 1
    assert torch.equal(model.decode(z), outputs.clamp(0, 1))


# -- labels


def conditional(**settings) -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(**{"shape": (1, 8, 8), "latent": 3, "conditional": True, "n_classes": 4, **settings}))


def batch(n: int = 12) -> Batch:
    return Batch(torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(2)), Condition(torch.arange(n) % 4))


@pytest.mark.parametrize("network", ["mlp", "conv", "strided", "recurrent", "residual"])
def test_the_label_reaches_both_networks(network) -> None:
    model, some = conditional(network=network, width=8), batch()
    mu, z = model.encode(some.image, some.condition), torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    other = Condition((some.condition.label + 1) % 4)
    assert (model.encode(some.image, other) - mu).abs().amax(1).min() > 1e-6
    assert (model.decode(z, other) - model.decode(z, some.condition)).flatten(1).abs().amax(1).min() > 1e-6
    assert torch.equal(model.reconstruct(some.image, some.condition), model.decode(mu, some.condition))


def test_gradients_reach_the_columns_of_every_class_in_both_networks() -> None:
    model, some = conditional(hidden=(16,)), batch()
    model.loss(some, torch.Generator().manual_seed(0))[0].backward()
    for network, n_inputs in ((model.encoder, 64), (model.decoder, 3)):
        first = next(p for p in network.parameters() if p.ndim == 2)
        assert first.shape[1] == n_inputs + 4
        assert (first.grad[:, n_inputs:].abs().amax(0) > 0).all()


def test_the_bound_of_a_conditional_model_is_that_of_its_label() -> None:
    model, some = conditional(reconstruction="bce"), batch()
    elbo = model.elbo(some.image, torch.Generator().manual_seed(1), some.condition)
    mu, logvar = model.posterior(some.image, some.condition)
    eps = torch.empty_like(mu).normal_(generator=torch.Generator().manual_seed(1))
    outputs = model.decode_outputs(mu + (0.5 * logvar).exp() * eps, some.condition)
    expected = -bernoulli_nats(outputs, some.image) - kl_to_standard_normal(mu, logvar)
    assert torch.allclose(elbo, expected)
    other = model.elbo(some.image, torch.Generator().manual_seed(1), Condition((some.condition.label + 1) % 4))
    assert not torch.allclose(elbo, other)


def test_samples_obey_labels_and_go_round_the_classes_without() -> None:
    model = conditional()
    asked = model.sample(8, seed=0, condition=Condition(torch.arange(8) % 4))
    assert torch.equal(model.sample(8, seed=0), asked)
    assert torch.allclose(model.sample(3, seed=0, first=5), asked[5:], atol=1e-6)
    assert not torch.allclose(model.sample(8, seed=0, condition=Condition(torch.zeros(8, dtype=torch.int64))), asked)


def test_a_conditional_model_refuses_to_go_without_labels_and_other_labels() -> None:
    model, some, rng = conditional(), batch(), torch.Generator()
    calls = [
        lambda y: model.encode(some.image, y),
        lambda y: model.decode(torch.zeros(12, 3), y),
        lambda y: model.reconstruct(some.image, y),
        lambda y: model.elbo(some.image, rng, y),
        lambda y: model.log_weight(some.image, rng, y),
    ]
    for call in calls:
        assert torch.is_tensor(call(some.condition))
        with pytest.raises(UserError, match="needs the class of each image"):
            call(UNCONDITIONAL)
        with pytest.raises(UserError, match="from 0 to 3"):
            call(Condition(some.condition.label + 1))
    with pytest.raises(UserError, match="from 0 to 3"):
        model.sample(2, seed=0, condition=Condition(torch.tensor([0, -1])))
    with pytest.raises(UserError, match="needs the class of each image"):
        model.loss(Batch(some.image), rng)


def test_an_unconditional_model_refuses_labels_and_has_no_classes() -> None:
    model, some, rng = VAE(VAEConfig(shape=(1, 8, 8), n_classes=4)), batch(), torch.Generator()
    assert not isinstance(model, Conditional) and isinstance(conditional(), Conditional)
    assert isinstance(model, BoundsLikelihood)
    for call in (model.encode, model.reconstruct):
        with pytest.raises(UserError, match="without labels"):
            call(some.image, some.condition)
    with pytest.raises(UserError, match="without labels"):
        model.sample(4, seed=0, condition=Condition(torch.zeros(4, dtype=torch.int64)))
    with pytest.raises(UserError, match="without labels"):
        model.log_weight(some.image, rng, some.condition)
    assert model.loss(some, rng)[0].isfinite()  # the labels that the data happens to have are not used


# -- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reconstruction": "bce", "variance": 0.1}, "is for reconstruction=gaussian or mse, not bce"),
        ({"reconstruction": "bce", "variance": "optimal"}, "is for reconstruction=gaussian or mse, not bce"),
        ({"variance": "learned"}, "variance=learned is for reconstruction=gaussian, not mse, which takes a number"),
        ({"variance": "optimal"}, "variance=optimal is for reconstruction=gaussian, not mse, which takes a number"),
        ({"reconstruction": "gaussian", "variance": 0.0}, "learned, optimal, or a number"),
        ({"reconstruction": "gaussian", "variance": "optimum"}, "learned, optimal, or a number"),
        ({"reconstruction": "bce", "output": "none"}, "needs probabilities"),
        ({"capacity_share": 0.2}, "capacity_share=0.2 is for a capacity, such as capacity_nats=25"),
        ({"conditional": True}, "is for images with classes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message) -> None:
    with pytest.raises(UserError, match=message):
        VAEConfig().with_(**settings)


@pytest.mark.parametrize("variance", [0.25, "learned", "optimal"])
def test_settings_survive_json(variance) -> None:
    config = VAEConfig(reconstruction="gaussian", variance=variance, capacity_nats=3)
    assert VAEConfig(**config.to_json()) == config
    model = VAE(config.with_(shape=(2, 4, 4)))
    assert isinstance(model.likelihood, Gaussian)
    assert model.sample(2, seed=0).shape == (2, 2, 4, 4)
    assert model.decode_outputs(torch.zeros(2, 32)).shape[1] == (4 if variance == "learned" else 2)
