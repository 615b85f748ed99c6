"""A U-Net of residual blocks that are told the noise level: (x, noise level, condition) -> an image of the same shape.

For level k of widths w_k = width * multipliers[k], at 1 / (p 2**k) of the image's size, e an embedding of the noise
level (and of the condition, which is added to it):

    in      h <- conv 3x3(patches of pad(x)), a patch of p x p pixels being one place with p p times the channels
    down k  h <- `depth` times [block(h, e), attention where the map has at most `attention_px` a side], each a skip;
            h <- conv 3x3 of stride 2 (h), a skip, for all but the last level
    middle  h <- block, attention, block
    up k    h <- `depth` + 1 times [block(join(h, skip), e), attention as above];  h <- nearest x2 (h) unless k = 0
    out     conv 3x3(SiLU(GroupNorm(h))), which begins at zero, patches put back, cropped to the image

    block   h + conv 3x3(dropout(SiLU(scale(e) GroupNorm(conv 3x3(SiLU(GroupNorm(h)))) + shift(e)))), the last begins at
            zero, and h goes through a 1x1 convolution where the channels change
                                                       (Ho et al. 2020, appendix B; Dhariwal & Nichol 2021, section 3)
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.nets.attention import SpatialAttention, groups_of, largest_divisor
from trilemma.nets.initialisation import start_at_zero
from trilemma.nets.network_input import NO_INPUT, NetworkInput
from trilemma.nets.text import HEAD, CrossAttention
from trilemma.nets.unet_small import sinusoid

FREQUENCY = 100.0  # the sinusoids see noise levels times this, so that steps of 0.01 are told apart


class UNet(nn.Module):
    """Images (B, C, H, W), noise levels (B,) and an embedded condition -> (B, C, H, W).

    Where the network is given a text, it looks at its tokens after each attention to places.

    Args:
        shape: (C, H, W) of the images; sides that patch * 2**(levels - 1) does not divide are padded.
        width: channels at the largest map.
        multipliers: of the width, a level each.
        depth: residual blocks a level.
        attention_px: maps of at most so many pixels a side, and the smallest, have attention; 0 for none.
        dropout: inside the blocks.
        patch: p, px; a larger one makes the maps smaller and everything faster.
        tokens: numbers of a token of a text; 0 without texts.
        planes: channels that it is given beside the image.
        groups: of every norm; with them attention is plain, as in UNet2DModel of diffusers. Default: by the channels.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int,
        multipliers: Sequence[int] = (1, 2, 2),
        depth: int = 2,
        attention_px: int = 8,
        dropout: float = 0.0,
        patch: int = 1,
        tokens: int = 0,
        planes: int = 0,
        groups: int | None = None,
    ) -> None:
        super().__init__()
        channels, self.size, self.patch, self.groups = shape[0] * patch**2, shape[1:], patch, groups
        self.levels = len(multipliers)
        self.embedding = 4 * width
        widths = [width * m for m in multipliers]
        smallest = math.ceil(max(self.size) / self._multiple)
        sides = [smallest * 2 ** (self.levels - 1 - k) for k in range(self.levels)]
        self.sinusoids = width + width % 2
        self.level = nn.Sequential(
            nn.Linear(self.sinusoids, self.embedding), nn.SiLU(), nn.Linear(self.embedding, self.embedding)
        )
        self.first = nn.Conv2d(channels + planes * patch**2, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, c = [width], width
        for k, w in enumerate(widths):
            for _ in range(depth):
                self.down.append(Stage(c, w, self.embedding, dropout, sides[k] <= attention_px, tokens, groups))
                c = w
                skips.append(c)
            if k < self.levels - 1:
                self.down.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)
        self.middle = nn.ModuleList(
            [
                Stage(c, c, self.embedding, dropout, attention_px > 0, tokens, groups),
                Stage(c, c, self.embedding, dropout, groups=groups),
            ]
        )
        for k, w in reversed(list(enumerate(widths))):
            for _ in range(depth + 1):
                c_in = c + skips.pop()
                self.up.append(Stage(c_in, w, self.embedding, dropout, sides[k] <= attention_px, tokens, groups))
                c = w
            if k > 0:
                self.up.append(nn.Upsample(scale_factor=2, mode="nearest"))
        self.last = nn.Sequential(
            nn.GroupNorm(groups or groups_of(c), c), nn.SiLU(), start_at_zero(nn.Conv2d(c, channels, 3, padding=1))
        )

    def forward(self, x: Tensor, level: Tensor, inputs: NetworkInput = NO_INPUT) -> Tensor:
        """x (B, C, H, W), level log(sigma / alpha) (B,), a condition -> (B, C, H, W)."""
        e = self._embed_level(level, inputs.vector)
        x = x if inputs.planes is None else torch.cat([x, inputs.planes.to(x)], dim=1)
        h = self.first(F.pixel_unshuffle(F.pad(x, self._padding()), self.patch))
        skips = [h]
        for module in self.down:
            h = module(h, e, inputs) if isinstance(module, Stage) else module(h)
            skips.append(h)
        for module in self.middle:
            h = module(h, e, inputs)
        for module in self.up:
            h = module(torch.cat([h, skips.pop()], dim=1), e, inputs) if isinstance(module, Stage) else module(h)
        return F.pixel_shuffle(self.last(h), self.patch)[..., : self.size[0], : self.size[1]]

    def _embed_level(self, level: Tensor, condition: Tensor | None) -> Tensor:
        """SiLU of the embedding (B, E); float32 also under autocast, where the level would lose its fine steps."""
        with torch.autocast(level.device.type, enabled=False):
            e = self.level(sinusoid(level.to(self.first.weight.dtype) * FREQUENCY, self.sinusoids))
            return F.silu(e if condition is None else e + condition.to(e.dtype))

    def _padding(self) -> tuple[int, int, int, int]:
        """Zeros right and below."""
        return 0, -self.size[1] % self._multiple, 0, -self.size[0] % self._multiple

    @property
    def _multiple(self) -> int:
        """Pixels of the side of a place on the last level."""
        return self.patch * 2 ** (self.levels - 1)


class Stage(nn.Module):
    """A residual block, and attention where asked: to places, and to tokens where there are any."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        embedding: int,
        dropout: float,
        attention: bool = False,
        tokens: int = 0,
        groups: int | None = None,
    ) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = (nn.GroupNorm(groups or groups_of(c), c) for c in (c_in, c_out))
        self.conv_1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = start_at_zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attention = SpatialAttention(c_out, groups=groups) if attention else nn.Identity()
        self.to_text = _TextAttention(c_out, tokens) if attention and tokens else None

    def forward(self, x: Tensor, e: Tensor, inputs: NetworkInput) -> Tensor:
        """x (B, c_in, H, W), e (B, E) -> (B, c_out, H, W)."""
        h = self.conv_1(F.silu(self.norm_1(x)))
        scale, shift = self.modulation(e)[:, :, None, None].chunk(2, dim=1)
        h = self.norm_2(h) * (1 + scale.to(h.dtype)) + shift.to(h.dtype)
        h = self.attention(self.skip(x) + self.conv_2(self.dropout(F.silu(h))))
        return h if self.to_text is None else self.to_text(h, inputs)


class _TextAttention(nn.Module):
    """What each place of a map (B, C, H, W) sees of a text, added to it."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups_of(channels), channels)
        self.attention = CrossAttention(channels, tokens, largest_divisor(channels, channels // HEAD))

    def forward(self, h: Tensor, inputs: NetworkInput) -> Tensor:
        """(B, C, H, W) -> the same."""
        assert inputs.tokens is not None and inputs.keep is not None
        places = self.norm(h).flatten(2).transpose(1, 2)  # (B, H W, C)
        return h + self.attention(places, inputs.tokens, inputs.keep).transpose(1, 2).unflatten(2, h.shape[2:])
