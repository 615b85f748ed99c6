"""Variational autoencoders with a hierarchy of codes z_1 ... z_T, z_1 next to the image.

Every conditional is a Gaussian with independent entries, given by a network; the generative direction goes down,

    p(x, z) = p(z_T) p(z_{T-1}|z_T) ... p(z_1|z_2) p(x|z_1)

and the posterior is one of two. The chain goes up, one code after another (Rezende, Mohamed & Wierstra 2014):

    q(z|x) = q(z_1|x) q(z_2|z_1) ... q(z_T|z_{T-1})

The ladder (Sonderby et al. 2016, "Ladder variational autoencoders") first goes up to a deterministic feature d_t of
each level, then down along with the prior, each level seeing what was drawn above it:

    q(z|x) = q(z_T|x) q(z_{T-1}|z_T, x) ... q(z_1|z_2, x)

With `mlp` networks q(z_t|.) of the ladder is the normalised product of the prior p(z_t|z_{t+1}) and a Gaussian given
by d_t. With `residual` networks (see nets/ladder.py) codes are maps, several to a level, p(z_t|.) and x depend on all
codes above, and q is the prior moved by what a network makes of both directions. In nats,

    log w = log p(x|z_1) + sum_t log p(z_t|.) - log q(z_t|.),    ELBO = E_q[log w] <= log p(x)

Loss: -log p(x|z_1) + weight * sum_t max(free_nats, K_t). The term K_t of a level is the mean over the batch of
log q(z_t|.) - log p(z_t|.). In the ladder both are given the codes above, so that K_t is a KL divergence, and taken in
closed form. In the chain q(z_t|z_{t-1}) looks down and p(z_t|z_{t+1}) up: K_t, taken at the drawn codes, is none and
may be negative; only the sum over the levels is a divergence, that of q(z|x) from p(z). The weight rises from 0 to 1 in
the first `warmup` of the training.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.autoencoders.levels import Normal, combine, free_bits, normal, shifted, warm_up
from trilemma.autoencoders.likelihoods import Bernoulli, Gaussian, Variance
from trilemma.autoencoders.losses import kl_between_normals, squared_error
from trilemma.autoencoders.priors import PriorKeys
from trilemma.config import ModelConfig, only_for
from trilemma.errors import check_codes, check_images
from trilemma.nets.ladder import Down, MLPChain, MLPDown, MLPUp, ResidualDown, ResidualUp
from trilemma.nets.precision import full
from trilemma.types import UNCONDITIONAL, Batch, Condition, Likelihood, Logs, Model, Phase, Player, check_condition


class HierarchicalConfig(ModelConfig):
    """Settings of a hierarchy. `levels`, `hidden` and `depth` have one number per level, that next to the image first;
    a single number of `hidden` or `depth` stands for all."""

    structure: Literal["chain", "ladder"] = Field(default="chain", description="of the posterior")
    network: Literal["mlp", "residual"] = Field(default="mlp", description="residual: convolutional, for a ladder")
    levels: tuple[PositiveInt, ...] = Field(default=(32, 16, 8), description="numbers (residual: channels) in a code")
    hidden: tuple[PositiveInt, ...] = Field(default=(512, 256, 128), description="widths of hidden layers (channels)")
    depth: tuple[NonNegativeInt, ...] = Field(
        default=(2,), description="hidden layers of the networks of a level; residual: codes at its size"
    )
    reconstruction: Literal["bce", "gaussian"] = Field(default="bce", description="likelihood of the pixels")
    variance: Variance = Field(
        default=None, description="gaussian: of a pixel; a number, learned or optimal (default: optimal)"
    )
    warmup: float = Field(default=0.0, ge=0, le=1, description="share of the training over which the KL gains weight")
    free_nats: float = Field(
        default=0.0, ge=0, description="term of a level (ladder: its KL) below which it is not lowered"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="residual: share of activations set to 0 in training")

    @property
    def widths(self) -> list[int]:
        """`hidden` of each level."""
        return _per_level(self.hidden, len(self.levels))

    @property
    def depths(self) -> list[int]:
        """`depth` of each level."""
        return _per_level(self.depth, len(self.levels))

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        n = len(self.levels)
        if not n:
            raise ValueError("levels needs at least one number")
        for name, values in (("hidden", self.hidden), ("depth", self.depth)):
            if len(values) not in (1, n):
                raise ValueError(f"{name} has {len(values)} numbers for {n} levels; give 1 or {n}")
        if self.structure == "chain" and self.network == "residual":
            raise ValueError("network=residual needs structure=ladder; a chain takes network=mlp")
        if self.structure == "ladder" and 0 in self.depths:
            raise ValueError("depth: a ladder needs at least 1 at every level")
        only_for(self, "dropout", self.network != "mlp", "network=residual, not mlp")
        only_for(self, "variance", self.reconstruction != "bce", "reconstruction=gaussian, not bce")
        return self


class Step(NamedTuple):
    """What one layer of a descent had: its prior, its posterior, and the code taken from that."""

    prior: Normal
    posterior: Normal
    z: Tensor


class HierarchicalVAE(Model):
    """Codes on several levels. Images (B, C, H, W) in [0, 1].

    The code of an image (B, Z) is, layer by layer from the top, the posterior mean, given the means taken before it,
    in units of the prior: its distance from the prior's mean in standard deviations. So codes of the prior are N(0, I),
    all levels together; a level that tells nothing is 0; and a change of a level carries on to those below it.
    """

    sampling_keys = PriorKeys
    whole_because = ""

    def __init__(self, config: HierarchicalConfig) -> None:
        super().__init__()
        self.config = config
        self.batch_statistics = self.sums_statistics = config.free_nats > 0  # the bound is on means over the batch
        self.likelihood = Bernoulli() if config.reconstruction == "bce" else Gaussian(config.variance)
        self.is_chain = config.structure == "chain"
        sizes = config.levels, config.widths, config.depths
        self.up: nn.Module
        self.down: Down
        out = (config.shape[0] * self.likelihood.channels_per_channel, *config.shape[1:])
        if config.network == "residual":
            self.up = ResidualUp(config.shape, *sizes, config.dropout)
            self.down = ResidualDown(out, *sizes, config.dropout)
        else:
            self.up = (MLPChain if self.is_chain else MLPUp)(math.prod(config.shape), *sizes)
            self.down = MLPDown(out, *sizes)
        self.phases = [Phase("vae", Player("vae", list(self.parameters())), self.loss)]

    @property
    def code_length(self) -> int:
        """Numbers in a code."""
        return sum(map(math.prod, self.down.code_shapes))

    @property
    def pixel_likelihood(self) -> Likelihood:
        """p(x|z)."""
        return self.likelihood

    @property
    def sampling_network(self) -> nn.Module:
        """The way down: one call per batch of samples."""
        return self.down

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """Posterior means in units of their priors, (B, Z)."""
        check_condition(condition, len(image))
        check_images(image, self.config.shape)
        _, steps = self._descend(image, lambda q: q.mu)
        return torch.cat([step.prior.inverse(step.z).flatten(1) for step in steps], dim=1)

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """Codes (B, Z) -> mean image (B, C, H, W) in [0, 1]."""
        check_condition(condition, len(z))
        check_codes(z, self.code_length)
        shapes = self.down.code_shapes
        parts = z.split([math.prod(shape) for shape in shapes], dim=1)

        def choose(i: int, prior: Tensor, h: Tensor) -> Tensor:
            return normal(prior).at(parts[i].unflatten(1, shapes[i]))

        return self.likelihood.mean(full(self.down(self.down.start(len(z)), choose)))

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """The image decoded from its code, (B, C, H, W) in [0, 1]."""
        return self.decode(self.encode(image, condition))

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """-log p(x|z) + weighted divergence; parts in nats per image: bce_nats or gaussian_nats, kl_nats, and the terms
        kl1_nats ... klT_nats of the levels, the one next to the image first."""
        outputs, steps = self._draw(batch.image, rng)
        error, terms = -self.likelihood.log_prob(outputs, batch.image).mean(), self._terms(steps)
        weight = warm_up(batch.progress, self.config.warmup)
        loss = error + weight * free_bits(terms, self.config.free_nats)
        means = terms.detach().mean(1)
        parts = {f"{self.config.reconstruction}_nats": error.detach(), "kl_nats": means.sum(), **_by_level(means)}
        return loss, parts

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): neg_elbo_nats; kl1_nats ... klT_nats; mse of a reconstruction from a sampled code."""
        outputs, steps = self._draw(batch.image, rng)
        terms = self._terms(steps)
        return {
            "neg_elbo_nats": terms.sum(0) - self.likelihood.log_prob(outputs, batch.image),
            "mse": squared_error(self.likelihood.mean(outputs), batch.image),
            **_by_level(terms),
        }

    def elbo(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """One-sample estimate of the ELBO, nats per image (B,), with the terms of a ladder in closed form."""
        check_condition(condition, len(image))
        outputs, steps = self._draw(image, rng)
        return self.likelihood.log_prob(outputs, image) - self._terms(steps).sum(0)

    def log_weight(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """log p(x, z) - log q(z|x) of one z ~ q(z|x), nats per image (B,)."""
        check_condition(condition, len(image))
        outputs, steps = self._draw(image, rng)
        return self.likelihood.log_prob(outputs, image) - torch.stack([_log_ratio(step) for step in steps]).sum(0)

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int, first: int = 0, condition: Condition = UNCONDITIONAL, keys: PriorKeys = PriorKeys()
    ) -> Tensor:
        """Mean images of codes drawn from the top down, (n, C, H, W) in [0, 1].

        Every standard deviation is multiplied by the temperature.
        """
        check_condition(condition, n)
        ids = torch.arange(first, first + n)
        eps = [random.normal(ids, shape, seed, "latent", i) for i, shape in enumerate(self.down.code_shapes)]
        z = torch.cat([part.flatten(1) for part in eps], dim=1) * keys.temperature
        training = self.training
        self.eval()
        try:
            return self.decode(z.to(next(self.parameters())))
        finally:
            self.train(training)

    def _draw(self, image: Tensor, rng: torch.Generator) -> tuple[Tensor, list[Step]]:
        """One z ~ q(z|x): the outputs for the image and the steps from the top."""

        def pick(q: Normal) -> Tensor:
            eps = torch.randn(q.mu.shape, generator=rng, dtype=q.mu.dtype, device=q.mu.device)
            return q.at(eps)

        return self._descend(image, pick)

    def _descend(self, image: Tensor, pick: Callable[[Normal], Tensor]) -> tuple[Tensor, list[Step]]:
        """The way down with codes that `pick` takes from the posterior."""
        place = self._chain(image, pick) if self.is_chain else self._ladder(image, pick)
        steps: list[Step] = []

        def choose(i: int, prior: Tensor, h: Tensor) -> Tensor:
            p = normal(prior)
            q, z = place(i, p, h)
            steps.append(Step(p, q, z))
            return z

        return full(self.down(self.down.start(len(image)), choose)), steps

    def _chain(self, image: Tensor, pick: Callable[[Normal], Tensor]) -> "Place":
        """Posteriors and codes all the way up, before the way down."""
        below, chosen = image, []
        for t in range(len(self.config.levels)):
            q = normal(self.up(below, t))
            below = pick(q)
            chosen.append((q, below))
        return lambda i, _prior, _h: chosen[self.down.level_of[i]]

    def _ladder(self, image: Tensor, pick: Callable[[Normal], Tensor]) -> "Place":
        """Features on the way up; posteriors and codes on the way down."""
        up = self.up
        assert isinstance(up, MLPUp | ResidualUp)
        features = up(image)
        merge = shifted if self.config.network == "residual" else combine

        def place(i: int, prior: Normal, h: Tensor) -> tuple[Normal, Tensor]:
            q = merge(normal(up.posterior(i, h, features[self.down.level_of[i]])), prior)
            return q, pick(q)

        return place

    def _terms(self, steps: list[Step]) -> Tensor:
        """What each level adds to the divergence of q(z|x) from p(z), of each image in nats, (T, B); the lowest level
        first. A KL divergence itself in a ladder, not in a chain."""
        terms = torch.stack([(_log_ratio if self.is_chain else _closed_form)(step) for step in steps])
        level_of = self.down.level_of
        counts = [level_of.count(t) for t in sorted(set(level_of), reverse=True)]
        return torch.stack([layers.sum(0) for layers in terms.split(counts)]).flip(0)


Place = Callable[[int, Normal, Tensor], tuple[Normal, Tensor]]  # number of the layer, prior, state -> posterior, code


def _log_ratio(step: Step) -> Tensor:
    """log q - log p of a layer's code, nats (B,). Its mean, summed over layers, is the divergence of q(z|x) from p(z);
    that of one layer is a divergence only if q and p are given the same codes."""
    return step.posterior.log_prob(step.z) - step.prior.log_prob(step.z)


def _closed_form(step: Step) -> Tensor:
    """KL divergence of a layer's posterior from its prior, nats (B,)."""
    return kl_between_normals(*step.posterior, *step.prior)


def _by_level(values: Tensor) -> dict[str, Tensor]:
    return {f"kl{t}_nats": value for t, value in enumerate(values, start=1)}


def _per_level(values: tuple[int, ...], n: int) -> list[int]:
    return list(values) * n if len(values) == 1 else list(values)
