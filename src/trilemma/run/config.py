"""The training keys common to every model. Progress is counted in images, so the batch size changes no schedule."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from trilemma.config import Config, only_for

LENGTHS = ("steps", "epochs", "images", "minutes")

Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(Config):
    """How a model is trained. Exactly one of steps, epochs, images and minutes says for how long."""

    model_config = ConfigDict(allow_inf_nan=False)

    steps: PositiveInt | None = Field(None, description="length in optimiser steps")
    epochs: PositiveFloat | None = Field(None, description="length in passes over the training images")
    images: PositiveInt | None = Field(None, description="length in training images seen")
    minutes: PositiveFloat | None = Field(None, description="length in minutes of training")
    batch: PositiveInt = Field(128, description="images in a step (default: set by the model)")
    lr: PositiveFloat | dict[str, PositiveFloat] = Field(
        1e-3, description="learning rate, or one per player: generator:1e-3,critic:5e-4"
    )
    optimizer: Literal["nadam", "adam", "adamw", "muon", "rmsprop"] = Field(
        "nadam",
        description="rule of each step; muon: orthogonal steps of matrices and convolutions, adamw for the rest",
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="decay of the two running means; rmsprop has none")
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="adamw, muon: apart from the gradient, as lr * decay * weight; the others: added to the gradient",
    )
    clip: PositiveFloat | None = Field(1.0, description="largest norm of a player's gradient; none: any")
    schedule: Literal["constant", "plateau", "cosine", "linear"] = Field(
        "plateau", description="of the learning rate; plateau follows monitor, and is constant without it"
    )
    warmup_images: int = Field(0, ge=0, description="images over which the learning rate rises from 0")
    warmup_share: float | None = Field(
        0.1,
        gt=0,
        le=1,
        description="of a training, after which it has risen at the latest; none if you give warmup_images",
    )
    ema_halflife_images: PositiveInt | None = Field(
        None, description="half-life of the averaged weights, in images; none: no average"
    )
    augment: tuple[str, ...] = Field((), description="augmentation of the training images: flip, shift, binarise")
    seed: int = Field(0, description="random seed: weights, order, noise (default: 0)")
    monitor: str | None = Field(
        None, description="the weights with the lowest value of this score are kept, such as valid_rmse; none: the last"
    )
    precision: Literal["auto", "float32", "bf16"] = Field("auto", description="numbers to compute with")
    channels_last: bool = Field(False, description="memory layout; gains for convolution + batch norm networks")
    shard: bool = Field(False, description="divide the weights over the processes of torchrun (FSDP)")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    save_every: PositiveInt | None = Field(
        None, description="save a checkpoint every N images (default: about once a minute)"
    )
    sample_every: PositiveInt | None = Field(None, description="draw samples every N images (default: chosen for you)")
    keep_weights: int = Field(
        0, ge=0, le=20, description="number of earlier weights to keep, after 1/2, 1/4, ... of the training"
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        lengths = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(lengths) != 1:
            raise ValueError(f"give exactly one of {', '.join(LENGTHS)}; you gave {' and '.join(lengths) or 'none'}")
        return self

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        only_for(self, "betas", self.optimizer != "rmsprop", "optimizer=nadam, adam, adamw or muon; rmsprop has none")
        return self

    def total_images(self, n_train: int, stride: int) -> int | None:
        """Length in images for a training split of `n_train` and `stride` images per step; None for minutes."""
        if self.minutes is not None:
            return None
        if self.steps is not None:
            return self.steps * stride
        wanted = self.images if self.images is not None else round((self.epochs or 0) * n_train)
        return max(1, round(wanted / stride)) * stride
