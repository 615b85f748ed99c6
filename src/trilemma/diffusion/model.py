"""Diffusion: any schedule, any prediction, any weights, a U-Net or a transformer.

Training draws t, then x_t = alpha x0 + sigma eps, and lowers

    mean of w(t) c_out**2 |F(c_in x_t, log(sigma / alpha), condition) - (x0 - c_skip x_t) / c_out|**2

which is w |x0_hat - x0|**2 (prediction.py has the coefficients, weighting.py the weights w and the density of t). x0 is
an image in [-1, 1], or the code of one (latent.py). What it is asked for is in conditioning.py, what it estimates, and
how that is guided, in estimates.py.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.diffusion.config import PixelDiffusionConfig, make_network, prediction_of, side_shift
from trilemma.diffusion.editing import check_rounds, redraw_sampler, seen_of
from trilemma.diffusion.estimates import EstimatingModel
from trilemma.diffusion.grids import first_time, times_of
from trilemma.diffusion.optimised import OPTIMISED, optimised_times
from trilemma.diffusion.path import BoundsModel
from trilemma.diffusion.planes import MOST_NUMBERS, tile_denoiser
from trilemma.diffusion.portable import PortableModel
from trilemma.diffusion.prediction import get_prediction, white_filter_error
from trilemma.diffusion.samplers import ddim, draw_x0
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.diffusion.schedule import Schedule, get_schedule, noise_level
from trilemma.diffusion.spectrum import Spectrum
from trilemma.diffusion.steps import Denoise, Noise, of_images, with_step_count, with_watch
from trilemma.diffusion.weighting import evenly_spread, get_density, get_weighting
from trilemma.errors import UserError, check_images
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
)

if TYPE_CHECKING:
    from trilemma.progress import OnStep

DATA_STD = 0.5  # of images in [-1, 1], where nothing is known of them (Karras et al. 2022)
THIRDS = ("clean", "middle", "noisy")  # of the drawn times, of which the log has the loss


class _Noisy(NamedTuple):
    """Images with noise: x0 and eps (B, C, H, W); u: the numbers (B,) in (0, 1) that their times come from; factors
    (B, 1, 1, 1) of what the network is given and is to say, and the weights of its errors; level: of noise (B,)."""

    x0: Tensor
    eps: Tensor
    u: Tensor
    alpha: Tensor
    sigma: Tensor
    c_in: Tensor
    c_out: Tensor
    of_x0: Tensor
    of_eps: Tensor
    weight: Tensor
    level: Tensor


class DiffusionModel(EstimatingModel):
    """A network that predicts what separates a noisy x from its clean one, and samplers that use it."""

    sampling_keys = DiffusionSampling
    whole_because = ""
    takes_guides = True

    def __init__(self, config: PixelDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.shift = side_shift(self.x_shape) if config.shift is None else config.shift
        self.schedule = get_schedule(config.schedule, self.shift)
        self.data_std = DATA_STD if config.data_std is None else config.data_std
        moved = math.log(self.data_std / DATA_STD) if config.density == "log-normal" else 0.0
        self.density_mean = config.density_mean + moved  # images of less contrast drown in less noise
        of_x = config.with_(shape=self.x_shape)
        self.network = make_network(of_x, self.n_planes)
        self.condition_on(self.network.embedding)
        self.prediction = prediction_of(of_x)
        self.spectrum = Spectrum(self.x_shape, self.data_std**2) if self.prediction == "wiener" else None
        start = self._before_training if config.upscale or self.spectrum is not None else None
        self.phases = [Phase("denoiser", Player("denoiser", list(self.parameters())), self.loss, start=start)]

    @property
    def sampling_network(self) -> nn.Module:
        """One call per step of most samplers, two where it is guided."""
        return self.network

    @property
    def place_numbers(self) -> int:
        """Of x, in a patch of the network."""
        return self.x_shape[0] * self.network.patch**2

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Mean over images and pixels; parts: that of the cleanest, middle and noisiest third of the drawn times."""
        batch, geometry = self.augment(batch, rng)
        noisy = self._add_noise(self.x_of(batch), rng)
        errors = self._errors(noisy, batch, rng, self.config.label_dropout, geometry, self.config.spelling_p)
        loss, total = errors.mean(), random.place_in_batch(len(errors), rng)[1]
        return loss, {"loss": loss.detach(), **_by_thirds(errors.detach(), noisy.u, total)}

    @torch.no_grad()
    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): denoising_mse, the loss at one random t, with its label; linear_denoising_mse, that of the
        affine estimate of x0 that is known before the training."""
        noisy = self._add_noise(self.x_of(batch), rng)
        errors = self._errors(noisy, batch, rng, 0.0)
        return {"denoising_mse": errors, "linear_denoising_mse": self._linear_errors(noisy)}

    def _before_training(self, batches: Iterable[Batch], seed: int) -> dict[str, float]:
        """What is taken from training images before the first step."""
        batches = iter(batches)
        first = next(batches)
        if self.config.upscale:
            self.take_examples([first], seed)
        if self.spectrum is not None:
            self.spectrum.measure(self.x_of(batch) for batch in chain([first], batches))
        return {}

    def x_of(self, batch: Batch) -> Tensor:
        """x of a batch's images, (B, *x_shape)."""
        return self.to_x(batch.image)

    def in_x(self, how: Redraw) -> Redraw:
        """What is asked of images, as it is asked of x."""
        return how

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
        n_classes, ids = self.check_call(condition, n, guides), torch.arange(first, first + n)
        schedule, condition = self._schedule_of(keys), self.by_default(condition, ids, n_classes)
        denoise = self._guided_denoiser(condition, n, schedule, keys, guides)
        denoise = with_watch(denoise, schedule, watch, self.to_image)
        return self._from_noise(denoise, schedule, keys, guides, ids, seed, self.x_shape)

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
        on_step: "OnStep | None" = None,
    ) -> Tensor:
        """Images (B, C, H, W) in [0, 1] drawn again with the noise of those numbered first ... of `seed`, see
        editing.py; without a label as images of no class.

        Args:
            on_step: is told the step of each call of the denoiser, of how many.
        Raises:
            UserError: for an impossible key, a condition that it does not take, or images of another shape.
        """
        check_images(image, self.config.shape)
        self.check_call(condition, len(image), guides)
        if self.config.upscale and how.mask is not None:
            raise UserError(
                "mask=: this model is shown the whole image, made smaller, and would draw again what the mask hides; "
                "use diffusion, or diffusion-inpaint"
            )
        if how.strength == 0 and how.noise is None:
            return image.clone()
        schedule = self._schedule_of(keys)
        condition = self.of_images(condition, image)
        if self.config.inpaint and how.mask is not None:
            condition = replace(condition, image=image, mask=how.mask)
        denoise = self._guided_denoiser(condition, len(image), schedule, keys, guides)
        times, ids = self._times_of(keys, schedule, guides), torch.arange(first, first + len(image))
        resample = not self.config.inpaint  # which has learned to fit what is drawn to what is there
        check_rounds(how, keys, resample)
        x0, how = self.to_x(seen_of(image, how)), self.in_x(how)
        sampler, start = redraw_sampler(
            denoise, schedule, times, x0, how, keys.solver, resample=resample, on_step=on_step
        )
        return self._draw(sampler, ids, seed, start, self.x_shape)

    @torch.no_grad()
    def optimised_times(
        self, image: Tensor, condition: Condition, keys: DiffusionSampling, seed: int, guides: Guides = NO_GUIDES
    ) -> Tensor:
        """The best times for the sampler of some keys, measured on images (B, C, H, W) in [0, 1]: float64 (steps + 1,).

        A sampler that adds noise is measured as ddim without.

        Raises:
            UserError: for guidance that it cannot have.
        """
        schedule, n = self._schedule_of(keys), len(image)
        solver = ddim if keys.adds_noise else keys.solver
        eps = random.normal(torch.arange(n), self.x_shape, seed, "grid").to(image)
        denoise = self._guided_denoiser(self.of_images(condition, image), n, schedule, keys, guides)
        return optimised_times(denoise, schedule, solver, keys.steps, self.to_x(image), eps)

    def invert(
        self, image: Tensor, condition: Condition = UNCONDITIONAL, *, steps: int | None = None, seed: int = 0
    ) -> Tensor:
        """As of any diffusion model.

        Raises:
            UserError: the model enlarges images, and is not given the smaller ones, without which noise is not a code.
        """
        if self.config.upscale and condition.image is None:
            raise UserError(
                "this model draws an image from noise and a smaller image, so that noise alone is not a code of it; "
                "use trilemma upscale, or another diffusion model"
            )
        return super().invert(image, condition, steps=steps, seed=seed)

    def _draw(
        self,
        sampler: Callable[[Tensor, Noise], Tensor],
        ids: Tensor,
        seed: int,
        start: Callable[[Tensor], Tensor],
        shape: tuple[int, int, int],
    ) -> Tensor:
        """Images number `ids` of `seed`; shape: of x."""
        return self.to_image(draw_x0(self.network, sampler, ids, shape, seed, self._device, start))

    def _from_noise(
        self,
        denoise: Denoise,
        schedule: Schedule,
        keys: DiffusionSampling,
        guides: Guides,
        ids: Tensor,
        seed: int,
        shape: tuple[int, int, int],
    ) -> Tensor:
        """Images number `ids` of `seed`, by the solver of a call all the way from pure noise; shape: of x."""
        times = self._times_of(keys, schedule, guides)
        std = float(schedule.sigma(times[0]))
        return self._draw(partial(keys.solver, denoise, schedule, times), ids, seed, lambda eps: std * eps, shape)

    def _schedule_of(self, keys: DiffusionSampling) -> Schedule:
        return self.schedule if keys.schedule is None else get_schedule(keys.schedule, self.shift)

    def _times_of(self, keys: DiffusionSampling, schedule: Schedule, guides: Guides) -> Tensor:
        """The grid of a call.

        Raises:
            UserError: it is optimised, and nobody has measured it.
        """
        if keys.grid != OPTIMISED:
            return times_of(keys.grid, schedule, keys.steps)
        if guides.times is None:
            raise UserError("grid=optimised is measured on the held-out images of a run; sample the run")
        return guides.times

    def _add_noise(self, x0: Tensor, rng: torch.Generator) -> _Noisy:
        """x0 (B, C, H, W) with times and noise."""
        config = self.config
        u = evenly_spread(len(x0), rng)
        t = get_density(config.density)(u, get_schedule(config.schedule), self.density_mean, config.density_std)
        t = t.clamp(max=first_time(self.schedule))
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        c = get_prediction(self.prediction)(alpha, sigma, self.data_std)
        log_snr = 2 * (alpha / sigma).log()
        weight = get_weighting(config.weighting)(log_snr, c.out, self.data_std) * c.out**2
        target, level = c.of_target(alpha, sigma), noise_level(alpha, sigma)
        rows = torch.stack([alpha, sigma, c.inside, c.out, *target, weight, level]).to(x0)
        eps = torch.randn(x0.shape, generator=rng, dtype=x0.dtype, device=rng.device).to(x0.device)
        return _Noisy._make([x0, eps, u, *map(of_images, rows[:-1]), rows[-1]])

    def _errors(
        self,
        noisy: _Noisy,
        batch: Batch,
        rng: torch.Generator,
        label_dropout: float,
        geometry: Tensor | None = None,
        spelling_p: float = 0.0,
    ) -> Tensor:
        """The weighted loss of each image (B,); noisy: of the batch; geometry: how the images were moved."""
        x0, eps, _, a, s, c_in, c_out, of_x0, of_eps, w, level = noisy
        condition, spelled = self.training_condition(batch, rng, label_dropout), self.spell(len(x0), rng, spelling_p)
        inputs = self.embed(condition, len(x0), geometry, spelled)
        target = of_x0 * x0 + of_eps * eps
        if self.spectrum is not None:
            target = self.spectrum.filter_error(x0, eps, a, s) / c_out
        output = self.network(c_in * (a * x0 + s * eps), level, inputs).to(x0.dtype)
        return (w * (output - target).square()).flatten(1).mean(1)

    def _linear_errors(self, noisy: _Noisy) -> Tensor:
        """The weighted loss of each image (B,) of an affine estimate of x0 from x_t: of wiener its filter, of the
        others the best one for white images of the mean and the spread of the data, c_skip of edm about that mean."""
        x0, eps, _, a, s, _, c_out, *_, w, _ = noisy
        if self.spectrum is None:
            missed = white_filter_error(x0 - self.config.data_mean, eps, a, s, self.data_std)
        else:
            missed = self.spectrum.filter_error(x0, eps, a, s)
        return (w * (missed / c_out).square()).flatten(1).mean(1)

    @torch.no_grad()
    def upscale(
        self,
        image: Tensor,
        *,
        seed: int,
        first: int = 0,
        condition: Condition = UNCONDITIONAL,
        keys: DiffusionSampling = DiffusionSampling(),
        guides: Guides = NO_GUIDES,
        on_step: "OnStep | None" = None,
    ) -> Tensor:
        """Images (B, C, h, w) in [0, 1], enlarged `factor` times and drawn with the noise of those numbered first ...
        of `seed`, without a label as images of no class; larger ones than in training tile by tile (planes.py).

        Args:
            on_step: is told the step of each call of the denoiser, of how many.
        Raises:
            UserError: for an impossible key, other channels, or images that are smaller than in training.
        """
        channels, *tile = self.config.shape
        size = [self.factor * side for side in image.shape[2:]]
        if image.shape[1] != channels or any(side < least for side, least in zip(size, tile, strict=True)):
            least = "x".join(str(side // self.factor) for side in tile)
            raise UserError(
                f"an image of {image.shape[1]} channels and {image.shape[2]}x{image.shape[3]} px: this model enlarges "
                f"images of {channels} channels and at least {least} px (height x width)"
            )
        schedule, n, small = self._schedule_of(keys), len(image), [side // self.factor for side in tile]
        self.check_call(condition, n, guides)

        def denoise_at(corners: Sequence[tuple[int, int]]) -> Denoise:
            rows = torch.arange(n).repeat(len(corners))
            places = [(top // self.factor, left // self.factor) for top, left in corners]
            parts = [image[:, :, y : y + small[0], x : x + small[1]] for y, x in places]
            asked = replace(condition.rows(rows), image=torch.cat(parts))
            return self._guided_denoiser(asked, len(rows), schedule, keys, guides)

        together = max(1, MOST_NUMBERS // (n * math.prod(self.config.shape)))
        denoise = tile_denoiser(denoise_at, (size[0], size[1]), (tile[0], tile[1]), self.factor, together)
        denoise = with_step_count(denoise, self._times_of(keys, schedule, guides), on_step)
        ids, shape = torch.arange(first, first + n), (channels, size[0], size[1])
        return self._from_noise(denoise, schedule, keys, guides, ids, seed, shape)


class PixelDiffusion(PortableModel, BoundsModel, DiffusionModel):
    """Diffusion of pixels, with bounds on the likelihood of images."""

    @torch.no_grad()
    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """As of any diffusion model; and bits_per_dim of some of the images."""
        return super().validation(batch, rng) | {"bits_per_dim": self.bits_per_dim(batch, rng)}


def _by_thirds(errors: Tensor, u: Tensor, batch: int) -> Logs:
    """The sum of the errors of the images of each third of (0, 1), and their number, (2,); {} where a third may have
    none of a batch."""
    if batch < len(THIRDS):
        return {}
    third = (u * len(THIRDS)).long().to(errors.device)
    masks = {name: (third == k).to(errors.dtype) for k, name in enumerate(THIRDS)}
    return {f"loss_{name}": torch.stack([(errors * mask).sum(), mask.sum()]) for name, mask in masks.items()}
