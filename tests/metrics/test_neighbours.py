"""Sets whose precision, recall, density and coverage are known, and a reference written pair by pair."""

import pytest
import torch

from trilemma.errors import UserError
from trilemma.metrics import neighbours
from trilemma.metrics.intervals import difference
from trilemma.metrics.neighbours import coverage, distances, neighbour_scores, recall


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(real, fake, *names):
    scores = neighbour_scores(real=real, fake=fake)
    return tuple(scores[name].value for name in names or ("precision", "recall"))


def naive(real, fake):
    """The definitions, pair by pair: precision, recall (k = 3), density, coverage (k = 5)."""

    def gap(a, b):
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5

    def radii(points, k):
        return [sorted(gap(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)]

    def held(asked, points, k):
        reach = radii(points, k)
        return [sum(gap(a, p) <= r for p, r in zip(points, reach, strict=True)) for a in asked]

    def share(of):
        return sum(x > 0 for x in of) / len(of)

    real, fake = real.tolist(), fake.tolist()
    covered = [min(gap(x, y) for y in fake) <= r for x, r in zip(real, radii(real, 5), strict=True)]
    density = sum(held(fake, real, 5)) / (5 * len(fake))
    return share(held(fake, real, 3)), share(held(real, fake, 3)), density, share(covered)


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
    """Real points at 0, 1, ..., 11: the third neighbour of 11 is 3 away, the fifth 5 away. 14 lies on the surface of
    the last ball of k = 3, 14.01 outside all of them; 16 on the surface of k = 5, in one ball of five."""
    real = torch.arange(12.0)[:, None]
    fake = torch.tensor([[14.0], [14.01]]).repeat(6, 1)
    assert values(real, fake, "precision") == (0.5,)
    assert values(real, torch.full((12, 1), 16.0), "density") == pytest.approx((0.2,))


def test_flat_grey_that_precision_takes_for_perfect():
    """Tight real data and one far real image: everything between lies in its ball, so precision is 1 of what is like
    no real image; it lies in no other ball, so density is 1/5."""
    real = torch.cat([normal(99, 4), torch.full((1, 4), 100.0)])
    fake = torch.full((100, 4), 50.0)
    assert values(real, fake, "precision", "density") == pytest.approx((1, 0.2))
    assert values(real, fake, "coverage") == (0.01,)


def test_real_against_real_has_density_one_and_coverage_of_one_less_half_to_the_k():
    """Of 2 k + ... exchangeable points around a real one, none of the k nearest is generated with probability about
    2^-k; a generated point lies in about k of the balls of radius r_k."""
    scores = [values(normal(300, 4, seed=s), normal(300, 4, seed=500 + s), "density", "coverage") for s in range(20)]
    density, covered = torch.tensor(scores).mean(0).tolist()
    assert abs(density - 1) < 0.05
    assert abs(covered - (1 - 2**-5)) < 0.01


def test_far_away_noise():
    assert values(normal(200, 8, seed=1), normal(200, 8, seed=2) + 100) == (0, 0)


@pytest.mark.parametrize("crowd", [0, 64])
def test_equals_the_definition(monkeypatch, crowd):
    monkeypatch.setattr(neighbours, "CROWD", crowd)
    real, fake = normal(40, 3, seed=1), 0.7 * normal(40, 3, seed=2) + 0.5
    names = ("precision", "recall", "density", "coverage")
    assert values(real, fake, *names) == pytest.approx(naive(real, fake), abs=1e-12)
    assert recall(real=real, fake=fake, k=3) == pytest.approx(naive(real, fake)[1], abs=1e-12)
    assert coverage(real=real, fake=fake, k=5) == pytest.approx(naive(real, fake)[3], abs=1e-12)


def test_a_half_is_scored_as_if_it_were_the_whole():
    """What the halves of the first cut differ by is the difference of their scores by themselves."""
    x, y = normal(60, 3, seed=1), 0.8 * normal(60, 3, seed=2)
    spread = neighbour_scores(real=x, fake=y)["density"].shared[0]
    cut_x, cut_y = neighbours._halves(60, "real")[1], neighbours._halves(60, "generated")[1]
    first, second = (values(x[a], y[b], "density")[0] for a, b in ((~cut_x, ~cut_y), (cut_x, cut_y)))
    assert float(spread) == pytest.approx((first - second) / 2 / neighbours.SPLITS**0.5, abs=1e-12)


def test_chunks_change_nothing():
    real, fake = normal(150, 5, seed=1), normal(150, 5, seed=2) + 0.5
    whole = neighbour_scores(real=real, fake=fake, block=1000)
    for block in (1, 37, 149):
        for name, score in neighbour_scores(real=real, fake=fake, block=block).items():
            assert score == whole[name]
            assert score.shared.equal(whole[name].shared)


def compared(monkeypatch, real, fake):
    """Pairs of a ball and a point that are compared cut by cut."""
    sizes, inside = [], neighbours._inside
    with monkeypatch.context() as patch:
        patch.setattr(neighbours, "_inside", lambda d, *of_pairs: sizes.append(len(d)) or inside(d, *of_pairs))
        neighbour_scores(real=real, fake=fake)
    return sum(sizes)


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.5])
def test_a_collapsed_model_costs_no_more_than_a_good_one(monkeypatch, spread):
    """In 64 dimensions the mean is nearer to every point than its neighbours are: where all that is generated lies
    there, all balls hold all of it, so density is n / 5, and hardly any pair is left to be compared cut by cut."""
    n = 200
    real, good, collapsed = normal(n, 64, seed=1), normal(n, 64, seed=2), spread * normal(n, 64, seed=3)
    assert values(real, collapsed, "density")[0] > 0.8 * n / 5
    assert 0 < compared(monkeypatch, real, good) < 0.3 * n**2
    assert compared(monkeypatch, real, collapsed) < compared(monkeypatch, real, good)


@pytest.mark.parametrize("crowd", [0, 10**9])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_pairs_that_need_no_comparison_are_counted_right(monkeypatch, spread, crowd):
    """Balls that hold each point, by one comparison of each pair in each cut; with sure pairs told apart, or not."""
    monkeypatch.setattr(neighbours, "CROWD", crowd)
    dense, in_all = [], neighbours._held_in_all
    monkeypatch.setattr(neighbours, "_held_in_all", lambda sure, *a: dense.append(sure.sum()) or in_all(sure, *a))
    n, generator = 60, torch.Generator().manual_seed(0)
    x, y = normal(n, 16, seed=1), spread * normal(n, 16, seed=2)
    d, pairs = distances(x, y), next(neighbours._blocks(x, y, n))
    cuts = torch.rand(1 + neighbours.SPLITS, n, generator=generator, dtype=torch.float64)
    radii = torch.linspace(2, 6, n) + cuts
    assert (d <= radii.amin(0)[:, None]).sum(0).max() > 5  # balls that hold one point in all cuts
    balls, points = neighbours._halves(n, "real"), neighbours._halves(n, "generated")
    inside = (d <= radii[:, :, None]) & (balls[:, :, None] == points[:, None, :])
    assert neighbours._held(pairs, radii, balls, points).equal(inside.sum(1).float())
    assert (neighbours._held(pairs, radii, balls, points, count=False) > 0).equal(inside.any(1))
    assert len(dense) == (2 if crowd == 0 else 0) and all(0 < number < n * n for number in dense)


def test_products_are_as_near_as_their_bound_says():
    """Squared distances in float32, against differences in float64; somewhere they are off by more than float64 is."""
    x, y = 1000 + normal(200, 1280, seed=1), 1001 + 3 * normal(300, 1280, seed=2)
    for pairs in neighbours._blocks(x, y, 64):
        error = pairs.of_row + pairs.of_column
        off = (pairs.lower.double() + error - (distances(pairs.rows, y) / pairs.scale).square()).abs()
        assert (off <= error).all() and 0 < off.max() < error.max() / 50


@pytest.mark.parametrize("unit", [1e-150, 1e-22, 1e19, 1e150])
def test_the_unit_of_the_features_does_not_matter(unit):
    """Squares of these are 0 or infinite in float32."""
    x, y = normal(60, 3, seed=1), 0.7 * normal(60, 3, seed=2)
    names = ("precision", "recall", "density", "coverage")
    assert values(unit * x, unit * y, *names) == values(x, y, *names)


def test_one_far_image_leaves_the_others_their_distances():
    """All others are as one point beside it in float32; all scores are those of exact distances."""
    x, y = normal(80, 3, seed=1), 0.8 * normal(80, 3, seed=2)
    x[0], y[0] = 1e30, -1e25
    names = ("precision", "recall", "density", "coverage")
    assert values(x, y, *names) == pytest.approx(naive(x, y), abs=1e-12)


def test_coarse_products_of_the_caller_change_nothing():
    """As one that trains in bfloat16 allows them for his own work."""
    x, y = normal(100, 40, seed=1), 0.8 * normal(100, 40, seed=2)
    expected, before = neighbour_scores(real=x, fake=y), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert neighbour_scores(real=x, fake=y) == expected
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_an_outlier_costs_little(monkeypatch):
    """Only its own distances are known less well by the products."""
    real, fake = normal(200, 64, seed=1), normal(200, 64, seed=2)
    usual = compared(monkeypatch, real, fake)
    real[0] *= 300
    assert compared(monkeypatch, real, fake) < 1.5 * usual


def clusters(spread, seed):
    """Points of ten tight clusters far from each other."""
    return 1000 * normal(10, 32).repeat(30, 1) + spread * normal(300, 32, seed=seed)


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-6, 0.0])
def test_near_duplicates_have_their_exact_neighbours(spread):
    """Spreads that float32 sees, or sees hardly, or not at all: radii and scores are those of exact distances."""
    x, y = clusters(spread, seed=1), clusters(1.2 * spread, seed=2)
    d = distances(x, x).fill_diagonal_(torch.inf)
    assert neighbours._among(x, 128).distance.equal(d.topk(neighbours.LOOKED_AT, dim=1, largest=False).values)
    radii = d.kthvalue(neighbours.K_DENSITY, dim=1).values
    inside = (distances(x, y) <= radii[:, None]).double()
    expected = (inside.sum() / neighbours.K_DENSITY / len(y), inside.amax(1).mean())
    assert values(x, y, "density", "coverage") == pytest.approx(tuple(map(float, expected)), abs=1e-12)


@pytest.mark.parametrize("block", [1, 32, 300])
def test_half_of_the_products_give_the_neighbours_within_a_set(monkeypatch, block):
    """Each product of two blocks serves both; the nearest are those of all distances, in their order."""
    n, blocks, products = 300, neighbours._blocks, []

    def counted(*args, **keys):
        for pairs in blocks(*args, **keys):
            products.append(pairs.lower.numel())
            yield pairs

    monkeypatch.setattr(neighbours, "_blocks", counted)
    x = normal(n, 16, seed=1)
    d = distances(x, x).fill_diagonal_(torch.inf)
    near, expected = neighbours._among(x, block), d.topk(neighbours.LOOKED_AT, dim=1, largest=False)
    assert near.distance.equal(expected.values) and near.index.equal(expected.indices)
    assert sum(products) <= n * (n + block) / 2


@pytest.mark.slow
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
    scores = neighbour_scores(real=real, fake=fake)
    assert scores["precision"].n == 100
    assert scores == neighbour_scores(real=real, fake=fake)


def test_distances_do_not_cancel():
    x = torch.tensor([[1e6, 1e6]], dtype=torch.float64)
    assert distances(x, x).item() == 0
    assert distances(x, x + 1e-3).item() == pytest.approx(1e-3 * 2**0.5, rel=1e-6)


LAWS = {"alike": (1.0, 0.0), "narrow": (0.8, 0.0), "shifted": (1.0, 0.4)}  # spread and mean of what is generated


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_intervals_cover(law):
    """Of 400 draws, 95% of the intervals hold the mean over all draws: 93 to 97%, and twice the error of 400 draws."""
    scale, shift = LAWS[law]
    draws = [
        neighbour_scores(real=normal(200, 8, seed=s), fake=scale * normal(200, 8, seed=10_000 + s) + shift)
        for s in range(400)
    ]
    for name in ("precision", "recall", "density", "coverage"):
        truth = sum(draw[name].value for draw in draws) / len(draws)
        intervals = [draw[name].estimate().interval for draw in draws]
        held = sum(low <= truth <= high for low, high in intervals) / len(draws)
        assert 0.93 - 0.022 <= held <= 0.97 + 0.022, name


@pytest.mark.slow
def test_two_models_alike_differ_in_five_draws_of_a_hundred():
    """Shared real images, own generated ones of one law: 95% intervals of the difference hold 0."""
    held = dict.fromkeys(("precision", "recall", "density", "coverage"), 0)
    for s in range(300):
        real = normal(150, 8, seed=s)
        a, b = (neighbour_scores(real=real, fake=0.9 * normal(150, 8, seed=k * 10_000 + s)) for k in (1, 2))
        for name in held:
            low, high = difference(a[name], b[name]).interval
            held[name] += low <= 0 <= high
    for name, count in held.items():
        assert 0.91 <= count / 300 <= 0.99, name


def test_too_few_images():
    with pytest.raises(UserError, match="at least 12 images on either side, not 11"):
        neighbour_scores(real=normal(11, 2), fake=normal(20, 2))


def test_arguments_are_keywords():
    with pytest.raises(TypeError):
        neighbour_scores(normal(20, 2), normal(20, 2))
