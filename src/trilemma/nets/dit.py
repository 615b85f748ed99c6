"""A transformer over patches of an image that is told the noise level: adaLN-zero (Peebles & Xie 2023, section 3.2).

Patches of p x p pixels become tokens of D numbers, with fixed sinusoids of their row and column added; then `depth`
times, with shifts, scales and gates that are linear functions of the embedding e and begin at zero:

    h <- h + gate_1 attention(scale_1 norm(h) + shift_1);   h <- h + gate_2 MLP(scale_2 norm(h) + shift_2)

and a last modulated norm and linear layer, which begins at zero, gives each patch back.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.errors import UserError
from trilemma.nets.attention import Attention
from trilemma.nets.initialisation import start_at_zero
from trilemma.nets.network_input import NO_INPUT, NetworkInput
from trilemma.nets.text import CrossAttention
from trilemma.nets.unet import FREQUENCY
from trilemma.nets.unet_small import sinusoid


class DiT(nn.Module):
    """Images (B, C, H, W), noise levels (B,) and an embedded condition -> (B, C, H, W).

    Args:
        shape: (C, H, W) of the images.
        patch: side of a patch, px; must divide H and W.
        width: D, numbers a token; depth: blocks; heads: of the attention, must divide the width.
        tokens: numbers of a token of a text, which each block looks at after its attention; 0 without texts.
        planes: channels that it is given beside the image.
    Raises:
        UserError: the patch does not divide the image, or the heads the width.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        tokens: int = 0,
        planes: int = 0,
    ) -> None:
        super().__init__()
        channels, height, side = shape
        if height % patch or side % patch:
            divisors = [str(p) for p in range(1, min(height, side) + 1) if height % p == side % p == 0]
            raise UserError(
                f"patch={patch} does not divide images of {height}x{side}; give {', '.join(divisors)}, or another size="
            )
        if width % (4 * heads):
            raise UserError(f"width={width} is not a multiple of 4 x heads={heads}; change one of them")
        self.patch, self.grid, self.embedding = patch, (height // patch, side // patch), width
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Conv2d(channels + planes, width, patch, stride=patch)
        self.register_buffer("places", _places(*self.grid, width), persistent=False)  # (N, D)
        self.blocks = nn.ModuleList(_Block(width, heads, tokens) for _ in range(depth))
        self.modulation = start_at_zero(nn.Linear(width, 2 * width))
        self.last = start_at_zero(nn.Linear(width, channels * patch**2))

    def forward(self, x: Tensor, level: Tensor, inputs: NetworkInput = NO_INPUT) -> Tensor:
        """x (B, C, H, W), level log(sigma / alpha) (B,), a condition -> (B, C, H, W)."""
        with torch.autocast(level.device.type, enabled=False):
            e = self.level(sinusoid(level.to(self.first.weight.dtype) * FREQUENCY, self.embedding))
            e = F.silu(e if inputs.vector is None else e + inputs.vector.to(e.dtype))
        x = x if inputs.planes is None else torch.cat([x, inputs.planes.to(x)], dim=1)
        h = self.first(x).flatten(2).transpose(1, 2) + self.places  # (B, N, D)
        for block in self.blocks:
            h = block(h, e, inputs)
        shift, scale = self.modulation(e)[:, None].chunk(2, dim=-1)
        tokens = self.last(_modulate(h, shift, scale)).transpose(1, 2)  # (B, C p p, N)
        return F.pixel_shuffle(tokens.unflatten(2, self.grid), self.patch)


class _Block(nn.Module):
    """Attention and a small network for each token, both modulated and gated; between them what is seen of a text."""

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.to_text = CrossAttention(width, tokens, heads) if tokens else None
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = start_at_zero(nn.Linear(width, 6 * width))
        nn.init.xavier_uniform_(self.attention.last.weight)  # the gate is what begins at zero

    def forward(self, h: Tensor, e: Tensor, inputs: NetworkInput) -> Tensor:
        """h (B, N, D), e (B, D) -> (B, N, D)."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(e)[:, None].chunk(6, dim=-1)
        h = h + gate_1 * self.attention(_modulate(h, shift_1, scale_1))
        if self.to_text is not None:
            assert inputs.tokens is not None and inputs.keep is not None
            h = h + self.to_text(F.layer_norm(h, h.shape[-1:], eps=1e-6), inputs.tokens, inputs.keep)
        return h + gate_2 * self.mlp(_modulate(h, shift_2, scale_2))


def _modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm, then scale and shift."""
    return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _places(rows: int, columns: int, width: int) -> Tensor:
    """Sinusoids of row and column, (N, D), half of the numbers each."""
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float32), torch.arange(columns, dtype=torch.float32), indexing="ij"
    )
    return torch.cat([sinusoid(place.flatten(), width // 2) for place in (y, x)], dim=1)
