"""What a diffusion model can do along its probability-flow path: likelihoods, and codes, which are noise."""

import math

import torch
from torch import Tensor

from trilemma.diffusion.grids import times_of
from trilemma.diffusion.inversion import invert, no_noise
from trilemma.diffusion.likelihood import flow_bound, variational_bound
from trilemma.diffusion.schedule import Schedule
from trilemma.diffusion.solvers import unipc
from trilemma.diffusion.steps import Denoise, as_images
from trilemma.errors import UserError, check_codes, check_images
from trilemma.types import UNCONDITIONAL, Batch, Condition, Model, check_condition, no_label

CODE_STEPS = 50  # calls from an image to its code, and as many back
ELBO_CALLS = 8  # of one estimate of the bound
VALID_EVERY, VALID_CALLS = 8, 2  # of a validation: images between two whose bound is estimated, and its calls


class DenoisingModel(Model):
    """A model with a schedule and a denoiser of x, which stands for an image: its pixels in [-1, 1], or a code."""

    schedule: Schedule

    @property
    def x_shape(self) -> tuple[int, int, int]:
        """Of x: (channels, height, width)."""
        return self.config.shape

    def to_x(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> x (B, *x_shape)."""
        return 2 * image - 1

    def to_image(self, x: Tensor) -> Tensor:
        """x (B, *x_shape) -> (B, C, H, W) in [0, 1]; what is outside is cut."""
        return as_images(x)

    def of_images(self, condition: Condition, image: Tensor) -> Condition:
        """What is asked of these images themselves, where the condition leaves something open."""
        return condition

    def denoiser(self, schedule: Schedule, condition: Condition, n: int, *, clips: bool = True) -> Denoise:
        """x0_hat of n images at the times of a schedule, of the part of a condition that the model takes."""
        raise NotImplementedError

    def _denoiser_for(self, condition: Condition, n: int) -> Denoise:
        """The denoiser of n given images or codes.

        Raises:
            UserError: the class of each is needed and not given, or not taken.
        """
        check_condition(condition, n, self.n_classes, self.takes)
        if self.n_classes and condition.label is None:
            raise no_label("give labels")
        return self.denoiser(self.schedule, condition, n)


class BoundsModel(DenoisingModel):
    """A model of pixels: likelihoods."""

    def elbo(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, C, H, W) in [0, 1] -> nats per image (B,), of 256 levels."""
        return self.bound(image, rng, condition, calls=ELBO_CALLS)

    @torch.no_grad()
    def bound(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL, *, calls: int) -> Tensor:
        """The variational bound, from so many noise levels of each image: nats per image (B,)."""
        denoise = self._denoiser_for(self.of_images(condition, image), len(image))
        return variational_bound(denoise, self.schedule, self.to_x(image), rng, calls)

    @torch.no_grad()
    def flow_bound(
        self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL, *, calls: int
    ) -> Tensor:
        """That by the density of the path, in so many points: nats per image (B,)."""
        denoise = self._denoiser_for(self.of_images(condition, image), len(image))
        return flow_bound(denoise, self.schedule, self.to_x(image), rng, calls)

    @torch.no_grad()
    def bits_per_dim(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """The variational bound of some images of a batch, 0, VALID_EVERY, ..., in bits per number of an image."""
        some = batch.rows(slice(None, None, VALID_EVERY))
        denoise = self.denoiser(self.schedule, self.of_images(some.condition, some.image), len(some.image))
        nats = variational_bound(denoise, self.schedule, self.to_x(some.image), rng, VALID_CALLS)
        return -nats / (math.prod(self.x_shape) * math.log(2))


class CodesModel(DenoisingModel):
    """Codes, which are the noise that x is drawn from."""

    @property
    def code_length(self) -> int:
        """Numbers in a code: as many as in x."""
        return math.prod(self.x_shape)

    def code_times(self, steps: int) -> Tensor:
        """The times between an image and its code, decreasing, float64 (steps + 1,)."""
        return times_of("log-snr", self.schedule, steps)

    @torch.no_grad()
    def invert(
        self, image: Tensor, condition: Condition = UNCONDITIONAL, *, steps: int | None = None, seed: int = 0
    ) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the noise that such an image is drawn from, of standard deviation 1, (B, Z).

        Nothing is random: `seed` changes nothing.

        Raises:
            UserError: a single step, which would see the image at its noisiest alone.
        """
        check_images(image, self.config.shape)
        if steps == 1:
            raise UserError("steps=1: a path from an image to its noise needs at least 2; 50 are the default")
        times = self.code_times(steps or CODE_STEPS)
        denoise = self._denoiser_for(self.of_images(condition, image), len(image))
        x_T = invert(denoise, self.schedule, times, self.to_x(image))
        return (x_T / float(self.schedule.sigma(times[0]))).flatten(1)

    @torch.no_grad()
    def generate(self, z: Tensor, condition: Condition = UNCONDITIONAL, *, steps: int | None = None) -> Tensor:
        """Noise (B, Z) -> (B, C, H, W) in [0, 1]."""
        check_codes(z, self.code_length)
        times = self.code_times(steps or CODE_STEPS)
        x_T = float(self.schedule.sigma(times[0])) * z.unflatten(1, self.x_shape)
        return self.to_image(unipc(self._denoiser_for(condition, len(z)), self.schedule, times, x_T, no_noise, order=3))
