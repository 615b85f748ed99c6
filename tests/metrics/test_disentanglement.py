"""MIG, DCI and SAP on codes built from factors, where each score follows from its definition."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from trilemma.data.sources.shapes import draw_factors
from trilemma.errors import UserError
from trilemma.metrics.disentanglement import (
    BINS,
    dci,
    mutual_information,
    mutual_information_gap,
    separated_attribute_predictability,
    threshold_accuracy,
)

COUNTS = {"kind": 3, "colour": 4, "size": 2}
COPIES = 50


@pytest.fixture(scope="module")
def factors():
    """Every combination equally often, so that the factors are exactly independent."""
    rows = torch.tensor(list(itertools.product(*map(range, COUNTS.values()))) * COPIES)
    return {name: rows[:, k] for k, name in enumerate(COUNTS)}


@pytest.fixture(scope="module")
def perfect(factors):
    return torch.stack([v.double() for v in factors.values()], dim=1)


def uniform(n, count, seed=0):
    return torch.rand(n, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(angle):
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)


def test_mig_of_one_code_for_each_factor_is_1(factors, perfect):
    scores = mutual_information_gap(perfect, factors)
    assert scores.value == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(scores.matrix, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_no_score_depends_on_the_scale_or_the_order_of_codes(factors, perfect):
    other = perfect[:, [2, 0, 1]] * torch.tensor([1e-6, -3, 1e4]) + 7
    for score in (mutual_information_gap, separated_attribute_predictability):
        assert score(other, factors).of_factor == pytest.approx(score(perfect, factors).of_factor, abs=1e-9)
    assert dci(other, factors).disentanglement == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_mutual_information_is_that_of_scikit_learn(seed):
    draw = np.random.default_rng(seed)
    one = draw.integers(-2, 5, 200)
    other = one % 3 + draw.integers(0, 3, 200)
    assert mutual_information(one, other) == pytest.approx(mutual_info_score(one, other), abs=1e-12)
    assert mutual_information(one, one) == pytest.approx(mutual_info_score(one, one), abs=1e-12)


def test_mig_of_a_code_that_holds_half_of_a_factor(factors, perfect):
    """Of 4 equally likely colours a code tells one bit of two; nothing else tells any."""
    codes = perfect.clone()
    codes[:, 1] = factors["colour"] // 2
    scores = mutual_information_gap(codes, factors).of_factor
    assert scores == pytest.approx({"kind": 1, "colour": math.log(2) / math.log(4), "size": 1}, abs=1e-12)


def test_a_factor_in_two_codes(factors, perfect):
    """Two equal codes have no gap. Each code still stands for one factor; the factor is spread over 2 of 4 codes."""
    codes = torch.cat([perfect, perfect[:, :1]], dim=1)
    assert mutual_information_gap(codes, factors).of_factor == pytest.approx(
        {"kind": 0, "colour": 1, "size": 1}, abs=1e-12
    )
    assert separated_attribute_predictability(codes, factors).of_factor["kind"] == pytest.approx(0, abs=1e-12)
    scores = dci(codes, factors)
    assert scores.disentanglement == pytest.approx(1, abs=1e-9)
    assert scores.completeness_of["kind"] == pytest.approx(1 - math.log(2) / math.log(4), abs=0.05)
    assert scores.completeness_of["colour"] == pytest.approx(1, abs=1e-9)


def test_a_code_for_two_factors(factors, perfect):
    """One code that tells two factors apart completely: each of them is complete, the code is not disentangled."""
    codes = torch.stack([factors["kind"] + 3.0 * factors["size"], factors["colour"]], dim=1).double()
    scores = dci(codes, factors)
    assert scores.completeness == pytest.approx(1, abs=1e-9) and scores.informativeness == pytest.approx(1, abs=1e-9)
    one, other = scores.of_code.tolist()
    assert one == pytest.approx(1 - math.log(2) / math.log(3), abs=1e-9)  # two of three factors, equally important
    assert other == pytest.approx(1, abs=1e-9)
    assert scores.disentanglement == pytest.approx((2 * one + other) / 3, abs=1e-9)  # two factors hang on the first


def test_perfect_codes_by_dci_and_sap(factors, perfect):
    scores = dci(perfect, factors)
    torch.testing.assert_close(scores.matrix, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-9)
    assert scores.disentanglement == scores.completeness == scores.informativeness == pytest.approx(1, abs=1e-9)
    expected = {name: 1 - 1 / count for name, count in COUNTS.items()}  # the second code is right by chance
    assert separated_attribute_predictability(perfect, factors).of_factor == pytest.approx(expected, abs=1e-9)


def test_two_uniform_factors_turned_by_45_degrees():
    """Both codes tell as much of either factor: no gap, and importances of one half each."""
    values = uniform(3000, 2)
    factors, codes = {"x": values[:, 0], "y": values[:, 1]}, (values - 0.5) @ rotation(math.pi / 4)
    assert mutual_information_gap(codes, factors).value < 0.03
    assert separated_attribute_predictability(codes, factors).value < 0.05
    scores = dci(codes, factors)
    assert scores.disentanglement < 0.05 and scores.completeness < 0.05 and scores.informativeness > 0.9
    straight = dci(values, factors)
    assert straight.disentanglement > 0.99 and mutual_information_gap(values, factors).value > 0.9


def test_sap_of_a_continuous_factor_is_the_gap_of_r2():
    """A code v + e with e independent and as wide has R^2 = 1/2; exact on a grid."""
    grid = torch.tensor(list(itertools.product(range(10), range(10), range(2))), dtype=torch.float64)
    v, e, other = grid.T
    scores = separated_attribute_predictability(torch.stack([v + e, other], dim=1), {"v": v})
    torch.testing.assert_close(scores.matrix, torch.tensor([[0.5], [0]], dtype=torch.float64), rtol=0, atol=1e-12)
    assert scores.value == pytest.approx(0.5, abs=1e-12)


def test_classes_that_take_turns_along_a_code():
    """0, 1, 0, 1 along a code: one threshold leaves one image of four wrong, three none."""
    code, factor = np.arange(4.0)[None], np.array([0, 1, 0, 1])
    assert threshold_accuracy(code, factor) == pytest.approx([0.75])
    assert threshold_accuracy(code, factor, thresholds=0) == pytest.approx([0.5])
    assert threshold_accuracy(code, factor, thresholds=3) == pytest.approx([1])
    codes = torch.stack([torch.arange(4.0), torch.zeros(4)], dim=1).repeat(5, 1)
    scores = separated_attribute_predictability(codes, {"v": torch.tensor([0, 1, 0, 1] * 5)})
    torch.testing.assert_close(scores.matrix, torch.tensor([[0.75], [0.5]], dtype=torch.float64), rtol=0, atol=1e-12)
    assert scores.value == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(2))
def test_the_best_thresholds_are_those_of_trying_all(seed):
    """Codes with ties and classes of unequal size, against every choice of intervals and of a class for each."""
    draw = np.random.default_rng(seed)
    codes, factor = draw.integers(0, 5, (3, 9)).astype(float), draw.permutation([0, 0, 0, 0, 0, 3, 3, 3, 7])

    def balanced_accuracy(given):
        return np.mean([(given[factor == k] == k).mean() for k in (0, 3, 7)])

    def best(code):
        cuts = [edge + 0.5 for edge in range(-1, 4)]
        return max(
            balanced_accuracy(np.array(given)[(code > low).astype(int) + (code > high)])
            for low, high in itertools.combinations_with_replacement(cuts, 2)
            for given in itertools.product([0, 3, 7], repeat=3)
        )

    assert threshold_accuracy(codes, factor) == pytest.approx([best(code) for code in codes])


def test_mig_of_draws_leaves_out_a_collapsed_unit_which_that_of_means_counts():
    """Unit 0 says v; unit 1 is noise whose mean moves by a thousandth of its spread, so both means say v completely."""
    v = torch.arange(4).repeat(500)
    mu = torch.stack([v.double(), 0.001 * v], dim=1)
    std = torch.tensor([0.05, 1.0], dtype=torch.float64)
    z = mu + std * torch.randn(mu.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert mutual_information_gap(mu, {"v": v}).value == pytest.approx(0, abs=1e-12)
    scores = mutual_information_gap(z, {"v": v})
    assert scores.matrix[0, 0] == pytest.approx(1, abs=1e-3) and scores.value > 0.95


@pytest.mark.slow
def test_noise_tells_nothing(factors):
    codes = torch.randn(len(factors["kind"]), 4, generator=torch.Generator().manual_seed(1))
    assert mutual_information_gap(codes, factors).value < 0.02
    assert separated_attribute_predictability(codes, factors).value < 0.06
    scores = dci(codes, factors)
    assert scores.disentanglement < 0.1 and scores.completeness < 0.1
    assert scores.informativeness_of["size"] == pytest.approx(1 / 2, abs=0.06)


def test_dead_codes_change_nothing_but_the_base_of_completeness(factors, perfect):
    codes = torch.cat([perfect, torch.zeros(len(perfect), 2)], dim=1)
    assert mutual_information_gap(codes, factors).value == pytest.approx(1, abs=1e-12)
    scores = dci(codes, factors)
    assert scores.disentanglement == pytest.approx(1, abs=1e-9) and scores.completeness == pytest.approx(1, abs=1e-9)
    assert scores.matrix[3:].abs().max() == 0
    assert dci(torch.zeros(len(perfect), 3), factors).disentanglement == 0


def test_a_single_code_and_a_single_factor(factors):
    codes, own = factors["kind"][:, None].double(), {"kind": factors["kind"]}
    assert mutual_information_gap(codes, own).value == pytest.approx(1, abs=1e-12)
    scores = dci(codes, own)
    assert (scores.disentanglement, scores.completeness) == (1, 1)


def test_continuous_factors_are_binned():
    """A uniform factor in BINS bins has entropy log BINS, of which the code of its halves tells log 2."""
    x = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    scores = mutual_information_gap(torch.stack([(x > 0.5).double(), x], dim=1), {"x": x})
    assert scores.matrix[0, 0] == pytest.approx(math.log(2) / math.log(BINS), rel=0.01)
    assert scores.matrix[1, 0] == pytest.approx(1, abs=1e-12)


@pytest.mark.slow
def test_the_forest_depends_on_its_seed_alone(factors):
    codes = torch.randn(len(factors["kind"]), 4, generator=torch.Generator().manual_seed(1))
    before = torch.get_rng_state()
    one, other, third = (dci(codes, factors, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.matrix, other.matrix) and not torch.equal(one.matrix, third.matrix)
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_refused(factors, perfect):
    score = mutual_information_gap
    with pytest.raises(UserError, match="factors none"):
        score(perfect, {})
    with pytest.raises(UserError, match=r"codes \(1200, 3\) and factors v \(7,\)"):
        score(perfect, {"v": torch.arange(7)})
    with pytest.raises(UserError, match='factor "v" has one value in 1200 images'):
        score(perfect, {"v": torch.zeros(1200, dtype=torch.int64)})
    with pytest.raises(UserError, match="NaN or infinite"):
        score(perfect * float("nan"), factors)


def test_the_best_sap_on_shapes_is_what_the_page_says():
    """One unit to a factor: a gap of 1 - 1 / C of C classes, and of 1 of a place, which a line predicts."""
    every = draw_factors(torch.arange(4000), 0, "test")
    factors = {name: every[name] for name in ("kind", "colour", "size", "x", "y")}
    perfect = torch.stack([values.double() for values in factors.values()], dim=1)
    scores = separated_attribute_predictability(perfect, factors)
    counts = {name: int(every[name].max()) + 1 for name in ("kind", "colour", "size")}
    best = sum(1 - 1 / counts[name] if name in counts else 1 for name in factors) / len(factors)
    assert best - 0.03 < scores.value < best  # the second unit is a little better than chance on 4,000 images
    page = (Path(__file__).parents[2] / "docs" / "vaes.md").read_text("utf-8")
    assert f"beside two continuous places, is {best:.2f}" in page
