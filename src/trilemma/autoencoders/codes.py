"""Codes that are choices out of a finite set: a codebook of vectors, and samples of categories that pass gradients on.

Vector quantisation, van den Oord, Vinyals & Kavukcuoglu (2017), "Neural discrete representation learning": each vector
z is replaced by the nearest of K entries e_1 ... e_K; the gradient passes as if nothing had happened (straight-through,
Bengio et al. 2013). The entries are running means of the vectors that chose them (appendix A.1), n_k of a batch with
the sum s_k, once per batch:

    N_k <- decay N_k + (1 - decay) n_k,    m_k <- decay m_k + (1 - decay) s_k,    e_k = m_k / N_k

N and m begin at 0, so that e_k is a weighted mean of what was seen from the first batch on. An entry with N_k below a
share DEAD of their mean is dead: it starts again at a vector of the batch, as in Dhariwal et al. (2020), "Jukebox",
section 3.1, with an N_k of just that share.

The Gumbel-softmax (Jang, Gu & Poole 2017; Maddison, Mnih & Teh 2017): with g = -log(-log u), u uniform in (0, 1), the
category argmax_k(logit_k + g_k) has the probabilities softmax(logits), and softmax((logits + g) / temperature) tends to
its one-hot vector as the temperature goes to 0.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trilemma.rng import for_all_rows, place_in_batch
from trilemma.whole_batch import batch_total

DEAD = 0.03  # of the mean use
SMALLEST = 2.0**-25  # half of the step between the uniform numbers of a float32 generator
LARGEST = 1 - 2.0**-24  # the float32 below 1


class Codebook(nn.Module):
    """K entries of `dim` numbers: buffers, which `update` moves and no optimiser."""

    batch_statistics = sums_statistics = True
    entries: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int, *, decay: float = 0.99, restart: bool = True) -> None:
        """
        Args:
            decay: share of the running counts and sums that each batch leaves.
            restart: whether dead entries start again.
        """
        super().__init__()
        self.decay, self.restart = decay, restart
        self.register_buffer("entries", torch.randn(size, dim))
        self.register_buffer("counts", torch.zeros(size))  # N_k, in vectors per batch
        self.register_buffer("sums", torch.zeros(size, dim))  # m_k

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest entry, (..., dim) -> int64 (...), by |z - e|^2 - |z|^2 = |e|^2 - 2 z.e, never in half
        precision."""
        with torch.autocast(vectors.device.type, enabled=False):
            flat = vectors.detach().flatten(0, -2).to(self.entries.dtype)
            far = torch.addmm(self.entries.square().sum(1), flat, self.entries.T, alpha=-2)  # (N, K)
            return far.argmin(1).view(vectors.shape[:-1])

    @torch.no_grad()
    def update(self, vectors: Tensor, chosen: Tensor, rng: torch.Generator) -> Tensor:
        """Move the entries by one batch: vectors (B, ..., dim) and the entries they chose (B, ...).

        Returns:
            Share of the entries that are in use, scalar, before the dead ones start again.
        """
        flat, chosen, n = vectors.flatten(0, -2).to(self.sums.dtype), chosen.flatten(), len(vectors)
        counts = batch_total(chosen.bincount(minlength=len(self.counts)).to(self.counts.dtype))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(batch_total(torch.zeros_like(self.sums).index_add_(0, chosen, flat)), 1 - self.decay)
        least = DEAD * self.counts.mean()
        used = self.counts >= least
        if self.restart:
            some = _chosen_vectors(flat, n, len(used), rng)
            self.counts.copy_(torch.where(used, self.counts, least))
            self.sums.copy_(torch.where(used[:, None], self.sums, least * some))
        alive = self.counts >= least  # others stay where they are
        means = self.sums / self.counts.clamp(min=least)[:, None]
        self.entries.copy_(torch.where(alive[:, None], means, self.entries))
        return used.float().mean()


def _chosen_vectors(flat: Tensor, n: int, count: int, rng: torch.Generator) -> Tensor:
    """As many vectors at random of those of a whole batch, of which n images have the vectors `flat` (N, dim)."""
    first, total = (len(flat) // n * images for images in place_in_batch(n, rng))
    with for_all_rows(rng):
        index = torch.randint(total, (count,), generator=rng, device=flat.device) - first
    own = (index >= 0) & (index < len(flat))
    return batch_total(torch.where(own[:, None], flat[index.clamp(0, len(flat) - 1)], 0))


def straight_through(forward: Tensor, backward: Tensor) -> Tensor:
    """Exactly the values of `forward`, with the gradient of `backward`."""
    return forward.detach() + (backward - backward.detach())


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of how often each of K codes was chosen, (K,) -> scalar: K where all are used alike, 1 where
    one is used alone."""
    shares = counts / counts.sum().clamp(min=1)
    return torch.special.entr(shares).sum().exp()


def gumbel_noise(like: Tensor, rng: torch.Generator) -> Tensor:
    """Standard Gumbel numbers, -log(-log u), of the shape of another tensor; u is kept where both logarithms are
    finite."""
    u = torch.rand(like.shape, generator=rng, dtype=torch.float32, device=like.device).clamp(SMALLEST, LARGEST)
    return -(-u.log()).log().to(like.dtype)


def gumbel_softmax(logits: Tensor, temperature: float, rng: torch.Generator, *, hard: bool = True) -> Tensor:
    """Draws from softmax(logits) that pass gradients on.

    Args:
        logits: (..., categories).
        temperature: above 0.
        hard: whether the draw is one-hot.
    Returns:
        As logits: softmax((logits + g) / temperature); if hard, the one-hot vector of its largest with its gradient.
    """
    noisy = logits + gumbel_noise(logits, rng)
    soft = (noisy / temperature).softmax(-1)
    return straight_through(one_hot(noisy.argmax(-1), logits), soft) if hard else soft


def kl_to_uniform(log_q: Tensor) -> Tensor:
    """KL divergence of V categorical distributions from uniform ones: sum of log K - entropy, nats per image.

    log_q: log probabilities (B, V, K) -> (B,).
    """
    return (log_q.exp() * (log_q + math.log(log_q.shape[2]))).sum((1, 2))


def one_hot(category: Tensor, like: Tensor) -> Tensor:
    """(...) -> (..., categories) in the type and with the categories of another tensor."""
    return F.one_hot(category, like.shape[-1]).to(like.dtype)
