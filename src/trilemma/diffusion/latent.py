"""Diffusion on the codes of an autoencoder (Rombach et al. 2022, "High-resolution image synthesis with latent diffusion
models").

    x0 = (e(x) - mean) / spread, channel by channel;    an image is d(spread * x0 + mean)

The autoencoder is a part, trained before and frozen. The codes of the training images are worked out once. There is no
bound on the likelihood: one of codes says nothing of images.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trilemma.config import only_for
from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.model import DiffusionModel
from trilemma.diffusion.portable import PortableModel
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.diffusion.schedule import Schedule
from trilemma.diffusion.steps import Denoise
from trilemma.errors import UserError, check_codes, check_images
from trilemma.team import Team, by_batches
from trilemma.types import (
    UNCONDITIONAL,
    Batch,
    Condition,
    DiffusersParts,
    Guides,
    HasCodeMap,
    HasDiffusersAutoencoder,
    Redraw,
    check_condition,
)
from trilemma.words import size_in_words

ENCODED_TOGETHER = 64  # training images whose codes are worked out at a time
MOST_BYTES = 2**31  # of the codes of all training images; of more, each batch is encoded


class LatentDiffusionConfig(PixelDiffusionConfig):
    """Settings of a diffusion model of codes; `shape` is that of the images."""

    check: bool = Field(default=True, description="whether the autoencoder has to be good enough")

    @model_validator(mode="after")
    def _of_codes(self) -> Self:
        only_for(self, "upscale", False, "diffusion-upscale, a model of pixels")
        only_for(self, "augment_p", False, "models of pixels, such as diffusion")
        return self


class LatentDiffusion(PortableModel, DiffusionModel):
    """An autoencoder, and a diffusion model of its codes."""

    config: LatentDiffusionConfig
    codes_need = ()  # of a model with classes, only the denoiser takes the label
    autoencoder: HasCodeMap

    def __init__(self, config: LatentDiffusionConfig, parts: Mapping[str, nn.Module]) -> None:
        part: Any = parts["autoencoder"]
        if not isinstance(part, HasCodeMap):
            raise UserError("the part autoencoder: its codes are not a map over the image; give ae-kl, or a run of it")
        if config.portable and not (isinstance(part, HasDiffusersAutoencoder) and part.portable):
            raise UserError(
                "portable=true needs an autoencoder that diffusers has, too: add autoencoder.portable=true, or give a "
                "run of ae-kl that was trained with portable=true"
            )
        self._map_shape = part.map_shape
        super().__init__(config)
        self.autoencoder = part
        self._codes: Tensor | None = None  # of the training images

    @property
    def checks_autoencoder(self) -> bool:
        """Whether it has to be good enough before the training begins."""
        return self.config.check

    @property
    def x_shape(self) -> tuple[int, int, int]:
        """Of the codes."""
        return self._map_shape

    @torch.no_grad()
    def to_x(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> codes (B, *x_shape)."""
        return self.autoencoder.to_map(image)

    def to_image(self, x: Tensor) -> Tensor:
        """Codes (B, *x_shape) -> (B, C, H, W) in [0, 1]."""
        return self.autoencoder.from_map(x)

    def as_diffusers(self) -> DiffusersParts:
        """As that of pixels, with the autoencoder."""
        parts = super().as_diffusers()
        assert isinstance(self.autoencoder, HasDiffusersAutoencoder)
        return replace(parts, autoencoder=self.autoencoder.autoencoder_as_diffusers())

    def in_x(self, how: Redraw) -> Redraw:
        """A mask of pixels as one of places of the map.

        Raises:
            UserError: the noise of pixels is asked for, which codes have in no such form.
        """
        if how.noise is not None:
            raise UserError(
                "noise= is that of pixels, which a model of codes does not take out; use diffusion, a model of pixels"
            )
        return how if how.mask is None else replace(how, mask=self.place_mask(how.mask))

    def place_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, H, W) -> 1 at the places of the map of which a pixel is drawn."""
        return self.autoencoder.place_mask(mask)

    def _guided_denoiser(
        self, condition: Condition, n: int, schedule: Schedule, keys: DiffusionSampling, guides: Guides
    ) -> Denoise:
        """As that of pixels.

        Raises:
            UserError: a classifier of images is to guide it.
        """
        if guides.classifier is not None:
            raise UserError("classifier= judges images, and this model draws codes; leave it out, or use diffusion")
        return super()._guided_denoiser(condition, n, schedule, keys, guides)

    @torch.no_grad()
    def precompute(self, images: Callable[[int, int], Tensor], total: int, team: Team) -> str | None:
        """The codes of all training images, unless they take more than MOST_BYTES: then that is said."""
        if (needed := total * self.to_x(images(0, 1)).nbytes) > MOST_BYTES:
            return (
                f"the codes of {total:,} images would take {size_in_words(needed)} of memory, and at most "
                f"{size_in_words(MOST_BYTES)} are kept: each batch is encoded when it is drawn"
            )
        self._codes = by_batches(team, total, ENCODED_TOGETHER, lambda *rows: self.to_x(images(*rows)))
        return None

    def x_of(self, batch: Batch) -> Tensor:
        """Codes of a batch's images; in training from those that were worked out."""
        if self.training and self._codes is not None and batch.index is not None:
            return self._codes[batch.index.to(self._codes.device)]
        return self.to_x(batch.image)

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The autoencoder's code, standardised: (B, C, H, W) -> (B, Z)."""
        check_condition(condition, len(image), self.n_classes, self.takes)
        check_images(image, self.config.shape)
        return self.to_x(image).flatten(1)

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, Z) -> (B, C, H, W) in [0, 1]."""
        check_condition(condition, len(z), self.n_classes, self.takes)
        check_codes(z, self.code_length)
        return self.to_image(z.unflatten(1, self.x_shape))

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The image after a pass through the autoencoder, (B, C, H, W) in [0, 1]."""
        return self.decode(self.encode(image, condition))
