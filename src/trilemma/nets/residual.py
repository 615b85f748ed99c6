"""A residual encoder and its mirror image, for colour images of 32 to 128 px.

He et al. (2016), "Identity mappings in deep residual networks": h <- h + conv(SiLU(GN(conv(SiLU(GN(h)))))), with the
group norm of Wu & He (2018). Each halving of the size is a convolution with stride 2 that doubles the channels (up to
CAP times those at full size) and one such block; each doubling is one block, a nearest upsampling and a convolution.
The longer side of the smallest map has at most SMALLEST px.
"""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.nets.conv import CentreCrop, conv3
from trilemma.nets.initialisation import start_at_zero

SMALLEST = 8  # px
CAP = 8  # the channels are at most this many times those at full size


class Block(nn.Module):
    """h + f(h), with f twice group norm, SiLU and a 3x3 convolution; (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = start_at_zero(conv3(channels, channels))  # the identity at first
        self.body = nn.Sequential(*_normed(channels), conv3(channels, channels), *_normed(channels), last)

    def forward(self, h: Tensor) -> Tensor:
        """h + f(h)."""
        return h + self.body(h)


def residual_encoder(shape: tuple[int, int, int], outputs: int, width: int) -> nn.Sequential:
    """Image (B, C, H, W) -> (B, outputs)."""
    widths, (height, breadth) = _plan(shape, width)
    layers: list[nn.Module] = [conv3(shape[0], width)]
    for c_in, c_out in pairwise(widths):
        layers += [conv3(c_in, c_out, 2), Block(c_out)]
    if len(widths) == 1:
        layers.append(Block(width))
    return nn.Sequential(*layers, *_normed(widths[-1]), nn.Flatten(), nn.Linear(widths[-1] * height * breadth, outputs))


def residual_decoder(inputs: int, shape: tuple[int, int, int], width: int) -> nn.Sequential:
    """Code (B, inputs) -> image before its last activation (B, C, H, W)."""
    widths, (height, breadth) = _plan(shape, width)
    layers: list[nn.Module] = [
        nn.Linear(inputs, widths[-1] * height * breadth),
        nn.Unflatten(1, (widths[-1], height, breadth)),
    ]
    for c_in, c_out in pairwise(reversed(widths)):
        layers += [Block(c_in), nn.Upsample(scale_factor=2), conv3(c_in, c_out)]
    if len(widths) == 1:
        layers.append(Block(width))
    return nn.Sequential(*layers, *_normed(width), conv3(width, shape[0]), CentreCrop(*shape[1:]))


def map_encoder(shape: tuple[int, int, int], outputs: int, width: int, blocks: int, halvings: int) -> nn.Sequential:
    """Image (B, C, H, W) -> map (B, outputs, h, w), each side halved so often, and once more by taking 2 x 2 pixels as
    channels; sides that this does not divide are padded on the right and at the bottom."""
    widths = [width * 2**k for k in range(halvings + 1)]
    layers: list[nn.Module] = [Patches(2 ** (halvings + 1)), conv3(4 * shape[0], width)]
    for k, c in enumerate(widths):
        layers += [conv3(widths[k - 1], c, 2)] if k else []
        layers += [Block(c) for _ in range(blocks)]
    return nn.Sequential(*layers, *_normed(widths[-1]), conv3(widths[-1], outputs))


def map_decoder(inputs: int, shape: tuple[int, int, int], width: int, blocks: int, halvings: int) -> nn.Sequential:
    """Map (B, inputs, h, w) -> image before its last activation (B, C, H, W)."""
    widths = [width * 2**k for k in reversed(range(halvings + 1))]
    layers: list[nn.Module] = [conv3(inputs, widths[0])]
    for k, c in enumerate(widths):
        layers += [nn.Upsample(scale_factor=2), conv3(widths[k - 1], c)] if k else []
        layers += [Block(c) for _ in range(blocks)]
    return nn.Sequential(*layers, *_normed(width), conv3(width, 4 * shape[0]), Pixels(*shape[1:]))


class Patches(nn.Module):
    """2 x 2 pixels as channels: (B, C, H, W) -> (B, 4 C, H / 2, W / 2), both sides first padded with their last pixels
    to a multiple."""

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        right, below = (-side % self.multiple for side in (image.shape[3], image.shape[2]))
        return F.pixel_unshuffle(F.pad(image, (0, right, 0, below), mode="replicate"), 2)


class Pixels(nn.Module):
    """Back again: (B, 4 C, h, w) -> (B, C, height, width), without what was padded."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size = height, width

    def forward(self, h: Tensor) -> Tensor:
        """See the class."""
        return F.pixel_shuffle(h, 2)[..., : self.size[0], : self.size[1]]


def _plan(shape: tuple[int, int, int], width: int, halvings: int | None = None) -> tuple[list[int], tuple[int, int]]:
    """Channels at full size and after each halving, and the size of the smallest map."""
    if halvings is None:
        halvings = max(0, math.ceil(math.log2(max(shape[1:]) / SMALLEST)))
    height, breadth = (math.ceil(side / 2**halvings) for side in shape[1:])
    return [width * min(2**k, CAP) for k in range(halvings + 1)], (height, breadth)


def _normed(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(math.gcd(channels, 8), channels), nn.SiLU()
