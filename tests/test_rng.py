"""Randomness is a function of its arguments: laws of the numbers, and independence of how they are drawn."""

import math

import torch

from trilemma import rng


def test_an_image_has_its_own_numbers_in_any_batch() -> None:
    whole = rng.normal(torch.arange(10), (3, 5), 7, "latent", 2)
    assert torch.equal(whole[4:9], rng.normal(torch.arange(4, 9), (3, 5), 7, "latent", 2))
    assert torch.equal(whole[[8, 1]], rng.normal(torch.tensor([8, 1]), (3, 5), 7, "latent", 2))


def test_seed_purpose_and_position_all_count() -> None:
    ids = torch.arange(4)
    draws = [
        rng.normal(ids, (6,), 0, "a", 0),
        rng.normal(ids, (6,), 1, "a", 0),
        rng.normal(ids, (6,), 0, "b", 0),
        rng.normal(ids, (6,), 0, "a", 1),
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_normal_has_the_moments_and_the_tails_of_a_standard_normal() -> None:
    n = 1_000_000
    x = rng.normal(torch.arange(1000), (1000,), 0, "moments").double().flatten()
    moments = torch.stack([x.pow(k).mean() for k in (1, 2, 3, 4)])
    expected = torch.tensor([0.0, 1.0, 0.0, 3.0], dtype=torch.float64)
    spread = torch.tensor([1.0, 2.0, 15.0, 96.0], dtype=torch.float64).sqrt()  # of x**k for a standard normal
    assert ((moments - expected).abs() < 5 * spread / math.sqrt(n)).all()
    beyond = (x.abs() > 3).double().mean()
    p = math.erfc(3 / math.sqrt(2))
    assert abs(beyond - p) < 5 * math.sqrt(p / n)


def test_normal_rows_and_columns_are_uncorrelated() -> None:
    x = rng.normal(torch.arange(500), (500,), 3, "correlation").double()
    n = 499 * 500
    for product in (x[1:] * x[:-1], x[:, 1:] * x[:, :-1]):
        assert abs(product.mean()) < 5 / math.sqrt(n)
    half = x[:, :250] * x[:, 250:]  # the two numbers made from one word
    assert abs(half.mean()) < 5 / math.sqrt(half.numel())


def test_uniform_fills_the_unit_interval_evenly() -> None:
    u = rng.uniform(torch.arange(1000), (100,), 0, "uniform").flatten()
    counts = torch.histc(u, 10, 0, 1)
    assert u.min() >= 0 and u.max() < 1
    assert ((counts - 10_000).abs() < 5 * math.sqrt(10_000 * 0.9)).all()


def test_isolated_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    with rng.isolated(3):
        first = torch.rand(2)
    with rng.isolated(3):
        assert torch.equal(first, torch.rand(2))
    assert torch.equal(before, torch.get_rng_state())


def test_permutation_is_a_function_of_seed_and_position() -> None:
    one = rng.permutation(100, 0, "order", 0)
    assert sorted(one.tolist()) == list(range(100))
    assert torch.equal(one, rng.permutation(100, 0, "order", 0))
    assert not torch.equal(one, rng.permutation(100, 0, "order", 1))
