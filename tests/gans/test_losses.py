"""Adversarial losses against their formulas."""

import math

import pytest
import torch

from trilemma.gans.losses import LOSSES

LOGITS_REAL = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
LOGITS_FAKE = torch.tensor([-3.0, 0.25, 1.5], dtype=torch.float64)


def minus_log_sigmoid(logit: float) -> float:
    return -math.log(1 / (1 + math.exp(-logit)))


@pytest.mark.parametrize(("name", "expected"), [("non-saturating", 2 * math.log(2)), ("hinge", 2.0)])
def test_an_ignorant_critic_has_the_known_loss(name: str, expected: float) -> None:
    zeros = torch.zeros(5, dtype=torch.float64)
    assert LOSSES[name][0](zeros, zeros).item() == pytest.approx(expected, abs=1e-12)


def test_non_saturating_is_cross_entropy() -> None:
    critic, generator = LOSSES["non-saturating"]
    real = sum(minus_log_sigmoid(x) for x in LOGITS_REAL.tolist()) / 3
    fake = sum(minus_log_sigmoid(-x) for x in LOGITS_FAKE.tolist()) / 3
    fooled = sum(minus_log_sigmoid(x) for x in LOGITS_FAKE.tolist()) / 3
    assert critic(LOGITS_REAL, LOGITS_FAKE).item() == pytest.approx(real + fake, abs=1e-12)
    assert generator(LOGITS_FAKE).item() == pytest.approx(fooled, abs=1e-12)


def test_hinge_counts_what_is_inside_the_margin() -> None:
    critic, generator = LOSSES["hinge"]
    expected = (3 + 0.5 + 0) / 3 + (0 + 1.25 + 2.5) / 3
    assert critic(LOGITS_REAL, LOGITS_FAKE).item() == pytest.approx(expected, abs=1e-12)
    assert generator(LOGITS_FAKE).item() == pytest.approx((3 - 0.25 - 1.5) / 3, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_the_players_pull_in_opposite_directions(name: str) -> None:
    critic, generator = LOSSES[name]
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    by_real, by_fake = torch.autograd.grad(critic(real, fake), [real, fake])
    (by_generator,) = torch.autograd.grad(generator(fake), fake)
    assert (by_real < 0).all() and (by_fake > 0).all() and (by_generator < 0).all()
