"""Intervals against their equations, closed forms and simulated coverage."""

import math

import pytest
import torch
from scipy import stats

from trilemma.metrics.intervals import (
    Spread,
    difference,
    difference_of_trainings,
    fraction_estimate,
    half_width,
    jackknife,
    logit_estimate,
    mean_estimate,
    median_interval,
    quantile,
    satterthwaite,
    wilson,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (50, 100), (10, 10), (999, 1000)])
def test_wilson_solves_its_equation(successes, n):
    """The bounds are the p with (successes / n - p)^2 = z^2 p (1 - p) / n."""
    value, interval = wilson(successes, n)
    assert value == successes / n
    assert interval[0] <= value <= interval[1]
    for p in interval:
        if 0 < p < 1:
            assert (value - p) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / n, rel=1e-9)
    assert interval[0] < interval[1]


def test_a_fraction_with_four_times_the_variance_is_one_of_a_quarter_of_the_images():
    wide = fraction_estimate(0.25, 4 * 0.25 * 0.75 / 400, 400, quantile())
    assert wide.value == 0.25
    assert wide.interval == pytest.approx(wilson(25, 100).interval)


def test_quantiles_are_those_of_t_and_of_the_normal_law():
    assert quantile() == pytest.approx(1.959963984540054, abs=1e-12)
    assert 2 * stats.t.cdf(quantile(0.99, 7), 7) - 1 == pytest.approx(0.99, abs=1e-12)


def test_jackknife_of_a_mean_is_its_variance():
    """Leaving image i out moves a mean by (mean - x_i) / (n - 1): the squares add up to var / n."""
    x = normal(30)
    left_out = (x.sum() - x) / 29
    assert float(jackknife(left_out).square().sum()) == pytest.approx(float(x.var() / 30), rel=1e-12)


def test_satterthwaite():
    """Equal variances of 5 and 5 degrees have 10; a part of 0 changes nothing."""
    assert satterthwaite([(2.0, 5), (2.0, 5)]) == pytest.approx(10)
    assert satterthwaite([(2.0, 5), (0.0, 3)]) == pytest.approx(5)
    assert satterthwaite([]) == math.inf


def test_a_difference_leaves_out_what_both_share():
    """Deviations that are equal cancel; own ones add up: variance 4 + 9 in 9 + 9 degrees, as they are from means."""
    shared, apart = normal(50), torch.tensor([1.0, -1.0]).double().repeat(5) / 10**0.5
    a, b = Spread(3.0, shared, 2 * apart), Spread(1.0, shared, 3 * apart)
    value, (low, high) = difference(a, b)
    half = stats.t.ppf(0.975, (4 + 9) ** 2 / (4**2 / 9 + 9**2 / 9)) * 13**0.5
    assert value == 2
    assert (low, high) == pytest.approx((2 - half, 2 + half))
    with pytest.raises(ValueError, match="are not of the same real images"):
        difference(a, Spread(1.0, normal(20)))


def half_of(spread):
    low, high = spread.estimate().interval
    return (high - low) / 2


def test_a_group_of_deviations_has_degrees_of_its_own():
    """Ten from their mean have 9, ten differences of halves 10; two of few cuts have 1 beside those of the images,
    which a hundred of these would hide."""
    ten, two = (torch.tensor([1.0, -1.0]).double().repeat(n) / (2 * n) ** 0.5 for n in (5, 1))  # of variance 1
    assert half_of(Spread(0.0, ten)) == pytest.approx(stats.t.ppf(0.975, 9))
    assert half_of(Spread(0.0, ten, halves=True)) == pytest.approx(stats.t.ppf(0.975, 10))
    df = 3**2 / (1 / 9 + 1 / 9 + 1 / 1)
    assert half_of(Spread(0.0, ten, ten, cuts=two)) == pytest.approx(stats.t.ppf(0.975, df) * 3**0.5)
    low, high = difference(Spread(0.0, ten, cuts=two), Spread(0.0, ten, cuts=two)).interval
    assert high == -low == pytest.approx(stats.t.ppf(0.975, 2) * 2**0.5)  # the cuts of both, 1 degree each


def test_an_interval_holds_its_value():
    for value in (0.0, 0.001, 0.5, 1.0):
        low, high = Spread(value, 0.01 * normal(40), n=100).estimate().interval
        assert 0 <= low <= value <= high <= 1
        assert low < high


def test_two_fractions_of_which_nothing_was_seen_do_not_differ_for_sure():
    """0 of 100 against 1 of 100 on shared images: the interval of the difference holds 0."""
    nothing = Spread(0.0, torch.zeros(40, dtype=torch.float64), n=100)
    one = Spread(0.01, torch.full((40,), 0.01 / 40**0.5, dtype=torch.float64), n=100)
    low, high = difference(one, nothing).interval
    assert low < 0 < high


def test_limits_are_kept():
    assert Spread(0.1, normal(40), least=0.0, most=1.0).estimate().interval == (0, 1)


@pytest.mark.parametrize("value", [1e-6, 0.3, 1 - 1e-6])
def test_an_interval_on_the_logit_scale_stays_within(value):
    """Its ends have the odds of the value, over and times one factor; for a small error it is value +- t sd."""
    _, (low, high) = logit_estimate(value, 0.1, 9)
    odds = value / (1 - value)
    assert 0 <= low < value < high <= 1
    assert low / (1 - low) / odds == pytest.approx(math.exp(-stats.t.ppf(0.975, 9) * 0.1 / (value * (1 - value))))
    narrow = logit_estimate(value, 1e-6 * value * (1 - value), math.inf).interval
    assert (narrow[1] - narrow[0]) / (value * (1 - value)) == pytest.approx(2 * 1.96e-6, rel=1e-3)


def test_mean_of_values_is_a_t_interval():
    values = [0.3, 0.5, 0.4, 0.7]
    assert mean_estimate(values).interval == pytest.approx(
        stats.t.interval(0.95, 3, loc=0.475, scale=stats.sem(values)), rel=1e-12
    )


def test_trainings_are_compared_by_welch():
    a, b = [0.3, 0.5, 0.4, 0.7], [0.9, 0.8, 1.1]
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert difference_of_trainings(a, b).interval == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_a_mean_of_few_covers():
    """2,000 means of 4 normal values: 95%, and three errors of 2,000 draws; with z in place of t it would be 86%."""
    held = 0
    for row in normal(2000, 4).tolist():
        low, high = mean_estimate(row).interval
        held += low <= 0 <= high
    assert abs(held / 2000 - 0.95) < 3 * (0.95 * 0.05 / 2000) ** 0.5


def test_half_width_is_students():
    """t has closed forms: with 1 degree of freedom tan(pi (p - 1/2)), with 2 (2p - 1) sqrt(2 / (4 p (1 - p)))."""
    assert half_width([1.0, 3.0]) == pytest.approx(math.tan(math.pi * 0.475) * math.sqrt(2) / math.sqrt(2), rel=1e-9)
    t = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(t / math.sqrt(3), rel=1e-9)
    assert half_width([2.0, 2.0, 2.0], 0.5) == pytest.approx(t * 0.5 / math.sqrt(3), rel=1e-9)


@pytest.mark.parametrize("n", range(6, 40))
def test_median_interval_has_its_coverage(n):
    """P(x_(r) <= median <= x_(n + 1 - r)) = 1 - 2 P(Bin(n, 1/2) < r): at least 95%, and less for the next r."""
    low, high = median_interval([float(i) for i in range(1, n + 1)])
    rank = int(low)
    assert high == n + 1 - rank

    def outside(r):
        return 2 * sum(math.comb(n, i) for i in range(r)) / 2**n

    assert outside(rank) <= 0.05 < outside(rank + 1)


def test_median_interval_of_few_values_is_the_range():
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert median_interval([2.0]) == (2.0, 2.0)
