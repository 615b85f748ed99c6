"""Diffusion in pixels: any schedule, any prediction, any weights, a U-Net or a transformer.

Training draws t, then x_t = alpha x0 + sigma eps, and lowers

    mean of w(t) c_out**2 |F(c_in x_t, log(sigma / alpha), condition) - (x0 - c_skip x_t) / c_out|**2

which is w |x0_hat - x0|**2 (prediction.py has the coefficients, weighting.py the weights w and the density of t). The
network is told log(sigma / alpha) and no t, so the schedule of sampling may be another than that of training. Images
are in [-1, 1] inside. With classes, a label is replaced by a null label in a share of the images (Ho & Salimans 2022).
"""

import math
from functools import partial
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.config import ModelConfig, only_for
from trilemma.diffusion.editing import redrawing
from trilemma.diffusion.grids import first_time, times_of
from trilemma.diffusion.guidance import by_classifier, guided, log_probability
from trilemma.diffusion.optimised import OPTIMISED, optimised_times
from trilemma.diffusion.path import CodesModel
from trilemma.diffusion.prediction import get_prediction
from trilemma.diffusion.samplers import ddim, draw_images
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.diffusion.schedule import Schedule, get_schedule, noise_level
from trilemma.diffusion.steps import Denoise, of_images, watched
from trilemma.diffusion.weighting import evenly_spread, get_density, get_weighting
from trilemma.errors import UserError, check_images
from trilemma.nets.attention import largest_divisor
from trilemma.nets.dit import DiT
from trilemma.nets.unet import UNet
from trilemma.types import (
    NO_GUIDES,
    UNCONDITIONAL,
    Batch,
    Condition,
    DenoisesOnAnySchedule,
    Guides,
    Logs,
    Phase,
    Player,
    Redraw,
    Watch,
    check_condition,
    default_label,
    flags,
)

DATA_STD = 0.5  # of images in [-1, 1], where nothing is known of them (Karras et al. 2022)
PLACES = {"unet": 28, "dit": 7}  # a side, for which a step is fast on a CPU
BASE_SIDE = 32  # px, up to which schedules are as published
HEAD_WIDTH = 32  # numbers of a token for which a transformer has a head of its own
THIRDS = ("clean", "middle", "noisy")  # of the drawn times, of which the log has the loss


class PixelDiffusionConfig(ModelConfig):
    """Settings of a diffusion model."""

    schedule: Literal["cosine", "linear", "edm", "flow"] = Field(default="cosine", description="alpha and sigma over t")
    shift: float | None = Field(
        default=None,
        gt=0,
        description="the log-SNR is lower by 2 log(shift) (default: side / 32, at least 1)",
    )
    prediction: Literal["eps", "x0", "v", "flow", "edm"] = Field(default="edm", description="what the network predicts")
    weighting: Literal["uniform", "min-snr", "soft-min-snr", "edm", "sigmoid"] = Field(
        default="uniform", description="of the squared error of x0_hat; uniform: of the network's output"
    )
    density: Literal["uniform", "logit-normal", "log-normal"] = Field(default="uniform", description="of the times t")
    density_mean: float = Field(
        default=0.0,
        description="of the normal in density; log-normal: for data_std=0.5, and with it log(2 data_std) more",
    )
    density_std: float = Field(default=1.0, gt=0, description="of the normal in density")
    data_std: float | None = Field(
        default=None, gt=0, description="standard deviation of the images in [-1, 1] (default: measured on them)"
    )
    network: Literal["unet", "dit"] = Field(default="unet", description="convolutions, or a transformer over patches")
    width: PositiveInt = Field(default=16, description="channels at full size, or numbers a token")
    multipliers: tuple[PositiveInt, ...] = Field(default=(1, 2, 4), description="unet: of the width, a level each")
    depth: PositiveInt = Field(default=1, description="unet: blocks a level; dit: blocks")
    attention_px: int = Field(default=8, ge=0, description="unet: maps up to this side have attention; 0: none")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="unet: inside the blocks")
    patch: PositiveInt | None = Field(
        default=None,
        description="px of the side of a patch, a place of the network (default: by the size of the images)",
    )
    heads: PositiveInt | None = Field(
        default=None, description="dit: of the attention (default: one for 32 numbers of a token)"
    )
    clip_x0: bool = Field(default=True, description="keep the predicted clean image in [-1, 1] while sampling")
    classes: bool = Field(default=False, description="learn to draw a class")
    n_classes: int | None = Field(default=None, ge=1, description="with classes: how many")
    label_dropout: float = Field(default=0.1, ge=0, lt=1, description="with classes: share of images without a label")

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        only_for(self, "classes", self.n_classes is not None, "images with classes; the data has none")
        only_for(self, "label_dropout", self.classes, "classes=true")
        only_for(self, "heads", self.network == "dit", "network=dit")
        for key in ("multipliers", "attention_px", "dropout"):
            only_for(self, key, self.network == "unet", "network=unet")
        return self


class Coefficients(NamedTuple):
    """Of images x_t at times t, each (B, 1, 1, 1), and the noise level (B,)."""

    skip: Tensor
    out: Tensor
    inside: Tensor
    level: Tensor


class PixelDiffusion(CodesModel):
    """A network that predicts what separates a noisy image from its clean one, and samplers that use it."""

    sampling_keys = DiffusionSampling
    takes_guides = True

    def __init__(self, config: PixelDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.shift = side_shift(config.shape) if config.shift is None else config.shift
        self.schedule = get_schedule(config.schedule, self.shift)
        self.data_std = DATA_STD if config.data_std is None else config.data_std
        moved = math.log(self.data_std / DATA_STD) if config.density == "log-normal" else 0.0
        self.density_mean = config.density_mean + moved  # images of less contrast drown in less noise
        self.network = make_network(config)
        self.n_classes = (config.n_classes or 0) if config.classes else 0
        if self.n_classes:
            self.embedding = nn.Embedding(self.n_classes + 1, self.network.embedding)  # the last is the null label
        self.phases = [Phase("denoiser", Player("denoiser", list(self.parameters())), self.loss)]

    @property
    def sampling_network(self) -> nn.Module:
        """One call per step of most samplers, two where it is guided."""
        return self.network

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Mean over images and pixels; parts: that of the cleanest, middle and noisiest third of the drawn times."""
        errors, u = self._errors(batch, rng, self.config.label_dropout)
        loss = errors.mean()
        return loss, {"loss": loss.detach(), **_by_thirds(errors.detach(), u)}

    @torch.no_grad()
    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): denoising_mse, the loss at one random t, with its label."""
        return {"denoising_mse": self._errors(batch, rng, 0.0)[0]}

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """x_t (B, C, H, W) for images in [-1, 1], t (B,) in [0, 1] of the training's schedule -> x0_hat, as x_t."""
        return self._denoised(x_t, t, self._embedded(condition.label, len(x_t)), self.schedule)

    def denoiser(self, schedule: Schedule, label: Tensor | None, n: int) -> Denoise:
        """That of n images at the times of a schedule, clipped if the config says so; label (n,), or None."""
        return self._clipping(self._raw(schedule, label, n))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int,
        first: int = 0,
        condition: Condition = UNCONDITIONAL,
        keys: DiffusionSampling = DiffusionSampling(),
        guides: Guides = NO_GUIDES,
        watch: Watch | None = None,
    ) -> Tensor:
        """Images numbered first ... first + n - 1 of `seed`, (n, C, H, W) in [0, 1].

        Args:
            guides: what the keys guide and classifier name.
            watch: sees every call of the denoiser.
        Raises:
            UserError: for an unknown or impossible key, or guidance of a model that takes no class.
        """
        n_classes = flags(guides.classifier).n_classes or self.n_classes
        check_condition(condition, n, n_classes)
        ids = torch.arange(first, first + n)
        schedule, draw = self._schedule_of(keys), keys.solver
        times = self._times_of(keys, schedule, guides)
        label = condition.label
        if label is None and n_classes:
            label = default_label(ids, n_classes)
        denoise = watched(self._guided(label, n, schedule, keys, guides), schedule, watch)
        sampler = partial(draw, denoise, schedule, times)
        std = float(schedule.sigma(times[0]))
        return draw_images(self.network, sampler, ids, self.config.shape, seed, self._device, lambda eps: std * eps)

    @torch.no_grad()
    def redraw(
        self,
        image: Tensor,
        how: Redraw,
        *,
        seed: int,
        first: int = 0,
        condition: Condition = UNCONDITIONAL,
        keys: DiffusionSampling = DiffusionSampling(),
        guides: Guides = NO_GUIDES,
    ) -> Tensor:
        """Images (B, C, H, W) in [0, 1] drawn again with the noise of those numbered first ... of `seed`, see
        editing.py; without a label as images of no class.

        Raises:
            UserError: for an impossible key, a condition that it does not take, or images of another shape.
        """
        check_images(image, self.config.shape)
        check_condition(condition, len(image), flags(guides.classifier).n_classes or self.n_classes)
        if how.strength == 0 and how.noise is None:
            return image.clone()
        schedule = self._schedule_of(keys)
        denoise = self._guided(condition.label, len(image), schedule, keys, guides)
        times, ids = self._times_of(keys, schedule, guides), torch.arange(first, first + len(image))
        sampler, start = redrawing(denoise, schedule, times, 2 * image - 1, how, keys.solver)
        return draw_images(self.network, sampler, ids, self.config.shape, seed, self._device, start)

    @torch.no_grad()
    def optimised_times(self, image: Tensor, condition: Condition, keys: DiffusionSampling, seed: int) -> Tensor:
        """The best times for the sampler of some keys, measured on images (B, C, H, W) in [0, 1]: float64 (steps + 1,).

        A sampler that adds noise is measured as ddim without.
        """
        schedule, n = self._schedule_of(keys), len(image)
        solver = ddim if keys.adds_noise else keys.solver
        eps = random.normal(torch.arange(n), self.config.shape, seed, "grid").to(image)
        denoise = self.denoiser(schedule, condition.label, n)
        return optimised_times(denoise, schedule, solver, keys.steps, 2 * image - 1, eps)

    def _schedule_of(self, keys: DiffusionSampling) -> Schedule:
        return self.schedule if keys.schedule is None else get_schedule(keys.schedule, self.shift)

    def _times_of(self, keys: DiffusionSampling, schedule: Schedule, guides: Guides) -> Tensor:
        """The grid of a call.

        Raises:
            UserError: it is optimised, and nobody has measured it.
        """
        if keys.grid != OPTIMISED:
            return times_of(keys.grid_name, schedule, keys.steps)
        if guides.times is None:
            raise UserError("grid=optimised is measured on the held-out images of a run; sample the run")
        return guides.times

    def _guided(
        self, label: Tensor | None, n: int, schedule: Schedule, keys: DiffusionSampling, guides: Guides
    ) -> Denoise:
        """The denoiser of a call, guided as asked and then clipped; a clipped estimate would have no gradient."""
        denoise = self._raw(schedule, label, n)
        if keys.guidance != 1:
            weak = self._weak(label, n, schedule, keys, guides)
            interval = keys.guidance_interval or (-math.inf, math.inf)
            denoise = guided(denoise, weak, keys.guidance, schedule, interval, keys.guidance_rescale)
        if guides.classifier is not None and label is not None:
            to_class = log_probability(guides.classifier, label)
            denoise = by_classifier(denoise, to_class, keys.classifier_scale, schedule)
        return self._clipping(denoise)

    def _weak(
        self, label: Tensor | None, n: int, schedule: Schedule, keys: DiffusionSampling, guides: Guides
    ) -> Denoise:
        """What guidance leads away from: the denoiser of the guide, or this one without a class."""
        if guides.weak is not None:
            assert isinstance(guides.weak, DenoisesOnAnySchedule)
            return guides.weak.denoiser(schedule, label if self.n_classes else None, n)
        if not self.n_classes:
            raise UserError(
                f"guidance={keys.guidance:g} needs a model trained with classes=true, or guide=RUN; leave it out"
            )
        if self.config.label_dropout == 0:
            raise UserError(
                f"guidance={keys.guidance:g} needs images without a class, and this model was trained with "
                "label_dropout=0; give guide=RUN, or leave it out"
            )
        return self._raw(schedule, None, n)

    def _raw(self, schedule: Schedule, label: Tensor | None, n: int) -> Denoise:
        """The denoiser as the network has it."""
        embedded = self._embedded(label, n)
        return lambda x_t, t: self._denoised(x_t, t, embedded, schedule)

    def _clipping(self, denoise: Denoise) -> Denoise:
        """A denoiser whose images stay in [-1, 1], if the config says so."""
        return (lambda x_t, t: denoise(x_t, t).clamp(-1, 1)) if self.config.clip_x0 else denoise

    def _denoised(self, x_t: Tensor, t: Tensor, embedded: Tensor | None, schedule: Schedule) -> Tensor:
        """x0_hat of images at times of a schedule."""
        c = self._coefficients(schedule, t.cpu().double(), x_t)
        return c.skip * x_t + c.out * self.network(c.inside * x_t, c.level, embedded).to(x_t.dtype)

    def _coefficients(self, schedule: Schedule, t: Tensor, like: Tensor) -> Coefficients:
        """Worked out in double precision, then as `like`."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        rows = get_prediction(self.config.prediction)(alpha, sigma, self.data_std)
        skip, out, inside, level = torch.stack([*rows, noise_level(alpha, sigma)]).to(like)
        return Coefficients(of_images(skip), of_images(out), of_images(inside), level)

    def _errors(self, batch: Batch, rng: torch.Generator, label_dropout: float) -> tuple[Tensor, Tensor]:
        """The weighted loss of each image (B,), and the numbers (B,) in (0, 1) that its times come from."""
        config, x0 = self.config, 2 * batch.image - 1
        u = evenly_spread(len(x0), rng)
        t = get_density(config.density)(u, get_schedule(config.schedule), self.density_mean, config.density_std)
        t = t.clamp(max=first_time(self.schedule))
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        skip, out, inside = get_prediction(config.prediction)(alpha, sigma, self.data_std)
        log_snr = 2 * (alpha / sigma).log()
        weight = get_weighting(config.weighting)(log_snr, out, self.data_std) * out**2
        # target (x0 - skip x_t) / out as a sum of x0 and eps: no digits are lost where out is small
        rows = torch.stack(
            [alpha, sigma, inside, (1 - skip * alpha) / out, -skip * sigma / out, weight, noise_level(alpha, sigma)]
        ).to(x0)
        a, s, c_in, of_x0, of_eps, w = map(of_images, rows[:-1])
        eps = torch.randn(x0.shape, generator=rng, dtype=x0.dtype, device=rng.device).to(x0.device)
        embedded = self._embedded(self._dropped(batch.condition.label, rng, label_dropout), len(x0))
        output = self.network(c_in * (a * x0 + s * eps), rows[-1], embedded).to(x0.dtype)
        return (w * (output - of_x0 * x0 - of_eps * eps).square()).flatten(1).mean(1), u

    def _dropped(self, label: Tensor | None, rng: torch.Generator, share: float) -> Tensor | None:
        """Labels, each replaced by the null label with probability `share`."""
        if not self.n_classes or label is None or share == 0:
            return label
        draws = torch.rand(len(label), generator=rng, dtype=torch.float32, device=rng.device).to(label.device)
        return torch.where(draws < share, self.n_classes, label)

    def _embedded(self, label: Tensor | None, n: int) -> Tensor | None:
        """Of labels, or of the null label n times; None for a model without classes."""
        if not self.n_classes:
            return None
        null = torch.full((n,), self.n_classes, device=self._device)
        return self.embedding(null if label is None else label.to(self._device))

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device


def side_shift(shape: tuple[int, int, int]) -> float:
    """How much more noise larger images need: neighbouring pixels are alike, so noise of one level hides less of them.

    Side / 32, at least 1 (Hoogeboom et al. 2023, eq. 3), the side of a square of as many pixels.
    """
    return max(1.0, math.sqrt(shape[1] * shape[2]) / BASE_SIDE)


def make_network(config: PixelDiffusionConfig) -> UNet | DiT:
    """The network of a config."""
    patch = patch_of(config)
    if config.network == "dit":
        heads = largest_divisor(config.width // 4, config.width // HEAD_WIDTH) if config.heads is None else config.heads
        return DiT(config.shape, patch, config.width, config.depth, heads)
    return UNet(
        config.shape, config.width, config.multipliers, config.depth, config.attention_px, config.dropout, patch
    )


def patch_of(config: PixelDiffusionConfig) -> int:
    """Of the settings, or a power of two for which the network sees about as many places as PLACES says."""
    if config.patch is not None:
        return config.patch
    height, width = config.shape[1:]
    patch = 2 ** max(0, round(math.log2(max(height, width) / PLACES[config.network])))
    return math.gcd(patch, height, width) if config.network == "dit" else patch  # the other one pads


def _by_thirds(errors: Tensor, u: Tensor) -> Logs:
    """Mean errors of the images of each third of (0, 1); {} where a third may have none."""
    if len(errors) < len(THIRDS):
        return {}
    third = (u * len(THIRDS)).long().to(errors.device)
    masks = {name: (third == k).to(errors.dtype) for k, name in enumerate(THIRDS)}
    return {f"loss_{name}": (errors * mask).sum() / mask.sum() for name, mask in masks.items()}
