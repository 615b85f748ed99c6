"""Sets whose precision and recall are known, and a reference written pair by pair."""

import pytest
import torch

from trilemma.errors import UserError
from trilemma.metrics.precision_recall import distances, precision_recall, wilson


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(real, fake, **settings):
    found = precision_recall(real=real, fake=fake, **settings)
    return found.precision.value, found.recall.value


def naive(real, fake, k):
    def gap(a, b):
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5

    def radii(points):
        return [sorted(gap(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)]

    def share(asked, points):
        reach = radii(points)
        inside = [any(gap(a, p) <= r for p, r in zip(points, reach, strict=True)) for a in asked]
        return sum(inside) / len(inside)

    real, fake = real.tolist(), fake.tolist()
    return share(fake, real), share(real, fake)


def test_tight_cluster_inside_wide_data():
    """Every generated image is plausible, hardly any real one is covered: swapped arguments would show."""
    real, fake = normal(500, 4, seed=1), 0.05 * normal(500, 4, seed=2)
    precision, recall = values(real, fake)
    assert precision > 0.98
    assert recall < 0.02


def test_wide_cloud_around_tight_data():
    real, fake = 0.05 * normal(500, 4, seed=1), normal(500, 4, seed=2)
    precision, recall = values(real, fake)
    assert precision < 0.02
    assert recall > 0.98


def test_identical_sets():
    x = normal(300, 8)
    assert values(x, x) == (1, 1)
    assert values(x, x.flip(0)) == (1, 1)


def test_ties_and_repeated_images():
    """Where every image occurs five times all radii are 0; equal points are at distance exactly 0, and 0 <= 0."""
    x = (1000 + normal(40, 64)).repeat(5, 1)
    assert values(x, x.flip(0)) == (1, 1)
    collapsed = torch.ones(50, 3)
    assert values(collapsed, collapsed) == (1, 1)


def test_surface_of_a_ball_is_inside():
    """Points 0, 1, 2, 3 on a line, k = 1: every radius is 1; 4 lies on the surface of the last ball, 4.01 outside."""
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert values(real, torch.tensor([[4.0], [4.01], [-1.0], [9.0]]), k=1)[0] == 0.5


def test_far_away_noise():
    assert values(normal(200, 8, seed=1), normal(200, 8, seed=2) + 100) == (0, 0)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_the_definition(k):
    real, fake = normal(40, 3, seed=1), 0.7 * normal(40, 3, seed=2) + 0.5
    assert values(real, fake, k=k) == pytest.approx(naive(real, fake, k), abs=1e-12)


def test_chunks_change_nothing():
    real, fake = normal(150, 5, seed=1), normal(150, 5, seed=2) + 0.5
    whole = precision_recall(real=real, fake=fake, block=1000)
    for block in (1, 37, 149):
        assert precision_recall(real=real, fake=fake, block=block) == whole


def test_same_distribution_gives_equal_values():
    """Exchangeable sets: precision and recall have one expectation, so their mean difference is 0."""
    gaps = []
    for seed in range(60):
        precision, recall = values(normal(100, 4, seed=seed), normal(100, 4, seed=1000 + seed))
        assert 0.5 < precision < 1
        gaps.append(precision - recall)
    gaps = torch.tensor(gaps)
    assert abs(gaps.mean()) < 4 * gaps.std() / 60**0.5


def test_larger_set_is_thinned_the_same_way_each_time():
    real, fake = normal(300, 4, seed=1), normal(100, 4, seed=2)
    found = precision_recall(real=real, fake=fake)
    assert found.n == 100
    assert found == precision_recall(real=real, fake=fake)


def test_distances_do_not_cancel():
    x = torch.tensor([[1e6, 1e6]], dtype=torch.float64)
    assert distances(x, x).item() == 0
    assert distances(x, x + 1e-3).item() == pytest.approx(1e-3 * 2**0.5, rel=1e-6)


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


def test_too_few_images():
    with pytest.raises(UserError, match="more than 3"):
        precision_recall(real=normal(3, 2), fake=normal(9, 2))


def test_arguments_are_keywords():
    with pytest.raises(TypeError):
        precision_recall(normal(10, 2), normal(10, 2))
