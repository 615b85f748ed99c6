"""The vector-quantised autoencoder of van den Oord, Vinyals & Kavukcuoglu (2017), "Neural discrete representation
learning", with a learned density over its codes.

    z = e(x), a grid of h x w vectors;    q = the nearest entry of a codebook for each of them;    x_hat = d(q)

It is trained in two stages. First the autoencoder, by the mean squared error per pixel + commitment * mean((z - q)**2),
whose gradient reaches the encoder straight through the choice; the codebook follows by running means (codes.py). Then
p(k), the density of the h * w indices in reading order (priors.py), by their cross-entropy in nats; images are drawn
by decoding what is drawn from it. Without a prior, as a part of a model of its codes, it is trained in the first alone.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from trilemma.autoencoders.codes import Codebook, perplexity, straight_through
from trilemma.autoencoders.losses import squared_error
from trilemma.autoencoders.priors import AutoregressivePrior, PriorKeys
from trilemma.autoencoders.statistics import LEAST_VARIANCE, channel_statistics
from trilemma.config import ModelConfig, only_for
from trilemma.errors import check_codes, check_images
from trilemma.nets.autoregressive import HEAD
from trilemma.nets.conv import CentreCrop, conv3, masked_places
from trilemma.nets.precision import full
from trilemma.types import UNCONDITIONAL, Batch, Condition, Logs, Model, Phase, Player, check_condition, default_label
from trilemma.whole_batch import batch_total

GRID = 8  # vectors along the shorter side of a grid, about
PRIOR_FROM = 0.6  # share of the training after which the codes stay and their density is learned


class VQConfig(ModelConfig):
    """Settings of a vector-quantised autoencoder and of the density of its codes."""

    width: PositiveInt = Field(default=64, description="channels of the smallest map")
    blocks: int = Field(default=1, ge=0, description="residual blocks at the smallest map")
    halvings: int | None = Field(
        default=None, ge=1, le=16, description="of height and width (default: to a grid of about 8)"
    )
    codes: int = Field(default=256, ge=2, description="entries of the codebook")
    dim: PositiveInt = Field(default=32, description="numbers in an entry")
    commitment: float = Field(default=0.25, ge=0, description="weight of the distance between a vector and its entry")
    decay: float = Field(default=0.99, ge=0, lt=1, description="of the codebook's running means, per batch")
    restart: bool = Field(default=True, description="whether entries out of use start again at vectors of the batch")
    prior: bool = Field(default=True, description="learn the density of the codes, by which images are drawn")
    prior_width: PositiveInt = Field(default=128, description=f"numbers in the prior's vectors, a multiple of {HEAD}")
    prior_depth: PositiveInt = Field(default=3, description="layers of the prior")
    conditional: bool = Field(default=False, description="whether the prior is given the label")
    n_classes: int = Field(default=0, ge=0, description="classes, taken from the data; for a conditional model")
    prior_dropout: float = Field(default=0.0, ge=0, lt=1, description="of the prior's layers, for few images")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.prior_width % HEAD:
            raise ValueError(f"prior_width={self.prior_width} is not a multiple of {HEAD}")
        only_for(self, "conditional", self.n_classes > 0, "images with classes; the data has none")
        for key in ("prior_width", "prior_depth", "prior_dropout", "conditional"):
            only_for(self, key, self.prior, "prior=true")
        return self


class VQAutoencoder(Model):
    """Encoder, codebook and decoder. Images (B, C, H, W) in [0, 1]; codes (B, h * w * dim), entry by entry."""

    usage: Tensor
    vector_mean: Tensor
    vector_std: Tensor
    whole_because = ""
    known_classes = 0  # of a prior

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        halvings = config.halvings or max(1, round(math.log2(min(config.shape[1:]) / GRID)))
        height, width = (math.ceil(side / 2**halvings) for side in config.shape[1:])
        self.grid = height, width
        self.place_px = 2**halvings  # of the side of a place
        self.encoder = _encoder(config, halvings)
        self.codebook = Codebook(config.codes, config.dim, decay=config.decay, restart=config.restart)
        self.decoder = _decoder(config, halvings)
        self.register_buffer("usage", torch.zeros(config.codes, dtype=torch.int64))  # of the training images
        self.register_buffer("vector_mean", torch.zeros(config.dim))  # of these, too, before the codebook
        self.register_buffer("vector_std", torch.ones(config.dim))
        self.register_load_state_dict_pre_hook(_fill_in_statistics)
        networks = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.phases = [Phase("autoencoder", Player("autoencoder", networks), self.loss)]

    @property
    def code_bits(self) -> float:
        """Bits of an image's entries in a fixed length for each."""
        return math.prod(self.grid) * math.log2(self.config.codes)

    @property
    def code_length(self) -> int:
        """Numbers in a code."""
        return math.prod(self.grid) * self.config.dim

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Of the codes as a map: (dim, h, w)."""
        return self.config.dim, *self.grid

    def to_map(self, image: Tensor) -> Tensor:
        """The vectors before the codebook, standardised: (B, C, H, W) -> (B, dim, h, w)."""
        return ((self.vectors(image) - self.vector_mean) / self.vector_std).permute(0, 3, 1, 2)

    def from_map(self, code: Tensor) -> Tensor:
        """(B, dim, h, w), standardised; each vector is taken to its nearest entry -> (B, C, H, W) in [0, 1]."""
        vectors = code.permute(0, 2, 3, 1) * self.vector_std + self.vector_mean
        return self.decode_entries(self.codebook.entries[self.codebook.nearest(vectors)])

    def place_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, H, W) -> 1 at the places of the grid that draw a pixel where it is 1, (B, 1, h, w); the image is the
        middle of what they draw."""
        top, left = (
            (places * self.place_px - side) // 2 for places, side in zip(self.grid, mask.shape[2:], strict=True)
        )
        return masked_places(mask, self.place_px, top, left)

    def vectors(self, image: Tensor) -> Tensor:
        """Before the codebook: (B, C, H, W) -> (B, h, w, dim)."""
        return full(self.encoder(image)).permute(0, 2, 3, 1)

    def code_indices(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> the entry at each place of the grid, int64 (B, h, w)."""
        return self.codebook.nearest(self.vectors(image))

    def decode_entries(self, entries: Tensor) -> Tensor:
        """(B, h, w, dim) as they are -> (B, C, H, W) in [0, 1]."""
        return full(self.decoder(entries.permute(0, 3, 1, 2))).sigmoid()

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The entries of the codebook that the image becomes, (B, h * w * dim)."""
        check_images(image, self.config.shape)
        check_condition(condition, len(image), self.known_classes)
        return self.codebook.entries[self.code_indices(image)].flatten(1)

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """Any vectors (B, h * w * dim), each taken to its nearest entry -> (B, C, H, W) in [0, 1]."""
        check_codes(z, self.code_length)
        check_condition(condition, len(z), self.known_classes)
        vectors = z.unflatten(1, (*self.grid, self.config.dim))
        return self.decode_entries(self.codebook.entries[self.codebook.nearest(vectors)])

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The image after a pass through the codebook, (B, C, H, W) in [0, 1]."""
        check_images(image, self.config.shape)
        check_condition(condition, len(image), self.known_classes)
        return self.decode_entries(self.codebook.entries[self.code_indices(image)])

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Squared error + commitment; in training mode the codebook moves, too.

        Parts: mse (per pixel), commitment (before its weight), perplexity (codes, of the batch), used_codes (share of
        the codebook, of the last batches; in training mode).
        """
        vectors = self.vectors(batch.image)
        chosen = self.codebook.nearest(vectors)
        entries = self.codebook.entries[chosen]
        error = squared_error(self.decode_entries(straight_through(entries, vectors)), batch.image).mean()
        commitment = (vectors - entries).square().mean()
        parts = {
            "mse": error.detach(),
            "commitment": commitment.detach(),
            "perplexity": perplexity(batch_total(chosen.flatten().bincount(minlength=self.config.codes))),
        }
        if self.training:
            parts["used_codes"] = self.codebook.update(vectors, chosen, rng)
        return error + self.config.commitment * commitment, parts

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): mse over its pixels."""
        return {"mse": self._error(batch.image, self.code_indices(batch.image))}

    def _error(self, image: Tensor, chosen: Tensor) -> Tensor:
        """Mean squared error over the pixels of images (B, C, H, W) from the entries chosen, int64 (B, h, w): (B,)."""
        return squared_error(self.decode_entries(self.codebook.entries[chosen]), image)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch], *, seed: int) -> dict[str, float]:
        """Count how often the given training images choose each code, and measure the mean and spread of the vectors
        before the codebook; gives the perplexity of the codes."""
        self.usage.zero_()
        mean, std = channel_statistics(self._counted_vectors(batches))
        self.vector_mean.copy_(mean)
        self.vector_std.copy_(std)
        return {"perplexity": self.perplexity()}

    def _counted_vectors(self, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """The vectors of each batch, (B, dim, h, w), whose entries are added to the usage."""
        for batch in batches:
            vectors = self.vectors(batch.image)
            self.usage += self.codebook.nearest(vectors).flatten().bincount(minlength=self.config.codes)
            yield vectors.permute(0, 3, 1, 2)

    def perplexity(self) -> float:
        """exp of the entropy of the codes that training images chose, in codes, at most their number."""
        return float(perplexity(self.usage))


class VQ(VQAutoencoder):
    """One with a prior, which images are drawn by.

    A conditional model draws the class that the label of a condition asks for: its prior is given it, the rest is not.
    """

    sampling_keys = PriorKeys
    codes_need = ()  # of a conditional model only the prior takes the label

    def __init__(self, config: VQConfig) -> None:
        super().__init__(config)
        if config.conditional:
            self.n_classes = self.known_classes = config.n_classes
        self.prior = AutoregressivePrior(
            config.codes,
            math.prod(self.grid),
            width=config.prior_width,
            depth=config.prior_depth,
            dropout=config.prior_dropout,
            n_classes=self.known_classes,
        )
        self.phases = [
            replace(self.phases[0], end=PRIOR_FROM),
            Phase("prior", Player("prior", list(self.prior.parameters())), self.prior_loss, begin=PRIOR_FROM),
        ]

    @property
    def sampling_network(self) -> nn.Module:
        """The prior: one call per place of the grid; the decoder's single call is not counted."""
        return self.prior.network

    def prior_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Cross-entropy of the prior, nats per code; part: nats (per image)."""
        with torch.no_grad():
            codes = self.code_indices(batch.image).flatten(1)
        nats = self.prior.nats(codes, self._label_of(batch)).mean()
        return nats / codes.shape[1], {"nats": nats.detach()}

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """As of any, and per image (B,): prior_nats, the cross-entropy of its codes under the prior."""
        chosen = self.code_indices(batch.image)
        nats = self.prior.nats(chosen.flatten(1), self._label_of(batch))
        return {"mse": self._error(batch.image, chosen), "prior_nats": nats}

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int, first: int = 0, condition: Condition = UNCONDITIONAL, keys: PriorKeys = PriorKeys()
    ) -> Tensor:
        """Decode grids drawn from the prior, (n, C, H, W) in [0, 1]; a temperature below 1 prefers what is probable.

        Where a conditional model is asked for no class, image k has its `default_label`.
        """
        check_condition(condition, n, self.known_classes)
        ids = torch.arange(first, first + n)
        label = condition.label
        if self.known_classes and label is None:
            label = default_label(ids, self.known_classes)
        codes = self.prior.sample(ids, seed=seed, temperature=keys.temperature, label=label)
        return self.decode_entries(self.codebook.entries[codes].unflatten(1, self.grid))

    def _label_of(self, batch: Batch) -> Tensor | None:
        """A batch's labels for a conditional prior, which refuses to do without."""
        return batch.condition.label if self.known_classes else None


def make_vq(config: VQConfig) -> VQAutoencoder:
    """The model of a config, with a prior or without."""
    return VQ(config) if config.prior else VQAutoencoder(config)


def _fill_in_statistics(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """The weights of earlier versions have no statistics of vectors: codes were standardised by the mean and the spread
    of the entries that the training images chose."""
    names = f"{prefix}vector_mean", f"{prefix}vector_std"
    if all(name in state for name in names):
        return
    entries, usage = state[f"{prefix}codebook.entries"], state[f"{prefix}usage"]
    share = usage.double() if usage.any() else torch.ones_like(usage).double()
    share = (share / share.sum())[:, None]
    mean = (share * entries.double()).sum(0)
    std = (share * (entries.double() - mean).square()).sum(0).clamp(min=LEAST_VARIANCE).sqrt()
    state.update(zip(names, (mean.to(entries), std.to(entries)), strict=True))


class _Block(nn.Module):
    """h + f(h), with f = ReLU, conv 3x3, ReLU, conv 1x1 (section 4.1 of the paper)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(), conv3(width, width), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.body(h)


def _widths(config: VQConfig, halvings: int) -> list[int]:
    """Channels from the largest map to the smallest, halved outwards."""
    return [max(config.width >> k, 1) for k in reversed(range(halvings))]


def _encoder(config: VQConfig, halvings: int) -> nn.Sequential:
    """Image (B, C, H, W) -> (B, dim, h, w), sides divided by 2 and rounded up `halvings` times."""
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise([config.shape[0], *_widths(config, halvings)]):
        layers += [conv3(c_in, c_out, 2), nn.ReLU()]
    layers += [_Block(config.width) for _ in range(config.blocks)]
    return nn.Sequential(*layers, nn.Conv2d(config.width, config.dim, 1))


def _decoder(config: VQConfig, halvings: int) -> nn.Sequential:
    """Entries (B, dim, h, w) -> image before its sigmoid (B, C, H, W)."""
    layers: list[nn.Module] = [conv3(config.dim, config.width)]
    layers += [_Block(config.width) for _ in range(config.blocks)]
    for c_in, c_out in pairwise([*reversed(_widths(config, halvings)), config.shape[0]]):
        layers += [nn.ReLU(), nn.ConvTranspose2d(c_in, c_out, 4, 2, 1)]
    return nn.Sequential(*layers, CentreCrop(*config.shape[1:]))
