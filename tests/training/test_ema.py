"""The averaged weights against their closed form."""

import pytest
import torch
from torch import nn

from trilemma.training.ema import EMA, RAMP


def test_average_of_a_constant_is_approached_geometrically() -> None:
    model = nn.Linear(2, 2, dtype=torch.float64)
    ema = EMA(model, halflife_images=100)
    start = {name: value.clone() for name, value in ema.state().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.5)
    for _ in range(7):
        ema.update(0.8)
    for name, parameter in model.named_parameters():
        expected = parameter + 0.8**7 * (start[name] - parameter)  # p + decay**n (e0 - p)
        assert (ema.state()[name] - expected).abs().max() < 1e-12


def test_half_life_is_in_images_whatever_the_batch() -> None:
    ema, late = EMA(nn.Linear(1, 1), halflife_images=1000), 10**9
    assert ema.decay(late, 1000) == pytest.approx(0.5)
    assert ema.decay(late, 10) ** 100 == pytest.approx(0.5)


def test_half_life_is_short_at_first() -> None:
    ema = EMA(nn.Linear(1, 1), halflife_images=1000)
    assert ema.decay(2000, 100) == pytest.approx(0.5 ** (100 / (RAMP * 2000)))


def test_applied_swaps_and_gives_back() -> None:
    model = nn.Linear(3, 1)
    ema, raw = EMA(model, 10), model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    with ema.applied():
        assert torch.equal(model.weight, raw)
    assert torch.equal(model.weight, raw + 1) and torch.equal(ema.state()["weight"], raw)
