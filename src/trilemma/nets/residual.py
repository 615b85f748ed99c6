"""A residual encoder and its mirror image, for colour images of 32 to 128 px.

He et al. (2016), "Identity mappings in deep residual networks": h <- h + conv(SiLU(GN(conv(SiLU(GN(h)))))), with the
group norm of Wu & He (2018). Each halving of the size is a convolution with stride 2 that doubles the channels (up to
CAP times those at full size) and one such block; each doubling is one block, a nearest upsampling and a convolution.
The longer side of the smallest map has at most SMALLEST px.
"""

import math
from itertools import pairwise

from torch import Tensor, nn

from trilemma.nets.conv import CentreCrop, conv3

SMALLEST = 8  # px
CAP = 8  # the channels are at most this many times those at full size


class Block(nn.Module):
    """h + f(h), with f twice group norm, SiLU and a 3x3 convolution; (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = conv3(channels, channels)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)  # the identity at first
        self.body = nn.Sequential(*_normed(channels), conv3(channels, channels), *_normed(channels), last)

    def forward(self, h: Tensor) -> Tensor:
        """h + f(h)."""
        return h + self.body(h)


def residual_encoder(shape: tuple[int, int, int], outputs: int, width: int) -> nn.Sequential:
    """Image (B, C, H, W) -> (B, outputs)."""
    widths, (height, breadth) = _plan(shape, width)
    last = nn.Linear(widths[-1] * height * breadth, outputs)
    return nn.Sequential(*_down(shape[0], widths), *_normed(widths[-1]), nn.Flatten(), last)


def residual_decoder(inputs: int, shape: tuple[int, int, int], width: int) -> nn.Sequential:
    """Code (B, inputs) -> image before its last activation (B, C, H, W)."""
    widths, (height, breadth) = _plan(shape, width)
    layers: list[nn.Module] = [
        nn.Linear(inputs, widths[-1] * height * breadth),
        nn.Unflatten(1, (widths[-1], height, breadth)),
    ]
    return nn.Sequential(*layers, *_up(shape, widths))


def map_encoder(shape: tuple[int, int, int], outputs: int, width: int, halvings: int) -> nn.Sequential:
    """Image (B, C, H, W) -> map (B, outputs, h, w), each side halved and rounded up so often."""
    widths, _ = _plan(shape, width, halvings)
    c = widths[-1]
    return nn.Sequential(*_down(shape[0], widths), Block(c), *_normed(c), conv3(c, outputs))


def map_decoder(inputs: int, shape: tuple[int, int, int], width: int, halvings: int) -> nn.Sequential:
    """Map (B, inputs, h, w) -> image before its last activation (B, C, H, W)."""
    widths, _ = _plan(shape, width, halvings)
    return nn.Sequential(conv3(inputs, widths[-1]), Block(widths[-1]), *_up(shape, widths))


def _plan(shape: tuple[int, int, int], width: int, halvings: int | None = None) -> tuple[list[int], tuple[int, int]]:
    """Channels at full size and after each halving, and the size of the smallest map."""
    if halvings is None:
        halvings = max(0, math.ceil(math.log2(max(shape[1:]) / SMALLEST)))
    height, breadth = (math.ceil(side / 2**halvings) for side in shape[1:])
    return [width * min(2**k, CAP) for k in range(halvings + 1)], (height, breadth)


def _down(channels: int, widths: list[int]) -> list[nn.Module]:
    """From an image to the smallest map."""
    layers: list[nn.Module] = [conv3(channels, widths[0])]
    for c_in, c_out in pairwise(widths):
        layers += [conv3(c_in, c_out, 2), Block(c_out)]
    return [*layers, Block(widths[0])] if len(widths) == 1 else layers


def _up(shape: tuple[int, int, int], widths: list[int]) -> list[nn.Module]:
    """From the smallest map to an image."""
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(reversed(widths)):
        layers += [Block(c_in), nn.Upsample(scale_factor=2), conv3(c_in, c_out)]
    if len(widths) == 1:
        layers.append(Block(widths[0]))
    return [*layers, *_normed(widths[0]), conv3(widths[0], shape[0]), CentreCrop(*shape[1:])]


def _normed(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(math.gcd(channels, 8), channels), nn.SiLU()
