"""The settings of a GAN and of its sampler, and the networks that they name."""

from collections.abc import Callable
from functools import partial
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import nn

from trilemma.config import Config, ModelConfig, only_for
from trilemma.gans.losses import LOSSES
from trilemma.nets import dcgan, mlp, r3gan
from trilemma.nets.critic import Critic

NETWORKS: dict[str, tuple[Callable[..., nn.Module], Callable[..., Critic]]] = {
    "mlp": (mlp.Generator, mlp.Critic),
    "dcgan": (dcgan.Generator, dcgan.Critic),
    "dcgan-28": (dcgan.Generator28, dcgan.Critic28),
    "plain": (partial(dcgan.Generator, batch_norm=False), partial(dcgan.Critic, batch_norm=False)),
    "r3": (r3gan.Generator, r3gan.Critic),
}


class GANConfig(ModelConfig):
    """Settings of a GAN."""

    latent: int = Field(default=100, ge=1, description="numbers in z")
    width: int = Field(default=64, ge=2, description="channels of the stage next to the image; inner stages have more")
    network: Literal["mlp", "dcgan", "dcgan-28", "plain", "r3"] = Field(
        default="dcgan", description="networks of generator and critic; plain: dcgan without batch norm"
    )
    group: int | None = Field(
        default=None, ge=1, description="r3: channels in a group of its 3x3 convolutions, published: 8; none: no groups"
    )
    loss: Literal["minimax", "non-saturating", "least-squares", "hinge", "wasserstein", "relativistic"] = Field(
        default="non-saturating", description="adversarial loss"
    )
    penalty: Literal["none", "gradient", "r1", "r1r2"] = Field(
        default="none",
        description="on the critic's slope: other than 1 between images (gradient), at real ones, or at both kinds",
    )
    penalty_weight: float | None = Field(
        default=None, gt=0, description="of the penalty (default: 10 for gradient, 1 for r1 and r1r2)"
    )
    penalty_end: float = Field(
        default=1.0, gt=0, description="share of the penalty's weight at the end of the training, along a cosine"
    )
    penalty_every: PositiveInt = Field(default=1, description="steps from one penalty to the next, which counts as all")
    weight_clip: float | None = Field(default=None, gt=0, description="bound on each of the critic's weights")
    spectral_norm: bool = Field(default=False, description="divide the critic's weights by their largest gain")
    critic_steps: PositiveInt = Field(default=1, description="steps of the critic for each of the generator")
    critic_augment: Literal["none", "differentiable", "adaptive"] = Field(
        default="none",
        description="what the critic sees images through: nothing, random colours, shifts and cutouts "
        "(differentiable), or more transforms, as often as it overfits (adaptive)",
    )
    classes: bool = Field(default=False, description="learn to draw a class")
    n_classes: int | None = Field(default=None, ge=1, description="with classes: how many")

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        for key in ("penalty_weight", "penalty_end", "penalty_every"):
            only_for(self, key, self.penalty != "none", "penalty=gradient, r1 or r1r2")
        only_for(self, "group", self.network == "r3", "network=r3")
        only_for(
            self, "spectral_norm", self.network != "r3", "networks without layers that begin at zero, such as dcgan"
        )
        only_for(self, "classes", self.n_classes is not None, "images with classes; the data has none")
        return self

    @model_validator(mode="after")
    def _has_bound(self) -> Self:
        """A Wasserstein critic without a bound on its slope can lower its loss without end."""
        if LOSSES[self.loss].slopes and not self.bounds_slope:
            by_network = {"style": " and deviation_group=1", "r3": " or weight_clip=0.01"}
            others = by_network.get(self.network, ", weight_clip=0.01 or spectral_norm=true")
            raise ValueError(f"loss={self.loss} needs a bound on the critic's slope; add penalty=gradient{others}")
        return self

    @property
    def bounds_slope(self) -> bool:
        """Whether the critic's slope is bounded image by image, in which batch norm has no place."""
        return self.penalty != "none" or self.weight_clip is not None or self.spectral_norm


class GANKeys(Config):
    """Settings of a GAN's sampler."""

    temperature: float = Field(
        default=1.0, ge=0, description="standard deviation of z; below 1 the images are less varied"
    )
