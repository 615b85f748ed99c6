"""How well a critic tells real from generated images."""

import math

import pytest
import torch

from trilemma.gans.separation import auroc
from trilemma.metrics import ranking


def test_the_share_of_pairs_is_that_of_two_normals() -> None:
    """For x ~ N(m, 1) and y ~ N(0, 1): P(x > y) = Phi(m / sqrt(2)); of 2,000 each its standard error is below 0.01."""
    x, y = torch.randn(2, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for m in (0.0, 1.0, -2.0):
        expected = (1 + math.erf(m / 2)) / 2
        assert auroc(real=x + m, fake=y).item() == pytest.approx(expected, abs=0.03)


def test_it_has_neither_scale_nor_origin_and_ties_count_half() -> None:
    real, fake = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 0.0])
    assert auroc(real=real, fake=fake).item() == pytest.approx(5.5 / 6)
    assert auroc(real=100 * real - 7, fake=100 * fake - 7) == auroc(real=real, fake=fake)
    assert auroc(real=fake, fake=real).item() == pytest.approx(0.5 / 6)
    assert auroc(real=real, fake=fake).item() == pytest.approx(ranking.auroc(normal=fake, abnormal=real))
