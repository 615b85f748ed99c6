"""What a trained network estimates: x0_hat of noisy images over any schedule, guided as asked.

    x0_hat = c_skip x_t + c_out F(c_in x_t, log(sigma / alpha), condition)       (prediction.py has the coefficients)

The network is told log(sigma / alpha) and no t, so that the schedule may be another than that of its training. An
estimate is guided first (guidance.py) and then kept in [-1, 1]: one that is cut would have no gradient.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma.diffusion.conditioning import ConditionedModel
from trilemma.diffusion.guidance import by_classifier, guided_denoiser, log_probability
from trilemma.diffusion.prediction import get_prediction
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.diffusion.schedule import Schedule, noise_level
from trilemma.diffusion.spectrum import Spectrum
from trilemma.diffusion.steps import Denoise, of_images
from trilemma.errors import UserError
from trilemma.nets.dit import DiT
from trilemma.nets.network_input import NetworkInput
from trilemma.nets.unet import UNet
from trilemma.types import UNCONDITIONAL, Condition, DenoisesOnAnySchedule, Guides, check_condition, flags


class ImageCoefficients(NamedTuple):
    """Of images x_t at times t, each (B, 1, 1, 1), and the noise level (B,)."""

    skip: Tensor
    out: Tensor
    inside: Tensor
    level: Tensor


class EstimatingModel(ConditionedModel):
    """A network of a prediction, as denoisers; data_std: standard deviation of x; spectrum: of x, for `wiener`."""

    prediction: str
    data_std: float
    network: UNet | DiT
    spectrum: Spectrum | None

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """x_t (B, *x_shape), t (B,) in [0, 1] of the training's schedule -> x0_hat, as x_t."""
        return self._estimate_x0(x_t, t, self.embed(condition, len(x_t)), self.schedule)

    def denoiser(self, schedule: Schedule, condition: Condition, n: int, *, clips: bool = True) -> Denoise:
        """That of n images at the times of a schedule; clips: as the config says, or not at all."""
        denoise = self._plain_denoiser(schedule, condition, n)
        return self._with_clipping(denoise) if clips else denoise

    def check_call(self, condition: Condition, n: int, guides: Guides) -> int:
        """How many classes a call knows: those of its classifier, or else of the model.

        Raises:
            UserError: the condition is not one that it takes, for n images, or has an empty caption, which a model
                has not learned that was never without one.
        """
        n_classes = flags(guides.classifier).n_classes or self.n_classes
        check_condition(condition, n, n_classes, self.takes)
        self.check_captions(condition)
        return n_classes

    def _denoiser_for(self, condition: Condition, n: int) -> Denoise:
        """As of any model."""
        self.check_captions(condition)
        return super()._denoiser_for(condition, n)

    def _guided_denoiser(
        self, condition: Condition, n: int, schedule: Schedule, keys: DiffusionSampling, guides: Guides
    ) -> Denoise:
        """The denoiser of a call, guided as asked and then clipped; a clipped estimate would have no gradient."""
        denoise, label = self._plain_denoiser(schedule, condition, n), condition.label
        if keys.guidance != 1:
            weak = self._weak_denoiser(condition, n, schedule, keys, guides)
            interval = keys.guidance_interval or (-math.inf, math.inf)
            denoise = guided_denoiser(denoise, weak, keys.guidance, schedule, interval, keys.guidance_rescale)
        if guides.classifier is not None:
            if label is None:
                raise UserError(f"classifier={keys.classifier} leads to a class; add label=")
            to_class = log_probability(guides.classifier, label)
            denoise = by_classifier(denoise, to_class, keys.classifier_scale, schedule)
        return self._with_clipping(denoise)

    def _weak_denoiser(
        self, condition: Condition, n: int, schedule: Schedule, keys: DiffusionSampling, guides: Guides
    ) -> Denoise:
        """What guidance leads away from: the denoiser of the guide, or this one without a class or caption."""
        if guides.weak is not None:
            assert isinstance(guides.weak, DenoisesOnAnySchedule)
            taken = [*(["label"] if self.n_classes and flags(guides.weak).n_classes else []), *flags(guides.weak).takes]
            return guides.weak.denoiser(schedule, condition.only(*taken), n, clips=False)
        if not self.n_classes and "caption" not in self.takes:
            raise UserError(
                f"guidance={keys.guidance:g} needs a model trained with classes=true or captions=true, or guide=RUN; "
                "leave it out"
            )
        if not self.null_condition:
            raise UserError(
                f"guidance={keys.guidance:g} needs images without a class or caption, and this model was trained with "
                "label_dropout=0; give guide=RUN, or leave it out"
            )
        if condition.label is None and condition.caption is None:
            raise UserError(f"guidance={keys.guidance:g} leads to a class or a caption; add label= or caption=")
        return self._plain_denoiser(schedule, replace(condition, label=None, caption=None), n)

    def _plain_denoiser(self, schedule: Schedule, condition: Condition, n: int) -> Denoise:
        """The denoiser as the network has it.

        Raises:
            UserError: it is to do without a class or caption, and has not learned that.
        """
        self.check_asked(condition)
        inputs = self.embed(condition, n)
        return lambda x_t, t: self._estimate_x0(x_t, t, inputs, schedule)

    def _with_clipping(self, denoise: Denoise) -> Denoise:
        """A denoiser whose images stay in [-1, 1], if the config says so."""
        return (lambda x_t, t: denoise(x_t, t).clamp(-1, 1)) if self.config.clip_x0 else denoise

    def _estimate_x0(self, x_t: Tensor, t: Tensor, inputs: NetworkInput, schedule: Schedule) -> Tensor:
        """x0_hat of images at times of a schedule."""
        t = t.cpu().double()
        return self.denoise_at(x_t, schedule.alpha(t), schedule.sigma(t), inputs)

    def denoise_at(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, inputs: NetworkInput) -> Tensor:
        """x0_hat of x_t = alpha x0 + sigma eps; alpha and sigma float64 (B,), sigma above 0."""
        c = self._coefficients(alpha, sigma, x_t)
        output = self.network(c.inside * x_t, c.level, inputs).to(x_t.dtype)
        if self.spectrum is not None:
            return self.spectrum.wiener_filter(x_t, of_images(alpha.to(x_t)), of_images(sigma.to(x_t))) + c.out * output
        return c.skip * x_t + c.out * output

    def _coefficients(self, alpha: Tensor, sigma: Tensor, like: Tensor) -> ImageCoefficients:
        """Worked out in double precision, then as `like`."""
        rows = get_prediction(self.prediction)(alpha, sigma, self.data_std)
        skip, out, inside, level = torch.stack([*rows, noise_level(alpha, sigma)]).to(like)
        return ImageCoefficients(of_images(skip), of_images(out), of_images(inside), level)
