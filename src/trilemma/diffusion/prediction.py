"""What a network predicts, over any schedule: x0_hat = c_skip x_t + c_out F(c_in x_t, noise level).

    eps    c_skip = 1 / alpha                                 c_out = -sigma / alpha
    x0     c_skip = 0                                         c_out = 1
    v      c_skip = alpha / (alpha**2 + sigma**2)             c_out = -sigma / sqrt(alpha**2 + sigma**2)
    flow   c_skip = 1 / (alpha + sigma)                       c_out = -sigma / (alpha + sigma)
    edm    c_skip = alpha s**2 / (alpha**2 s**2 + sigma**2)   c_out = sigma s / sqrt(alpha**2 s**2 + sigma**2)

with s the standard deviation of the data for edm (Karras et al. 2022, table 1, for any alpha) and 1 for the others in
c_in = 1 / sqrt(alpha**2 s**2 + sigma**2). So F predicts eps (Ho et al. 2020), x0, v = alpha eps - sigma x0 (Salimans &
Ho 2022) divided by sqrt(alpha**2 + sigma**2), or u = eps - x0 (Lipman et al. 2023; c_skip = 1, c_out = -t for alpha =
1 - t). On a variance-preserving schedule, edm with s = 1 is v with the sign of F reversed.

wiener is edm with a c_skip of its own for each frequency of the images (spectrum.py). Its row here is that of white
images.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from trilemma.errors import named


class Coefficients(NamedTuple):
    """Of x_t, of the network's output and of its input; each of the shape of alpha."""

    skip: Tensor
    out: Tensor
    inside: Tensor

    def of_target(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Of x0 and eps in what the network is to say, (x0 - skip x_t) / out: as their sum no digits are lost where out
        is small."""
        return (1 - self.skip * alpha) / self.out, -self.skip * sigma / self.out


Prediction = Callable[[Tensor, Tensor, float], Coefficients]  # (alpha, sigma, standard deviation of the data)


def eps(alpha: Tensor, sigma: Tensor, std: float) -> Coefficients:
    """The noise. Tells nothing of x0 where alpha = 0."""
    return Coefficients(1 / alpha, -sigma / alpha, _unit(alpha, sigma))


def x0(alpha: Tensor, sigma: Tensor, std: float) -> Coefficients:
    """The clean image."""
    return Coefficients(0 * alpha, 1 + 0 * alpha, _unit(alpha, sigma))


def v(alpha: Tensor, sigma: Tensor, std: float) -> Coefficients:
    """alpha eps - sigma x0, divided by sqrt(alpha**2 + sigma**2)."""
    unit = _unit(alpha, sigma)
    return Coefficients(alpha * unit**2, -sigma * unit, unit)


def flow(alpha: Tensor, sigma: Tensor, std: float) -> Coefficients:
    """eps - x0."""
    return Coefficients(1 / (alpha + sigma), -sigma / (alpha + sigma), _unit(alpha, sigma))


def edm(alpha: Tensor, sigma: Tensor, std: float) -> Coefficients:
    """What is left when the best linear estimate is known, in units in which input and output have variance 1."""
    unit = _unit(alpha * std, sigma)
    return Coefficients(alpha * (std * unit) ** 2, sigma * std * unit, unit)


def white_filter_error(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, std: float) -> Tensor:
    """x0 - c_skip x_t with c_skip of edm, the error of the best linear estimate of white images of mean 0 and that
    standard deviation, as a sum of x0 and eps: no digits are lost where sigma is small; alpha and sigma (B, 1, 1, 1).
    """
    unit = _unit(alpha * std, sigma)
    return (sigma * unit) ** 2 * x0 - alpha * sigma * (std * unit) ** 2 * eps


def _unit(alpha: Tensor, sigma: Tensor) -> Tensor:
    return (alpha**2 + sigma**2).rsqrt()


PREDICTIONS: dict[str, Prediction] = {"eps": eps, "x0": x0, "v": v, "flow": flow, "edm": edm, "wiener": edm}


def get_prediction(name: str) -> Prediction:
    """The named row.

    Raises:
        UserError: with the nearest name.
    """
    return named("prediction", name, PREDICTIONS)
