"""StyleGAN2 (Karras et al. 2019, 2020): a GAN whose generator has a style w = f(z) for each of its layers.

Beside the losses of a GAN, training has (numbers as in Karras et al. 2020, "Training generative adversarial networks
with limited data", unless said otherwise)

- style mixing: a share of the images has the styles of a second z from a random layer on, so that layers do not rely
  on each other (2019, section 3.1);
- path length regularisation, which makes steps in w change the image evenly (2020, eq. 4),

      E_w,y (|J_w^T y| - a)**2,    J_w = dg(w)/dw,  y ~ N(0, I) / sqrt(H W),  a a running mean of |J_w^T y|

  where w has a copy for each layer, and |.| is the root mean square over the layers of the norms for each; on half a
  batch in every fourth step, where it counts four times; images are in [-1, 1] here. In published code a begins at 0,
  and until it has arrived the term asks for images that do not depend on w; here it begins at the first mean;
- the running mean of w, towards which sampling can move styles (truncation): w' = w_mean + psi (w - w_mean).

R1 is lazy, too. Phases of one player are added up before it moves once, and each that runs in every k-th step counts
k times, so the optimiser needs no correction.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.config import Config, only_for
from trilemma.errors import UserError, check_codes
from trilemma.gans.config import GANConfig
from trilemma.gans.gan import GAN
from trilemma.gans.penalties import lengths
from trilemma.nets import stylegan2
from trilemma.nets.conv import within_range
from trilemma.rng import batch_normal
from trilemma.types import UNCONDITIONAL, Batch, Condition, Logs, Phase, check_condition

R1_WEIGHT = 0.0025  # for images in [0, 1]: the published 0.01 for CIFAR-10, where they are in [-1, 1], by 4
W_BETA = 0.995  # of the running mean of w
PATH_DECAY = 0.01  # share of the newest batch in the running mean of path lengths
START_STYLES = 1_000  # whose mean is the first average


class StyleGANConfig(GANConfig):
    """Settings of StyleGAN2."""

    network: Literal["style"] = Field(default="style", description="networks of generator and critic")
    latent: int = Field(default=64, ge=1, description="numbers in z")
    styles: PositiveInt = Field(default=64, description="numbers in w")
    mapping_layers: PositiveInt = Field(default=2, description="of the network from z to w")
    width: int = Field(
        default=16, ge=2, description="channels at the size of the image; each halving has twice as many"
    )
    deviation_group: PositiveInt = Field(
        default=4, description="images in a batch whose deviation the critic sees; 1: none"
    )
    penalty: Literal["none", "gradient", "r1", "r1r2"] = Field(
        default="r1",
        description="on the critic's slope: other than 1 between images (gradient), at real ones, or at both",
    )
    penalty_weight: float | None = Field(
        default=None, gt=0, description="of the penalty (default: 10 for gradient, 0.0025 for r1 and r1r2)"
    )
    penalty_every: PositiveInt = Field(
        default=16, description="steps from one penalty to the next, which counts as all"
    )
    mixing: float = Field(default=0.9, ge=0, le=1, description="share of training images with styles of two z")
    path_weight: float = Field(default=2.0, ge=0, description="of path length regularisation; 0: none")
    path_every: PositiveInt = Field(
        default=4, description="steps from one path length to the next, which counts as all"
    )

    @model_validator(mode="after")
    def _fits_stylegan(self) -> Self:
        only_for(self, "path_every", self.path_weight > 0, "a path_weight above 0")
        has_slopes = self.penalty != "gradient" or self.deviation_group == 1
        only_for(self, "penalty", has_slopes, "deviation_group=1, as images of a group change each other's logits")
        for key in ("spectral_norm", "weight_clip"):
            only_for(self, key, False, "networks whose weights are used as they are; StyleGAN2's are scaled")
        return self


class StyleKeys(Config):
    """Settings of StyleGAN2's sampler."""

    truncation: float = Field(
        default=1.0, ge=0, description="of styles around their average; 1: as drawn, 0: the average image"
    )
    mix: int | None = Field(default=None, ge=0, description="a second seed, whose styles later layers have")
    mix_from: int | None = Field(
        default=None, ge=0, description="with mix: first layer with its styles (default: half of them)"
    )

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        only_for(self, "mix_from", self.mix is not None, "a second seed, such as mix=1")
        return self


class StyleGAN(GAN):
    """z (B, latent) -> w (B, W) -> image (B, C, H, W) in [0, 1], and critic image -> logits (B,).

    w_mean: the average style of each class, (n_classes, W); (1, W) without classes.
    """

    sampling_keys, batch_averages = StyleKeys, True
    whole_because = "its penalties take gradients of gradients"
    penalty_weights: ClassVar[dict[str, float]] = {**GAN.penalty_weights, "r1": R1_WEIGHT, "r1r2": R1_WEIGHT}
    config: StyleGANConfig
    generator: stylegan2.Generator
    w_mean: Tensor
    path_mean: Tensor

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__(config)
        self.batch_multiple = config.deviation_group
        self.register_buffer("w_mean", torch.zeros(max(1, self.n_classes), config.styles))
        self.register_buffer("path_mean", torch.zeros(()))

    def make_generator(self, inputs: int) -> nn.Module:
        """Mapping and synthesis."""
        config = self.config
        options = {"styles": config.styles, "mapping_layers": config.mapping_layers}
        return stylegan2.Generator(config.shape, inputs, config.width, **options)

    def make_critic(self) -> stylegan2.Critic:
        """The residual critic."""
        return stylegan2.Critic(self.config.shape, self.config.width, group=self.config.deviation_group)

    def make_phases(self) -> list[Phase]:
        """Those of a GAN, and path length regularisation of the generator's player."""
        *phases, last = super().make_phases()
        phases.append(replace(last, start=self.start_average))
        if self.config.path_weight:
            phases.append(Phase("path", last.player, self.path_loss, every=self.config.path_every))
        return phases

    def check_batch(self, size: int) -> None:
        """Raises UserError for a batch without whole groups, or of one image where path lengths need half a batch."""
        super().check_batch(size)
        stylegan2.check_groups(size, self.config.deviation_group)
        if self.config.path_weight and size < 2:
            raise UserError(
                "path length regularisation takes half a batch, and a batch of 1 has none; choose batch=2 or "
                "more, or path_weight=0"
            )

    def mean_w(self) -> Tensor:
        """The average style, (W,)."""
        return self.w_mean.mean(0)

    def to_w(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Style of each z (B, latent), of the classes `label` (B,) where the model has them: (B, W)."""
        return self.generator.mapping(z, None if label is None else self.label_embedding(label.to(z.device)))

    def from_z(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of latents (B, latent), with the noise inputs of `from_w`."""
        return self.from_w(self.to_w(z, label))

    def from_w(self, w: Tensor, ids: Tensor | None = None, *, seed: int = 0) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of styles w (B, W); gradients pass, also where a pixel is at 0 or 1.

        Args:
            ids: numbers of the images of `seed` whose noise inputs they have, (B,). Default: all that of image 0.
        """
        ids = torch.zeros(len(w), dtype=torch.int64) if ids is None else ids
        return self._drawn(self._for_layers(w), ids, seed)

    @property
    def n_layers(self) -> int:
        """Layers that take a style each."""
        return self.generator.n_layers

    @property
    def n_noise(self) -> int:
        """Numbers of the noise inputs of an image."""
        return self.generator.n_noise

    def from_noise(self, z: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of latents (B, latent) and noise inputs (B, n_noise)."""
        return within_range(self.generator(self._for_layers(self.to_w(z, label)), noise))

    @torch.no_grad()
    def start_average(self, batches: Iterable[Batch], seed: int) -> dict[str, float]:
        """The average style before the first step."""
        for k, mean in enumerate(self.w_mean):
            label = torch.full((START_STYLES,), k) if self.n_classes else None
            mean.copy_(self._styles(torch.arange(START_STYLES), seed, label).mean(0))
        return {}

    def fake(self, batch: Batch, label: Tensor | None, rng: torch.Generator) -> Tensor:
        """As many generated images as there are in a batch, about in [0, 1]; in training, some of two styles."""
        n, image = len(batch.image), batch.image
        w = self.to_w(batch_normal(self.config.latent, image, rng).T, label)
        if self.training:
            self._update_mean(w.detach().to(self.w_mean), label)
        styles = self._for_layers(w)
        if self.config.mixing:
            other = self.to_w(batch_normal(self.config.latent, image, rng).T, label)
            first = random_layers(n, self.n_layers, self.config.mixing, rng).to(image.device)
            styles = mix_styles(styles, self._for_layers(other), first)
        return self.generator(styles, batch_normal(self.generator.n_noise, image, rng).T)

    def path_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Path length regularisation; parts: loss, before its weight, and length, the mean path length."""
        half = batch.rows(slice(max(1, len(batch.image) // 2)))
        image = half.image
        with torch.autocast(image.device.type, enabled=False):
            styles = self._for_layers(self.to_w(batch_normal(self.config.latent, image, rng).T, self._label(half)))
            noise = batch_normal(self.generator.n_noise, image, rng).T
            y = batch_normal(image[0].numel(), image, rng).T.view_as(image)
            length = path_lengths(2 * self.generator(styles, noise), styles, y)
        mean = length.detach().mean()
        stylegan2.update_mean(self.path_mean, mean, PATH_DECAY)
        loss = (length - self.path_mean).square().mean()
        return self.config.path_weight * loss, {"loss": loss.detach(), "length": mean}

    @torch.no_grad()
    def sample(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, n: int, *, seed: int, first: int = 0, condition: Condition = UNCONDITIONAL, keys: StyleKeys = StyleKeys()
    ) -> Tensor:
        """Images numbered first ... first + n - 1 of `seed`, (n, C, H, W) in [0, 1]; noise inputs are those of `seed`.

        Raises:
            UserError: for a condition that the model does not take, or a layer that it does not have.
        """
        check_condition(condition, n, self.n_classes)
        ids = torch.arange(first, first + n)
        label = self.label_for(ids, condition)
        return self._drawn(self._as_asked(self._styles(ids, seed, label), keys, label, ids), ids, seed)

    @torch.no_grad()
    def from_styles(self, w: Tensor, keys: StyleKeys, condition: Condition = UNCONDITIONAL) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of styles w (B, W), truncated and mixed as the keys say with the style of image
        0 of the second seed; noise inputs are those of image 0 of seed 0.

        Raises:
            UserError: for a condition that the model does not take, or a layer that it does not have.
        """
        check_codes(w, self.code_length)
        check_condition(condition, len(w), self.n_classes)
        ids = torch.zeros(len(w), dtype=torch.int64)
        return self._drawn(self._as_asked(w, keys, self.label_for(ids, condition), ids), ids, 0)

    def _as_asked(self, w: Tensor, keys: StyleKeys, label: Tensor | None, ids: Tensor) -> Tensor:
        """Styles (B, W), truncated and mixed with images `ids` of the second seed, for all layers: (B, L, W)."""
        styles = self._truncated(w, label, keys.truncation)
        if keys.mix is None:
            return styles
        other = self._truncated(self._styles(ids, keys.mix, label), label, keys.truncation)
        first = torch.full((len(w),), self._mix_layer(keys.mix_from), device=styles.device)
        return mix_styles(styles, other, first)

    def _styles(self, ids: Tensor, seed: int, label: Tensor | None) -> Tensor:
        """w of images by their numbers, (B, W)."""
        z = random.normal(ids, (self.config.latent,), seed, "latent").to(self.w_mean.device)
        return self.to_w(z, label)

    def _update_mean(self, w: Tensor, label: Tensor | None) -> None:
        """Move the average style of each class in a batch towards that of its styles w (B, W)."""
        rows = torch.zeros(len(w), dtype=torch.int64, device=w.device) if label is None else label
        counts = torch.zeros_like(self.w_mean[:, :1]).index_add(0, rows, torch.ones_like(w[:, :1]))
        means = torch.zeros_like(self.w_mean).index_add(0, rows, w) / counts.clamp(min=1)
        self.w_mean.lerp_(torch.where(counts > 0, means, self.w_mean), 1 - W_BETA)

    def _truncated(self, w: Tensor, label: Tensor | None, truncation: float) -> Tensor:
        """Styles (B, W) at a share of their distance from the average of their class, for all layers."""
        if truncation == 1:
            return self._for_layers(w)
        return self._for_layers(self.w_mean[0 if label is None else label.to(w.device)].lerp(w, truncation))

    def _for_layers(self, w: Tensor) -> Tensor:
        """The same style (B, W) for each layer, (B, n_layers, W)."""
        return w[:, None].expand(-1, self.n_layers, -1)

    def _mix_layer(self, mix_from: int | None) -> int:
        """The first layer with the styles of the second seed."""
        layers = self.n_layers
        if mix_from is not None and mix_from >= layers:
            raise UserError(f"mix_from={mix_from}: the layers of this model are 0 to {layers - 1}")
        return layers // 2 if mix_from is None else mix_from

    def _drawn(self, styles: Tensor, ids: Tensor, seed: int) -> Tensor:
        """Images in [0, 1] of styles (B, n_layers, W), with the noise inputs of images `ids` of `seed`."""
        noise = random.normal(ids, (self.generator.n_noise,), seed, "noise").to(styles.device)
        return within_range(self.generator(styles, noise))


def random_layers(n: int, layers: int, share: float, rng: torch.Generator) -> Tensor:
    """For n images, the first layer with the second style, int64 (n,): 1 ... layers - 1 in a share of them, else
    `layers`."""
    chosen = torch.rand(n, generator=rng, dtype=torch.float32, device=rng.device) < share
    first = torch.randint(1, layers, (n,), generator=rng, device=rng.device)
    return torch.where(chosen, first, layers)


def mix_styles(styles: Tensor, other: Tensor, first: Tensor) -> Tensor:
    """Styles (B, L, W), which from layer first[b] on, (B,), are those of `other`."""
    layer = torch.arange(styles.shape[1], device=styles.device)
    return torch.where((layer >= first[:, None])[:, :, None], other, styles)


def path_lengths(image: Tensor, styles: Tensor, y: Tensor) -> Tensor:
    """Root mean square over the layers l of |J_l^T y| / sqrt(H W) of each image, (B,), through which a gradient passes.

    Args:
        image: (B, C, H, W), computed from styles (B, L, W); y: of N(0, I), as image.
    """
    (gradient,) = torch.autograd.grad((image * y).sum(), styles, create_graph=True)
    return lengths(gradient.square().sum(2).mean(1) / (image.shape[2] * image.shape[3]))
