"""R3GAN's networks: their sizes, [1, 2, 1] both ways, and a start that keeps the scale of a signal."""

import math

import pytest
import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.nets import r3gan


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def block(c: int) -> int:
    inner = c // 2
    return (c * inner + inner) + (9 * inner**2 + inner) + inner * c


def test_the_networks_have_the_layers_they_name() -> None:
    blocks = block(128) + block(64) + 2 * block(32)
    changes = 128 * 64 + 64 * 32
    basis = 128 * 4 * 4 + 64 * 128
    assert count(r3gan.Generator((3, 32, 32), 64, 32)) == basis + changes + blocks + (32 * 3 + 3)
    assert count(r3gan.Critic((3, 32, 32), 32)) == (3 * 32 + 32) + changes + blocks + 128 * 4 * 4 + (128 + 1)


def test_groups_are_those_of_the_paper() -> None:
    """1x1 C -> 2 C, 3x3 in groups of 8, 1x1 2 C -> C."""
    convolution = r3gan.Block(32, 4, group=8).body[2]
    assert isinstance(convolution, nn.Conv2d) and (convolution.in_channels, convolution.groups) == (64, 8)
    assert count(r3gan.Block(32, 4, group=8)) == (32 * 64 + 64) + (9 * 8 * 64 + 64) + 64 * 32


def test_up_is_linear_interpolation() -> None:
    x = numbers(2, 3, 4, 5)
    image = r3gan.Resize(r3gan.up(4), r3gan.up(5)).double()(x)
    assert image.shape == (2, 3, 8, 10)
    torch.testing.assert_close(image[..., ::2, ::2], x)
    torch.testing.assert_close(image[..., ::2, 1:-1:2], (x[..., 1:] + x[..., :-1]) / 2)
    torch.testing.assert_close(image[..., 1:-1:2, ::2], (x[..., 1:, :] + x[..., :-1, :]) / 2)
    torch.testing.assert_close(image[..., -1, -1], x[..., -1, -1])


def test_down_weighs_1_2_1() -> None:
    """Half the transposed map of `up`, but at the ends, with weights that sum to 1."""
    x = numbers(2, 3, 9, 8)
    image = r3gan.Resize(r3gan.down(9), r3gan.down(8)).double()(x)
    assert image.shape == (2, 3, 5, 4)
    kernel = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    window = x[..., 1:4, 3:6]  # around the pixel 2, 4
    torch.testing.assert_close(image[..., 1, 2], torch.einsum("bcij,i,j->bc", window, kernel, kernel))
    for n in (8, 9):
        torch.testing.assert_close(r3gan.down(n).sum(1), torch.ones((n + 1) // 2))
        assert r3gan.down(n).sum(0).min() >= 1 / 4  # every pixel is seen
    torch.testing.assert_close(r3gan.down(8)[1:-1], r3gan.up(4).T[1:-1] / 2)


def test_a_block_starts_as_the_identity() -> None:
    x = numbers(2, 8, 4, 4).float()
    torch.testing.assert_close(r3gan.Block(8, 4, None)(x), x)


def test_initial_weights_are_scaled_by_depth() -> None:
    """sqrt(2 / 1.04) L**(-1/4) / sqrt(inputs)."""
    with rng.isolated(0):
        first, _, second, _, last = r3gan.Block(128, 16, None).body
    gain = math.sqrt(2 / 1.04) / 2
    assert first.weight.std().item() == pytest.approx(gain / math.sqrt(128), rel=0.03)
    assert second.weight.std().item() == pytest.approx(gain / math.sqrt(9 * 64), rel=0.03)
    assert not last.weight.any() and not first.bias.any() and last.bias is None


def test_the_critic_starts_with_logits_of_moderate_size() -> None:
    with rng.isolated(0):
        critic = r3gan.Critic((3, 32, 32), 16)
        logits = critic(torch.rand(64, 3, 32, 32))
    assert 0.02 < logits.std().item() < 3


def test_images_are_cut_in_use_and_not_in_training() -> None:
    """So that the critic's gradient reaches what lies outside."""
    with rng.isolated(0):
        generator = r3gan.Generator((1, 8, 8), 4, 4)
        z = 10 * torch.randn(8, 4)
    raw = generator(z)
    assert raw.min() < 0 and raw.max() > 1
    torch.testing.assert_close(generator.eval()(z), raw.clamp(0, 1))


def test_nothing_ties_images_together_or_has_statistics() -> None:
    critic = r3gan.Critic((1, 8, 12), 4)
    assert not any("Norm" in type(module).__name__ for module in critic.modules())
    assert set(critic.state_dict()) == {name for name, _ in critic.named_parameters()}
