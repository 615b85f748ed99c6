"""Penalties on the critic's slope: closed forms, and the mistakes that others have made with them."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from trilemma.gans.penalties import gradient_penalty, slope_deviation, squared_slopes, zero_centred

SHAPE = (3, 4, 5)


def images(n: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slopes() -> Tensor:
    """Weights of a linear critic, of norm 1."""
    w = torch.randn(math.prod(SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return w / w.norm()


def linear(image: Tensor, scale: float = 1.0) -> Tensor:
    return scale * image.flatten(1) @ slopes()


def quadratic(image: Tensor) -> Tensor:
    """D(x) = |x|**2 / 2, whose gradient at x is x."""
    return image.flatten(1).square().sum(1) / 2


def squared_norm(image: Tensor) -> Tensor:
    return image.flatten(1).square().sum(1)


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 0.0), (3.0, 4.0), (0.5, 0.25)])
def test_the_gradient_penalty_of_a_linear_critic(scale: float, expected: float) -> None:
    """(|w| - 1)**2 of its slope as a whole, not pixel by pixel."""
    u = torch.rand(6, dtype=torch.float64)
    penalty = gradient_penalty(partial(linear, scale=scale), u, real=images(), fake=images(seed=2))
    assert penalty.item() == pytest.approx(expected, abs=1e-12)


def test_the_gradient_is_taken_between_pairs_with_one_number_an_image() -> None:
    real, fake = images(), images(seed=2)
    u = torch.tensor([0.0, 1.0, 0.5, 0.25, 0.1, 0.9], dtype=torch.float64)
    between = torch.stack([w * a + (1 - w) * b for w, a, b in zip(u, real, fake, strict=True)])
    expected = (squared_norm(between).sqrt() - 1).square().mean()
    penalty = gradient_penalty(quadratic, u, real=real, fake=fake)
    assert penalty.item() == pytest.approx(expected.item(), abs=1e-12)


def test_the_zero_centred_penalty_is_half_the_mean_squared_slope() -> None:
    image = images().requires_grad_()
    assert zero_centred(quadratic(image), image).item() == pytest.approx(squared_norm(image).mean().item() / 2)
    torch.testing.assert_close(squared_slopes(quadratic(image), image), squared_norm(image).detach())


def test_a_flat_critic_has_a_finite_gradient() -> None:
    """The root has none at 0."""
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(
        lambda image: scale * image.flatten(1) @ slopes(), torch.rand(6), real=images(), fake=images(seed=2)
    )
    (gradient,) = torch.autograd.grad(penalty, scale)
    assert penalty.item() == 1.0 and gradient.isfinite()
    assert slope_deviation(torch.tensor([0.0, 1.0, 4.0])).item() == pytest.approx(2 / 3, abs=1e-7)


def test_a_penalty_passes_a_gradient_to_the_weights() -> None:
    """d/ds of (s - 1)**2 at s = 3 is 4, of s**2 / 2 it is 3."""
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    critic = lambda image: scale * (image.flatten(1) @ slopes())  # noqa: E731
    image = images().requires_grad_()
    by_slope = torch.autograd.grad(gradient_penalty(critic, torch.rand(6), real=images(), fake=images(seed=2)), scale)
    by_zero = torch.autograd.grad(zero_centred(critic(image), image), scale)
    assert by_slope[0].item() == pytest.approx(4.0) and by_zero[0].item() == pytest.approx(3.0)


def test_penalties_are_computed_outside_autocast() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))
    real, fake, u = images().float(), images(seed=2).float(), torch.rand(6)
    plain = gradient_penalty(network, u, real=real, fake=fake)
    with torch.autocast("cpu", torch.bfloat16):
        inside = gradient_penalty(network, u, real=real, fake=fake)
    assert inside.dtype == torch.float32 and torch.equal(inside, plain)
