"""The generator and the critic of R3GAN, without any normalisation: z (B, inputs) -> image, image -> logits (B,).

Huang et al. (2024), "The GAN is dead; long live the GAN! A modern GAN baseline", section 4 and appendix. Blocks and the
changes of size between them, at any map of C channels:

    block    x + W3 f(W2 f(W1 x + b1) + b2),    W1 1x1 to the inner channels, W2 3x3, W3 1x1 back, f LeakyReLU 0.2
    up       1x1 where the channels change, then twice the size by linear interpolation, [1, 2, 1]
    down     [1, 2, 1] and half the size, then 1x1 where the channels change

Weights start from N(0, gain**2 / inputs); gain = 1, but sqrt(2 / 1.04) L**(-1/4) in W1 and W2 of L blocks, and W3 = 0
(Zhang et al. 2019, "Fixup initialization"), so that the signal keeps its scale at any depth. The generator begins with
a learned map times a linear function of z, the critic ends with a depthwise convolution of the last map's size.

Maps follow from the size as those of `nets.dcgan`: S = max(2, round(log2(min(H, W) / 4))) doublings from a base grid of
ceil(H / 2**S) x ceil(W / 2**S), cropped at the end. At 32x32 and width 32, with a block at each size:

    z -> 4x4x128 -> 8x8x64 -> 16x16x32 -> 32x32x32 -> C,    and back

W2 as published has groups of 8 channels and 2 C inner channels. By default it is dense here with C / 2, which costs as
many multiplications at C = 64: with the second derivative that penalties need, a block with groups takes 2 (64 channels
at 14x14) to 5 times (32 at 28x28) as long on a CPU.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from trilemma.nets import critic
from trilemma.nets.conv import centre_crop, within_range
from trilemma.nets.dcgan import stage_widths
from trilemma.nets.initialisation import Layer
from trilemma.nets.precision import full

SLOPE = 0.2  # of LeakyReLU below 0
BRANCH_LAYERS = 3


class Block(nn.Module):
    """Residual block that starts as the identity: (B, C, H, W) -> the same shape.

    Args:
        blocks: in the whole network, by which initial weights are scaled.
    """

    def __init__(self, channels: int, blocks: int, group: int | None) -> None:
        super().__init__()
        inner = max(1, channels // 2) if group is None else 2 * channels
        groups = 1 if group is None else inner // math.gcd(inner, group)
        gain = math.sqrt(2 / (1 + SLOPE**2)) * blocks ** (-1 / (2 * BRANCH_LAYERS - 2))
        self.body = nn.Sequential(
            initialise(nn.Conv2d(channels, inner, 1), gain),
            nn.LeakyReLU(SLOPE),
            initialise(nn.Conv2d(inner, inner, 3, padding=1, groups=groups), gain),
            nn.LeakyReLU(SLOPE),
            initialise(nn.Conv2d(inner, channels, 1, bias=False), 0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x plus its correction."""
        return x + self.body(x)


class Resize(nn.Module):
    """A fixed linear map of either side, (B, C, H, W) -> (B, C, len(rows), len(columns)).

    By products with matrices, whose derivatives are such products again: pooling and depthwise convolutions took half
    of a training step.
    """

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns.T, persistent=False)
        self.rows: Tensor
        self.columns: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> its map."""
        return self.rows @ (x @ self.columns)


def up(n: int) -> Tensor:
    """(2 n, n), one side's weights: out[2 i] = x[i], out[2 i + 1] = (x[i] + x[i + 1]) / 2; the last pixel repeats."""
    i = torch.arange(2 * n)
    one_hot = torch.eye(n)
    return (one_hot[i // 2] + one_hot[((i + 1) // 2).clamp(max=n - 1)]) / 2


def down(n: int) -> Tensor:
    """(ceil(n / 2), n), weights of a side: out[i] = (x[2 i - 1] + 2 x[2 i] + x[2 i + 1]) / 4; both ends repeat."""
    i = torch.arange((n + 1) // 2)
    one_hot = torch.eye(n)
    return (one_hot[(2 * i - 1).clamp(min=0)] + 2 * one_hot[2 * i] + one_hot[(2 * i + 1).clamp(max=n - 1)]) / 4


class Basis(nn.Module):
    """A learned map, each channel times a linear function of z: (B, inputs) -> (B, C, h, w)."""

    def __init__(self, inputs: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.randn(channels, *size))
        self.linear = initialise(nn.Linear(inputs, channels, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        """(B, inputs) -> (B, C, h, w)."""
        return self.map * self.linear(z)[:, :, None, None]


class Generator(nn.Module):
    """R3GAN's generator: z (B, inputs) -> image (B, C, H, W).

    Its last layer is linear. In training nothing is cut, so that the critic's gradient reaches what lies outside of
    [0, 1]; in use what does is cut.

    Args:
        width: channels next to the image; group: channels in a group of W2, as published 8; None: dense.
    """

    def __init__(self, shape: tuple[int, int, int], inputs: int, width: int, *, group: int | None = None) -> None:
        super().__init__()
        widths, self.size = map_widths(shape, width)[::-1], shape[1:]
        height, width_px = (math.ceil(n / 2 ** (len(widths) - 1)) for n in self.size)
        layers: list[nn.Module] = [Basis(inputs, widths[0], (height, width_px)), Block(widths[0], len(widths), group)]
        for c_in, c_out in pairwise(widths):
            layers += [*change(c_in, c_out), Resize(up(height), up(width_px)), Block(c_out, len(widths), group)]
            height, width_px = 2 * height, 2 * width_px
        self.body = nn.Sequential(*layers, initialise(nn.Conv2d(widths[-1], shape[0], 1)))

    def forward(self, z: Tensor) -> Tensor:
        """(B, inputs) -> (B, C, H, W), in [0, 1] but in training."""
        image = (full(centre_crop(self.body(z), *self.size)) + 1) / 2
        return image if self.training else within_range(image)


class Critic(critic.Critic):
    """R3GAN's critic, the mirror of its generator: image (B, C, H, W) in [0, 1] -> logits (B,), high for real."""

    def __init__(self, shape: tuple[int, int, int], width: int, *, group: int | None = None) -> None:
        widths = map_widths(shape, width)
        layers: list[nn.Module] = [initialise(nn.Conv2d(shape[0], widths[0], 1)), Block(widths[0], len(widths), group)]
        _, height, width_px = shape
        for c_in, c_out in pairwise(widths):
            layers += [Resize(down(height), down(width_px)), *change(c_in, c_out), Block(c_out, len(widths), group)]
            height, width_px = (height + 1) // 2, (width_px + 1) // 2
        last = widths[-1]
        layers += [initialise(nn.Conv2d(last, last, (height, width_px), groups=last, bias=False)), nn.Flatten()]
        super().__init__(nn.Sequential(*layers, initialise(nn.Linear(last, 1))))

    def features(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the channels of the last map, (B, n_features)."""
        return super().features(2 * image - 1)


def map_widths(shape: tuple[int, int, int], width: int) -> list[int]:
    """Channels of the maps from the image's size inwards: width, then `dcgan.stage_widths`."""
    return [width, *stage_widths(*shape[1:], width)]


def change(c_in: int, c_out: int) -> list[nn.Module]:
    """1x1 convolution where the channels differ."""
    return [] if c_in == c_out else [initialise(nn.Conv2d(c_in, c_out, 1, bias=False))]


def initialise(layer: Layer, gain: float = 1.0) -> Layer:
    """The layer, its weights from N(0, gain**2 / inputs) and its bias 0."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
