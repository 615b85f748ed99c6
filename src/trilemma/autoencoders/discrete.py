"""A variational autoencoder whose code is V choices out of K categories each.

Jang, Gu & Poole (2017), "Categorical reparameterization with Gumbel-softmax"; Maddison, Mnih & Teh (2017), "The
concrete distribution".

    q(k|x) = prod_v softmax(logits_v(x))[k_v],   p(k) = K**-V
    KL(q || p) = sum_v (log K - entropy of q_v)

A code is drawn by Gumbel noise (codes.py) and is one-hot; its gradient is that of the Gumbel-softmax, whose temperature
changes linearly with the training. Loss: mean squared error per pixel + 2 s^2 beta * KL / D for D pixels, as `mse` in
vae.py: for beta = 1 the negative ELBO of a Gaussian with variance s^2 (default: 1/2), times 2 s^2 / D and
up to a constant.
"""

import math

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.autoencoders.backbones import NetworkConfig, make_decoder, make_encoder
from trilemma.autoencoders.codes import gumbel_softmax, kl_to_uniform, one_hot
from trilemma.autoencoders.likelihoods import LEAST_VARIANCE, Gaussian, pixel_variance
from trilemma.autoencoders.losses import squared_error
from trilemma.config import Config
from trilemma.errors import check_codes, check_images
from trilemma.nets.precision import full
from trilemma.types import UNCONDITIONAL, Batch, Condition, Likelihood, Logs, Model, Phase, Player, check_condition


class DiscreteConfig(NetworkConfig):
    """Settings of a variational autoencoder with a discrete code; the decoder mirrors the encoder."""

    hidden: tuple[PositiveInt, ...] = Field(
        default=(256, 128), description="mlp: widths of the encoder's hidden layers"
    )
    variables: PositiveInt = Field(default=32, description="choices in a code")
    categories: int = Field(default=16, ge=2, description="categories of each choice")
    temperature_first: PositiveFloat = Field(default=1.0, description="of the Gumbel-softmax when training begins")
    temperature_last: PositiveFloat = Field(default=0.1, description="of the Gumbel-softmax when training ends")
    hard: bool = Field(default=True, description="whether codes are one-hot in training, too")
    beta: float = Field(default=1.0, ge=0, description="weight of the KL divergence; 1 is the ELBO")
    variance: float | None = Field(default=None, ge=LEAST_VARIANCE, description="of a pixel (default: 1/2)")


class DiscreteVAE(Model):
    """Encoder to logits of categories, decoder, uniform prior. Images (B, C, H, W) in [0, 1].

    Codes are (B, variables * categories): a one-hot vector for each variable, one after the other.
    """

    sampling_keys = Config
    whole_because = ""

    def __init__(self, config: DiscreteConfig) -> None:
        super().__init__()
        self.config = config
        self.n_pixels = math.prod(config.shape)
        self.variance = pixel_variance(config.variance)
        self.likelihood = Gaussian(self.variance)
        self.encoder = make_encoder(config, config.variables * config.categories)
        self.decoder = make_decoder(config, config.variables * config.categories)
        self.phases = [Phase("vae", Player("vae", list(self.parameters())), self.loss)]

    @property
    def code_bits(self) -> float:
        """Bits of a code in a fixed length for each."""
        return self.config.variables * math.log2(self.config.categories)

    @property
    def code_length(self) -> int:
        """Numbers in a code."""
        return self.config.variables * self.config.categories

    @property
    def pixel_likelihood(self) -> Likelihood:
        """p(x|z)."""
        return self.likelihood

    @property
    def sampling_network(self) -> nn.Module:
        """The decoder: one call per batch of samples."""
        return self.decoder

    def log_posterior(self, image: Tensor) -> Tensor:
        """log q(k|x) of each variable: (B, C, H, W) -> (B, variables, categories)."""
        logits = full(self.encoder(image)).unflatten(1, (self.config.variables, self.config.categories))
        return logits.log_softmax(2)

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The most probable category of each variable, one-hot: (B, variables * categories)."""
        check_condition(condition, len(image))
        check_images(image, self.config.shape)
        log_q = self.log_posterior(image)
        return one_hot(log_q.argmax(2), log_q).flatten(1)

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """Weights of the categories, one-hot or any others, (B, variables * categories) -> (B, C, H, W) in [0, 1]."""
        check_condition(condition, len(z))
        check_codes(z, self.code_length)
        return self.likelihood.mean(full(self.decoder(z)))

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The image decoded from its most probable categories, (B, C, H, W) in [0, 1]."""
        return self.decode(self.encode(image, condition))

    def temperature(self, progress: float) -> float:
        """Of the Gumbel-softmax at a share of the training."""
        return self.config.temperature_first + progress * (self.config.temperature_last - self.config.temperature_first)

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Squared error + weighted KL; parts: mse (per pixel), kl_nats (per image)."""
        log_q = self.log_posterior(batch.image)
        code = gumbel_softmax(log_q, self.temperature(batch.progress), rng, hard=self.config.hard).flatten(1)
        error, kl = squared_error(self.decode(code), batch.image).mean(), kl_to_uniform(log_q).mean()
        weight = self.config.beta / (self.n_pixels / (2 * self.variance))
        return error + weight * kl, {"mse": error.detach(), "kl_nats": kl.detach()}

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): mse of a reconstruction from a *drawn* code, as published; best_code_mse; kl_nats."""
        log_q, code = self._draw(batch.image, rng)
        return {
            "mse": squared_error(self.decode(code), batch.image),
            "best_code_mse": squared_error(self.reconstruct(batch.image), batch.image),
            "kl_nats": kl_to_uniform(log_q),
        }

    def elbo(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """One-draw estimate of the ELBO with the KL in closed form, nats per image (B,); a density over [0, 1]."""
        check_condition(condition, len(image))
        log_q, code = self._draw(image, rng)
        return self.likelihood.log_prob(full(self.decoder(code)), image) - kl_to_uniform(log_q)

    def log_weight(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """log p(x|k) + log p(k) - log q(k|x) of one k ~ q(k|x), nats per image (B,)."""
        check_condition(condition, len(image))
        log_q, code = self._draw(image, rng)
        log_ratio = -self.config.variables * math.log(self.config.categories) - (log_q.flatten(1) * code).sum(1)
        return self.likelihood.log_prob(full(self.decoder(code)), image) + log_ratio

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int, first: int = 0, condition: Condition = UNCONDITIONAL, keys: Config = Config()
    ) -> Tensor:
        """Decode categories drawn alike: mean images, (n, C, H, W) in [0, 1]."""
        u = random.uniform(torch.arange(first, first + n), (self.config.variables,), seed, "categories")
        category = (u * self.config.categories).long()
        like = next(self.parameters()).new_empty(self.config.categories)
        return self.decode(one_hot(category.to(like.device), like).flatten(1), condition)

    def _draw(self, image: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """log q(k|x) (B, variables, categories) and k ~ q(k|x), one-hot (B, variables * categories)."""
        log_q = self.log_posterior(image)
        return log_q, gumbel_softmax(log_q, self.config.temperature_last, rng).flatten(1)
