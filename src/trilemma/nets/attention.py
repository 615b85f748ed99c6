"""Self-attention over positions (Vaswani et al. 2017), queries and keys normalised (Dehghani et al. 2023) or not."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.nets.initialisation import start_at_zero
from trilemma.nets.precision import full


class Attention(nn.Module):
    """Positions (B, N, D) -> (B, N, D); its last layer begins at zero.

    Args:
        width: D, a multiple of `heads`.
        normed: whether queries and keys are normalised.
    """

    def __init__(self, width: int, heads: int, normed: bool = True) -> None:
        super().__init__()
        self.heads, self.normed = heads, normed
        self.inside = nn.Linear(width, 3 * width)
        if normed:
            self.scale_q, self.scale_k = (nn.Parameter(torch.ones(width // heads)) for _ in range(2))
        self.last = start_at_zero(nn.Linear(width, width))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D); keep: positions that are looked at, bool (B, N)."""
        q, k, v = self.inside(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, D / heads)
        if self.normed:
            q, k = _normalise(q, self.scale_q), _normalise(k, self.scale_k)
        mask = None if keep is None else keep[:, None, None, :]
        return self.last(mixed_values(q, k, v, mask).transpose(1, 2).flatten(2))


def mixed_values(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(d)) v, each (B, heads, N, d); mask: places that are looked at.

    On a CPU in float32, under autocast, too: in bfloat16 the gradient takes nine times as long (docs/performance.md).
    """
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(full(q), full(k), full(v), attn_mask=mask)
    return F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=mask)


def _normalise(x: Tensor, scale: Tensor) -> Tensor:
    """Root mean square 1 over the last axis, times `scale`."""
    return F.rms_norm(x, x.shape[-1:]) * scale.to(x.dtype)


class SpatialAttention(nn.Module):
    """Attention over the places of a map (B, C, H, W), added to it.

    Args:
        groups: of the norm; with them it has one head, whose queries and keys are not normalised. Default: by the
            channels, and a head for each 64 of them.
    """

    def __init__(self, channels: int, head_width: int = 64, groups: int | None = None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups or groups_of(channels), channels)
        heads = 1 if groups else largest_divisor(channels, channels // head_width)
        self.attention = Attention(channels, heads, normed=not groups)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        places = self.norm(h).flatten(2).transpose(1, 2)  # (B, H W, C)
        return h + self.attention(places).transpose(1, 2).unflatten(2, h.shape[2:])


def groups_of(channels: int) -> int:
    """Groups of a group norm: of 16 channels each, or fewer where that does not divide; at most 32 groups, of more
    channels each where there are many.

    >>> [groups_of(channels) for channels in (16, 24, 48, 512, 768, 1040)]
    [1, 3, 3, 32, 32, 26]
    """
    for size in (16, 8, 4, 2, 1):
        if channels % size == 0 and channels // size <= 32:
            return channels // size
    return largest_divisor(channels, 32)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most `most`; 1 where that is below 1.

    >>> largest_divisor(200, 3), largest_divisor(224, 3), largest_divisor(64, 0)
    (2, 2, 1)
    """
    return next((divisor for divisor in range(most, 1, -1) if number % divisor == 0), 1)
