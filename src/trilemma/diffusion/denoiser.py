"""A denoising diffusion model (Ho, Jain & Abbeel 2020) in discrete time, t = i / T with i = 1 ... T.

Training: x_t = alpha_t x0 + sigma_t eps with i uniform and eps ~ N(0, I); the network F sees (x_t, t) and predicts eps,
x0 or v (prediction.py has the coefficients), so that

    x0_hat = c_skip x_t + c_out F
    eps_hat - eps = -(alpha / sigma) (x0_hat - x0) = -(alpha c_out / sigma) (F - target)

Loss: Huber (delta = 1) or squared error between prediction and target, mean over pixels. Images are in [-1, 1] inside.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.config import Config, ModelConfig
from trilemma.diffusion.editing import check_rounds, redraw_sampler, seen_of
from trilemma.diffusion.path import BoundsModel, CodesModel
from trilemma.diffusion.prediction import get_prediction
from trilemma.diffusion.samplers import ALWAYS_RANDOM, draw_x0, get_sampler
from trilemma.diffusion.schedule import Schedule, Table, get_table, log_snr
from trilemma.diffusion.steps import Denoise, of_images, with_watch
from trilemma.diffusion.weighting import evenly_spread
from trilemma.errors import check_images
from trilemma.nets.unet_small import UNet
from trilemma.types import (
    NO_GUIDES,
    UNCONDITIONAL,
    Batch,
    Condition,
    Guides,
    Logs,
    Phase,
    Player,
    Redraw,
    Watch,
    check_condition,
)

if TYPE_CHECKING:
    from trilemma.progress import OnStep

LEAST_SIGNAL = 1e-4  # alpha_bar below which eps tells nothing of x0: the division by alpha makes 100 of an error of 1
LOSSES = {"huber": F.huber_loss, "mse": F.mse_loss}


class DiffusionConfig(ModelConfig):
    """Settings of a diffusion model."""

    schedule: Literal["cosine", "linear"] = Field(default="cosine", description="how alpha and sigma depend on t")
    T: int = Field(default=4000, ge=2, le=1_000_000, description="steps of the schedule")
    prediction: Literal["eps", "x0", "v"] = Field(default="eps", description="what the network predicts")
    loss: Literal["huber", "mse"] = Field(default="huber", description="between prediction and target")
    clip_x0: bool = Field(default=True, description="keep the predicted clean image in [-1, 1] while sampling")
    embedding: int = Field(default=64, ge=2, multiple_of=2, description="size of the time embedding")
    widths: tuple[PositiveInt, ...] = Field(
        default=(16, 32, 64, 128), min_length=2, description="channels from full size down"
    )


class DiffusionKeys(Config):
    """Settings of a diffusion model's sampler."""

    steps: PositiveInt = Field(
        default=50, description="network calls per image, up to T (somewhat fewer for prediction=eps, clip_x0=false)"
    )
    sampler: Literal["ddim", "ddpm"] = Field(default="ddim", description="how a step is taken")
    eta: float | None = Field(default=None, ge=0, le=1, description="ddim: 0 (deterministic, default) to 1 (as ddpm)")
    variance: Literal["posterior", "beta"] | None = Field(
        default=None, description="ddpm: of a step's noise; default: posterior"
    )

    @property
    def adds_noise(self) -> bool:
        """Whether the sampler draws noise on the way."""
        return self.sampler in ALWAYS_RANDOM or bool(self.eta)

    @property
    def solver(self) -> Callable[..., Tensor]:
        """The sampler, with its options.

        Raises:
            UserError: an option that it does not have.
        """
        options = {key: value for key in ("eta", "variance") if (value := self.get(key)) is not None}
        return partial(get_sampler(self.sampler, **options), **options)


class _Factors(NamedTuple):
    """Of x0 and eps in x_t; of x_t and the network's output in x0_hat, over a number that divides both; of x0 and eps
    in the target. (B, 1, 1, 1) each."""

    alpha: Tensor
    sigma: Tensor
    skip: Tensor
    out: Tensor
    over: Tensor
    target_x0: Tensor
    target_eps: Tensor


class Diffusion(CodesModel, BoundsModel):
    """A U-Net that predicts what separates a noisy image from its clean one, and samplers that use it."""

    factors: Tensor

    sampling_keys = DiffusionKeys
    whole_because = ""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.table = get_table(config.schedule, config.T)
        self.schedule = self.table
        self.network = UNet(config.shape, config.widths, config.embedding, config.T)
        self.register_buffer("factors", _factors(self.table, config.prediction), persistent=False)  # (T + 1, 7)
        self.phases = [Phase("denoiser", Player("denoiser", list(self.network.parameters())), self.loss)]

    @property
    def sampling_network(self) -> nn.Module:
        """The U-Net: one call per step of a sampler."""
        return self.network

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Mean over images and pixels; parts: huber (or mse), eps_mse (squared error of eps_hat)."""
        x0, x_t, t, eps = self.add_noise(batch.image, rng)
        prediction, target = self.network(x_t, t).float(), self._target(x0, t, eps)
        loss = LOSSES[self.config.loss](prediction, target)
        return loss, {self.config.loss: loss.detach(), "eps_mse": self._eps_errors(prediction, target, t).mean()}

    @torch.no_grad()
    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): noise_mse, the squared error of eps_hat over its pixels at one random t; and of some
        images bits_per_dim."""
        x0, x_t, t, eps = self.add_noise(batch.image, rng)
        errors = self._eps_errors(self.network(x_t, t).float(), self._target(x0, t, eps), t)
        return {"noise_mse": errors, "bits_per_dim": self.bits_per_dim(batch, rng)}

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, C, H, W) for images in [-1, 1], t (B,) in [0, 1] -> x0_hat, clipped if the config says so."""
        return self._estimate(x_t, t, clips=True)

    def denoiser(self, schedule: Schedule, condition: Condition, n: int, *, clips: bool = True) -> Denoise:
        """That of images at the times of another schedule: the network is told the step with the nearest log-SNR.

        Args:
            clips: as the config says, or not at all.
        """

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            t = t.cpu().double()
            step = (self.schedule.t_of(log_snr(schedule, t)) * self.config.T).round().clamp(min=1)
            scale = (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2).rsqrt().to(x_t)
            return self._estimate(of_images(scale) * x_t, (step / self.config.T).to(x_t), clips=clips)

        return denoise

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int,
        first: int = 0,
        condition: Condition = UNCONDITIONAL,
        keys: DiffusionKeys = DiffusionKeys(),
        watch: Watch | None = None,
    ) -> Tensor:
        """Images numbered first ... first + n - 1 of `seed`, (n, C, H, W) in [0, 1].

        Args:
            watch: sees every call of the denoiser.
        Raises:
            UserError: for a condition (the model takes none), or for an unknown or impossible setting.
        """
        check_condition(condition, n)
        denoise = with_watch(self.denoise, self.schedule, watch, self.to_image)
        sampler = partial(keys.solver, denoise, self.schedule, self._times(keys.steps))
        ids = torch.arange(first, first + n)
        return self.to_image(draw_x0(self.network, sampler, ids, self.x_shape, seed, self.factors.device))

    @torch.no_grad()
    def redraw(
        self,
        image: Tensor,
        how: Redraw,
        *,
        seed: int,
        first: int = 0,
        condition: Condition = UNCONDITIONAL,
        keys: DiffusionKeys = DiffusionKeys(),
        guides: Guides = NO_GUIDES,
        on_step: "OnStep | None" = None,
    ) -> Tensor:
        """Images (B, C, H, W) in [0, 1] drawn again with the noise of those numbered first ... of `seed`, see
        editing.py; from the step of the schedule that is nearest to a strength.

        Args:
            on_step: is told the step of each call of the denoiser, of how many.
        Raises:
            UserError: for a condition (the model takes none), an impossible setting, or images of another shape.
        """
        check_images(image, self.config.shape)
        check_condition(condition, len(image))
        check_rounds(how, keys, resample=True)
        strength = float(self.table.index(how.strength)) / self.config.T
        if strength == 0 and how.noise is None:
            return image.clone()
        x0, times = self.to_x(seen_of(image, how)), self._times(keys.steps)
        how = replace(how, strength=strength)
        sampler, start = redraw_sampler(self.denoise, self.schedule, times, x0, how, keys.solver, on_step=on_step)
        ids = torch.arange(first, first + len(image))
        return self.to_image(draw_x0(self.network, sampler, ids, self.x_shape, seed, self.factors.device, start))

    def code_times(self, steps: int) -> Tensor:
        """The times between an image and its code, each step of the schedule at most once: fewer than asked for where
        the schedule has few."""
        return self.table.index(super().code_times(steps)).unique().flip(0).double() / self.config.T

    def _estimate(self, x_t: Tensor, t: Tensor, *, clips: bool) -> Tensor:
        """x0_hat of images (B, C, H, W) at t (B,)."""
        c = self._at(t)
        x0_hat = (c.skip * x_t + c.out * self.network(x_t, t).float()) / c.over
        return x0_hat.clamp(-1, 1) if clips and self.config.clip_x0 else x0_hat

    def _times(self, steps: int) -> Tensor:
        """The sampler's grid. Where x0_hat is neither clipped nor predicted with bounded factors, it begins at the last
        time with LEAST_SIGNAL: on the cosine schedule 1 / alpha is 80,000 at t = 1."""
        divides = self.config.prediction == "eps" and not self.config.clip_x0
        return self.table.times(steps, least_signal=LEAST_SIGNAL if divides else 0.0)

    def add_noise(self, image: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images in [0, 1] -> (x0, x_t, t, eps): (B, C, H, W) but t (B,), which is evenly spread over the steps."""
        x0 = self.to_x(image)
        index = (evenly_spread(len(image), rng) * self.config.T).long() + 1
        eps = torch.randn(image.shape, generator=rng, dtype=torch.float32, device=rng.device).to(image.device)
        t = (index / self.config.T).to(eps)
        c = self._at(t)
        return x0, c.alpha * x0 + c.sigma * eps, t, eps

    def _at(self, t: Tensor) -> _Factors:
        """The factors at t (B,)."""
        index = (t * self.config.T).round().long()
        return _Factors._make(self.factors[index, :, None, None, None].unbind(1))

    def _target(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the network should say."""
        c = self._at(t)
        return c.target_x0 * x0 + c.target_eps * eps

    @torch.no_grad()
    def _eps_errors(self, prediction: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """The squared error of eps_hat, mean over pixels, of each image (B,)."""
        c = self._at(t)
        return (c.alpha * c.out / (c.sigma * c.over) * (prediction - target)).square().flatten(1).mean(1)


def _factors(table: Table, prediction: str) -> Tensor:
    """Those of every step, float32 (T + 1, 7). At step 0, which no training draws, 0 / 0 of the target is 0.

    Of eps, x0_hat = (x_t - sigma F) / alpha; with 1 / alpha as a factor, runs of earlier versions would draw other
    bits.
    """
    alpha, sigma = table.table.sqrt(), (1 - table.table).sqrt()
    c = get_prediction(prediction)(alpha, sigma, 1.0)
    over = alpha if prediction == "eps" else torch.ones_like(alpha)
    of_x0_hat = c.skip * over, c.out * over, over
    return torch.stack([alpha, sigma, *of_x0_hat, *c.of_target(alpha, sigma)], dim=1).nan_to_num().float()
