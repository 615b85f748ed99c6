"""The threshold that a new normal image exceeds with at most a stated probability f.

By rank: the scores of n held-out normal images and of a new one are exchangeable, so that each is as likely to be the
highest. With the k-th largest of the n as the threshold, k = floor(f (n + 1)), a new normal image is flagged with
probability k / (n + 1) <= f, whatever the law of the scores (conformal prediction: Vovk et al. 2005, "Algorithmic
learning in a random world"; Angelopoulos & Bates 2021, "A gentle introduction to conformal prediction"). Over draws
of the n images, the share of all normal images above it is Beta(k, n + 1 - k).

By spread: where the m held-out images are too few (k = 0), the training images help. A model has seen them, so they
score lower; each is therefore scored without its fold where that can be done (principal components, density of codes,
nearest image: cross-conformal, as the jackknife+ of Barber et al. 2021, "Predictive inference with the jackknife+"),
and only the shape of their law is used. With scores y on a log scale where they are positive, s0^2 and s^2 the
variances of training and held-out scores, residuals e = (y - mean) / s0 or / s of all n images, the mean u of the
held-out scores, and the law of a new score

    y = u + c (e - mean of m others e),   c^2 = (d0 s0^2 + (m - 1) s^2) / chi^2(d0 + m - 1),

the threshold is the (1 - k / n) quantile, k = floor(f (n + 1)). The spread of m scores is uncertain, so it is drawn
towards that of the training scores as if these were d0 + 1 more (moderated t: Smyth 2004, "Linear models and empirical
Bayes methods"; d0 = 4). This is no guarantee: it holds f as far as both laws have like shapes and spreads that differ
by less than about 1.5 times.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from trilemma import rng
from trilemma.errors import UserError
from trilemma.metrics.intervals import Estimate

RANK, SPREAD = "rank", "spread"
DRAWS = 200  # of the mean and of the spread, for each residual
PRIOR = 4  # d0: degrees of freedom that the spread of the training scores stands for
LEAST_TRAINED = 5  # training images that a spread is taken from
TINY, MOST_LOG = 1e-12, 700.0  # keep logarithms and exponentials finite


class Reference(NamedTuple):
    """What a new normal image may score.

    scores: (images * copies,), the highest first; images: normal images behind them; by: RANK or SPREAD.
    """

    scores: Tensor
    images: int
    by: Literal["rank", "spread"]

    def threshold(self, false_alarms: float) -> float:
        """The score that a new normal image exceeds with at most this probability."""
        return self.scores[_allowed(self.images, false_alarms) * self._copies - 1].item()

    def p_values(self, scores: Tensor) -> Tensor:
        """The probability of a score as high or higher if the image is normal: (1 + #{as high}) / (n + 1), (N,)."""
        below = torch.searchsorted(self.scores.flip(0).contiguous(), scores.contiguous())
        return (self._copies + len(self.scores) - below).double() / (self._copies * (self.images + 1))

    def expected(self, false_alarms: float) -> Estimate | None:
        """The share of normal images above the threshold, with the interval that holds it in 95% of draws of the
        held-out images; None for a threshold by spread, whose law is not known."""
        from scipy.special import betaincinv

        if self.by == SPREAD:
            return None
        k = _allowed(self.images, false_alarms)
        low, high = (float(betaincinv(k, self.images + 1 - k, q)) for q in (0.025, 0.975))
        return Estimate(k / (self.images + 1), (low, high))

    def expected_above(self, threshold: float) -> Estimate | None:
        """As `expected`, for a threshold that was chosen otherwise: that of the highest score which is not above it, so
        that the share is overstated at most by 1 / (n + 1); None for a threshold by spread."""
        from scipy.special import betaincinv

        if self.by == SPREAD:
            return None
        n, k = self.images, 1 + int((self.scores > threshold).sum())
        if k > n:  # below all of them
            return Estimate(1.0, (float(betaincinv(n, 1, 0.025)), 1.0))
        low, high = (float(betaincinv(k, n + 1 - k, q)) for q in (0.025, 0.975))
        return Estimate(k / (n + 1), (low, high))

    @property
    def _copies(self) -> int:
        return len(self.scores) // self.images


def enough(images: int, false_alarms: float) -> bool:
    """Whether so many held-out images give a threshold by rank."""
    return _allowed(images, false_alarms) >= 1


def by_rank(held_out: Tensor) -> Reference:
    """From scores (N,) of normal images that the model was not trained on."""
    return Reference(held_out.double().sort(descending=True).values, len(held_out), RANK)


def by_spread(held_out: Tensor, trained: Tensor, *, log: bool = False, seed: int = 0) -> Reference:
    """From the scores of a few held-out images (M,) and the law of those of training images (N,).

    Args:
        log: the scores are positive, and their logarithms are compared.
    """
    new, old = ((y.double().clamp(min=TINY).log() if log else y.double()) for y in (held_out, trained))
    m, prior = len(new), PRIOR if old.std() > TINY else 0  # equal scores, as of a collapsed encoder, say nothing
    freedom = max(1, prior + m - 1)
    residuals = torch.cat([_residuals(old), _residuals(new)]) if m > 1 else _residuals(old)
    squares = prior * old.var() + ((m - 1) * new.var() if m > 1 else 0)
    generator = rng.generator(seed, "threshold by spread")
    chi = torch.randn(DRAWS, freedom, generator=generator, dtype=torch.float64).square().sum(1)
    others = residuals[torch.randint(len(residuals), (DRAWS, m), generator=generator)].mean(1)
    drawn = new.mean() + (squares / chi).sqrt() * (residuals[:, None] - others)  # (N + M, DRAWS)
    scores = drawn.flatten().sort(descending=True).values
    return Reference(scores.clamp(max=MOST_LOG).exp() if log else scores, len(residuals), SPREAD)


def check_enough(held_out: int, trained: int, false_alarms: float) -> None:
    """Raise UserError where held-out and training images together are too few for a rate of false alarms."""
    if enough(held_out, false_alarms) or (trained >= LEAST_TRAINED and enough(held_out + trained, false_alarms)):
        return
    needed = math.ceil(1 / false_alarms - 1 - 1e-9)
    raise UserError(
        f"false_alarms={false_alarms} needs at least {needed:,} normal images, and there are {held_out:,} held out "
        f"and {trained:,} to train on; allow more false alarms, or give more normal images with data="
    )


def _allowed(images: int, false_alarms: float) -> int:
    return math.floor(false_alarms * (images + 1) + 1e-9)  # 0.05 * 20 is 1, not a rounding error less


def _residuals(values: Tensor) -> Tensor:
    """Differences from the mean in standard deviations; those of a normal law where all values are equal."""
    if values.std() > TINY:
        return (values - values.mean()) / values.std()
    return torch.special.ndtri((torch.arange(len(values), dtype=torch.float64) + 0.5) / len(values))
