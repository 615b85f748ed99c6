"""Figures of a ranking, against sklearn and against what they are in closed form."""

import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from trilemma.errors import UserError
from trilemma.metrics.ranking import auroc, average_precision, ranking


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def normals(n, mean=0.0, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def sklearns(normal, abnormal):
    truth = [0] * len(normal) + [1] * len(abnormal)
    scores = torch.cat([normal, abnormal]).numpy()
    return roc_auc_score(truth, scores), average_precision_score(truth, scores)


@pytest.mark.parametrize("step", [0.0, 0.5, 100.0])
@pytest.mark.parametrize("sizes", [(50, 30), (7, 400), (1, 1)])
def test_figures_are_sklearns(sizes, step):
    """Rounded to steps: many ties; to steps of 100: nothing but ties."""
    normal, abnormal = normals(sizes[0], seed=1), normals(sizes[1], 0.7, seed=2)
    if step:
        normal, abnormal = (torch.floor(x / step) * step for x in (normal, abnormal))
    area, precision = sklearns(normal, abnormal)
    assert auroc(normal=normal, abnormal=abnormal) == pytest.approx(area, abs=1e-12)
    assert average_precision(normal=normal, abnormal=abnormal) == pytest.approx(precision, abs=1e-12)


def test_pairs_counted_by_hand():
    """Abnormal 3 beats 1 and 2 and ties with 3: 2.5 of 3; abnormal 0 beats none: 2.5 of 6 pairs."""
    found = {"normal": tensor(1, 2, 3), "abnormal": tensor(3, 0)}
    assert auroc(**found) == pytest.approx(2.5 / 6)
    assert average_precision(**found) == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 2 / 5)  # at 3: 1 of 2; at 0: 2 of 5


def test_the_ends_of_the_scale():
    low, high = tensor(0, 1, 2), tensor(3, 4)
    assert auroc(normal=low, abnormal=high) == average_precision(normal=low, abnormal=high) == 1
    assert auroc(normal=high, abnormal=low) == 0
    assert auroc(normal=tensor(1, 1), abnormal=tensor(1, 1, 1)) == 0.5
    assert average_precision(normal=tensor(1, 1), abnormal=tensor(1, 1, 1)) == pytest.approx(3 / 5)


def test_infinite_scores_are_ranked():
    assert auroc(normal=tensor(-math.inf, 0), abnormal=tensor(math.inf, 1)) == 1


def test_two_gaussians():
    """Phi(d / sqrt 2) for unit Gaussians d apart, within 4 standard errors of the Mann-Whitney statistic."""
    n, apart = 4000, 1.0
    truth = 0.5 * (1 + math.erf(apart / 2))
    error = math.sqrt(1 / (6 * n))  # at most: the variance of U / n^2 under the null hypothesis, 1 / (6 n)
    found = auroc(normal=normals(n, seed=3), abnormal=normals(n, apart, seed=4))
    assert abs(found - truth) < 4 * error < 0.05


def test_the_interval_has_the_width_of_its_law():
    """DeLong's: the variances of the wins of an abnormal image, and of those over a normal one, by their numbers."""
    normal, abnormal = normals(300, seed=5), normals(200, 1.0, seed=6)
    wins = (abnormal[:, None] > normal[None, :]).double()
    error = math.sqrt(wins.mean(1).var() / 200 + wins.mean(0).var() / 300)
    value, (low, high) = ranking(normal=normal, abnormal=abnormal).auroc
    assert value == pytest.approx(wins.mean().item())
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)  # 1000 samples: 5% on a quantile
    assert low < value < high


def test_intervals_hold_both_values_and_depend_on_the_seed_alone():
    sides = {"normal": normals(40, seed=7), "abnormal": normals(30, 0.5, seed=8)}
    first, again, other = ranking(**sides), ranking(**sides), ranking(**sides, seed=1)
    assert first == again != other
    assert first.average_precision.value == average_precision(**sides)
    for estimate in first:
        assert 0 <= estimate.interval[0] <= estimate.value <= estimate.interval[1] <= 1


def test_apart_means_an_interval_without_width():
    assert ranking(normal=tensor(0, 1), abnormal=tensor(2, 3)).auroc == (1.0, (1.0, 1.0))


def test_what_is_refused():
    with pytest.raises(UserError, match="0 normal and 1 abnormal"):
        ranking(normal=tensor(), abnormal=tensor(1))
    with pytest.raises(UserError, match="3 normal and 0 abnormal"):
        auroc(normal=tensor(1, 2, 3), abnormal=tensor())
    with pytest.raises(UserError, match="1 of 3 scores are not numbers"):
        auroc(normal=tensor(1, math.nan), abnormal=tensor(1))


def test_the_global_random_state_is_untouched():
    before = torch.get_rng_state()
    ranking(normal=normals(5), abnormal=normals(5, 1.0), resamples=3)
    assert torch.equal(before, torch.get_rng_state())
