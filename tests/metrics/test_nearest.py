"""Copying, tested against orders counted one by one and against drawn images whose truth is known."""

import math
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from scipy import stats

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.data import Data, Split
from trilemma.metrics.features import extract
from trilemma.metrics.intervals import wilson
from trilemma.metrics.nearest import authenticity, closeness, copies, near_copies, tail, threshold_interval
from trilemma.metrics.neighbours import distances, nearest
from trilemma.metrics.quality import Setup, _memorisation


@pytest.mark.parametrize("n, m, k", [(3, 3, 1), (4, 3, 2), (2, 5, 5)])
def test_the_tail_counts_every_order_once(n, m, k):
    """Places of the m real distances among all n + m; below the k-th of them lie place - (k - 1) generated ones."""
    orders = list(combinations(range(n + m), m))
    for x in range(n + 1):
        share = sum(places[k - 1] - (k - 1) >= x for places in orders) / len(orders)
        assert tail(x, n=n, k=k, m=m) == pytest.approx(share, abs=1e-12)


def draw(generator, copied=0, n=360, n_train=500):
    """Nearest training points of `n` new points, the first `copied` of which are training points, and of real ones."""
    train, fake, real = (torch.randn(size, 6, generator=generator).double() for size in (n_train, n, n))
    fake[:copied] = train[torch.randint(n_train, (copied,), generator=generator)]
    (distance, index), (reals, _) = (distances(points, train).min(dim=1) for points in (fake, real))
    return closeness(index, distance, real=reals)


@pytest.mark.slow
def test_forty_per_cent_of_copies_are_found_and_a_model_without_copies_is_not_accused():
    generator = torch.Generator().manual_seed(0)
    result = [copies(draw(generator, copied=144)) for _ in range(40)]
    accused = [copies(draw(generator)) for _ in range(200)]
    assert sum(result) >= 38
    assert sum(accused) <= 10  # 5% of 200


def test_two_per_cent_of_copies_are_found_in_the_nearest_hundredth():
    parts = draw(torch.Generator().manual_seed(1), copied=20)
    assert [part.expected for part in parts] == [4 / 361, 18 / 361]  # the 4th and the 18th of 360 are the quantiles
    assert [part.farther for part in parts] == [357 / 360, 343 / 360]
    assert parts[0].share >= 20 / 360 and parts[0].p < 0.001


def test_samples_that_all_resemble_one_image_are_not_copies():
    real = torch.linspace(1, 2, 100)
    near = torch.full((100,), 0.5)
    (one, *_), (many, *_) = (closeness(i, near, real=real) for i in (torch.zeros(100).long(), torch.arange(100)))
    assert (one.share, one.count, one.p) == (
        1.0,
        1,
        pytest.approx(0.5),
    )  # the first of 200 is as often one as the other
    assert many.count == 100 and many.p < 1e-9


def test_real_images_that_equal_training_images_make_no_copies_of_equal_distances():
    zeros = torch.zeros(50)
    assert not copies(closeness(torch.arange(50), zeros, real=zeros))


def test_few_real_images_make_one_test():
    """Both quantiles of 20 distances are the smallest of them: nearer than all 20, by chance in one of 21."""
    (part,) = closeness(torch.arange(9), torch.zeros(9), real=torch.linspace(1, 2, 20))
    assert (part.farther, part.expected, part.count) == (1.0, 1 / 21, 9)


def test_copies_are_not_authentic_and_new_images_are_as_often_as_real_ones():
    generator = torch.Generator().manual_seed(0)
    train, new = (torch.randn(size, 6, generator=generator).double() for size in (800, 600))
    copied = train[torch.randint(800, (600,), generator=generator)]
    half = torch.cat([new[:300], copied[:300]])
    values = [authenticity(*nearest(x, train.split(100)), train).value for x in (new, copied, half, copied + 1e-9)]
    assert values[1] == values[3] == 0 and values[2] == pytest.approx(values[0] / 2, abs=0.05)
    assert 0.3 < values[0] < 0.8


def test_one_in_a_hundred_of_new_images_is_a_near_copy_and_every_copy_is():
    """The third smallest of 300 distances is the threshold: two of 300 lie below it, and of new images of the same law
    3 in 301 are expected, here a mean over 40 sets of 300."""
    generator = torch.Generator().manual_seed(0)
    train = torch.randn(400, 6, generator=generator).double()
    shares = []
    for _ in range(40):
        real, new = (nearest(torch.randn(300, 6, generator=generator).double(), [train]) for _ in range(2))
        shares.append(near_copies(*new, real=real[1]).value)
        assert near_copies(*nearest(train[:50], [train]), real=real[1]).value == 1
    shares = torch.tensor(shares)
    assert abs(shares.mean() - 3 / 301) < 4 * shares.std() / 40**0.5 and shares.mean() > 0


@pytest.mark.parametrize(("m", "k"), [(100, 1), (360, 4)])
def test_the_threshold_of_all_held_out_images_lies_between_order_statistics(m, k):
    """The share of all values below the j-th smallest of m has the law Beta(j, m + 1 - j); here value j is its mean."""
    ends = threshold_interval(torch.arange(1, m + 1).double() / (m + 1), k)
    for end, below in zip(ends, (0.975, 0.025), strict=True):
        rank = end * (m + 1)
        assert stats.beta(rank, m + 1 - rank).cdf(k / (m + 1)) == pytest.approx(below, abs=1e-5)
    assert ends[0] < k / (m + 1) < ends[1]


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n"), [(100, 1000), (360, 360)])
@pytest.mark.parametrize("copied", [0.0, 0.1])
def test_the_interval_of_near_copies_covers(m, n, copied):
    """Distances of one law, in 6 dimensions, but for the share that is copied, over draws of either set. Where nothing
    is copied, Wilson's interval, which holds the held-out images fixed, is too narrow."""
    generator, k = torch.Generator().manual_seed(m), math.ceil(m / 100)
    truth = copied + (1 - copied) * k / (m + 1)
    held = narrow = 0
    for _ in range(300):
        real, distance = (torch.rand(size, generator=generator).double() ** (1 / 6) for size in (m, n))
        distance[torch.rand(n, generator=generator) < copied] = 0.0
        share, (low, high) = near_copies(torch.arange(n), distance, real=real)
        held += low <= truth <= high
        low, high = wilson(round(share * n), n).interval
        narrow += low <= truth <= high
    assert held / 300 > 0.92
    assert copied or narrow / 300 < 0.9


def test_near_copies_need_a_hundred_held_out_images_that_are_not_training_images():
    index, distance = torch.arange(50), torch.ones(50)
    assert near_copies(index, distance, real=torch.ones(99)).startswith("99 held-out images")
    real = torch.ones(200).index_fill(0, torch.arange(2), 0.0)
    assert "are training images themselves" in near_copies(index, distance, real=real)


class Pixels(torch.nn.Module):
    """Features that need no training: the pixels."""

    def features(self, image):
        return image.flatten(1)


def test_held_out_images_that_lie_class_after_class_are_taken_at_random():
    """1,500 new images, then 1,500 training images: among the first 1,000 there is none of these."""
    levels = torch.randint(0, 256, (3_000, 1, 2, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    splits = {"train": Split(levels[1_500:]), "test": Split(levels)}
    network = FeatureNetwork("pixels", Pixels(), (1, 2, 4))
    data = Data("made-up", "made-up", (1, 2, 4), (), splits, (), (), "fingerprint")
    setup = Setup(data, "test", True, network, 3_000, 0)
    real = SimpleNamespace(features=extract(network, levels))
    scores = _memorisation(setup, real=real, fake=torch.rand(100, 8).double())
    assert "are training images themselves" in scores["near_copies"]


def test_authenticity_by_hand():
    """Training images at 0, 1 and 3: their nearest others are 1, 1 and 2 away."""
    train = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    fake = torch.tensor([[-2.0], [1.4], [4.5], [6.0]], dtype=torch.float64)
    index, distance = nearest(fake, train.split(2))
    assert index.tolist() == [0, 1, 2, 2] and distance.tolist() == pytest.approx([2, 0.4, 1.5, 3])
    estimate = authenticity(index, distance, train, block=2)
    assert estimate.value == 0.5 and estimate.interval[0] > 0.1


def test_the_nearest_of_many_blocks_is_that_of_all_distances():
    generator = torch.Generator().manual_seed(1)
    points, queries = (1e3 + torch.randn(n, 40, generator=generator).double() for n in (700, 90))
    queries[:20] = points[100:120]
    points[300] = points[100]  # the first of equals
    expected = distances(queries, points).min(1)
    index, distance = nearest(queries, points.split(64))
    assert torch.equal(index, expected.indices) and (distance[:20] == 0).all()
    torch.testing.assert_close(distance, expected.values, rtol=1e-12, atol=0)
    without = index.clone()
    others = distances(queries, points)
    others[torch.arange(90), without] = torch.inf
    index, distance = nearest(queries, points.split(64), without=without)
    assert torch.equal(index, others.min(1).indices) and index[0] == 300
    torch.testing.assert_close(distance, others.min(1).values, rtol=1e-12, atol=0)
