"""An autoencoder whose code is a small map, for models of such maps (Rombach et al. 2022, "High-resolution image
synthesis with latent diffusion models", section 3.1 and appendix G).

    q(z|x) = N(mu(x), exp(logvar(x))),    x_hat = d(z + code_noise * spread * eps),    z a map of `dim` numbers for
    each factor x factor pixels, spread the standard deviation of each channel of mu over the batch

    loss = mean |x_hat - x| + squared * mean (x_hat - x)**2 + feature_loss * d(x_hat, x)
           + kl * mean of KL(q(z|x) || N(0, I)) over the numbers of z

The absolute error keeps edges. Alone, its gradient is that of the many pixels that are nearly right, so that small
things on a plain ground are learned late. The gradient of the squared error is that of the few that are not.
d is a distance of images by the maps of a classifier (classifiers/perceptual.py). The divergence is small: it keeps the
codes near 0 and no more, so what is decoded from pure noise looks like noise. The noise on the codes makes the decoder
forgive the errors of the model that will draw them. With adversarial > 0 a critic of patches joins in after
ADVERSARIAL_FROM of the training (hinge loss), for sharper detail.
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from trilemma.autoencoders.losses import kl_to_standard_normal, squared_error
from trilemma.autoencoders.statistics import channel_statistics
from trilemma.classifiers.perceptual import perceptual_distance
from trilemma.config import ModelConfig
from trilemma.errors import UserError, check_codes, check_images
from trilemma.nets.autoencoder_kl import PortableDecoder, PortableEncoder, autoencoder_settings, autoencoder_weights
from trilemma.nets.conv import masked_places, within_range
from trilemma.nets.patch_critic import PatchCritic
from trilemma.nets.precision import full
from trilemma.nets.residual import map_decoder, map_encoder
from trilemma.types import (
    UNCONDITIONAL,
    Batch,
    Condition,
    DiffusersNetwork,
    Logs,
    Model,
    Phase,
    Player,
    check_condition,
)
from trilemma.whole_batch import batch_std

LARGE = 48  # px, from which a side is divided by 4
ADVERSARIAL_FROM = 0.6  # share of the training
BOUNDS = (-30.0, 20.0)  # of logvar


class KLConfig(ModelConfig):
    """Settings of an autoencoder whose code is a map."""

    factor: Literal[2, 4, 8] | None = Field(
        default=None, description=f"px of an image for one place of the map (default: 2; from {LARGE} px on 4)"
    )
    dim: PositiveInt = Field(default=4, description="numbers at a place of the map")
    width: PositiveInt = Field(default=32, description="channels at half the size, twice as many at each halving")
    blocks: PositiveInt = Field(default=1, description="residual blocks at each size")
    squared: float = Field(default=10.0, ge=0, description="weight of the squared error, beside the absolute one")
    feature_loss: float = Field(default=0.02, ge=0, description="weight of the distance by a classifier's maps")
    kl: float = Field(default=1e-4, ge=0, description="weight of the KL divergence of a number of the code")
    code_noise: float = Field(default=0.1, ge=0, description="on the codes in training, over their spread")
    adversarial: float = Field(default=0.0, ge=0, description="weight of a critic's loss, late in the training")
    portable: bool = Field(
        default=False, description="layers that AutoencoderKL of diffusers has and no others, for export to=diffusers"
    )

    @property
    def place_px(self) -> int:
        """px of an image for one place of the map."""
        return self.factor or (2 if max(self.shape[1:]) < LARGE else 4)


class KLAutoencoder(Model):
    """Encoder to a map of (mu, logvar), and decoder. Images (B, C, H, W) in [0, 1]; codes (B, dim * h * w)."""

    batch_statistics = sums_statistics = True  # the noise on the codes follows their spread over the batch
    whole_because = ""
    code_mean: Tensor
    code_std: Tensor

    def __init__(self, config: KLConfig) -> None:
        super().__init__()
        self.config = config
        self.place_px = config.place_px
        height, width = (math.ceil(side / self.place_px) for side in config.shape[1:])
        self.map_shape = config.dim, height, width
        self.encoder, self.decoder = _networks(config)
        self.register_buffer("code_mean", torch.zeros(config.dim))  # of mu over training images, a channel each
        self.register_buffer("code_std", torch.ones(config.dim))
        networks = [*self.encoder.parameters(), *self.decoder.parameters()]
        autoencoder = Player("autoencoder", networks)
        self.phases = [Phase("autoencoder", autoencoder, self.loss)]
        if config.adversarial:
            self.critic = PatchCritic(config.shape[0], config.width)
            critic = Player("critic", list(self.critic.parameters()), averaged=False)
            self.phases += [
                Phase("critic", critic, self.critic_loss, begin=ADVERSARIAL_FROM),
                Phase("adversarial", autoencoder, self.adversarial_loss, begin=ADVERSARIAL_FROM),
            ]

    @property
    def code_length(self) -> int:
        """Numbers in a code."""
        return math.prod(self.map_shape)

    def posterior_map(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x): (B, C, H, W) -> two (B, *map_shape)."""
        mu, logvar = full(self.encoder(2 * image - 1)).chunk(2, dim=1)
        return mu, logvar.clamp(*BOUNDS)

    def decode_map(self, z: Tensor) -> Tensor:
        """z (B, *map_shape) -> (B, C, H, W), which may leave [0, 1]."""
        return (full(self.decoder(z)) + 1) / 2

    def to_map(self, image: Tensor) -> Tensor:
        """The posterior mean, standardised: (B, C, H, W) -> (B, *map_shape)."""
        return (self.posterior_map(image)[0] - _per_channel(self.code_mean)) / _per_channel(self.code_std)

    def from_map(self, code: Tensor) -> Tensor:
        """(B, *map_shape), standardised -> (B, C, H, W) in [0, 1]."""
        return self.decode_map(code * _per_channel(self.code_std) + _per_channel(self.code_mean)).clamp(0, 1)

    def place_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, H, W) -> 1 at the places of the map that draw a pixel where it is 1, (B, 1, h, w)."""
        return masked_places(mask, self.place_px)

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The standardised map as a row, (B, dim * h * w)."""
        check_condition(condition, len(image))
        check_images(image, self.config.shape)
        return self.to_map(image).flatten(1)

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, dim * h * w) -> (B, C, H, W) in [0, 1]."""
        check_condition(condition, len(z))
        check_codes(z, self.code_length)
        return self.from_map(z.unflatten(1, self.map_shape))

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The image decoded from its posterior mean, (B, C, H, W) in [0, 1]."""
        return self.decode(self.encode(image, condition))

    @property
    def portable(self) -> bool:
        """See types."""
        return self.config.portable

    def autoencoder_as_diffusers(self) -> DiffusersNetwork:
        """See types.

        Raises:
            UserError: it was not trained with portable=true, whose layers alone have counterparts.
        """
        if not isinstance(self.encoder, PortableEncoder):
            raise UserError("it begins and ends with patches of 2x2 pixels; train it with portable=true")
        settings = autoencoder_settings(self.encoder, self.config.shape, self.config.dim)
        weights = autoencoder_weights(self.encoder, self.decoder, self.code_mean, self.code_std)
        return DiffusersNetwork(settings, weights)

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Parts: l1, mse (per pixel), features (the distance, where it has a weight), kl_nats (per image)."""
        config, image = self.config, batch.image
        mu, logvar = self.posterior_map(image)
        x_hat = self.decode_map(self._add_noise(mu, logvar, rng))
        l1, mse = F.l1_loss(x_hat, image), F.mse_loss(x_hat, image)
        kl = kl_to_standard_normal(mu.flatten(1), logvar.flatten(1)).mean()
        loss = l1 + config.squared * mse + config.kl / self.code_length * kl
        parts = {"l1": l1.detach(), "mse": mse.detach(), "kl_nats": kl.detach()}
        if config.feature_loss:
            features = perceptual_distance(within_range(x_hat), image).mean()
            loss, parts["features"] = loss + config.feature_loss * features, features.detach()
        return loss, parts

    def critic_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Hinge loss over patches of images and reconstructions; parts: real, fake (mean logits)."""
        with torch.no_grad():
            x_hat = self._reconstructed(batch.image, rng)
        real, fake = self.critic(batch.image), self.critic(x_hat)
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean(), {
            "real": real.detach().mean(),
            "fake": fake.detach().mean(),
        }

    def adversarial_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """What the critic says of the reconstructions, times its weight."""
        loss = -self.critic(self._reconstructed(batch.image, rng)).mean()
        return self.config.adversarial * loss, {"realness": -loss.detach()}

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): mse of the reconstruction from the posterior mean, kl_nats."""
        mu, logvar = self.posterior_map(batch.image)
        return {
            "mse": squared_error(self.decode_map(mu).clamp(0, 1), batch.image),
            "kl_nats": kl_to_standard_normal(mu.flatten(1), logvar.flatten(1)),
        }

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch], *, seed: int) -> dict[str, float]:
        """Measure the mean and spread of each channel of the codes on the given training images.

        Returns:
            least_spread, greatest_spread: of the channels.
        """
        mean, std = channel_statistics(self.posterior_map(batch.image)[0] for batch in batches)
        self.code_mean.copy_(mean)
        self.code_std.copy_(std)
        return {"least_spread": float(std.min()), "greatest_spread": float(std.max())}

    def _add_noise(self, mu: Tensor, logvar: Tensor, rng: torch.Generator) -> Tensor:
        """z ~ q(z|x) with the noise of training on top: one normal number has both variances."""
        spread = batch_std(mu.detach(), (0, 2, 3))
        variance = logvar.exp() + (self.config.code_noise * spread).square()
        return mu + variance.sqrt() * torch.empty_like(mu).normal_(generator=rng)

    def _reconstructed(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """As in the loss."""
        return within_range(self.decode_map(self._add_noise(*self.posterior_map(image), rng)))


def _networks(config: KLConfig) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder.

    Raises:
        UserError: they are to be those of AutoencoderKL, which pads no image, and the settings do not fit.
    """
    halvings = int(math.log2(config.place_px))
    if config.portable:
        _check_portable(config)
        widths = [config.width * 2**k // 2 for k in range(halvings + 1)]
        encoder = PortableEncoder(config.shape[0], 2 * config.dim, widths, config.blocks)
        return encoder, PortableDecoder(config.dim, config.shape[0], widths, config.blocks)
    encoder = map_encoder(config.shape, 2 * config.dim, config.width, config.blocks, halvings - 1)
    return encoder, map_decoder(config.dim, config.shape, config.width, config.blocks, halvings - 1)


def _check_portable(config: KLConfig) -> None:
    height, width = config.shape[1:]
    if height % config.place_px or width % config.place_px:
        raise UserError(f"portable=true needs a size= that {config.place_px} divides, not {height}x{width}")
    if config.width % 2:
        raise UserError(f"portable=true needs an even width=, not {config.width}: at full size there are half as many")


def _per_channel(values: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1)."""
    return values[:, None, None]
