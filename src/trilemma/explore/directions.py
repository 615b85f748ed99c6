"""Directions of codes along which images change most; of models that draw codes, single numbers mean nothing.

Of styles w, the principal components: the eigenvectors v_k of the covariance of w over drawn z, with eigenvalues that
are the variance along them (Härkönen et al. 2020, "GANSpace: discovering interpretable GAN controls", section 2.1). Of
an encoder's codes those over real images.

Latents z ~ N(0, I) vary alike in all directions; what differs is their effect. The drawn images are regressed on z by
least squares, G(z) ~ m + B z, and the directions are the eigenvectors of B'B, whose eigenvalues are the variance of the
images, summed over pixels, that goes along them. What is not linear in z is no part of it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trilemma.explore.codes import decode_alike
from trilemma.explore.compress import fit_count
from trilemma.run.run import Run
from trilemma.types import Condition, DrawsCodes, HasStyles

DRAWN = 4096  # codes, at most


class Directions(NamedTuple):
    """Orthonormal directions of codes (Z,), the most important first.

    mean: of the codes, (Z,); basis: a direction each row, (Z, Z); shares: of the variance of w, or of the images, that
    each explains, (Z,). float64.
    """

    mean: Tensor
    basis: Tensor
    shares: Tensor

    def parts(self, codes: Tensor) -> Tensor:
        """How far codes (N, Z) lie from the mean along each direction: (N, Z)."""
        return ((codes.double() - self.mean) @ self.basis.T).to(codes.dtype)

    def codes(self, parts: Tensor) -> Tensor:
        """The codes (N, Z) that lie so far from the mean."""
        return (self.mean + parts.double() @ self.basis).to(parts.dtype)


def directions_of(run: Run, model: DrawsCodes, condition: Condition) -> tuple[Directions, Tensor]:
    """The directions of a model, and the drawn codes (N, Z) that they come from.

    Args:
        condition: of one image, which all are drawn under.
    """
    n = DRAWN if isinstance(model, HasStyles) else max(2, min(DRAWN, fit_count(run.shape)))
    codes = drawn_codes(run, model, condition, n)
    if isinstance(model, HasStyles):
        return of_spread(codes), codes
    return of_effect(codes, decode_alike(run, codes, condition).flatten(1)), codes


def drawn_codes(run: Run, model: DrawsCodes, condition: Condition, n: int = DRAWN) -> Tensor:
    """Codes that images are drawn from, all under the condition of one image: (n, Z)."""
    alike = condition.rows(torch.zeros(n, dtype=torch.int64)).to(run.device)
    return model.draw_codes(n, seed=0, condition=alike).float().cpu()


def of_spread(codes: Tensor) -> Directions:
    """The principal components of codes (N, Z)."""
    apart = codes.double() - codes.double().mean(0)
    covariance = apart.T @ apart / len(codes)
    return _principal(covariance, codes, covariance.trace())


def of_effect(codes: Tensor, images: Tensor) -> Directions:
    """The directions of codes (N, Z) that move images (N, D) most, by a linear fit."""
    apart, pixels = (x.double() - x.double().mean(0) for x in (codes, images))
    slopes = torch.linalg.pinv(apart) @ pixels  # (Z, D)
    return _principal(slopes @ slopes.T, codes, pixels.square().mean(0).sum())


def _principal(matrix: Tensor, codes: Tensor, total: Tensor) -> Directions:
    """The eigenvectors of a matrix (Z, Z), whose largest entry is positive, and their eigenvalues as shares."""
    values, vectors = torch.linalg.eigh(matrix)
    basis = vectors.T.flip(0)
    largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
    shares = values.flip(0).clamp(min=0) / total.clamp(min=torch.finfo(total.dtype).tiny)
    return Directions(codes.double().mean(0), basis * largest.sign(), shares)
