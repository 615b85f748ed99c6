"""Who leads: laws of toy scores whose truth is known, in many draws."""

import math
from types import SimpleNamespace

import pytest
import torch
from comparison.stand_ins import score

from trilemma.comparison.content import Difference, Model, Training
from trilemma.comparison.differences import (
    RowMetric,
    differences,
    level_for,
    mean_over_trainings,
    over_trainings,
    unbeaten,
)
from trilemma.comparison.rows import row_differences
from trilemma.metrics.intervals import Spread, quantile

N = 40  # real images, and generated ones of each model
DRAWS = 300


def deviations(values):
    """Of the mean of values (n,): their squares add up to the variance over n."""
    return (values - values.mean()) / math.sqrt(len(values) * (len(values) - 1))


def spread(real, fake):
    """The score mean(fake) - mean(real)."""
    return Spread(float(fake.mean() - real.mean()), -deviations(real), deviations(fake))


def draw(means, generator, scale=1.0):
    """Scores of models whose images have these means, by shared real images; a standard error is 0.16."""
    real = torch.randn(N, generator=generator, dtype=torch.float64)
    fakes = [m + scale * torch.randn(N, generator=generator, dtype=torch.float64) for m in means]
    return {name: spread(real, fake) for name, fake in zip("abcdefgh", fakes, strict=False)}


def first(spreads):
    figures = {name: RowMetric(s.value, spread=s) for name, s in spreads.items()}
    return unbeaten({name: s.value for name, s in spreads.items()}, differences(figures))


def test_a_density_above_that_of_real_images_is_no_lead():
    """Samples that crowd have a density of 1.5, those like real images 1: the difference is 0 +- 0, not 0.5."""

    def entry(value):
        real = SimpleNamespace(name="real", spreads={"density": Spread(1.0, torch.zeros(N, dtype=torch.float64))})
        spread = Spread(value, deviations(torch.arange(N).double()))
        evaluation = SimpleNamespace(spreads={"density": spread}, controls=[real])
        return SimpleNamespace(evaluation=evaluation, times=())

    def model(name, value):
        scores = {"density": score("density", value, None, "higher")}
        return Model(name, scores=scores, trainings=[Training(name, scores=scores)])

    rows = {"crowded": [entry(1.5)], "real": [entry(1.0)], "poor": [entry(0.4)]}
    models = [model("crowded", 1.5), model("real", 1.0), model("poor", 0.4)]
    values = {(p.a, p.b): p.value for p in row_differences(rows, models)["density"]}
    assert values == pytest.approx({("crowded", "real"): 0, ("crowded", "poor"): 0.6, ("real", "poor"): 0.6})


def test_of_models_of_one_law_none_leads_in_95_of_100_draws():
    """With 300 draws a rate of 5% is seen as at most 5% + 3 sqrt(0.05 0.95 / 300) = 8.8%; without the correction for
    six pairs it is about 8% and more of pairs that differ."""
    generator = torch.Generator().manual_seed(0)
    draws = [first(draw([0.0] * 4, generator)) for _ in range(DRAWS)]
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / DRAWS)
    assert sum(len(names) == 1 for names in draws) / DRAWS <= limit
    assert sum(len(names) < 4 for names in draws) / DRAWS <= limit


def test_uncorrected_intervals_would_tell_models_of_one_law_apart():
    """The correction is needed: of six pairs at 95% each, one or more is told apart in far more than 5% of draws."""
    generator = torch.Generator().manual_seed(0)
    apart = 0
    for _ in range(DRAWS):
        spreads = draw([0.0] * 4, generator)
        pairs = [differences({x: RowMetric(spreads[x].value, spread=spreads[x]) for x in two}) for two in PAIRS]
        apart += any(p.interval[0] > 0 or p.interval[1] < 0 for (p,) in pairs)
    assert apart / DRAWS > 0.1


PAIRS = [(a, b) for i, a in enumerate("abcd") for b in "abcd"[i + 1 :]]


def test_a_truly_better_model_leads_and_a_worse_one_does_not():
    """1.2 is 5 standard errors of a difference: seen at the corrected level, which asks for about 2.8."""
    generator = torch.Generator().manual_seed(1)
    draws = [first(draw([0.0, 0.0, 0.0, 1.2], generator)) for _ in range(DRAWS)]
    assert sum(names == ["d"] for names in draws) / DRAWS > 0.9
    slight = [first(draw([0.0, 0.1], generator)) for _ in range(DRAWS)]
    assert sum(names == ["a"] for names in slight) / DRAWS <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / DRAWS)


def test_trainings_add_their_luck():
    """Each training moves its model by N(0, 0.5^2), so that a row of three scatters far more than its images say."""
    generator = torch.Generator().manual_seed(2)
    alone = together = 0
    for _ in range(DRAWS):
        luck = 0.5 * torch.randn(6, generator=generator, dtype=torch.float64)
        each = list(draw(luck.tolist(), generator).values())
        rows = {"x": over_trainings(each[:3]), "y": over_trainings(each[3:])}
        together += len(first(rows)) == 1
        alone += len(first({"x": each[0], "y": each[3]})) == 1
    assert together / DRAWS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / DRAWS)
    assert alone / DRAWS > 0.2  # which is why one training is said not to cover the luck


def test_the_spread_over_trainings_is_their_mean_and_the_variance_of_it():
    real = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    result = over_trainings([Spread(value, k * real, real) for k, value in ((1, 1.0), (3, 3.0), (5, 8.0))])
    assert result.value == 4.0
    assert result.shared.tolist() == pytest.approx([0.3, 0.6, 0.9])
    assert result.own.square().sum().item() == pytest.approx(13 / 3)  # the variance of 1, 3 and 8 is 13
    assert result.unshared[0][1] == 2  # degrees of freedom
    one = Spread(1.0, real)
    assert over_trainings([one]) is one


def test_a_mean_over_trainings_has_the_limits_and_the_kind_of_its_parts():
    """It stays below the largest possible value; the scatter of cuts is in that of the trainings."""
    real, cuts = torch.zeros(3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    result = over_trainings([Spread(v, real, least=1.0, most=10.0, halves=True, cuts=cuts) for v in (9.8, 10.0, 9.9)])
    assert (result.least, result.most, result.halves, len(result.cuts)) == (1.0, 10.0, True, 0)
    low, high = result.estimate().interval
    assert low < 9.9 < high == 10.0


def test_the_level_shares_five_percent_among_the_pairs():
    for rows in range(2, 9):
        assert (1 - level_for(rows)) * rows * (rows - 1) / 2 == pytest.approx(0.05)


def test_times_are_compared_turn_by_turn():
    """A slow minute doubles the times of both: their ratio does not move."""
    slow = [1.0, 1.02, 2.04, 2.0, 1.0, 0.98]
    figures = {"a": RowMetric(1.0, times=tuple(slow)), "b": RowMetric(1.5, times=tuple(1.5 * t for t in slow))}
    (pair,) = differences(figures)
    assert pair.ratio and pair.value == pytest.approx(1 / 1.5)
    assert pair.interval == pytest.approx([1 / 1.5] * 2)
    assert unbeaten({"a": 1.0, "b": 1.5}, [pair], "lower") == ["a"]
    noisy = {"a": RowMetric(1.0, times=(1.0, 2.0, 1.0)), "b": RowMetric(1.0, times=(2.0, 1.0, 1.1))}
    assert unbeaten({"a": 1.0, "b": 1.1}, differences(noisy), "lower") == ["a", "b"]


def test_without_a_spread_the_intervals_are_combined():
    """Of two alike the difference has sqrt(2) the width; touching intervals do differ, and none is no claim."""
    (pair,) = differences({"a": RowMetric(1.0, (0.9, 1.1)), "b": RowMetric(1.2, (1.1, 1.3))})
    assert pair.value == pytest.approx(-0.2)
    assert pair.interval == pytest.approx([-0.2 - 0.1 * math.sqrt(2), -0.2 + 0.1 * math.sqrt(2)])
    exact = differences({"a": RowMetric(1.0, (1.0, 1.0)), "b": RowMetric(50.0, (50.0, 50.0))})
    assert exact[0].interval == [-49.0, -49.0]
    assert differences({"a": RowMetric(1.0), "b": RowMetric(2.0, (2.0, 2.0))}) == []
    assert unbeaten({"a": 1.0, "b": 2.0}, []) == ["b", "a"]


def test_trainings_without_a_spread_are_compared_by_their_values():
    """Welch: means 1 and 2, variances 0.01 over 3 each: t = 1 / sqrt(2 0.01 / 3) = 12.2 with 4 degrees of freedom."""
    figures = {"a": RowMetric(1.0, values=(0.9, 1.0, 1.1)), "b": RowMetric(2.0, values=(1.9, 2.0, 2.1))}
    (pair,) = differences(figures)
    half = 2.7764 * math.sqrt(2 * 0.01 / 3)
    assert pair.interval == pytest.approx([-1 - half, -1 + half], abs=1e-4)


def test_equal_values_of_trainings_do_not_make_a_difference_exact():
    """Welch's interval of 0 - 0.1 is the value; each training of a reaches 0.06 above it, and each of b 0.08 to either
    side. Of three pairs that are compared, each is compared at a higher level."""
    a = RowMetric(0.0, values=(0.0,) * 3, intervals=((0.0, 0.06),) * 3)
    b = RowMetric(0.1, values=(0.1,) * 3, intervals=((0.02, 0.18),) * 3)
    below, above = 0.08 / math.sqrt(3), 0.1 / math.sqrt(3)
    (pair,) = differences({"a": a, "b": b})
    assert pair.interval == pytest.approx([-0.1 - below, -0.1 + above])
    pair, *_ = differences({"a": a, "b": b, "c": a})
    scale = quantile(level_for(3)) / quantile()
    assert pair.interval == pytest.approx([-0.1 - scale * below, -0.1 + scale * above]) and scale > 1.2
    (pair,) = differences({"a": RowMetric(0.0, values=(0.0,) * 3), "b": b})
    assert pair.interval == pytest.approx([-0.1 - below, -0.1 + below])


def test_a_mean_over_trainings_reaches_as_far_as_the_mean_of_their_intervals():
    assert mean_over_trainings([0.5] * 3, "nats", [(0.4, 0.7)] * 3).interval == pytest.approx(
        (0.5 - 0.1 / math.sqrt(3), 0.5 + 0.2 / math.sqrt(3))
    )
    assert mean_over_trainings([0.5] * 3, "nats", [(0.4, 0.7), None, (0.4, 0.7)]).interval == (0.5, 0.5)
    half = 4.30265 * math.sqrt(0.01 / 3)  # t with 2 degrees of freedom
    low, high = mean_over_trainings([0.4, 0.5, 0.6], "nats", [(v - 0.3, v + 0.3) for v in (0.4, 0.5, 0.6)]).interval
    assert (low + high) / 2 == pytest.approx(0.5)
    assert (high - low) / 2 == pytest.approx(math.hypot(half, 0.3 / math.sqrt(3)), abs=1e-5)


def test_a_fraction_over_trainings_stays_one():
    result = mean_over_trainings([0.99, 0.9, 1.0], "fraction of images")
    assert result.interval[1] == 1.0 and result.interval[0] < result.value < 1.0
    assert mean_over_trainings([0.99, 0.9, 1.0], "nats").interval[1] > 1.0


def test_who_is_beaten_by_any_is_not_among_the_best():
    pairs = [Difference("b", "c", 0.2, [0.1, 0.3])]
    assert unbeaten({"a": 0.9, "b": 0.8, "c": 0.6}, pairs) == ["a", "b"]
    assert unbeaten({"a": 0.9, "c": 0.6}, pairs) == ["a", "c"]  # the winner does not count: it learned nothing
