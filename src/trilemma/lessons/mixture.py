"""A mixture of Gaussians as data: its denoiser and its paths are known.

p(x0) is the mean of N(m_k, s_k^2 I) over k, so x_t = alpha x0 + sigma eps has the density p_t, the mean of the
N(alpha m_k, v_k I) with v_k = alpha^2 s_k^2 + sigma^2, and by Bayes' rule

    E[x0 | x_t] = sum over k of r_k (m_k + alpha s_k^2 (x_t - alpha m_k) / v_k),    r_k ~ N(x_t; alpha m_k, v_k I)
    grad log p_t(x_t) = (alpha E[x0 | x_t] - x_t) / sigma^2                              (Tweedie's formula; Efron 2011)

In one dimension a path of the probability flow stays at one quantile of p_t, as paths do not cross."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.diffusion.schedule import Schedule
from trilemma.diffusion.steps import Denoise

HALVINGS = 80  # of an interval in which a quantile is sought
WIDE = 12.0  # standard deviations


@dataclass(frozen=True)
class Mixture:
    """Modes of equal weight, in as many dimensions as a mean has numbers."""

    means: tuple[tuple[float, ...], ...]
    stds: tuple[float, ...]

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """n points, (n, D)."""
        mode = torch.randint(len(self.stds), (n,), generator=rng)
        means, stds = torch.tensor(self.means)[mode], torch.tensor(self.stds)[mode, None]
        return means + stds * torch.randn(means.shape, generator=rng)

    def denoiser(self, schedule: Schedule) -> Denoise:
        """E[x0 | x_t] for x_t (B, D, 1, 1), all at the first of the times."""

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = levels(schedule, float(t[0]))
            return self.x0_hat(x_t.flatten(1), alpha, sigma).view_as(x_t)

        return denoise

    def x0_hat(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x0 | x_t = x], (N, D)."""
        means, stds, variances = self._modes(alpha, sigma, x)
        means_given_x = means + (alpha * stds.square() / variances)[:, None, None] * (x - alpha * means)  # (K, N, D)
        share = self._logits(x, alpha, sigma).softmax(0)
        return (share[:, :, None] * means_given_x).sum(0)

    def log_density(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """log p_t of x (N, D): (N,)."""
        return self._logits(x, alpha, sigma).logsumexp(0) - math.log(len(self.stds))

    def path_end(self, x: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
        """Where the probability flow takes x (N, 1) from one (alpha, sigma) to another, float64 (N, 1)."""
        quantile = self._below(x, *start)
        reach = max(abs(mean) for (mean,) in self.means) * end[0] + WIDE * math.hypot(end[0] * max(self.stds), end[1])
        low, high = torch.full_like(x, -reach), torch.full_like(x, reach)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            is_below = self._below(middle, *end) < quantile
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return (low + high) / 2

    def _below(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """P(x_t <= x), (N, 1)."""
        means, _, variances = self._modes(alpha, sigma, x)
        return torch.special.ndtr((x - alpha * means) / variances.sqrt()[:, None, None]).mean(0)

    def _logits(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """log N(x; alpha m_k, v_k I), (K, N)."""
        means, _, variances = self._modes(alpha, sigma, x)
        squares = (x - alpha * means).square().sum(2) / variances[:, None]
        return -0.5 * (squares + x.shape[1] * (2 * math.pi * variances[:, None]).log())

    def _modes(self, alpha: float, sigma: float, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """m_k (K, 1, D), s_k (K,) and v_k (K,)."""
        means, stds = like.new_tensor(self.means)[:, None], like.new_tensor(self.stds)
        return means, stds, alpha**2 * stds.square() + sigma**2


def levels(schedule: Schedule, t: float) -> tuple[float, float]:
    """alpha and sigma."""
    return float(schedule.alpha(t)), float(schedule.sigma(t))
