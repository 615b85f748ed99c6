"""A small U-Net of depthwise-separable convolutions with a time input: (x_t, t) -> an image of the same shape.

For widths (w0, ..., wL) and c(h) a 1x1 convolution; e_k(t) is a projection of the sinusoidal embedding of t:

    in      h <- ReLU(BN(conv 3x3(pad(x)))) + e(t)                         w0 channels, sides a multiple of 2**L
    down k  g <- [ReLU, separable conv 3x3, BN] twice (h), kept;  h <- max-pool 3x3 s2 (g) + c s2(h) + e(t)
    up k    g <- [ReLU, transposed conv 3x3, BN] twice (h);       h <- join(upsample2(g) + c(upsample2(h)) + e(t), kept)
    out     conv 3x3(h), cropped to the image

A 1x1 convolution and a constant per channel commute with nearest upsampling, so they are applied before it, at a
quarter of the cost.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.nets.conv import centre_crop


class UNet(nn.Module):
    """Images (B, C, H, W) and t (B,) in [0, 1] -> (B, C, H, W).

    Args:
        shape: (C, H, W) of the images.
        widths: channels at full size and after each halving.
        embedding: size of the time embedding.
        time_scale: the embedding sees t * time_scale (the number of steps of the schedule).
    """

    def __init__(self, shape: tuple[int, int, int], widths: tuple[int, ...], embedding: int, time_scale: float) -> None:
        super().__init__()
        channels, self.size = shape[0], shape[1:]
        self.embedding, self.time_scale = embedding, time_scale
        self.pad = _padding(self.size, 2 ** (len(widths) - 1))
        self.first = nn.Sequential(nn.Conv2d(channels, widths[0], 3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.down = nn.ModuleList(_Down(c_in, c_out) for c_in, c_out in pairwise(widths))
        self.up, c_in = nn.ModuleList(), widths[-1]
        for c_out, c_kept in zip(widths[-2::-1], widths[:0:-1], strict=True):
            self.up.append(_Up(c_in, c_out))
            c_in = c_out + c_kept
        self.last = nn.Conv2d(c_in, channels, 3, padding=1)
        self.time_widths = [*widths, *widths[-2::-1]]  # first, down, up
        self.time = nn.Linear(embedding, sum(self.time_widths))  # all the projections in one

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, C, H, W), t (B,) in [0, 1] -> (B, C, H, W)."""
        first, *times = self._times(t)
        h = self.first(F.pad(x_t, self.pad))  # (B, w0, H', W'), H' and W' multiples of 2**L
        h = h + first.to(h.dtype)
        skips = []
        for block, time in zip(self.down, times[: len(self.down)], strict=True):
            h, skip = block(h, time)
            skips.append(skip)
        for block, time in zip(self.up, times[len(self.down) :], strict=True):
            h = torch.cat([block(h, time), skips.pop()], dim=1)
        return centre_crop(self.last(h), *self.size)

    def _times(self, t: Tensor) -> tuple[Tensor, ...]:
        """Time term of each place, (B, width, 1, 1); float32 also under autocast, where t would lose its fine steps."""
        with torch.autocast(t.device.type, enabled=False):
            terms = self.time(sinusoid(t * self.time_scale, self.embedding).to(self.time.weight.dtype))
        return terms[:, :, None, None].split(self.time_widths, dim=1)


class _Down(nn.Module):
    """Two separable convolutions, whose output is also kept, then half the size."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_separable(c_in, c_out), *_separable(c_out, c_out))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.skip = nn.Conv2d(c_in, c_out, 1, 2)

    def forward(self, h: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.body(h)
        h = self.pool(skip) + self.skip(h)
        return h + time.to(h.dtype), skip


class _Up(nn.Module):
    """Two transposed convolutions, then twice the size."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_transposed(c_in, c_out), *_transposed(c_out, c_out))
        self.skip = nn.Conv2d(c_in, c_out, 1)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        h = self.body(h) + self.skip(h)
        return F.interpolate(h + time.to(h.dtype), scale_factor=2, mode="nearest")


def sinusoid(position: Tensor, size: int) -> Tensor:
    """Sines and cosines of geometrically spaced frequencies (Vaswani et al. 2017, section 3.5).

    sin(p / 10000**(2i / size)) for i = 0 ... size/2 - 1, then the cosines; (B,) -> (B, size).
    """
    i = torch.arange(size // 2, device=position.device, dtype=position.dtype)
    angle = position[:, None] * torch.exp(-math.log(10_000) * 2 * i / size)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _separable(c_in: int, c_out: int) -> list[nn.Module]:
    """ReLU, one 3x3 filter per channel, a 1x1 mixture of the channels, batch norm."""
    depthwise = nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False)
    return [nn.ReLU(), depthwise, nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out)]


def _transposed(c_in: int, c_out: int) -> list[nn.Module]:
    """ReLU, transposed 3x3 convolution, batch norm."""
    return [nn.ReLU(), nn.ConvTranspose2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)]


def _padding(size: tuple[int, int], multiple: int) -> tuple[int, int, int, int]:
    """Zeros (left, right, top, bottom) after which an unpadded 3x3 convolution gives multiples of `multiple`."""
    extra_h, extra_w = (math.ceil(n / multiple) * multiple + 2 - n for n in size)
    return extra_w // 2, extra_w - extra_w // 2, extra_h // 2, extra_h - extra_h // 2
