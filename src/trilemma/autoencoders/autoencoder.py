"""An autoencoder: z = e(x), x_hat = d(z), trained to make x_hat like x.

Hinton & Salakhutdinov (2006), "Reducing the dimensionality of data with neural networks". Loss: the mean over images
and pixels of (x_hat - x)**2, or binary cross-entropy. Samples come from a mixture of Gaussians fitted on the codes of
training images (see priors.py).
"""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from trilemma.autoencoders.losses import bernoulli_nats, squared_error
from trilemma.autoencoders.priors import GaussianMixture
from trilemma.config import ModelConfig
from trilemma.errors import refuse_labels
from trilemma.nets.mlp import ACTIVATIONS, mlp
from trilemma.nets.precision import full
from trilemma.types import Batch, Logs, Phase


class AutoencoderConfig(ModelConfig):
    """Settings of a fully connected autoencoder; the decoder mirrors the encoder."""

    hidden: tuple[PositiveInt, ...] = Field(default=(128,), description="widths of the encoder's hidden layers")
    latent: int = Field(default=32, ge=1, description="numbers in a code")
    code: Literal["none", "relu", "sigmoid"] = Field(default="relu", description="activation of the code")
    reconstruction: Literal["mse", "bce"] = Field(default="mse", description="loss between image and reconstruction")
    components: int = Field(default=10, ge=1, description="Gaussians in the density that samples codes")


class Autoencoder(nn.Module):
    """Encoder, decoder and a density over codes. Images (B, C, H, W) in [0, 1]; codes (B, latent)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        n_pixels = config.shape[0] * config.shape[1] * config.shape[2]
        self.encoder = mlp([n_pixels, *config.hidden, config.latent], last=config.code)
        self.decoder = mlp([config.latent, *reversed(config.hidden), n_pixels])
        self.prior = GaussianMixture(config.latent, config.components)
        self.phases = [Phase("autoencoder", [*self.encoder.parameters(), *self.decoder.parameters()], self.loss)]

    @property
    def sampling_network(self) -> nn.Module:
        """The decoder: one call per batch of samples."""
        return self.decoder

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> code (B, latent)."""
        return full(self.encoder(image.flatten(1)))

    def decode_logits(self, z: Tensor) -> Tensor:
        """Code (B, latent) -> the image before its sigmoid (B, C, H, W)."""
        return full(self.decoder(z)).unflatten(1, self.config.shape)

    def decode(self, z: Tensor) -> Tensor:
        """Code (B, latent) -> image (B, C, H, W) in [0, 1]."""
        return self.decode_logits(z).sigmoid()

    def reconstruct(self, image: Tensor) -> Tensor:
        """The image after a pass through the code, (B, C, H, W) in [0, 1]."""
        return self.decode(self.encode(image))

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Mean over images of the reconstruction loss; parts: mse (per pixel), bce (nats per image)."""
        logits = self.decode_logits(self.encode(batch.image))
        if self.config.reconstruction == "bce":
            loss = bernoulli_nats(logits, batch.image).mean()
            return loss, {"bce_nats": loss.detach()}
        loss = squared_error(logits.sigmoid(), batch.image).mean()
        return loss, {"mse": loss.detach()}

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image: mse over its pixels, (B,)."""
        return {"mse": squared_error(self.reconstruct(batch.image), batch.image)}

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch], *, seed: int) -> None:
        """Fit the density over codes on the given training images."""
        self.prior.fit(torch.cat([self.encode(batch.image) for batch in batches]), seed=seed)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """Decode codes drawn from the fitted density, brought into the range of the code's activation: (n, C, H, W)."""
        refuse_labels(labels)
        z = self.prior.sample(torch.arange(first, first + n), seed=seed)
        return self.decode(z.clamp(*_RANGES[self.config.code]))


_RANGES: dict[str, tuple[float | None, float | None]] = {"relu": (0, None), "sigmoid": (0, 1)}
_RANGES |= {name: (float("-inf"), None) for name in ACTIVATIONS if name not in _RANGES}
