"""The variational autoencoder of Kingma & Welling (2014), "Auto-encoding variational Bayes".

    q(z|x) = N(mu(x), exp(logvar(x))),   p(z) = N(0, I),   z = mu + exp(logvar / 2) * eps
    ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z))  <=  log p(x)

Loss: mean squared error per pixel + beta * KL / D for D pixels. Times D this is |x_hat - x|**2 + beta * KL: for
beta = 1 the negative ELBO of a Gaussian decoder with variance 1/2, up to the constant (D / 2) ln(pi). With
reconstruction "bce" it is the binary cross-entropy summed over pixels + beta * KL.
"""

import math
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.autoencoders.losses import (
    bernoulli_nats,
    gaussian_log_likelihood,
    kl_to_standard_normal,
    squared_error,
)
from trilemma.config import ModelConfig
from trilemma.errors import UserError, refuse_labels
from trilemma.nets.mlp import mlp
from trilemma.nets.precision import full
from trilemma.types import Batch, Logs, Phase

VARIANCE = 0.5  # of the Gaussian decoder whose negative ELBO is |x_hat - x|**2 + KL


class VAEConfig(ModelConfig):
    """Settings of a fully connected variational autoencoder; the decoder mirrors the encoder."""

    hidden: tuple[PositiveInt, ...] = Field(default=(128,), description="widths of the encoder's hidden layers")
    latent: int = Field(default=32, ge=1, description="numbers in a code")
    beta: float = Field(default=1.0, ge=0, description="weight of the KL divergence; 1 is the ELBO")
    reconstruction: Literal["mse", "bce"] = Field(default="mse", description="loss between image and reconstruction")


class VAE(nn.Module):
    """Encoder to (mu, logvar), decoder, standard normal prior. Images (B, C, H, W) in [0, 1]; codes (B, latent)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.n_pixels = math.prod(config.shape)
        self.encoder = mlp([self.n_pixels, *config.hidden, 2 * config.latent])
        self.decoder = mlp([config.latent, *reversed(config.hidden), self.n_pixels])
        self.phases = [Phase("vae", list(self.parameters()), self.loss)]

    @property
    def sampling_network(self) -> nn.Module:
        """The decoder: one call per batch of samples."""
        return self.decoder

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x): (B, C, H, W) -> two (B, latent)."""
        mu, logvar = full(self.encoder(image.flatten(1))).chunk(2, dim=1)
        return mu, logvar

    def encode(self, image: Tensor) -> Tensor:
        """The posterior mean, (B, latent)."""
        return self.posterior(image)[0]

    def decode_logits(self, z: Tensor) -> Tensor:
        """Code (B, latent) -> the image before its sigmoid (B, C, H, W)."""
        return full(self.decoder(z)).unflatten(1, self.config.shape)

    def decode(self, z: Tensor) -> Tensor:
        """Code (B, latent) -> mean image (B, C, H, W) in [0, 1]."""
        return self.decode_logits(z).sigmoid()

    def reconstruct(self, image: Tensor) -> Tensor:
        """The image decoded from its posterior mean, (B, C, H, W) in [0, 1]."""
        return self.decode(self.encode(image))

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Reconstruction loss + weighted KL; parts: mse (per pixel) or bce_nats (per image), kl_nats (per image)."""
        logits, kl = self._pass(batch.image, rng)
        kl = kl.mean()
        if self.config.reconstruction == "bce":
            error, weight, name = bernoulli_nats(logits, batch.image).mean(), self.config.beta, "bce_nats"
        else:
            error, name = squared_error(logits.sigmoid(), batch.image).mean(), "mse"
            weight = self.config.beta / self.n_pixels
        return error + weight * kl, {name: error.detach(), "kl_nats": kl.detach()}

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): mse of a reconstruction from a *sampled* code, as published; mean_code_mse; kl_nats."""
        logits, kl = self._pass(batch.image, rng)
        return {
            "mse": squared_error(logits.sigmoid(), batch.image),
            "mean_code_mse": squared_error(self.reconstruct(batch.image), batch.image),
            "kl_nats": kl,
        }

    def elbo(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """One-sample estimate of the ELBO, nats per image (B,); a density over [0, 1] for the Gaussian decoder."""
        logits, kl = self._pass(image, rng)
        if self.config.reconstruction == "bce":
            return -bernoulli_nats(logits, image) - kl
        return gaussian_log_likelihood(logits.sigmoid(), image, VARIANCE) - kl

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int, first: int = 0, labels: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Decode z ~ N(0, temperature**2 I): mean images, (n, C, H, W) in [0, 1]."""
        refuse_labels(labels)
        if temperature < 0:
            raise UserError(f"temperature={temperature}: give 0 or more; 1 is the prior itself")
        ids = torch.arange(first, first + n)
        z = random.normal(ids, (self.config.latent,), seed, "latent") * temperature
        return self.decode(z.to(next(self.parameters())))

    def _pass(self, image: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Logits of the image decoded from z ~ q(z|x), and the KL in nats per image."""
        mu, logvar = self.posterior(image)
        eps = torch.empty_like(mu).normal_(generator=rng)
        z = mu + (0.5 * logvar).exp() * eps
        return self.decode_logits(z), kl_to_standard_normal(mu, logvar)
