"""Capabilities: codes of images, and images from codes."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from trilemma.types.batch import UNCONDITIONAL, Condition
from trilemma.types.model import flags
from trilemma.types.sampling import Conditional, DiffusersNetwork, needs_caption


@runtime_checkable
class Encodes(Protocol):
    """Turns images into codes, given the part of a condition that `for_codes` says."""

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, Z)."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """Turns codes into images."""

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, Z) -> (B, C, H, W) in [0, 1]."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """Gives an image back after passing it through the model."""

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape and range."""
        ...


@runtime_checkable
class HasCodeMap(Encodes, Decodes, Protocol):
    """Has codes that are a map over the image, for a model of such maps.

    Each channel has the mean 0 and the standard deviation 1 over training images.
    """

    map_shape: tuple[int, int, int]  # (channels, height, width)

    def to_map(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, *map_shape)."""
        ...

    def from_map(self, code: Tensor) -> Tensor:
        """Any maps (B, *map_shape) -> (B, C, H, W) in [0, 1]."""
        ...

    def place_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, H, W) -> 1 at the places of the map that draw a pixel where it is 1, (B, 1, height, width)."""
        ...


@runtime_checkable
class HasDiffusersAutoencoder(HasCodeMap, Protocol):
    """Can be said in the terms of diffusers, as an AutoencoderKL, under settings of its own."""

    @property
    def portable(self) -> bool:
        """Whether its settings are these."""
        ...

    def autoencoder_as_diffusers(self) -> DiffusersNetwork:
        """Its means are the codes of `to_map`, its images those of `from_map` in [-1, 1].

        Raises:
            UserError: not with these settings; the text is a reason.
        """
        ...


@runtime_checkable
class UsesCodeMap(Protocol):
    """Draws code maps, which an autoencoder of its own turns into images.

    checks_autoencoder: whether that has to be good enough before the training begins.
    """

    autoencoder: HasCodeMap

    @property
    def checks_autoencoder(self) -> bool: ...


@runtime_checkable
class Inverts(Protocol):
    """Turns images into what it draws them from, and back, by many network calls for each.

    It is not an `Encodes`: what takes the codes of thousands of images does not take these, or takes fewer of them.
    """

    def invert(
        self, image: Tensor, condition: Condition = UNCONDITIONAL, *, steps: int | None = None, seed: int = 0
    ) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, Z).

        steps: network calls for each image, about; None: the model's own number. seed: of what is random in a search.
        """
        ...

    def generate(self, z: Tensor, condition: Condition = UNCONDITIONAL, *, steps: int | None = None) -> Tensor:
        """(B, Z) -> (B, C, H, W) in [0, 1].

        steps: network calls for each image, of a model that takes several; None: the model's own number.
        """
        ...


@runtime_checkable
class DrawsCodes(Inverts, Protocol):
    """Draws codes first, and its images from them."""

    def draw_codes(self, n: int, *, seed: int, condition: Condition = UNCONDITIONAL) -> Tensor:
        """As its images are drawn from, (n, Z)."""
        ...

    def in_z(self) -> Inverts:
        """The model with its latents z for codes, where they are styles."""
        ...


@runtime_checkable
class HasStyles(Protocol):
    """Draws images by way of a style w, W numbers that depend on a code z."""

    def mean_w(self) -> Tensor:
        """The average style, (W,)."""
        ...

    def to_w(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """z (B, latent), label (B,) where the model has classes -> w (B, W)."""
        ...

    def from_w(self, w: Tensor, ids: Tensor | None = None, *, seed: int = 0) -> Tensor:
        """w (B, W) -> (B, C, H, W) in [0, 1], through which gradients pass; all else that is random in them depends on
        (seed, ids[b]) alone. Default: all have that of image 0."""
        ...


@runtime_checkable
class MixesStyles(HasStyles, Protocol):
    """Draws styles near their average, or with those of a second seed in some layers, as its sampler does."""

    @property
    def n_layers(self) -> int:
        """Layers that take a style each."""
        ...

    def from_styles(self, w: Tensor, keys: Any, condition: Condition = UNCONDITIONAL) -> Tensor:
        """w (B, W) -> (B, C, H, W) in [0, 1], under settings of the sampler; all else that is random is that of image
        0 of seed 0, and of the second seed the style is that of image 0."""
        ...


@runtime_checkable
class TakesNoise(Protocol):
    """Draws images from latents z and from noise inputs, `n_noise` numbers for an image."""

    @property
    def n_noise(self) -> int: ...

    def from_noise(self, z: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """z (B, latent), noise (B, n_noise), label (B,) where the model has classes -> (B, C, H, W) in [0, 1]."""
        ...


@dataclass(frozen=True)
class Coder:
    """A model that inverts, as one that encodes, decodes and reconstructs."""

    model: Inverts

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.model.invert(image, condition)

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.model.generate(z, condition)

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.decode(self.encode(image, condition), condition)


@runtime_checkable
class HasPosterior(Protocol):
    """Gives an image a Gaussian of codes with independent entries."""

    def posterior(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x): (B, C, H, W) -> two (B, Z)."""
        ...


def drawing_needs(model: object) -> tuple[str, ...]:
    """Fields of a Condition that noise needs to become an image: the label of a model that takes one, and the caption
    of one that was never without."""
    return (*(["label"] if isinstance(model, Conditional) else []), *(["caption"] if needs_caption(model) else []))


def codes_need(model: object) -> tuple[str, ...]:
    """Fields of a Condition that `encode`, `decode` and `reconstruct` of a model need."""
    named = flags(model).codes_need
    return drawing_needs(model) if named is None else named


def for_codes(model: object, condition: Condition) -> Condition:
    """The part of a condition that `encode`, `decode` and `reconstruct` of a model need."""
    return condition.only(*codes_need(model))
