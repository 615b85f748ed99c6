"""The power spectrum of images, and the best linear estimate that it gives: prediction=wiener.

    x0_hat = W x_t + c_out F,    W = D^-1 diag(alpha s**2 / (alpha**2 s**2 + sigma**2)) D,    c_out as for edm

D turns the channels into those in which the data are uncorrelated (their principal axes), and each of these into its
frequencies (discrete cosine transform, Ahmed, Natarajan & Rao 1974); it is orthonormal. s is the root mean square of
each frequency of the data. W is the filter of Wiener (1949): it knows all of the image where that is a sum of
independent waves. edm has one s for all frequencies, as if the data were white. Natural images have little power at
high frequencies, so a network that has learned nothing draws clouds here, and static there: white noise as strong as
the images. What F has to say is never more than there: S -> S sigma**2 / (alpha**2 S + sigma**2) is concave, so its
mean over the frequencies is at most its value at their mean. The far end of the path is such a linear estimate for any
data (Wang & Vastola 2024).
"""

import math
from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

ROUNDING = (2 / 255) ** 2 / 12  # mean square of what 256 levels over [-1, 1] leave out: no frequency has less


class Spectrum(nn.Module):
    """Of images x (C, H, W), in buffers.

    power: mean square of each frequency, (C, H, W). channels: principal axes of the channels, one a row, (C, C).
    """

    power: Tensor
    channels: Tensor

    def __init__(self, shape: tuple[int, int, int], power: float) -> None:
        super().__init__()
        self.register_buffer("power", torch.full(shape, power))  # of white noise, until it is measured
        self.register_buffer("channels", torch.eye(shape[0]))

    @property
    def std(self) -> Tensor:
        """Root mean square of each frequency, (C, H, W)."""
        return self.power.sqrt()

    def measure(self, images: Iterable[Tensor]) -> None:
        """Take it from images, batches (B, C, H, W)."""
        products, count = torch.zeros(()), 0
        for x in images:
            y = frequencies(x.detach().cpu().float(), torch.eye(x.shape[1]))
            products, count = products + torch.einsum("bchw,bdhw->cdhw", y, y).double(), count + len(y)
        moments = products / count
        axes = torch.linalg.eigh(moments.sum((2, 3)))[1].T
        self.channels.copy_(axes)
        self.power.copy_(torch.einsum("kc,cdhw,kd->khw", axes, moments, axes).clamp(min=ROUNDING))

    def to_frequencies(self, x: Tensor) -> Tensor:
        """D x, (B, C, H, W)."""
        return frequencies(x, self.channels.to(x))

    def to_pixels(self, y: Tensor) -> Tensor:
        """D^-1 y, (B, C, H, W)."""
        rows, columns = (cosines(side).to(y) for side in y.shape[2:])
        with torch.autocast(y.device.type, enabled=False):  # bfloat16 has not the bits: one frequency leaks into others
            return torch.einsum("kc,bkij->bcij", self.channels.to(y), rows.T @ y @ columns)

    def wiener_filter(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """W x_t; alpha and sigma (B, 1, 1, 1)."""
        s, unit = self._units(alpha, sigma)
        return self.to_pixels(alpha * (s * unit) ** 2 * self.to_frequencies(x_t))

    def filter_error(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x0 - W x_t, as a sum of x0 and eps: no digits are lost where sigma is small."""
        s, unit = self._units(alpha, sigma)
        of_x0, of_eps = (sigma * unit) ** 2, -alpha * sigma * (s * unit) ** 2
        return self.to_pixels(of_x0 * self.to_frequencies(x0) + of_eps * self.to_frequencies(eps))

    def _units(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """s and 1 / sqrt(alpha**2 s**2 + sigma**2) of each frequency."""
        s = self.std.to(alpha)
        return s, (alpha**2 * s**2 + sigma**2).rsqrt()


def frequencies(x: Tensor, channels: Tensor) -> Tensor:
    """D x of images (B, C, H, W)."""
    rows, columns = (cosines(side).to(x) for side in x.shape[2:])
    with torch.autocast(x.device.type, enabled=False):
        return rows @ torch.einsum("kc,bcij->bkij", channels, x) @ columns.T


def cosines(n: int) -> Tensor:
    """The orthonormal discrete cosine transform (type 2) of n numbers, float64 (n, n), a frequency in each row."""
    return torch.from_numpy(_waves(n))


@cache
def _waves(n: int) -> np.ndarray:
    """As numbers of numpy: a tensor that is made while a graph is exported has no values, and would be kept."""
    k, i = np.arange(n)[:, None], np.arange(n)
    waves = np.cos(math.pi * k * (2 * i + 1) / (2 * n)) * math.sqrt(2 / n)
    waves[0] /= math.sqrt(2)
    return waves
