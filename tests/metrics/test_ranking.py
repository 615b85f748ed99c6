"""Figures of a ranking, against sklearn and against what they are in closed form."""

import math

import pytest
import torch
from oracles import auroc_of_normals
from scipy.special import expit, logit, stdtrit
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
    result = {"normal": tensor(1, 2, 3), "abnormal": tensor(3, 0)}
    assert auroc(**result) == pytest.approx(2.5 / 6)
    assert average_precision(**result) == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 2 / 5)  # at 3: 1 of 2; at 0: 2 of 5


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
    truth = auroc_of_normals(apart)
    error = math.sqrt(1 / (6 * n))  # at most: the variance of U / n^2 under the null hypothesis, 1 / (6 n)
    estimate = auroc(normal=normals(n, seed=3), abnormal=normals(n, apart, seed=4))
    assert abs(estimate - truth) < 4 * error < 0.05


def test_the_interval_has_the_width_of_its_law():
    """DeLong's: the variances of the wins of an abnormal image, and of those over a normal one, by their numbers; on
    the scale of log(v / (1 - v)), whose derivative is 1 / (v (1 - v))."""
    normal, abnormal = normals(300, seed=5), normals(200, 1.0, seed=6)
    wins = (abnormal[:, None] > normal[None, :]).double()
    parts = wins.mean(1).var().item() / 200, wins.mean(0).var().item() / 300
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 199 + parts[1] ** 2 / 299)
    value = wins.mean().item()
    half = stdtrit(freedom, 0.975) * math.sqrt(sum(parts)) / (value * (1 - value))
    expected = [expit(logit(value) - half), expit(logit(value) + half)]
    estimate = ranking(normal=normal, abnormal=abnormal).auroc
    assert estimate.value == pytest.approx(value) and [*estimate.interval] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("step", [0.0, 0.5])
def test_each_image_is_left_out_once(step):
    """The quick sums against leaving one image out and counting anew, with and without ties."""
    normal, abnormal = normals(9, seed=1), normals(6, 0.7, seed=2)
    if step:
        normal, abnormal = (torch.floor(x / step) * step for x in (normal, abnormal))
    expected = []
    for figure in (auroc, average_precision):
        without = [
            [figure(normal=torch.cat([normal[:k], normal[k + 1 :]]), abnormal=abnormal) for k in range(9)],
            [figure(normal=normal, abnormal=torch.cat([abnormal[:k], abnormal[k + 1 :]])) for k in range(6)],
        ]
        parts = [tensor(*w).var(correction=0).item() * (len(w) - 1) for w in without]
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / 8 + parts[1] ** 2 / 5)
        value = figure(normal=normal, abnormal=abnormal)
        half = stdtrit(freedom, 0.975) * math.sqrt(sum(parts)) / (value * (1 - value))
        expected += [expit(logit(value) - half), expit(logit(value) + half)]
    estimate = ranking(normal=normal, abnormal=abnormal)
    assert [*estimate.auroc.interval, *estimate.average_precision.interval] == pytest.approx(expected, rel=1e-9)


def test_every_interval_holds_its_value():
    """Also with few images, many ties, and no overlap."""
    generator = torch.Generator().manual_seed(0)
    for draw in range(200):
        sizes = torch.randint(1, 15, (2,), generator=generator).tolist()
        normal, abnormal = (torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes)
        abnormal = abnormal + draw % 5 - 2
        if draw % 2:
            normal, abnormal = normal.round(), abnormal.round()
        for value, (low, high) in ranking(normal=normal, abnormal=abnormal):
            assert 0 <= low <= value <= high <= 1


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(12, 10), (60, 40)])
@pytest.mark.parametrize("apart", [0.0, 1.0, 2.5])
def test_nineteen_of_twenty_intervals_hold_the_truth(sizes, apart):
    """Of 300 draws from unit Gaussians: at most 4 standard errors fewer than 95%. With few images more of them do."""
    generator = torch.Generator().manual_seed(1)
    far = torch.arange(1, 40_000, dtype=torch.float64) / 40_000
    grid = math.sqrt(2) * torch.erfinv(2 * far - 1)  # the quantiles: a sample without noise
    m = round(len(grid) * sizes[1] / sizes[0])  # average precision depends on the share of abnormal images
    spread = math.sqrt(2) * torch.erfinv(2 * torch.arange(1, m + 1, dtype=torch.float64) / (m + 1) - 1)
    truth = auroc(normal=grid, abnormal=spread + apart), average_precision(normal=grid, abnormal=spread + apart)
    assert truth[0] == pytest.approx(auroc_of_normals(apart), abs=1e-4)
    held = torch.zeros(2)
    for _ in range(300):
        sides = [torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]
        estimate = ranking(normal=sides[0], abnormal=sides[1] + apart)
        held += torch.tensor([f.interval[0] <= t <= f.interval[1] for f, t in zip(estimate, truth, strict=True)])
    assert (held / 300 >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 300)).all()


def test_without_overlap_the_interval_is_not_a_point():
    """It is that of the closest two changed over, stretched to the value: wide for few images, narrow for many."""
    few = ranking(normal=tensor(0, 1, 2), abnormal=tensor(5, 6, 7))
    changed = ranking(normal=tensor(0, 1, 5), abnormal=tensor(2, 6, 7))
    for one, other in zip(few, changed, strict=True):
        assert one.value == 1 and one.interval == (other.interval[0], 1.0)
    many = ranking(normal=normals(500), abnormal=normals(500, 100.0)).auroc
    assert few.auroc.interval[0] < 0.5 and 0.99 < many.interval[0] < many.value == 1
    upside_down = ranking(normal=tensor(5, 6, 7), abnormal=tensor(0, 1, 2)).auroc
    assert upside_down.value == upside_down.interval[0] == 0 and upside_down.interval[1] > 0.5


def test_one_image_of_a_kind_says_nothing_of_the_spread():
    assert ranking(normal=tensor(0, 1), abnormal=tensor(2)).auroc == (1.0, (0.0, 1.0))


def test_what_is_refused():
    with pytest.raises(UserError, match="0 normal and 1 abnormal"):
        ranking(normal=tensor(), abnormal=tensor(1))
    with pytest.raises(UserError, match="3 normal and 0 abnormal"):
        auroc(normal=tensor(1, 2, 3), abnormal=tensor())
    with pytest.raises(UserError, match="1 of 3 scores are not numbers"):
        auroc(normal=tensor(1, math.nan), abnormal=tensor(1))
