"""Adversarial losses against their formulas."""

import math

import pytest
import torch

from trilemma.gans.losses import LOSSES, Loss, margins

LOGITS_REAL = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
LOGITS_FAKE = torch.tensor([-3.0, 0.25, 1.5], dtype=torch.float64)


def minus_log_sigmoid(logit: float) -> float:
    return -math.log(1 / (1 + math.exp(-logit)))


AT_ZERO = {  # of critic and generator where the critic knows nothing
    "minimax": (2 * math.log(2), -math.log(2)),
    "non-saturating": (2 * math.log(2), math.log(2)),
    "least-squares": (0.5, 0.5),
    "hinge": (2.0, 0.0),
    "wasserstein": (0.0, 0.0),
    "relativistic": (math.log(2), math.log(2)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_an_ignorant_critic_has_the_known_loss(name: str) -> None:
    zeros = torch.zeros(5, dtype=torch.float64)
    values = [loss(real=zeros, fake=zeros).item() for loss in players(name)]
    assert values == pytest.approx(AT_ZERO[name], abs=1e-12)


def players(name: str) -> tuple[Loss, Loss]:
    return LOSSES[name].critic, LOSSES[name].generator


def test_non_saturating_is_cross_entropy() -> None:
    critic, generator = players("non-saturating")
    real = sum(minus_log_sigmoid(x) for x in LOGITS_REAL.tolist()) / 3
    fake = sum(minus_log_sigmoid(-x) for x in LOGITS_FAKE.tolist()) / 3
    fooled = sum(minus_log_sigmoid(x) for x in LOGITS_FAKE.tolist()) / 3
    assert critic(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx(real + fake, abs=1e-12)
    assert generator(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx(fooled, abs=1e-12)


def test_minimax_generators_lower_what_the_critic_raises() -> None:
    critic, generator = players("minimax")
    assert critic is players("non-saturating")[0]
    caught = sum(minus_log_sigmoid(-x) for x in LOGITS_FAKE.tolist()) / 3
    assert generator(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx(-caught, abs=1e-12)


def test_least_squares_has_the_targets_1_and_0() -> None:
    critic, generator = players("least-squares")
    real, fake = (9 + 0.25 + 4) / 3, (9 + 0.0625 + 2.25) / 3
    assert critic(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx((real + fake) / 2, abs=1e-12)
    assert generator(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx((16 + 0.5625 + 0.25) / 6, abs=1e-12)


def test_wasserstein_is_the_difference_of_means() -> None:
    critic, generator = players("wasserstein")
    assert critic(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx((-1.25 - 1.5) / 3, abs=1e-12)
    assert generator(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx(1.25 / 3, abs=1e-12)


def test_relativistic_losses_compare_pairs() -> None:
    critic, generator = players("relativistic")
    gaps = (LOGITS_REAL - LOGITS_FAKE).tolist()  # 1, 0.25, 1.5
    right, wrong = (sum(minus_log_sigmoid(sign * gap) for gap in gaps) / 3 for sign in (1, -1))
    assert critic(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx(right, abs=1e-12)
    assert generator(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx(wrong, abs=1e-12)
    assert [name for name, loss in LOSSES.items() if loss.pairs] == ["relativistic"]


def test_hinge_counts_what_is_inside_the_margin() -> None:
    critic, generator = players("hinge")
    expected = (3 + 0.5 + 0) / 3 + (0 + 1.25 + 2.5) / 3
    assert critic(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx(expected, abs=1e-12)
    assert generator(real=LOGITS_REAL, fake=LOGITS_FAKE).item() == pytest.approx((3 - 0.25 - 1.5) / 3, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_the_players_pull_in_opposite_directions(name: str) -> None:
    critic, generator = players(name)
    real, fake = (torch.full((4,), 0.5, requires_grad=True) for _ in range(2))
    by_real, by_fake = torch.autograd.grad(critic(real=real, fake=fake), [real, fake])
    (by_generator,) = torch.autograd.grad(generator(real=real, fake=fake), fake)
    assert (by_real < 0).all() and (by_fake > 0).all() and (by_generator < 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_middle_is_where_images_that_are_alike_have_the_lowest_loss(name: str) -> None:
    loss, grid = LOSSES[name], torch.linspace(-3, 3, 25, dtype=torch.float64)
    values = torch.stack([loss.critic(real=logit[None], fake=logit[None]) for logit in grid])
    if loss.middle is None:
        torch.testing.assert_close(values, values[:1].expand(25))
        expected = LOGITS_REAL - LOGITS_FAKE
    else:
        lowest = grid[(values - values.min()).abs() < 1e-12]  # hinge has none between its margins
        assert lowest.mean().item() == pytest.approx(loss.middle, abs=1e-12)
        expected = LOGITS_REAL - loss.middle
    torch.testing.assert_close(margins(loss, real=LOGITS_REAL, fake=LOGITS_FAKE), expected)
