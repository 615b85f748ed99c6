"""Densities over codes, fitted after training, so that a plain autoencoder samples too.

Ghosh et al. (2020), "From variational to deterministic autoencoders", section 4: p(z) = sum_k pi_k N(z; m_k, S_k),
fitted by expectation-maximisation on the codes of training images. Discrete codes, sequences of categories, have an
autoregressive density instead, p(k) = prod_i p(k_i | k_1 ... k_(i-1)), which is trained by its cross-entropy.
"""

import math
import warnings

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from trilemma import rng
from trilemma.config import Config
from trilemma.nets.autoregressive import CausalTransformer, Memory
from trilemma.types import no_label


class PriorKeys(Config):
    """Settings of a sampler that decodes what is drawn from a prior."""

    temperature: float = Field(
        default=1.0, ge=0, description="1 draws from the prior itself; below 1, likelier and less varied codes"
    )


class GaussianMixture(nn.Module):
    """Mixture of full-covariance Gaussians over codes (B, Z); its parameters are buffers, saved with the weights."""

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, latent: int, components: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.full((components,), 1 / components, dtype=torch.float32))
        self.register_buffer("means", torch.zeros(components, latent))
        self.register_buffer("factors", torch.zeros(components, latent, latent))  # lower Cholesky, (K, Z, Z)
        self.factors.diagonal(dim1=1, dim2=2).fill_(1)

    def fit(self, codes: Tensor, *, seed: int) -> int:
        """Expectation-maximisation from a k-means start; codes (N, Z).

        A single code is given twice: the mixture is then one narrow Gaussian around it.

        Returns:
            The components in use: no more than there are distinct codes; 0 where the codes have no finite variance,
            after a training that diverged, and the density stays as it is.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as Mixture

        spread = float(codes.var(0, correction=0).mean())
        if not math.isfinite(spread):
            return 0
        used = min(len(self.weights), distinct(codes))
        codes = codes if len(codes) > 1 else codes.expand(2, -1)
        mixture = Mixture(used, reg_covar=1e-6 + 1e-4 * spread, random_state=rng.seed_of(seed, "prior") % 2**32)
        with warnings.catch_warnings():  # an expectation-maximisation that has not quite converged is good enough
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(codes.cpu().double().numpy())
        for buffer, values in (
            (self.weights, mixture.weights_),
            (self.means, mixture.means_),
            (self.factors, torch.linalg.cholesky(torch.as_tensor(mixture.covariances_))),
        ):
            buffer.zero_()
            buffer[:used] = torch.as_tensor(values, dtype=buffer.dtype)
        return used

    def sample(self, ids: Tensor, *, seed: int) -> Tensor:
        """One code per id, (len(ids), Z): pick a component, then m_k + L_k eps."""
        pick = rng.uniform(ids, (1,), seed, "component")
        component = torch.searchsorted(self.weights.cpu().cumsum(0)[:-1].contiguous(), pick[:, 0])
        component = component.to(self.means.device)
        eps = rng.normal(ids, (self.means.shape[1],), seed, "latent").to(self.means)
        return self.means[component] + torch.einsum("bij,bj->bi", self.factors[component], eps)


def distinct(codes: Tensor) -> int:
    """How many of codes (N, Z) differ by more than rounding, a millionth of the largest number."""
    step = 1e-6 * codes.abs().max().clamp(min=1e-30)
    return len((codes / step).round().unique(dim=0))


class AutoregressivePrior(nn.Module):
    """p(k) = prod_i p(k_i | k_1 ... k_(i-1)) over sequences of L categories, learned by a causal transformer.

    With `n_classes` it is p(k | label): each class has a start symbol of its own, and label, int64 (B,), is needed.
    """

    def __init__(
        self, categories: int, length: int, *, width: int, depth: int, dropout: float = 0.0, n_classes: int = 0
    ) -> None:
        super().__init__()
        self.length, self.n_classes = length, n_classes
        self.network = CausalTransformer(
            categories, length, width=width, depth=depth, dropout=dropout, starts=max(1, n_classes)
        )

    def nats(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        """-log p of sequences of categories: int64 (B, L) -> nats per sequence, (B,)."""
        start = self._start(len(codes), label).to(codes)
        logits = self.network(torch.cat([start, codes[:, :-1]], dim=1))
        return F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(codes.shape).sum(1)

    @torch.no_grad()
    def sample(self, ids: Tensor, *, seed: int, temperature: float = 1.0, label: Tensor | None = None) -> Tensor:
        """One sequence per id, int64 (len(ids), L); a temperature below 1 prefers what is probable, 0 takes only that.

        The network computes in float64 where the device has it: its rounding depends on the batch, and a number that
        falls between two categories would otherwise choose one or the other.
        """
        device = self.network.places.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        weights = {name: p.to(exact) for name, p in self.network.named_parameters()}
        u = rng.uniform(ids, (self.length,), seed, "codes").to(device, exact)
        codes = self._start(len(ids), label).to(device)
        memory: Memory = []
        for place in range(self.length):
            logits = functional_call(self.network, weights, (codes[:, -1:], memory))[:, -1]
            codes = torch.cat([codes, pick(logits, u[:, place], temperature)[:, None]], dim=1)
        return codes[:, 1:]

    def _start(self, n: int, label: Tensor | None) -> Tensor:
        """The start symbols of n sequences, int64 (n, 1)."""
        if not self.n_classes:
            return torch.full((n, 1), self.network.start)
        if label is None:
            raise no_label(f"give labels from 0 to {self.n_classes - 1}")
        return self.network.start + label[:, None]


def pick(logits: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
    """The category that a uniform number chooses, by inversion of the distribution function.

    Args:
        logits: (B, categories); u: (B,), in [0, 1).
        temperature: the logits are divided by it; 0 takes the most probable category.
    Returns:
        int64 (B,): the number of categories whose cumulative probability is at most u.
    """
    if temperature == 0:
        return logits.argmax(1)
    cumulative = (logits / temperature).softmax(1).cumsum(1)
    return (cumulative <= u[:, None]).sum(1).clamp(max=logits.shape[1] - 1)
