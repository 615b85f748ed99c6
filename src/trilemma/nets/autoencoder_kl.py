"""An encoder to a map, and a decoder, with the layers of AutoencoderKL of diffusers and no others, named as there.

For level k of widths w_k, k = 0 ... K, at 1 / 2**k of the image's size:

    encoder   h <- conv 3x3(x)
    level k   h <- `blocks` times block(h);  for all but the last, h <- conv 3x3 of stride 2 (h, with zeros on the right
              and at the bottom)
    middle    h <- block(block(h))
    map       conv 3x3(SiLU(GroupNorm(h)))

    decoder   h <- conv 3x3(z)
    middle    h <- block(block(h))
    level k   h <- `blocks` + 1 times block(h);  for all but the first, h <- conv 3x3(nearest x2 (h))
    image     conv 3x3(SiLU(GroupNorm(h)))

    block     h + conv 3x3(SiLU(GroupNorm(conv 3x3(SiLU(GroupNorm(h)))))), the last begins at zero, and h goes through a
              1x1 convolution where the channels change                       (Rombach et al. 2022, appendix G)
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.nets.conv import conv3
from trilemma.nets.initialisation import start_at_zero

EPS = 1e-6  # of every norm
MOST_GROUPS = 8


class PortableEncoder(nn.Module):
    """Image (B, C, H, W), whose sides 2**K divides -> map (B, outputs, H / 2**K, W / 2**K).

    Args:
        widths: channels of each level, all multiples of the first; blocks: residual blocks of a level.
    """

    def __init__(self, channels: int, outputs: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.widths, self.blocks, groups = list(widths), blocks, groups_of(widths)
        self.conv_in = conv3(channels, widths[0])
        self.down_blocks = _levels(widths, blocks, groups, halves=True)
        self.mid_block = _Level(widths[-1], widths[-1], 2, groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = conv3(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        h = self.conv_in(x)
        for level in self.down_blocks:
            h = level(h)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(h))))


class PortableDecoder(nn.Module):
    """Map (B, inputs, h, w) -> image before its last activation (B, C, 2**K h, 2**K w).

    Args:
        widths: as of the encoder, from the image to the map; blocks: as there.
    """

    def __init__(self, inputs: int, channels: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        groups = groups_of(widths)
        self.conv_in = conv3(inputs, widths[-1])
        self.mid_block = _Level(widths[-1], widths[-1], 2, groups)
        self.up_blocks = _levels(widths[::-1], blocks + 1, groups, doubles=True)
        self.conv_norm_out = nn.GroupNorm(groups, widths[0], eps=EPS)
        self.conv_out = conv3(widths[0], channels)

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        h = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            h = level(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


def groups_of(widths: Sequence[int]) -> int:
    """Groups of every norm: MOST_GROUPS, or fewer where that does not divide the channels."""
    return math.gcd(widths[0], MOST_GROUPS)


def autoencoder_settings(encoder: PortableEncoder, shape: tuple[int, int, int], channels: int) -> dict[str, Any]:
    """The settings of AutoencoderKL.

    Args:
        shape: of the images; channels: numbers at a place of the map.
    """
    image_channels, height, width = shape
    return {
        "in_channels": image_channels,
        "out_channels": image_channels,
        "latent_channels": channels,
        "block_out_channels": encoder.widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(encoder.widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(encoder.widths),
        "layers_per_block": encoder.blocks,
        "norm_num_groups": groups_of(encoder.widths),
        "mid_block_add_attention": False,
        "sample_size": height if height == width else [height, width],
        "scaling_factor": 1.0,  # its codes are standardised
    }


def autoencoder_weights(encoder: nn.Module, decoder: nn.Module, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """The weights of AutoencoderKL, by its names, whose 1x1 convolutions standardise the codes and undo it.

    Args:
        mean, std: of each channel of the codes, (Z,).
    """
    first = {
        "quant_conv.weight": _diagonal(torch.cat([1 / std, torch.ones_like(std)])),
        "quant_conv.bias": torch.cat([-mean / std, -2 * std.log()]),  # of logvar
        "post_quant_conv.weight": _diagonal(std),
        "post_quant_conv.bias": mean,
    }
    named = {"encoder": encoder, "decoder": decoder}
    weights = {f"{name}.{key}": value for name, net in named.items() for key, value in net.state_dict().items()}
    return {name: value.detach().clone().contiguous() for name, value in {**first, **weights}.items()}


def _diagonal(factors: Tensor) -> Tensor:
    """A 1x1 convolution that multiplies each channel, (Z, Z, 1, 1)."""
    return factors.diag()[:, :, None, None]


def _levels(widths: Sequence[int], blocks: int, groups: int, **resizes: bool) -> nn.ModuleList:
    """Levels of these channels in this order, of which all but the last change the size."""
    last = len(widths) - 1
    return nn.ModuleList(
        _Level(widths[max(0, k - 1)], c, blocks, groups, **(resizes if k < last else {})) for k, c in enumerate(widths)
    )


class _Level(nn.Module):
    """Residual blocks, and what changes the size after them."""

    def __init__(
        self, c_in: int, c_out: int, blocks: int, groups: int, *, halves: bool = False, doubles: bool = False
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Block(c_in if k == 0 else c_out, c_out, groups) for k in range(blocks))
        self.downsamplers = nn.ModuleList([_Halving(c_out)] if halves else [])
        self.upsamplers = nn.ModuleList([_Doubling(c_out)] if doubles else [])

    def forward(self, h: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H, W), or half or twice the sides."""
        for module in (*self.resnets, *self.downsamplers, *self.upsamplers):
            h = module(h)
        return h


class _Block(nn.Module):
    """h + f(h); (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(groups, c, eps=EPS) for c in (c_in, c_out))
        self.conv1, self.conv2 = conv3(c_in, c_out), start_at_zero(conv3(c_out, c_out))
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        """See the class."""
        f = self.conv1(F.silu(self.norm1(h)))
        return self.conv_shortcut(h) + self.conv2(F.silu(self.norm2(f)))


class _Halving(nn.Module):
    """(B, C, H, W) -> (B, C, H / 2, W / 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2)

    def forward(self, h: Tensor) -> Tensor:
        """See the class."""
        return self.conv(F.pad(h, (0, 1, 0, 1)))


class _Doubling(nn.Module):
    """(B, C, H, W) -> (B, C, 2 H, 2 W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        """See the class."""
        return self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))
