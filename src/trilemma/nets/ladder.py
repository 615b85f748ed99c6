"""The two directions of a hierarchy of codes: up from the image to a feature per level, down from the top to the image.

A `Down` has layers i = 1 ... L from the top, each with one code z_i, and carries a state h of everything above:

    prior, h <- layer.prior(h)        mean and log variance of p(z_i | above), side by side in the channels
    z_i <- choose(i, prior, h)        drawn, given, or the mean: what the caller wants
    h <- layer(h, z_i)

An `Up` makes a feature d_t of each level t = 1 ... T (1 next to the image) and, from that and the state, as many
numbers as the prior has, of which the caller makes a posterior.

`MLPUp` and `MLPDown` have one fully connected layer per level, and h is the code above alone: a Markov chain (Sonderby
et al. 2016, "Ladder variational autoencoders"). `ResidualUp` and `ResidualDown` are convolutional, with pre-activation
residual blocks (He et al. 2016), several layers per level, and an h that sums up all codes above, as in Kingma et al.
(2016), "Improved variational inference with inverse autoregressive flow", and Child (2021), "Very deep VAEs generalize
autoregressive models and can outperform them on images". Their level 1 has half the size of the image, and each further
level half of that.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.nets.conv import conv3
from trilemma.nets.initialisation import start_at_zero
from trilemma.nets.mlp import mlp

Choose = Callable[[int, Tensor, Tensor], Tensor]  # number of the layer, prior, state -> code
Size = tuple[int, int]


class Down(nn.Module):
    """What the two kinds have in common. Of layer i, `level_of[i]` is the level (0 for the lowest), and
    `code_shapes[i]` the shape of a code."""

    level_of: list[int]
    code_shapes: list[tuple[int, ...]]
    layers: nn.ModuleList

    def start(self, n: int) -> Tensor:
        """The state above the top, for n images."""
        raise NotImplementedError

    def output(self, h: Tensor) -> Tensor:
        """The state below the lowest code -> logits (B, C, H, W)."""
        raise NotImplementedError

    def forward(self, h: Tensor, choose: Choose) -> Tensor:
        """From `start` to the logits, with the codes that `choose` gives."""
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, MLPLayer | ResidualLayer)
            prior, h = layer.prior(h)
            h = layer(h, choose(i, prior, h))
        return self.output(h)


class MLPChain(nn.Module):
    """The codes' own way up: one network per level, from what is below it to the posterior of its code."""

    def __init__(self, n_pixels: int, latent: Sequence[int], hidden: Sequence[int], depth: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            gaussian_mlp([below, *[width] * layers], z)
            for below, z, width, layers in zip([n_pixels, *latent[:-1]], latent, hidden, depth, strict=True)
        )

    def forward(self, below: Tensor, level: int) -> Tensor:
        """Image (B, C, H, W) for level 0, otherwise the code below -> (B, 2 latent)."""
        return self.levels[level](below.flatten(1))


class MLPUp(nn.Module):
    """Each feature d_t (B, hidden[t]) is a deterministic function of the one below."""

    def __init__(self, n_pixels: int, latent: Sequence[int], hidden: Sequence[int], depth: Sequence[int]) -> None:
        super().__init__()
        fan_ins = [n_pixels, *hidden[:-1]]
        self.levels = nn.ModuleList(
            scaled_mlp([fan_in, *[width] * layers], last="relu")
            for fan_in, width, layers in zip(fan_ins, hidden, depth, strict=True)
        )
        self.heads = nn.ModuleList(
            gaussian_mlp([width], z) for width, z in zip(reversed(hidden), reversed(latent), strict=True)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """The feature of each level, the lowest first."""
        return _run(self.levels, image.flatten(1))

    def posterior(self, i: int, h: Tensor, d: Tensor) -> Tensor:
        """For layer i, from its level's feature alone: (B, 2 latent)."""
        return self.heads[i](d)


class MLPLayer(nn.Module):
    """A code (B, latent), given the code above it by `net`; without one, the prior is N(0, I)."""

    def __init__(self, latent: int, net: nn.Module | None) -> None:
        super().__init__()
        self.latent, self.net = latent, net

    def prior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The code above -> mean and log variance (B, 2 latent), and the same code."""
        return h.new_zeros(len(h), 2 * self.latent) if self.net is None else self.net(h), h

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """The state below is this code alone."""
        return z


class MLPDown(Down):
    """Codes of the widths `latent`, the lowest first, down to an image of `shape`.

    The networks out of a level have `depth` hidden layers of width `hidden`.
    """

    def __init__(
        self, shape: tuple[int, int, int], latent: Sequence[int], hidden: Sequence[int], depth: Sequence[int]
    ) -> None:
        super().__init__()
        self.shape = shape
        inputs = [[z, *[width] * layers] for z, width, layers in zip(latent, hidden, depth, strict=True)]
        nets = [gaussian_mlp(widths, z) for widths, z in zip(inputs[1:], latent, strict=False)]
        self.level_of = list(reversed(range(len(latent))))
        self.code_shapes = [(z,) for z in reversed(latent)]
        self.layers = nn.ModuleList(
            MLPLayer(z, net) for z, net in zip(reversed(latent), [None, *reversed(nets)], strict=True)
        )
        self.out = scaled_mlp([*inputs[0], math.prod(shape)])

    def start(self, n: int) -> Tensor:
        """Nothing is above the top: (n, 0)."""
        like = next(self.parameters())
        return torch.zeros(n, 0, dtype=like.dtype, device=like.device)

    def output(self, h: Tensor) -> Tensor:
        """The lowest code -> logits (B, C, H, W)."""
        return self.out(h).unflatten(1, self.shape)


class ResidualUp(nn.Module):
    """Features (B, widths[t], H_t, W_t); as many blocks on a level as it has codes."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: Sequence[int],
        widths: Sequence[int],
        depth: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        entries = [nn.Conv2d(shape[0], widths[0], 5, 2, 2), *(conv3(*pair, stride=2) for pair in pairwise(widths))]
        self.levels = nn.ModuleList(
            nn.Sequential(entry, *(Block(width, dropout) for _ in range(blocks)))
            for entry, width, blocks in zip(entries, widths, depth, strict=True)
        )
        self.heads = nn.ModuleList(
            branch(2 * widths[t], widths[t], 2 * latent[t], kernel=1, dropout=dropout)
            for t in reversed(range(len(widths)))
            for _ in range(depth[t])
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, H, W) in [0, 1] -> the feature of each level, the lowest first."""
        return _run(self.levels, 2 * image - 1)

    def posterior(self, i: int, h: Tensor, d: Tensor) -> Tensor:
        """For layer i, from the state and its level's feature, (B, width, H_t, W_t) each: (B, 2 latent, H_t, W_t)."""
        return self.heads[i](torch.cat([h, d], dim=1))


class ResidualLayer(nn.Module):
    """A map of codes (B, latent, H, W), then a residual block; `before` brings the state from above to its size."""

    def __init__(self, width: int, latent: int, dropout: float, before: nn.Module) -> None:
        super().__init__()
        self.latent, self.before = latent, before
        self.net = branch(width, width, 2 * latent + width, kernel=1, dropout=dropout)
        self.into = nn.Conv2d(latent, width, 1)
        self.block = Block(width, dropout)

    def prior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """State above -> mean and log variance (B, 2 latent, H, W), and the state (B, width, H, W) after it."""
        h = self.before(h)
        out = self.net(h)
        prior, change = out.split([2 * self.latent, out.shape[1] - 2 * self.latent], dim=1)
        return prior, h.to(out) + change  # the learned top may be of a higher precision

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """The state with the code in it."""
        return self.block(h + self.into(z))


class ResidualDown(Down):
    """From a learned map on the highest level to an image of `shape`.

    Args:
        latent, widths, depth: of each level, the lowest first: channels of a code, channels of h, codes.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: Sequence[int],
        widths: Sequence[int],
        depth: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.size = shape[1:]
        sizes = [(_halved(shape[1], t + 1), _halved(shape[2], t + 1)) for t in range(len(widths))]
        self.level_of = [t for t in reversed(range(len(widths))) for _ in range(depth[t])]
        self.code_shapes = [(latent[t], *sizes[t]) for t in self.level_of]
        self.top = nn.Parameter(torch.zeros(1, widths[-1], *sizes[-1]))
        self.layers = nn.ModuleList()
        for above, t in pairwise([len(widths) - 1, *self.level_of]):
            before = Doubling(widths[above], widths[t], sizes[t]) if t < above else nn.Identity()
            self.layers.append(ResidualLayer(widths[t], latent[t], dropout, before))
        self.out = nn.Sequential(nn.ReLU(), conv3(widths[0], 4 * shape[0]))

    def start(self, n: int) -> Tensor:
        """The learned map, (n, width, *size of the highest level)."""
        return self.top.expand(n, -1, -1, -1)

    def output(self, h: Tensor) -> Tensor:
        """(B, width, half the height, half the width) -> logits (B, C, H, W)."""
        return F.pixel_shuffle(self.out(h), 2)[:, :, : self.size[0], : self.size[1]]


class Block(nn.Module):
    """h + f(h), the identity at first; (B, width, H, W) -> the same."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.body = branch(width, width, width, kernel=3, dropout=dropout)

    def forward(self, h: Tensor) -> Tensor:
        """h + f(h)."""
        return h + self.body(h)


class Doubling(nn.Module):
    """Twice the size, cropped to that of the level: (B, c_in, H, W) -> (B, c_out, *size)."""

    def __init__(self, c_in: int, c_out: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(c_in, 4 * c_out, 1)

    def forward(self, h: Tensor) -> Tensor:
        """A convolution, then depth to space."""
        return F.pixel_shuffle(self.conv(h), 2)[:, :, : self.size[0], : self.size[1]]


def scaled_mlp(widths: Sequence[int], last: str = "none") -> nn.Sequential:
    """As `mlp`, with weights that keep the scale of what passes (He et al. 2015; Glorot & Bengio 2010 at a linear end):
    a code that does not reach the image from the first step on is given up."""
    net = mlp(widths, last)
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    for layer in layers:
        nn.init.zeros_(layer.bias)
        if layer is layers[-1] and last == "none":
            nn.init.xavier_normal_(layer.weight)
        else:
            nn.init.kaiming_normal_(layer.weight)
    return net


def gaussian_mlp(widths: Sequence[int], latent: int) -> nn.Sequential:
    """(B, widths[0]) -> mean and log variance (B, 2 latent); all variances are 1 at first."""
    net = scaled_mlp([*widths, 2 * latent])
    head = net[-2]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight[latent:] = 0
    return net


def branch(c_in: int, width: int, c_out: int, *, kernel: int, dropout: float) -> nn.Sequential:
    """ReLU, 3x3 convolution to `width`, ReLU, dropout, convolution to `c_out`, which gives 0 at first."""
    last = start_at_zero(nn.Conv2d(width, c_out, kernel, padding=kernel // 2))
    drop = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(nn.ReLU(), conv3(c_in, width), nn.ReLU(), *drop, last)


def _run(levels: nn.ModuleList, d: Tensor) -> list[Tensor]:
    """What each of the levels makes of the one before."""
    features = []
    for level in levels:
        d = level(d)
        features.append(d)
    return features


def _halved(side: int, times: int) -> int:
    return math.ceil(side / 2**times)
