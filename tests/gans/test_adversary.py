"""A critic beside another model's loss: its two losses in closed form, and whose weights they move."""

import math

import pytest
import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.gans.adversary import PENALTY_WEIGHT, Adversary

SHAPE = (1, 8, 8)


def images(seed: int) -> Tensor:
    return rng.uniform(torch.arange(6), SHAPE, seed, "images").double()


def linear(slope: float) -> tuple[Adversary, nn.Linear]:
    """With D(x) = slope * sum of x."""
    adversary, layer = Adversary(SHAPE, 8).double(), nn.Linear(64, 1, bias=False).double()
    nn.init.constant_(layer.weight, slope)
    adversary.critic = nn.Sequential(nn.Flatten(), layer, nn.Flatten(0))
    return adversary, layer


def test_a_critic_that_knows_nothing() -> None:
    adversary, _ = linear(0.0)
    loss, parts = adversary.critic_loss(None, real=images(0), fake=images(1))
    assert loss.item() == pytest.approx(math.log(2)) and parts["penalty"] == 0 and parts["auroc"] == 0.5
    assert adversary.model_loss(None, real=images(0), fake=images(1)).item() == pytest.approx(math.log(2))


def test_the_losses_of_a_linear_critic() -> None:
    """Its slope is everywhere 8 times its weight, by 64 pixels; brighter images are more real to it."""
    (adversary, _), real, fake = linear(0.1), images(0), images(1) + 0.5
    loss, parts = adversary.critic_loss(None, real=real, fake=fake)
    apart = 0.1 * (real - fake).flatten(1).sum(1)
    assert parts["loss"].item() == pytest.approx((1 + (-apart).exp()).log().mean().item())
    assert parts["penalty"].item() == pytest.approx((8 * 0.1) ** 2)  # half for either kind
    assert loss.item() == pytest.approx(parts["loss"].item() + PENALTY_WEIGHT * 0.64)
    assert parts["auroc"] == 0  # it takes each of the drawn ones for more real
    other = adversary.model_loss(None, real=real, fake=fake)
    assert other.item() == pytest.approx((1 + apart.exp()).log().mean().item())


def test_each_turn_moves_its_own_side() -> None:
    adversary, real, fake = Adversary(SHAPE, 8).double(), images(0), images(1).requires_grad_()
    adversary.model_loss(None, real=real, fake=fake).backward()
    assert fake.grad is not None and fake.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in adversary.parameters())
    fake.grad = None
    adversary.critic_loss(None, real=real, fake=fake)[0].backward()
    assert fake.grad is None and all(p.grad is not None for p in adversary.parameters())


def test_with_classes_the_critic_reads_the_label() -> None:
    adversary, real, fake = Adversary(SHAPE, 8, n_classes=3).double(), images(0), images(1)
    losses = [adversary.critic_loss(torch.full((6,), k), real=real, fake=fake)[0].item() for k in range(3)]
    assert len({round(loss, 9) for loss in losses}) == 3
