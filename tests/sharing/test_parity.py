"""How far results are from those of a model: as they are up to values of 1, and over the largest value beyond."""

import math

import pytest
import torch

from trilemma.errors import UserError
from trilemma.sharing.parity import Parity, check_parity, parity_of, worst


@pytest.mark.parametrize(("factor", "scale"), [(0.5, 1.0), (-200.0, 200.0)])
def test_the_bar_is_a_share_of_the_largest_value(factor, scale):
    expected = factor * torch.tensor([[1.0, 0.25]], dtype=torch.float64)
    for share, passes in ((0.9e-4, True), (1.1e-4, False)):
        parity = parity_of(expected + torch.tensor([[0.0, share * scale]]), expected)
        assert parity.scale == scale and parity.relative == pytest.approx(share)
        if passes:
            check_parity(parity, "it", "a program")
        else:
            with pytest.raises(UserError, match=r"it differs by .* in a program, with values up to"):
                check_parity(parity, "it", "a program")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_fail(value):
    one, other = torch.ones(2), torch.tensor([1.0, value])
    for result, expected in ((one, other), (other, one), (other, other)):
        with pytest.raises(UserError, match="was not exported"):
            check_parity(parity_of(result, expected), "it", "a program")


def test_the_worst_is_the_largest_relative_difference_or_one_that_is_not_a_number():
    small, large = Parity(1e-3, 100.0), Parity(5e-4, 1.0)
    assert worst([small, large]) == worst([large, small]) == large
    none = Parity(math.nan, 1.0)
    assert all(math.isnan(worst(both).relative) for both in ([none, large], [large, none], [small, none, large]))
