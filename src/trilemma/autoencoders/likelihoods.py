"""p(x|z): what a decoder's outputs say about the pixels.

    Bernoulli   log p = sum_i x_i log m_i + (1 - x_i) log(1 - m_i)
    Gaussian    log p = -1/2 sum_i (x_i - m_i)^2 / s_i^2 + log(2 pi s_i^2)

A Bernoulli is a likelihood of black and white pixels; for grey ones the same sum is a loss (the continuous Bernoulli
of Loaiza-Ganem & Cunningham 2019 has the constant that is missing). Gaussians are densities over images in [0, 1].
Their variance s^2 is a given number; or learned, one for each pixel as a second output of the decoder; or optimal, one
for all pixels: the mean squared error of the batch, where log p is greatest (Rybkin, Daniilidis & Levine 2021, "Simple
and effective VAE training with calibrated decoders"). With the optimal one, -log p of a batch is
D/2 (log(2 pi s^2) + 1) per image of D pixels. Outside training it is the running mean over the batches, each with
0.95 times the weight of the next, corrected for its start as Adam's means are (Kingma & Ba 2015, section 3): the
weights are divided by their sum, 1 - 0.95^n after n batches, so that nothing is left of the first value.

No standard deviation falls below 1 / 255, the step between two levels: a narrower density could be raised without end
by pixels that are constant in the data. At that width the density at a level and its mean over the level differ by
0.06 bits.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator
from torch import Tensor, nn

from trilemma.autoencoders.losses import bernoulli_nats, gaussian_log_likelihood, squared_error
from trilemma.config import VARIANCE
from trilemma.whole_batch import batch_mean

LEAST_VARIANCE = 1 / 255**2  # of a pixel: one level
LEAST_LOGVAR = math.log(LEAST_VARIANCE)
FOLLOW = 0.05  # share of a batch in the running mean of the optimal variance


def _known_variance(value: Any) -> Any:
    """A variance as a user gave it; refused before pydantic tries each of its types and reports on all of them."""
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and LEAST_VARIANCE <= value < math.inf) and value not in ("learned", "optimal"):
        raise ValueError(f"give learned, optimal, or a number of at least {LEAST_VARIANCE:.1e} (one level squared)")
    return value


Variance = Annotated[float | Literal["learned", "optimal"] | None, BeforeValidator(_known_variance)]
OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "none": lambda x: x}


def pixel_variance(variance: object) -> float:
    """Of the Gaussian behind a mean squared error: the number that a config gives; default: VARIANCE."""
    return variance if isinstance(variance, float) else VARIANCE


class Bernoulli(nn.Module):
    """Every pixel is 1 with the probability sigmoid(output)."""

    name = "bernoulli"
    density = False  # over images in [0, 1]
    channels_per_channel = 1

    def mean(self, outputs: Tensor) -> Tensor:
        """Decoder's outputs (B, C, H, W) -> mean image, the same shape."""
        return outputs.sigmoid()

    def log_prob(self, outputs: Tensor, image: Tensor) -> Tensor:
        """Nats per image, (B,)."""
        return -bernoulli_nats(outputs, image)


class Gaussian(nn.Module):
    """Every pixel is normal around output(first C channels of the decoder).

    Args:
        variance: a number, "learned" or "optimal" (default); see the head of this module.
        output: a key of OUTPUTS.
    """

    density = True
    variance: Tensor
    weight: Tensor

    def __init__(self, variance: Variance, output: str = "sigmoid") -> None:
        super().__init__()
        variance = "optimal" if variance is None else variance
        self.kind = variance if isinstance(variance, str) else "fixed"
        self.name = f"gaussian-{variance if isinstance(variance, str) else f'{variance:g}'}"
        self.channels_per_channel = 2 if variance == "learned" else 1
        self.batch_statistics = self.sums_statistics = variance == "optimal"
        self.output = OUTPUTS[output]
        if not isinstance(variance, str):
            self.logvar = math.log(variance)
        if variance == "optimal":
            self.register_buffer("variance", torch.ones(()))  # running mean over the batches of the training
            self.register_buffer("weight", torch.zeros(()))  # sum of their weights, 1 - (1 - FOLLOW)**n
            self.register_load_state_dict_pre_hook(_fill_in_weight)

    def mean(self, outputs: Tensor) -> Tensor:
        """Decoder's outputs (B, C or 2C, H, W) -> mean image (B, C, H, W)."""
        return self.output(outputs.chunk(2, dim=1)[0] if self.kind == "learned" else outputs)

    def log_prob(self, outputs: Tensor, image: Tensor) -> Tensor:
        """Nats per image, (B,); in training the optimal variance is that of this batch, otherwise the running mean."""
        mean = self.mean(outputs)
        return gaussian_log_likelihood(mean, image, self._logvar(outputs, mean, image))

    def _logvar(self, outputs: Tensor, mean: Tensor, image: Tensor) -> Tensor:
        """Natural log of the variance: (B, C, H, W) where learned, otherwise ()."""
        if self.kind == "learned":
            return at_least_one_level(outputs.chunk(2, dim=1)[1])
        if self.kind == "fixed":
            return outputs.new_full((), self.logvar)
        if not self.training:
            return self.variance.log()
        # As a constant: at the optimum, the gradient through the variance is 0.
        variance = batch_mean(squared_error(mean, image).mean().detach()).clamp(min=LEAST_VARIANCE)
        self.weight.lerp_(torch.ones_like(self.weight), FOLLOW)
        self.variance.lerp_(variance, FOLLOW / self.weight)
        return variance.log()


def _fill_in_weight(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """The weights of earlier versions have no `weight`; their mean was not corrected, which is a weight of 1."""
    state.setdefault(f"{prefix}weight", torch.ones((), dtype=torch.float32))


def at_least_one_level(raw: Tensor) -> Tensor:
    """A decoder's output as log variance: a smooth maximum of itself and LEAST_LOGVAR."""
    return LEAST_LOGVAR + F.softplus(raw - LEAST_LOGVAR)
