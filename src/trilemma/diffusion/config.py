"""The settings of a diffusion model, and the network that they describe."""

import math
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from trilemma.config import ModelConfig, only_for
from trilemma.errors import UserError
from trilemma.nets.attention import largest_divisor
from trilemma.nets.dit import DiT
from trilemma.nets.text import HEAD
from trilemma.nets.unet import UNet
from trilemma.tokeniser import MOST_EXAMPLES, MOST_WORDS

PLACES = {"unet": 28, "dit": 7}  # a side, for which a step is fast on a CPU
BASE_SIDE = 32  # px, up to which schedules are as published
CHANNELS_OF_GROUP = 4  # of the norms of a portable network at full size
HEAD_WIDTH = 32  # numbers of a token for which a transformer has a head of its own


class PixelDiffusionConfig(ModelConfig):
    """Settings of a diffusion model."""

    schedule: Literal["cosine", "linear", "edm", "flow"] = Field(default="cosine", description="alpha and sigma over t")
    shift: float | None = Field(
        default=None,
        gt=0,
        description="the log-SNR is lower by 2 log(shift) (default: side / 32, at least 1)",
    )
    prediction: Literal["eps", "x0", "v", "flow", "edm", "wiener"] | None = Field(
        default=None,
        description="what the network predicts; wiener: as edm, by the power spectrum of the images (default: edm, or "
        "wiener for images of more than 32 px)",
    )
    weighting: Literal["uniform", "min-snr", "soft-min-snr", "edm", "sigmoid"] = Field(
        default="uniform", description="of the squared error of x0_hat; uniform: of the network's output"
    )
    density: Literal["uniform", "logit-normal", "log-normal"] = Field(default="uniform", description="of the times t")
    density_mean: float = Field(
        default=0.0,
        description="of the normal in density; log-normal: for data_std=0.5, and with it log(2 data_std) more",
    )
    density_std: float = Field(default=1.0, gt=0, description="of the normal in density")
    data_mean: float = Field(default=0.0, description="mean of the images in [-1, 1]")
    data_std: float | None = Field(
        default=None, gt=0, description="standard deviation of the images in [-1, 1] (default: measured on them)"
    )
    network: Literal["unet", "dit"] = Field(default="unet", description="convolutions, or a transformer over patches")
    width: PositiveInt = Field(default=16, description="channels at full size, or numbers a token")
    multipliers: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 4), min_length=1, description="unet: of the width, a level each"
    )
    depth: PositiveInt = Field(default=1, description="unet: blocks a level; dit: blocks")
    attention_px: int = Field(
        default=8, ge=0, description="unet: maps up to this side, and the smallest, have attention; 0: none"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="unet: inside the blocks")
    patch: PositiveInt | None = Field(
        default=None,
        description="px of the side of a patch, a place of the network (default: by the images and the width)",
    )
    heads: PositiveInt | None = Field(
        default=None, description="dit: of the attention (default: one for 32 numbers of a token)"
    )
    portable: bool = Field(
        default=False,
        description="unet: layers that UNet2DModel of diffusers has and no others, for export to=diffusers",
    )
    augment_p: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="probability of each change of a training image: turned, scaled, ...; the network is told it",
    )
    clip_x0: bool = Field(default=True, description="keep the predicted clean image in [-1, 1] while sampling")
    classes: bool = Field(default=False, description="learn to draw a class")
    n_classes: int | None = Field(default=None, ge=1, description="with classes: how many")
    captions: bool = Field(default=False, description="learn to draw what a caption says")
    words: tuple[str, ...] = Field(default=(), max_length=MOST_WORDS, description="with captions: those of the data")
    examples: tuple[str, ...] = Field(
        default=(), max_length=MOST_EXAMPLES, description="with captions: what is drawn where none is asked for"
    )
    text_width: PositiveInt = Field(default=128, multiple_of=HEAD, description="with captions: numbers of a token")
    text_depth: int = Field(default=2, ge=0, description="with captions: layers of the text encoder")
    spelling_p: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="with captions: probability of each word of a training caption to be spelled in bytes, as unknown "
        "words are",
    )
    upscale: Literal[2, 4, 8] | None = Field(default=None, description="learn to enlarge images so many times")
    inpaint: bool = Field(default=False, description="learn to draw under a mask, in the light of what is outside")
    label_dropout: float = Field(
        default=0.1, ge=0, lt=1, description="with classes or captions: share of images trained without"
    )

    @property
    def without_effect(self) -> dict[str, str]:
        """Those of the normal, where the density has none."""
        is_uniform = self.density == "uniform"
        return dict.fromkeys(("density_mean", "density_std"), "density=uniform") if is_uniform else {}

    @model_validator(mode="after")
    def _is_portable(self) -> Self:
        """What diffusers has a counterpart of."""
        if not self.portable:
            return self
        wanted = {
            "network=unet": self.network == "unet",
            "prediction=v, eps or x0": self.prediction in ("v", "eps", "x0"),
            "schedule=cosine or linear": self.schedule in ("cosine", "linear"),
            "patch=1": self.patch in (None, 1),
            "an even width=": self.width % 2 == 0,
            "multipliers= that begin with 1": self.multipliers[:1] == (1,),
            "no captions=, upscale= or inpaint=": not (self.captions or self.upscale or self.inpaint),
        }
        if missing := [what for what, given in wanted.items() if not given]:
            raise ValueError(f"portable=true needs {' and '.join(missing)}, as UNet2DModel of diffusers has no other")
        return self

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        only_for(self, "classes", self.n_classes is not None, "images with classes; the data has none")
        only_for(self, "label_dropout", self.classes or self.captions, "classes=true or captions=true")
        for key in ("words", "examples", "text_width", "text_depth", "spelling_p"):
            only_for(self, key, self.captions, "captions=true")
        if self.classes and self.captions:
            raise ValueError("classes=true and captions=true: a model takes one of them; leave one out")
        if self.captions and self.network == "unet" and self.attention_px == 0:
            raise ValueError(
                "attention_px=0 and captions=true: only maps with attention look at the words of a caption; give "
                "attention_px=8 or 16"
            )
        if self.upscale and self.inpaint:
            raise ValueError("upscale= and inpaint=true: a model learns one of them; leave one out")
        only_for(self, "heads", self.network == "dit", "network=dit")
        for key in ("multipliers", "attention_px", "dropout"):
            only_for(self, key, self.network == "unet", "network=unet")
        return self


def side_shift(shape: tuple[int, int, int]) -> float:
    """How much more noise larger images need: neighbouring pixels are alike, so noise of one level hides less of them.

    Side / 32, at least 1 (Hoogeboom et al. 2023, eq. 3), the side of a square of as many pixels.
    """
    return max(1.0, math.sqrt(shape[1] * shape[2]) / BASE_SIDE)


def make_network(config: PixelDiffusionConfig, planes: int = 0) -> UNet | DiT:
    """The network of a config; planes: channels that it is given beside the image.

    Raises:
        UserError: the settings do not divide the sides of the image, or of the code, or the patch is larger.
    """
    _check_sides(config)
    patch, tokens = patch_of(config), config.text_width if config.captions else 0
    if config.network == "dit":
        heads = largest_divisor(config.width // 4, config.width // HEAD_WIDTH) if config.heads is None else config.heads
        return DiT(config.shape, patch, config.width, config.depth, heads, tokens, planes)
    return UNet(
        config.shape,
        config.width,
        config.multipliers,
        config.depth,
        config.attention_px,
        config.dropout,
        patch,
        tokens,
        planes,
        largest_divisor(config.width, min(32, config.width // CHANNELS_OF_GROUP)) if config.portable else None,
    )


def _check_sides(config: PixelDiffusionConfig) -> None:
    """Refuse sides that the settings do not divide, and a patch that is larger than they are: here and not in the
    settings, which are checked before the images are read, too."""
    height, width = config.shape[1:]
    if config.network == "unet" and (config.patch or 1) > max(height, width):
        raise UserError(
            f"patch={config.patch} is larger than the {height}x{width} that the network sees; give 1 to "
            f"{max(height, width)}, or another size="
        )
    if config.upscale and (height % config.upscale or width % config.upscale):
        raise UserError(f"upscale={config.upscale} does not divide images of {height}x{width}; give another size=")
    multiple = 2 ** (len(config.multipliers) - 1)
    if config.portable and (height % multiple or width % multiple):
        raise UserError(
            f"portable=true needs sides that {multiple} divides, and the network sees {height}x{width}; give another "
            "size=, or fewer multipliers="
        )


def prediction_of(config: PixelDiffusionConfig) -> str:
    """Of the settings, or by the size of the images: the larger they are, the further they are from white noise."""
    return config.prediction or ("wiener" if max(config.shape[1:]) > BASE_SIDE else "edm")


def patch_of(config: PixelDiffusionConfig) -> int:
    """Of the settings, or a power of two for which the network sees about as many places as PLACES says.

    Its numbers are then no more than the width, the numbers of a place: noise has no structure that fewer could hold,
    and what they leave of it would stay in the images.
    """
    if config.patch is not None or config.portable:
        return config.patch or 1
    channels, height, width = config.shape
    patch = 2 ** max(0, round(math.log2(max(height, width) / PLACES[config.network])))
    while patch > 1 and channels * patch**2 > config.width:
        patch //= 2
    return math.gcd(patch, height, width) if config.network == "dit" else patch  # the other one pads
