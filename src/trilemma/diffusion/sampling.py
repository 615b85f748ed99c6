"""The settings of a diffusion model's sampler."""

from collections.abc import Callable
from functools import partial
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from trilemma.arguments import word
from trilemma.config import Config, only_for
from trilemma.diffusion.samplers import ALWAYS_RANDOM, get_sampler
from trilemma.errors import UserError

AUTO_SAMPLER = "unipc"  # of those measured in 5 and 10 calls none is better by more than chance (docs/diffusion.md)


class DiffusionSampling(Config):
    """Settings of the sampler."""

    steps: PositiveInt = Field(default=10, description="steps of the sampler; heun makes two calls a step")
    sampler: Literal["auto", "ddim", "ddpm", "euler", "heun", "dpm++2m", "dpm++3m", "eab3", "unipc"] = Field(
        default="auto", description="solver; auto: unipc, than which none measured was better in few calls"
    )
    grid: Literal["auto", "uniform", "quadratic", "karras", "log-snr", "optimised"] = Field(
        default="auto", description="of the times; optimised: measured on held-out images"
    )
    schedule: Literal["cosine", "linear", "edm", "flow"] | None = Field(
        default=None, description="alpha and sigma over t (default: that of the training)"
    )
    eta: float | None = Field(default=None, ge=0, le=1, description="ddim, dpm++2m: 0 deterministic, 1 all the noise")
    order: Literal[2, 3] | None = Field(default=None, description="unipc: 2 (default) or 3")
    guidance: float = Field(
        default=1.0,
        ge=0,
        description="away from images of no class, or from guide=: 1 none, more for purer ones",
    )
    guide: str | None = Field(default=None, description="a smaller or less trained run, which guidance leads away from")
    guidance_interval: tuple[float, float] | None = Field(
        default=None, description="values of log(sigma / alpha) between which it is guided (default: everywhere)"
    )
    guidance_rescale: float = Field(default=0.0, ge=0, le=1, description="share brought back to the unguided contrast")
    classifier: str | None = Field(
        default=None, description="bundled classifier that leads to the class asked for; auto: that of the data"
    )
    classifier_scale: float = Field(default=1.0, ge=0, description="of the classifier: 0 none")

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        try:
            _ = self.solver
        except UserError as error:
            raise ValueError(str(error)) from None
        if self.guide is not None and self.guidance == 1:
            raise ValueError(f"guide={self.guide} has no effect with guidance=1; add guidance=2, for instance")
        only_for(self, "classifier_scale", self.classifier is not None, "classifier=auto, or another classifier")
        return self

    @model_validator(mode="after")
    def _guidance_fits(self) -> Self:
        """An interval goes from low to high, and shapes a guidance that there is."""
        for key in ("guidance_interval", "guidance_rescale"):
            only_for(self, key, self.guidance != 1, "guidance= other than 1")
        if self.guidance_interval is not None and self.guidance_interval[0] >= self.guidance_interval[1]:
            raise ValueError(f"guidance_interval={word(self.guidance_interval)}: give the lower value first")
        return self

    @property
    def sampler_name(self) -> str:
        """The name of the sampler."""
        return AUTO_SAMPLER if self.sampler == "auto" else self.sampler

    @property
    def solver(self) -> Callable[..., Tensor]:
        """The sampler, with its options."""
        options = {name: value for name in ("eta", "order") if (value := getattr(self, name)) is not None}
        return partial(get_sampler(self.sampler_name, **options), **options)

    @property
    def adds_noise(self) -> bool:
        """Whether the sampler draws noise on the way."""
        return self.sampler in ALWAYS_RANDOM or bool(self.eta)
