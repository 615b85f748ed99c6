"""The VAE on a linear-Gaussian model, where everything is known in closed form."""

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from trilemma.autoencoders.vae import VAE, VARIANCE, VAEConfig
from trilemma.types import Batch


class LinearVAE(VAE):
    """A decoder x = W z + b without its sigmoid, and as encoder the exact posterior of that model."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(VAEConfig(shape=(1, 1, weight.shape[0]), hidden=(), latent=weight.shape[1]))
        self.double()
        self.weight, self.bias = weight, bias
        precision = torch.eye(weight.shape[1], dtype=torch.float64) + weight.T @ weight / VARIANCE
        self.covariance = torch.linalg.inv(precision)

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        mu = (image.flatten(1) - self.bias) @ self.weight @ self.covariance.T / VARIANCE
        return mu, self.covariance.diagonal().log().expand_as(mu)

    def decode_logits(self, z: Tensor) -> Tensor:
        return (z @ self.weight.T + self.bias).unflatten(1, self.config.shape)


def test_elbo_at_the_exact_posterior_is_log_p(monkeypatch) -> None:
    # Orthogonal columns make the exact posterior diagonal, so q can be equal to it and the gap is 0 for every sample.
    weight = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64)).Q * torch.tensor([1.5, 0.5], dtype=torch.float64)
    bias = torch.rand(6, dtype=torch.float64)
    model = LinearVAE(weight, bias)
    monkeypatch.setattr(Tensor, "sigmoid", lambda self: self)  # the decoder of the toy is linear
    image = torch.randn(4, 1, 1, 6, dtype=torch.float64)
    evidence = MultivariateNormal(bias, weight @ weight.T + VARIANCE * torch.eye(6, dtype=torch.float64))
    expected = evidence.log_prob(image.flatten(1))
    rng = torch.Generator().manual_seed(0)
    n = 20_000
    elbo = torch.stack([model.elbo(image, rng) for _ in range(n)])
    error = (elbo.mean(0) - expected).abs()
    assert (error < 5 * elbo.std(0) / math.sqrt(n)).all()
    shifted = elbo.mean(0) - 0.2  # the tolerance sees a wrong bound
    assert ((shifted - expected).abs() > 5 * elbo.std(0) / math.sqrt(n)).all()


def test_loss_times_pixels_is_the_negative_elbo_up_to_its_constant() -> None:
    model = VAE(VAEConfig(shape=(1, 4, 5), hidden=(8,), latent=3)).double()
    batch = Batch(torch.rand(6, 1, 4, 5, dtype=torch.float64))
    loss, _ = model.loss(batch, torch.Generator().manual_seed(1))
    elbo = model.elbo(batch.image, torch.Generator().manual_seed(1)).mean()
    constant = 20 / 2 * math.log(2 * math.pi * VARIANCE)
    assert abs(float((20 * loss + elbo + constant).detach())) < 1e-9


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


def test_samples_are_means_of_the_prior() -> None:
    model = VAE(VAEConfig(shape=(3, 4, 5), hidden=(8,), latent=3))
    spread = [model.sample(400, seed=0, temperature=t).std(0).mean() for t in (0.0, 0.5, 1.0)]
    assert spread[0] < 1e-6 < spread[1] < spread[2]
