"""Noise schedules against their definitions."""

import math

import pytest
import torch
from torch import Tensor

from trilemma.diffusion.schedule import TABLES, Table, cosine, from_betas, get_table, linear
from trilemma.errors import UserError


def betas_of(schedule: Table) -> Tensor:
    """Variance that each step adds, 1 - alpha_bar_i / alpha_bar_(i-1), (T,)."""
    return 1 - schedule.table[1:] / schedule.table[:-1]


@pytest.mark.parametrize(("name", "T"), [("cosine", 4000), ("cosine", 7), ("linear", 1000), ("linear", 7)])
def test_laws(name: str, T: int) -> None:
    schedule = TABLES[name](T)
    t = torch.arange(T + 1, dtype=torch.float64) / T
    alpha, sigma, betas = schedule.alpha(t), schedule.sigma(t), betas_of(schedule)
    assert schedule.T == T and alpha.dtype == torch.float64
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), atol=1e-14, rtol=0)
    assert alpha[0] == 1 and sigma[0] == 0
    assert (alpha.diff() < 0).all() and (alpha > 0).all()
    assert (betas > 0).all() and betas.max() <= 0.999 + 1e-12
    torch.testing.assert_close(from_betas(betas).table, schedule.table, atol=1e-14, rtol=1e-9)


def test_cosine_is_the_closed_form_away_from_the_clip() -> None:
    schedule, s = cosine(4000), 0.008
    f = [math.cos((i / 4000 + s) / (1 + s) * math.pi / 2) ** 2 for i in range(4001)]
    expected = torch.tensor([value / f[0] for value in f], dtype=torch.float64)
    torch.testing.assert_close(schedule.table[:-1], expected[:-1], atol=1e-13, rtol=0)
    clipped = (schedule.table[-1] / schedule.table[-2]).item()  # the one step where 1 - beta would be 0
    assert clipped == pytest.approx(0.001, rel=1e-12)


def test_linear_has_the_betas_of_the_paper() -> None:
    expected = 1e-4 + (0.02 - 1e-4) * torch.arange(1000, dtype=torch.float64) / 999
    torch.testing.assert_close(betas_of(linear()), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("T", "tolerance"), [(4000, 0.06), (500, 0.08), (100, 0.7)])
def test_other_lengths_of_the_linear_schedule_keep_the_total_noise_while_betas_are_small(
    T: int, tolerance: float
) -> None:
    """log(1 - b) = -b - b^2 / 2 - ...: the sum of the betas is kept, so what differs is half the sum of squares."""
    squares = float(betas_of(linear(1000)).square().sum()) / 2
    change = float(linear(T).table[-1].log() - linear(1000).table[-1].log())
    assert change == pytest.approx(squares * (1 - 1000 / T), abs=0.15 * abs(squares * (1000 / T - 1)) + 1e-3)
    assert abs(change) < tolerance


def test_a_grid_may_begin_where_there_is_signal() -> None:
    schedule = cosine(4000)
    first = int(schedule.index(schedule.times(50, least_signal=1e-4)[0]))
    assert schedule.table[first] >= 1e-4 > schedule.table[first + 1]
    assert schedule.times(50, least_signal=0.0)[0] == 1 and schedule.times(50, least_signal=1e-4)[-1] == 0
    with pytest.raises(UserError, match=f"give 1 to {first}$"):
        schedule.times(first + 1, least_signal=1e-4)


def test_lookup_rounds_to_the_nearest_step() -> None:
    schedule = cosine(10)
    t = torch.tensor([[0.0, 0.04], [0.06, 0.96]])
    assert schedule.index(t).tolist() == [[0, 0], [1, 10]]
    assert schedule.index(0.3).item() == 3
    every = torch.arange(4001).float() / 4000  # what a network is told, in float32
    assert torch.equal(cosine(4000).index(every), torch.arange(4001))


def test_time_grids() -> None:
    schedule = cosine(4000)
    assert schedule.times(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert schedule.index(schedule.times(4000)).tolist() == list(range(4000, -1, -1))
    for steps in (1, 50, 999, 3999):
        gaps = -schedule.index(schedule.times(steps)).diff()
        assert len(gaps) == steps and gaps.sum() == 4000 and gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("steps", [0, -1, 4001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(UserError, match="1 to 4000"):
        cosine(4000).times(steps)


def test_an_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(UserError, match='did you mean "cosine"'):
        get_table("cosin", 10)
