"""The variational autoencoder of Kingma & Welling (2014), "Auto-encoding variational Bayes".

    q(z|x) = N(mu(x), exp(logvar(x))),   p(z) = N(0, I),   z = mu + exp(logvar / 2) * eps
    ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z))  <=  log p(x)

Loss, by `reconstruction`, for D pixels:

    mse        mean squared error per pixel + 2 s^2 beta * KL / D. Times D / (2 s^2) this is |x_hat - x|^2 / (2 s^2) +
               beta * KL: for beta = 1 the negative ELBO of a Gaussian with variance s^2, up to the constant
               (D / 2) ln(2 pi s^2). s^2 is `variance`; default: 1/2, as published
    bce        -log p(x|z) of a Bernoulli (binary cross-entropy summed over pixels) + beta * KL, in nats
    gaussian   -log p(x|z) of a Gaussian + beta * KL, in nats; `variance` is fixed, learned or optimal (default)

beta > 1 presses the code towards the prior, whose units are independent (Higgins et al. 2017, "beta-VAE"). Controlled
capacity (Burgess et al. 2018, "Understanding disentangling in beta-VAE", equation 8) has beta * |KL - C| in its place,
with C rising linearly from 0. A conditional model gives the label to both networks: q(z|x, y) and p(x|z, y) (Sohn, Lee
& Yan 2015, with a prior that does not depend on y).
"""

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma import rng as random
from trilemma.autoencoders.backbones import NetworkConfig, make_decoder, make_encoder
from trilemma.autoencoders.likelihoods import Bernoulli, Gaussian, Variance, pixel_variance
from trilemma.autoencoders.losses import kl_to_standard_normal, log_prior_ratio, squared_error
from trilemma.autoencoders.priors import PriorKeys
from trilemma.config import only_for
from trilemma.errors import check_codes, check_images
from trilemma.nets.precision import full
from trilemma.types import (
    UNCONDITIONAL,
    Batch,
    Condition,
    Likelihood,
    Logs,
    Model,
    Phase,
    Player,
    check_condition,
    default_label,
)
from trilemma.whole_batch import batch_mean

# q starts narrow and its means apart: the decoder learns to use units that it would give up under the noise.
FIRST_LOGVAR, FIRST_SPREAD = -3.0, 2.0


class VAEConfig(NetworkConfig):
    """Settings of a variational autoencoder; the decoder mirrors the encoder."""

    latent: int = Field(default=32, ge=1, description="numbers in a code")
    beta: float = Field(default=1.0, ge=0, description="weight of the KL divergence; 1 is the ELBO")
    capacity_nats: float | None = Field(default=None, ge=0, description="KL to aim at, which beta then weighs")
    capacity_share: float = Field(default=0.5, gt=0, le=1, description="share of training over which it rises from 0")
    reconstruction: Literal["mse", "bce", "gaussian"] = Field(
        default="mse", description="loss between image and reconstruction"
    )
    variance: Variance = Field(
        default=None,
        description="of a pixel; gaussian: a number, learned or optimal (default: optimal); mse: a number",
    )
    output: Literal["sigmoid", "none"] = Field(default="sigmoid", description="what follows the decoder")
    conditional: bool = Field(default=False, description="whether the networks are given the label")
    n_classes: int = Field(default=0, ge=0, description="classes, taken from the data; for a conditional model")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.reconstruction == "bce" and self.output != "sigmoid":
            raise ValueError("output=none: a Bernoulli needs probabilities; take output=sigmoid or reconstruction=mse")
        only_for(self, "variance", self.reconstruction != "bce", "reconstruction=gaussian or mse, not bce")
        a_number = not isinstance(self.variance, str)
        gaussian = "reconstruction=gaussian, not mse, which takes a number"
        only_for(self, "variance", self.reconstruction != "mse" or a_number, gaussian)
        only_for(self, "capacity_share", self.capacity_nats is not None, "a capacity, such as capacity_nats=25")
        only_for(self, "conditional", self.n_classes > 0, "images with classes; the data has none")
        return self


class VAE(Model):
    """Encoder to (mu, logvar), decoder, standard normal prior. Images (B, C, H, W) in [0, 1]; codes (B, latent).

    A conditional model needs the label of a condition wherever it is given images or codes; any other refuses it.
    """

    sampling_keys = PriorKeys
    whole_because = ""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.batch_statistics = self.sums_statistics = config.capacity_nats is not None  # of a mean over the batch
        self.n_pixels = math.prod(config.shape)
        if config.conditional:
            self.n_classes = config.n_classes
        self.likelihood = _likelihood(config)
        channels = config.shape[0] * self.likelihood.channels_per_channel
        self.encoder = make_encoder(config, 2 * config.latent, n_classes=self.n_classes)
        self.decoder = make_decoder(config, config.latent, n_classes=self.n_classes, channels=channels)
        self._set_first_posterior()
        self.phases = [Phase("vae", Player("vae", list(self.parameters())), self.loss)]

    @property
    def code_length(self) -> int:
        """Numbers in a code."""
        return self.config.latent

    @property
    def pixel_likelihood(self) -> Likelihood:
        """p(x|z)."""
        return self.likelihood

    @property
    def sampling_network(self) -> nn.Module:
        """The decoder: one call per batch of samples."""
        return self.decoder

    def posterior(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x): (B, C, H, W) -> two (B, latent)."""
        mu, logvar = full(self.encoder(image, condition.label)).chunk(2, dim=1)
        return mu, logvar

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The posterior mean, (B, latent)."""
        check_images(image, self.config.shape)
        return self.posterior(image, self._checked(condition, len(image)))[0]

    def decode_outputs(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """Code (B, latent) -> what the likelihood is made of, (B, C, H, W) or (B, 2C, H, W)."""
        return full(self.decoder(z, condition.label))

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """Code (B, latent) -> mean image (B, C, H, W) in [0, 1]."""
        check_codes(z, self.code_length)
        return self._image(self.decode_outputs(z, self._checked(condition, len(z))))

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The image decoded from its posterior mean, (B, C, H, W) in [0, 1]."""
        return self.decode(self.encode(image, condition), condition)

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Reconstruction loss + weighted KL; parts: mse (per pixel), or bce_nats or gaussian_nats (per image), and
        kl_nats (per image)."""
        outputs, kl = self._pass(batch.image, self._condition_of(batch), rng)
        kl, kind = kl.mean(), self.config.reconstruction
        if kind == "mse":
            error, name = F.mse_loss(self.likelihood.mean(outputs), batch.image), "mse"
            scale = self.n_pixels / (2 * pixel_variance(self.config.variance))
        else:
            error, scale, name = -self.likelihood.log_prob(outputs, batch.image).mean(), 1, f"{kind}_nats"
        loss = error + self.config.beta / scale * self._over_capacity(kl, batch.progress)
        return loss, {name: error.detach(), "kl_nats": kl.detach()}

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): mse of a reconstruction from a *sampled* code, as published; mean_code_mse; kl_nats; and
        neg_elbo_nats where the reconstruction loss is in nats (whatever beta is)."""
        condition = self._condition_of(batch)
        outputs, kl = self._pass(batch.image, condition, rng)
        values = {
            "mse": squared_error(self._image(outputs), batch.image),
            "mean_code_mse": squared_error(self.reconstruct(batch.image, condition), batch.image),
            "kl_nats": kl,
        }
        if self.config.reconstruction != "mse":
            values["neg_elbo_nats"] = kl - self.likelihood.log_prob(outputs, batch.image)
        return values

    def elbo(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """One-sample estimate of the ELBO with the KL in closed form, nats per image (B,); a density over [0, 1] for a
        Gaussian."""
        outputs, kl = self._pass(image, self._checked(condition, len(image)), rng)
        return self.likelihood.log_prob(outputs, image) - kl

    def log_weight(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) of one z ~ q(z|x), nats per image (B,)."""
        condition = self._checked(condition, len(image))
        z, eps, _, logvar = self._draw(image, condition, rng)
        return self.likelihood.log_prob(self.decode_outputs(z, condition), image) + log_prior_ratio(eps, z, logvar)

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int, first: int = 0, condition: Condition = UNCONDITIONAL, keys: PriorKeys = PriorKeys()
    ) -> Tensor:
        """Decode z ~ N(0, temperature^2 I): mean images, (n, C, H, W) in [0, 1].

        Where a conditional model is asked for no class, image k has its `default_label`.
        """
        ids, parameter = torch.arange(first, first + n), next(self.parameters())
        if self.n_classes and condition.label is None:
            condition = Condition(label=default_label(ids, self.n_classes).to(parameter.device))
        z = random.normal(ids, (self.config.latent,), seed, "latent") * keys.temperature
        return self.decode(z.to(parameter), condition)

    def _pass(self, image: Tensor, condition: Condition, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Outputs of the decoder for z ~ q(z|x), and the KL in nats per image."""
        z, _, mu, logvar = self._draw(image, condition, rng)
        return self.decode_outputs(z, condition), kl_to_standard_normal(mu, logvar)

    def _draw(self, image: Tensor, condition: Condition, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z = mu + exp(logvar / 2) * eps with eps, mu and logvar, (B, latent) each."""
        mu, logvar = self.posterior(image, condition)
        eps = torch.empty_like(mu).normal_(generator=rng)
        return mu + (0.5 * logvar).exp() * eps, eps, mu, logvar

    def _over_capacity(self, kl: Tensor, progress: float) -> Tensor:
        """What beta weighs: the KL of a batch, or its distance from the capacity."""
        if self.config.capacity_nats is None:
            return kl
        return (batch_mean(kl) - self.config.capacity_nats * min(1.0, progress / self.config.capacity_share)).abs()

    def _image(self, outputs: Tensor) -> Tensor:
        """The mean image, kept in [0, 1] where no sigmoid does so."""
        mean = self.likelihood.mean(outputs)
        return mean.clamp(0, 1) if self.config.output == "none" else mean

    def _condition_of(self, batch: Batch) -> Condition:
        """A batch's labels for a conditional model: the networks refuse to do without."""
        return batch.condition.only("label") if self.n_classes else UNCONDITIONAL

    @torch.no_grad()
    def _set_first_posterior(self) -> None:
        last = [layer for layer in self.encoder.modules() if isinstance(layer, nn.Linear)][-1]
        last.weight[: self.config.latent] *= FIRST_SPREAD
        last.bias[self.config.latent :] = FIRST_LOGVAR

    def _checked(self, condition: Condition, count: int) -> Condition:
        """The condition, if it is what the model was trained with, one for each of `count` images."""
        check_condition(condition, count, self.n_classes)
        return condition


def _likelihood(config: VAEConfig) -> Bernoulli | Gaussian:
    """p(x|z) by the config's `reconstruction`."""
    if config.reconstruction == "bce":
        return Bernoulli()
    variance = pixel_variance(config.variance) if config.reconstruction == "mse" else config.variance
    return Gaussian(variance, config.output)
