"""Against closed forms for Gaussians, with samples whose moments are exact by construction."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from trilemma import rng as random
from trilemma.errors import UserError
from trilemma.metrics.frechet import MINIMUM, frechet_distance, frechet_infinity, frechet_of_gaussians, moments


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def covariance(d, seed=0):
    a = normal(d, d, seed=seed)
    return a @ a.T / d + 0.1 * torch.eye(d, dtype=torch.float64)


def sample_with(mean, cov, n, seed=0):
    """n points whose sample mean and covariance (divided by n - 1) are the given ones."""
    x = normal(n, len(mean), seed=seed)
    x = x - x.mean(0)
    whitener = torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1)))
    return x @ whitener.T @ torch.linalg.cholesky(cov).T + mean


def distance(real, fake):
    return frechet_distance(real=real, fake=fake, minimum=2).value


def test_moments():
    mean, cov = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64), covariance(3)
    found_mean, found_cov = moments(sample_with(mean, cov, 50))
    assert torch.allclose(found_mean, mean, atol=1e-12)
    assert torch.allclose(found_cov, cov, atol=1e-12)


def test_diagonal_gaussians():
    """Commuting covariances: |mu_r - mu_f|^2 + sum (sqrt(a) - sqrt(b))^2."""
    a, b = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 9.0, 0.25]).double()
    mean = torch.tensor([0.0, 3.0, -1.0]).double()
    expected = 10.0 + (2 - 1) ** 2 + (1 - 3) ** 2
    real = sample_with(torch.zeros(3).double(), a.diag(), 2048, seed=1)
    fake = sample_with(mean, b.diag(), 3000, seed=2)
    assert frechet_distance(real=real, fake=fake).value == pytest.approx(expected, rel=1e-10)


def test_covariances_that_do_not_commute():
    """In two dimensions the eigenvalues of M = S_r S_f give Tr(M^1/2) = sqrt(Tr M + 2 sqrt(det M))."""
    a, b, zero = covariance(2, 1), covariance(2, 2), torch.zeros(2).double()
    assert not torch.allclose(a @ b, b @ a)
    product = a @ b
    expected = (a.trace() + b.trace() - 2 * (product.trace() + 2 * product.det().sqrt()).sqrt()).item()
    assert frechet_of_gaussians(zero, a, zero, b) == pytest.approx(expected, rel=1e-10)
    assert distance(sample_with(zero, a, 100, 3), sample_with(zero, b, 100, 4)) == pytest.approx(expected, rel=1e-9)


def test_sixty_four_dimensions():
    a, b, zero = covariance(64, 1), covariance(64, 2), torch.zeros(64).double()
    roots = np.sqrt(np.linalg.eigvals((a @ b).numpy()).real).sum()  # eigenvalues of S_r S_f are those of the PSD form
    expected = a.trace().item() + b.trace().item() - 2 * roots
    assert frechet_of_gaussians(zero, a, zero, b) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("n", "d"), [(200, 16), (16, 64), (2, 8), (500, 128)])
def test_zero_on_itself(n, d):
    x = 10 * normal(n, d).relu() + 5
    assert distance(x, x) <= 1e-6
    assert distance(x, x.flip(0)) <= 1e-6


def test_symmetric():
    a, b = normal(300, 20, seed=1), 2 * normal(40, 20, seed=2).relu()
    assert distance(a, b) > 1
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-10)


def test_shift_and_rotation_do_not_matter():
    a, b = normal(300, 8, seed=1), 2 * normal(300, 8, seed=2).relu()
    rotation = torch.linalg.qr(normal(8, 8, seed=3)).Q
    assert distance(a @ rotation + 7, b @ rotation + 7) == pytest.approx(distance(a, b), rel=1e-9)


def test_collapsed_set():
    """A set of one repeated image has S_f = 0, so d = |mu_r - mu_f|^2 + Tr(S_r)."""
    real, image = normal(400, 10), torch.full((10,), 2.0).double()
    mean, cov = moments(real)
    expected = ((mean - 2) ** 2).sum() + cov.trace()
    result = frechet_distance(real=real, fake=image.expand(300, 10), minimum=2)
    assert result.value == pytest.approx(expected.item(), rel=1e-10)
    assert all(map(math.isfinite, result.estimate().interval))


@pytest.mark.parametrize("n", [5, 16, 100])
def test_rank_deficient_sets(n):
    """Padding with features that are always 0 and repeating features adds no error."""
    a, b = normal(n, 12, seed=1), normal(n, 12, seed=2) + 1
    dead = torch.zeros(n, 6).double()
    result = frechet_distance(real=torch.cat([a, dead], 1), fake=torch.cat([b, dead], 1), minimum=2)
    assert result.value == pytest.approx(distance(a, b), rel=1e-7)
    low, high = result.estimate().interval
    assert low <= result.value <= high
    assert distance(torch.cat([a, a], 1), torch.cat([b, b], 1)) == pytest.approx(2 * distance(a, b), rel=1e-7)


def test_standard_error_is_the_jackknifes():
    """The infinitesimal jackknife agrees with leaving every image out in turn, up to terms of order 1 / n."""
    real, fake = normal(150, 3, seed=1), normal(120, 3, seed=2) @ covariance(3) + 1

    def variance(x, of):
        left_out = torch.tensor([of(torch.cat([x[:i], x[i + 1 :]])) for i in range(len(x))]).double()
        return (len(x) - 1) / len(x) * ((left_out - left_out.mean()) ** 2).sum().item()

    expected = math.sqrt(variance(real, lambda x: distance(x, fake)) + variance(fake, lambda x: distance(real, x)))
    spread = frechet_distance(real=real, fake=fake, minimum=2)
    error = math.sqrt(float(spread.shared.square().sum() + spread.own.square().sum()))
    assert error == pytest.approx(expected, rel=0.03)


def test_interval_covers():
    """Two Gaussians in 3-D with 500 images each: the bias is small beside the scatter, so 95% means 95%."""
    shift = torch.tensor([1.0, 0.5, 0.0]).double()
    expected = 1.25 + 3 * (1.5 - 1) ** 2
    inside = 0
    for seed in range(200):
        real, fake = normal(500, 3, seed=2 * seed), 1.5 * normal(500, 3, seed=2 * seed + 1) + shift
        low, high = frechet_distance(real=real, fake=fake, minimum=2).estimate().interval
        inside += low <= expected <= high
    assert 180 <= inside <= 199  # 95% of 200 is 190, standard deviation 3.1


def test_refused_below_the_minimum():
    few, enough = normal(MINIMUM - 1, 4), normal(MINIMUM, 4)
    for real, fake in ((few, enough), (enough, few)):
        with pytest.raises(UserError, match=r"2047.*kernel distance"):
            frechet_distance(real=real, fake=fake)
    assert frechet_distance(real=enough, fake=enough).value <= 1e-6


def test_arguments_are_keywords():
    with pytest.raises(TypeError):
        frechet_distance(normal(10, 2), normal(10, 2))


def infinity(real, fake):
    return frechet_infinity(real=real, fake=fake, at_n=frechet_distance(real=real, fake=fake, minimum=2), minimum=2)


def test_the_extrapolation_is_twice_the_distance_less_that_of_halves():
    real, fake = normal(400, 6, seed=1), 2 * normal(400, 6, seed=2) + 1
    at_n = frechet_distance(real=real, fake=fake, minimum=2)
    spread = infinity(real, fake)
    assert torch.equal(spread.own, at_n.own) and torch.equal(spread.shared, at_n.shared)

    def halves(features: torch.Tensor, which: str, cut: int) -> tuple[torch.Tensor, ...]:
        return features[random.permutation(len(features), 0, f"halves of the {which} images", cut)].chunk(2)

    of_halves = [
        frechet_distance(real=a, fake=b, minimum=2).value
        for cut in range(8)
        for a, b in zip(halves(real, "real", cut), halves(fake, "generated", cut), strict=True)
    ]
    assert spread.value == pytest.approx(2 * at_n.value - sum(of_halves) / 16, rel=1e-9) and len(spread.cuts) == 8
    assert infinity(real, fake).value == spread.value  # the cuts are the same every time


def test_the_two_cuts_of_wide_features_have_one_degree_of_freedom():
    """Beside 1,027 of each set of images: the interval is that of three groups, by Satterthwaite."""
    n, d = 1028, 257
    spread = infinity(normal(n, d, seed=1), 1.2 * normal(n, d, seed=2))
    variances = [float(part.square().sum()) for part in (spread.shared, spread.own, spread.cuts)]
    assert len(spread.cuts) == 2 and min(variances) > 0
    df = sum(variances) ** 2 / sum(v**2 / f for v, f in zip(variances, (n - 1, n - 1, 1), strict=True))
    half = stats.t.ppf(0.975, df) * math.sqrt(sum(variances))
    assert spread.estimate().interval == pytest.approx((spread.value - half, spread.value + half), rel=1e-9)


@pytest.mark.slow
def test_the_extrapolation_has_no_bias_and_its_interval_holds_the_truth():
    """The distance at n is too large by far more than its interval says; 200 draws of Gaussians in 12 dimensions."""
    d, n = 12, 240
    b = covariance(d, 2)
    root = torch.linalg.cholesky(b)
    zero, one = torch.zeros(d).double(), torch.eye(d).double()
    truth = frechet_of_gaussians(zero, one, zero + 0.1, b)
    values, held, plain = [], 0, []
    for draw in range(200):
        real, fake = normal(n, d, seed=2 * draw), normal(n, d, seed=2 * draw + 1) @ root.T + 0.1
        estimate = infinity(real, fake).estimate()
        values.append(estimate.value)
        held += estimate.interval[0] <= truth <= estimate.interval[1]
        plain.append(distance(real, fake))
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - truth) < 4 * error
    assert np.mean(plain) - truth > 10 * error  # what is removed
    assert 0.9 < held / 200 <= 0.99


def test_too_few_images_for_the_extrapolation_are_said():
    x = normal(300, 100)
    refused = frechet_infinity(real=x, fake=x, at_n=frechet_distance(real=x, fake=x, minimum=2), minimum=2)
    assert refused == "300 images: an extrapolation needs 400 on either side, for features of 100 numbers"
