"""The Inception Score in closed form, and how it scatters."""

import math

import pytest
import torch

from trilemma.metrics.inception import inception_score

K = 5


def sure(labels: torch.Tensor, strength: float = 60.0) -> torch.Tensor:
    """Logits of a classifier that is sure."""
    return strength * torch.nn.functional.one_hot(labels, K).double()


def test_from_one_to_the_number_of_classes() -> None:
    labels = torch.arange(100) % K
    assert inception_score(sure(labels)).value == pytest.approx(K, rel=1e-9)
    assert inception_score(sure(0 * labels)).value == pytest.approx(1, rel=1e-9)
    assert inception_score(torch.zeros(100, K)).value == pytest.approx(1, rel=1e-9)  # sure of none
    two = inception_score(sure(labels % 2)).value
    assert two == pytest.approx(math.exp(-(0.6 * math.log(0.6) + 0.4 * math.log(0.4))), rel=1e-9)


def test_no_interval_exceeds_the_number_of_classes() -> None:
    """Classes that are nearly even, of 12 images."""
    spread = inception_score(sure(torch.arange(12) % K))
    low, high = spread.estimate().interval
    assert low < spread.value < K == high


def test_the_definition() -> None:
    """exp of the mean divergence from the mean distribution."""
    logits = torch.randn(40, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(1)
    divergence = (p * (p / p.mean(0)).log()).sum(1).mean()
    assert inception_score(logits).value == pytest.approx(float(divergence.exp()), rel=1e-12)


def test_the_rate_is_the_derivative_by_the_weight_of_an_image() -> None:
    logits = torch.randn(30, K, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = torch.full((30,), 1 / 30, dtype=torch.float64, requires_grad=True)
    w = weights / weights.sum()
    p = logits.softmax(1)
    mean = w @ p
    score = ((w * (p * p.log()).sum(1)).sum() - (mean * mean.log()).sum()).exp()
    (gradient,) = torch.autograd.grad(score, weights)
    expected = (gradient - gradient.mean()) / math.sqrt(30 * 29)
    torch.testing.assert_close(inception_score(logits).own, expected, rtol=1e-9, atol=1e-12)


def test_its_interval_holds_the_truth() -> None:
    """Of labels drawn at random with unequal odds, and a classifier that is sure: exp of the entropy of the odds."""
    odds = torch.tensor([0.4, 0.25, 0.2, 0.1, 0.05], dtype=torch.float64)
    truth = float((-(odds * odds.log()).sum()).exp())
    generator, held = torch.Generator().manual_seed(0), 0
    for _ in range(300):
        labels = torch.multinomial(odds, 500, replacement=True, generator=generator)
        low, high = inception_score(sure(labels)).estimate().interval
        held += low <= truth <= high
    assert 0.91 < held / 300 < 0.98


@pytest.mark.parametrize("n", [2, 3, 7, 64, 1000])
def test_images_that_are_all_alike_have_an_interval(n: int) -> None:
    for logits in (torch.zeros(n, K), torch.full((n, 10), 0.3), torch.randn(1, K).expand(n, -1)):
        low, high = inception_score(logits).estimate().interval
        assert 1 <= low <= high < 1.0001


def test_a_class_that_is_never_seen_makes_no_infinity() -> None:
    logits = sure(torch.zeros(10, dtype=torch.int64), strength=2000.0)
    spread = inception_score(logits)
    assert spread.value == 1 and spread.own.isfinite().all()
