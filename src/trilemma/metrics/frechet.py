"""Frechet distance between two sets of features (Heusel et al. 2017, "GANs trained by a two time-scale update rule").

Each set is taken as a Gaussian N(mu, S); the squared 2-Wasserstein distance of the two is (Dowson & Landau 1982)

    d = |mu_r - mu_f|^2 + Tr(S_r) + Tr(S_f) - 2 Tr((S_r^1/2 S_f S_r^1/2)^1/2).

The last trace is the sum of the singular values of A = S_r^1/2 S_f^1/2, since A A^T = S_r^1/2 S_f S_r^1/2: symmetric
positive semi-definite throughout, so no complex root can appear and rank-deficient sets are no special case.

Standard error: the infinitesimal jackknife (Efron 1982). Moving weight to an image x of the fake set changes d at the
rate  2 (mu_f - mu_r).(x - mu_f) + (x - mu_f)^T (I - T) (x - mu_f) - Tr((I - T) S_f),  where T = S_r^1/2 (A A^T)^-1/2
S_r^1/2 is the matrix of the optimal map from fake to real; likewise for the real set. The variance of d is the sum
over both sets of var(rate) / n.

d is biased upwards by about a constant / n (Chong & Forsyth 2020, "Effectively unbiased FID and Inception Score"). The
interval says how far d would scatter over other draws of the same size; it does not contain the bias. Compare only
distances of equal numbers of images; or those extrapolated to infinitely many, from both sets and from halves of both,

    d_inf = 2 d_n - d_{n/2},

in which the constant is gone. To first order it scatters as d_n does; what the cuts in halves add is in its interval.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trilemma import rng
from trilemma.errors import UserError
from trilemma.metrics.intervals import Spread, infinitesimal_jackknife

MINIMUM = 2048
INTERVAL_IS = "infinitesimal jackknife over both sets; the bias at this number of images is not in it"
INFINITY_IS = "infinitesimal jackknife over both sets, and the scatter of the cuts; the bias falls as 1 / n**2"
CUTS, FEW_CUTS = 8, 2  # in halves; of features with more than WIDE numbers, whose distances take long
WIDE = 256
BLOCK = 1024  # images at a time, where a copy of all features is not needed
IMAGES_A_NUMBER = 4  # least images for each number of a feature, so that halves have covariances of full rank


def refusal(n_real: int, n_fake: int) -> str | None:
    """Why a Frechet distance of so many images is not given, or None."""
    if min(n_real, n_fake) >= MINIMUM:
        return None
    return (
        f"{n_real} real and {n_fake} generated images: below {MINIMUM} of each the Frechet distance is mostly bias; "
        "use the kernel distance, which is unbiased"
    )


@dataclass(frozen=True)
class Gaussian:
    """Features less their mean, float64 (N, D), their mean (D,) and their covariance (D, D), with its symmetric root
    where it is known."""

    centred: Tensor
    mean: Tensor
    cov: Tensor
    known_root: Tensor | None = None

    @cached_property
    def root(self) -> Tensor:
        """The symmetric root of the covariance, computed where it is asked for and not known."""
        return _sqrt(self.cov) if self.known_root is None else self.known_root


def gaussian(features: Tensor) -> Gaussian:
    """Of real images, it is the same for all that is measured by them: features (N, D)."""
    centred, mean = _centred(features)
    return Gaussian(centred, mean, _covariance(centred))


def frechet_distance(*, real: Tensor | Gaussian, fake: Tensor, minimum: int = MINIMUM) -> Spread:
    """Frechet distance of two sets of features with its spread.

    Args:
        real, fake: features, (N, D) and (M, D); N and M at least `minimum`. Of the real images, their Gaussian serves,
            too.
        minimum: the smallest number of images accepted.
    Raises:
        UserError: if a set is smaller than `minimum`.
    """
    n_real = len(real.centred if isinstance(real, Gaussian) else real)
    if min(n_real, len(fake)) < max(minimum, 2):
        raise UserError(refusal(n_real, len(fake)) or f"a covariance needs 2 images, not {len(fake)}")
    r, f = real if isinstance(real, Gaussian) else gaussian(real), gaussian(fake)
    left, values, right = torch.linalg.svd(r.root @ f.root)  # A = left diag(values) right
    shift = r.mean - f.mean
    value = _distance(shift, r.cov, f.cov, values)
    rate_r = _rate(r.centred, shift, _map(f.root, right.T, values))
    rate_f = _rate(f.centred, -shift, _map(r.root, left, values))
    return Spread(value, infinitesimal_jackknife(rate_r), infinitesimal_jackknife(rate_f), least=0.0)


def frechet_infinity(*, real: Tensor | Gaussian, fake: Tensor, at_n: Spread, minimum: int = MINIMUM) -> Spread | str:
    """Frechet distance extrapolated to infinitely many images, or why that cannot be done.

    Args:
        real, fake, minimum: as of `frechet_distance`; at_n: what that gave.
    """
    x = real.centred + real.mean if isinstance(real, Gaussian) else real.double()
    n, d = min(len(x), len(fake)), x.shape[1]
    if n < (least := max(minimum, IMAGES_A_NUMBER * d)):
        return f"{n} images: an extrapolation needs {least} on either side, for features of {d} numbers"
    cuts = range(CUTS if d <= WIDE else FEW_CUTS)
    values = torch.tensor([_of_halves(x, fake.double(), cut) for cut in cuts], dtype=torch.float64)
    by_cuts = infinitesimal_jackknife(values)  # of their mean
    return Spread(2 * at_n.value - values.mean().item(), at_n.shared, at_n.own, cuts=by_cuts)


def _of_halves(x: Tensor, y: Tensor, cut: int) -> float:
    """Mean distance of the halves of two sets (N, D), (M, D) that are cut at random."""
    halves = [
        features[rng.permutation(len(features), 0, f"halves of the {which} images", cut)].chunk(2)
        for which, features in (("real", x), ("generated", y))
    ]
    return sum(frechet_of_gaussians(*moments(a), *moments(b)) for a, b in zip(*halves, strict=True)) / 2


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D, divided by N - 1) of features (N, D), in float64."""
    centred, mean = _centred(features)
    return mean, _covariance(centred)


def frechet_of_gaussians(mean_r: Tensor, cov_r: Tensor, mean_f: Tensor, cov_f: Tensor) -> float:
    """Squared 2-Wasserstein distance of N(mean_r, cov_r) and N(mean_f, cov_f); means (D,), covariances (D, D)."""
    return _distance(mean_r - mean_f, cov_r, cov_f, torch.linalg.svdvals(_sqrt(cov_r) @ _sqrt(cov_f)))


def _distance(shift: Tensor, cov_r: Tensor, cov_f: Tensor, values: Tensor) -> float:
    """From the difference of the means (D,), the covariances (D, D) and the singular values (D,) of A."""
    distance = shift.square().sum() + cov_r.trace() + cov_f.trace() - 2 * values.sum()
    return max(0.0, distance.item())


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, D) less their mean (D,), in float64, and the mean."""
    x = features.double()
    mean = x.mean(dim=0)
    return x - mean, mean


def _covariance(centred: Tensor) -> Tensor:
    return centred.T @ centred / (len(centred) - 1)


def _sqrt(matrix: Tensor) -> Tensor:
    """Symmetric root of a positive semi-definite matrix; eigenvalues within rounding of 0 are taken as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    values = torch.where(values > _rounding(values), values, 0.0)
    return (vectors * values.sqrt()) @ vectors.T


def _map(root: Tensor, left: Tensor, values: Tensor) -> Tensor:
    """Matrix of the optimal map to a centred Gaussian: T cov_from T = cov_to on the range of cov_from.

    Args:
        root: S_to^1/2.
        left, values: left singular vectors (D, D) and singular values (D,) of S_to^1/2 S_from^1/2.
    """
    inverse = torch.where(values > _rounding(values), 1 / values, 0.0)
    return root @ (left * inverse) @ left.T @ root


def _rate(centred: Tensor, shift: Tensor, optimal_map: Tensor) -> Tensor:
    """Rate of change of the distance with the weight of each image, less a constant; (N,). BLOCK images at a time."""
    square = torch.cat([(x * (x - x @ optimal_map)).sum(dim=1) for x in centred.split(BLOCK)])
    return 2 * (centred @ shift) + square


def _rounding(values: Tensor) -> Tensor:
    return values.max().clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
