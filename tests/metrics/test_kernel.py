"""Against loops over pairs, and against moments: in one dimension the kernel's expectation is a polynomial in them."""

import math

import pytest
import torch
from scipy import stats

from trilemma.errors import UserError
from trilemma.metrics.kernel import kernel_distance


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(x, y):
    """The definition, pair by pair."""

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    x, y = x.tolist(), y.tolist()
    m, n = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    xy = sum(k(a, b) for a in x for b in y) / (m * n)
    return xx + yy - 2 * xy


def mmd2_of_normals(shift):
    """(xy + 1)^3 = sum_j C(3, j) x^j y^j, so MMD^2 = sum_j C(3, j) (E x^j - E y^j)^2; x ~ N(0, 1), y ~ N(shift, 1)."""
    return 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2


def test_equals_the_definition():
    x, y = normal(12, 5, seed=1), normal(9, 5, seed=2) + 0.5
    assert kernel_distance(real=x, fake=y).value == pytest.approx(naive(x, y), rel=1e-11)


def test_small_example():
    """D = 1, x = 0, 1, 2 and y = 1, 1, 1: pairs of x give 1, 1, 27; of y 8, 8, 8; across 1, 8, 27 three times."""
    x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.ones(3, 1)
    expected = (1 + 1 + 27) / 3 + 8 - 2 * (1 + 8 + 27) / 3
    assert kernel_distance(real=x, fake=y).value == pytest.approx(expected, rel=1e-12)


def test_blocks_change_nothing():
    x, y = normal(100, 6, seed=1), normal(70, 6, seed=2)
    whole = kernel_distance(real=x, fake=y, block=1000)
    for block in (1, 7, 64):
        value, interval = kernel_distance(real=x, fake=y, block=block).estimate()
        assert value == pytest.approx(whole.value, abs=1e-12)
        assert interval == pytest.approx(whole.estimate().interval, abs=1e-12)


def test_interval_is_the_delete_one_jackknife():
    x, y = normal(14, 3, seed=1), normal(11, 3, seed=2) + 0.3

    def variance(z, of):
        left_out = torch.tensor([of(torch.cat([z[:i], z[i + 1 :]])) for i in range(len(z))], dtype=torch.float64)
        return (len(z) - 1) / len(z) * ((left_out - left_out.mean()) ** 2).sum().item()

    parts = variance(x, lambda z: naive(z, y)), variance(y, lambda z: naive(x, z))
    spread = kernel_distance(real=x, fake=y)
    assert [float(d.square().sum()) for d in (spread.shared, spread.own)] == pytest.approx(parts, rel=1e-6)
    value, (low, high) = spread.estimate()
    df = sum(parts) ** 2 / (parts[0] ** 2 / 13 + parts[1] ** 2 / 10)  # 14 and 11 values, each less their mean
    half = stats.t.ppf(0.975, df) * math.sqrt(sum(parts))
    assert (low, high) == pytest.approx((value - half, value + half), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_unbiased_at_any_number_of_images(shift):
    """Also at 10 images, and also where the two sets have one distribution: the mean is the population's value."""
    values = torch.tensor(
        [
            kernel_distance(real=normal(10, 1, seed=s), fake=normal(15, 1, seed=50_000 + s) + shift).value
            for s in range(1000)
        ]
    )
    error = (values.std() / math.sqrt(len(values))).item()
    assert abs(values.mean().item() - mmd2_of_normals(shift)) < 4 * error
    if shift == 0:
        assert (values < 0).any(), "an unbiased estimate of 0 is sometimes negative"


@pytest.mark.parametrize(("shift", "low", "high"), [(0.5, 178, 199), (0.0, 180, 200)])
def test_interval_covers(shift, low, high):
    """95% of 200 is 190, standard deviation 3.1; for equal distributions the jackknife errs on the wide side."""
    inside = 0
    for s in range(200):
        real, fake = normal(400, 1, seed=s), normal(400, 1, seed=10_000 + s) + shift
        left, right = kernel_distance(real=real, fake=fake).estimate().interval
        inside += left <= mmd2_of_normals(shift) <= right
    assert low <= inside <= high


def test_symmetric():
    x, y = normal(30, 4, seed=1), normal(20, 4, seed=2) + 1
    assert kernel_distance(real=x, fake=y).value == pytest.approx(kernel_distance(real=y, fake=x).value, rel=1e-12)


def test_too_few_images():
    with pytest.raises(UserError, match="at least 3"):
        kernel_distance(real=normal(2, 4), fake=normal(5, 4))


def test_arguments_are_keywords():
    with pytest.raises(TypeError):
        kernel_distance(normal(10, 2), normal(10, 2))
