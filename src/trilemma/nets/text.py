"""A small transformer over the tokens of a caption (Vaswani et al. 2017), trained together with what looks at them.

    h = embedding(token) + place;    `depth` times  h <- h + attention(norm(h)), h <- h + MLP(norm(h));    norm(h)

Tokens of padding are not looked at. The vector of a caption is the mean over its tokens. What stands for no caption is
learned: LENGTH tokens and a vector of their own.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.nets.attention import Attention, mixed_values
from trilemma.nets.initialisation import start_at_zero
from trilemma.tokeniser import LENGTH, PADDING

HEAD = 32  # numbers of a head


class TextEncoder(nn.Module):
    """Tokens (B, LENGTH) -> their vectors (B, LENGTH, width), which of them count (B, LENGTH), and a vector of all
    (B, width).

    Args:
        size: different tokens; width: a multiple of HEAD.
    """

    def __init__(self, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size, width)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)
        self.places = nn.Parameter(torch.randn(LENGTH, width) * width**-0.5)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.last = nn.LayerNorm(width)
        self.null_tokens = nn.Parameter(torch.randn(LENGTH, width))
        self.null_vector = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tensor, absent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens int64 (B, LENGTH), absent bool (B,): captions that are not given."""
        keep = (tokens != PADDING) | absent[:, None]
        h = self.tokens(tokens) + self.places
        for block in self.blocks:
            h = block(h, keep)
        h = torch.where(absent[:, None, None], self.null_tokens.to(h.dtype), self.last(h))
        weights = keep.to(h.dtype)[:, :, None]
        mean = (h * weights).sum(1) / weights.sum(1).clamp(min=1)
        return h, keep, torch.where(absent[:, None], self.null_vector.to(h.dtype), mean)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, width // HEAD)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, keep: Tensor) -> Tensor:
        """h (B, N, D), keep (B, N) -> (B, N, D)."""
        h = h + self.attention(self.norm_1(h), keep)
        return h + self.mlp(self.norm_2(h))


class CrossAttention(nn.Module):
    """Positions (B, N, D) that look at tokens (B, M, T); its last layer begins at zero.

    Rombach et al. (2022), section 3.3.
    """

    def __init__(self, width: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.inside = nn.Linear(width, width), nn.Linear(tokens, 2 * width)
        self.scale_q, self.scale_k = (nn.Parameter(torch.ones(width // heads)) for _ in range(2))
        self.last = start_at_zero(nn.Linear(width, width))

    def forward(self, x: Tensor, tokens: Tensor, keep: Tensor) -> Tensor:
        """(B, N, D), (B, M, T), bool (B, M) -> (B, N, D)."""
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, D / heads)
        k, v = self.inside(tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (F.rms_norm(y, y.shape[-1:]) * s.to(y.dtype) for y, s in ((q, self.scale_q), (k, self.scale_k)))
        mixed = mixed_values(q, k, v, keep[:, None, None, :])
        return self.last(mixed.transpose(1, 2).flatten(2))
