"""The small U-Net: sizes, layers, the time embedding, and reduced precision."""

import math

import pytest
import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.nets.unet import UNet, sinusoid


def tiny(shape: tuple[int, int, int], widths: tuple[int, ...] = (4, 6, 8, 10)) -> UNet:
    with rng.isolated(0):
        return UNet(shape, widths, 8, 100)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (31, 45), (64, 64), (8, 128)])
def test_an_image_of_any_size_is_the_middle_of_one_of_whole_multiples(channels: int, size: tuple[int, int]) -> None:
    """Three halvings need multiples of 8; what is missing is black, half of it on each side."""
    x, t = torch.randn(2, channels, *size), torch.rand(2)
    height, width = (-(-side // 8) * 8 for side in size)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    inside = (slice(None), slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
    padded = torch.zeros(2, channels, height, width)
    padded[inside] = x
    whole = tiny((channels, height, width))(padded, t)
    torch.testing.assert_close(tiny((channels, *size))(x, t), whole[inside], atol=1e-6, rtol=0)


@pytest.mark.parametrize("widths", [(4, 6), (4, 6, 8), (4, 6, 8, 10, 12)])
def test_any_depth(widths: tuple[int, ...]) -> None:
    network = tiny((1, 20, 20), widths)
    network(torch.randn(2, 1, 20, 20), torch.rand(2)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_layers_at_28_pixels() -> None:
    def down(c: int, d: int) -> int:
        return (9 * c + c * d + 2 * d) + (9 * d + d * d + 2 * d) + (c * d + d)

    def up(c: int, d: int) -> int:
        return (9 * c * d + 2 * d) + (9 * d * d + 2 * d) + (c * d + d)

    first, last = 9 * 16 + 2 * 16, 9 * (16 + 32) + 1
    blocks = down(16, 32) + down(32, 64) + down(64, 128) + up(128, 64) + up(64 + 128, 32) + up(32 + 64, 16)
    time = (64 + 1) * (16 + 32 + 64 + 128 + 64 + 32 + 16)
    network = UNet((1, 28, 28), (16, 32, 64, 128), 64, 4000)
    assert sum(p.numel() for p in network.parameters()) == first + blocks + last + time
    assert network.pad == (3, 3, 3, 3)
    sizes: list[tuple[int, ...]] = []

    def note(block: nn.Module, arguments: object, out: Tensor | tuple[Tensor, Tensor]) -> None:
        sizes.append(tuple((out if isinstance(out, Tensor) else out[0]).shape))

    for block in [network.first, *network.down, *network.up]:
        block.register_forward_hook(note)
    network(torch.randn(2, 1, 28, 28), torch.rand(2))
    rows = [(16, 32), (32, 16), (64, 8), (128, 4), (64, 8), (32, 16), (16, 32)]
    assert sizes == [(2, c, side, side) for c, side in rows]


@pytest.mark.parametrize("side", range(8, 41))
def test_the_crop_undoes_the_padding(side: int) -> None:
    """After `top` rows of zeros an unpadded 3x3 convolution has input row r at r + top - 1; the crop starts there."""
    left, right, top, bottom = tiny((1, side, 2 * side)).pad
    for before, after, length in ((top, bottom, side), (left, right, 2 * side)):
        inner = before + length + after - 2
        assert inner % 8 == 0 and 0 <= inner - length < 8
        assert before - 1 == (inner - length) // 2


def test_sinusoid_is_the_formula() -> None:
    position = torch.tensor([0.0, 1.0, 3999.0], dtype=torch.float64)
    expected = [
        [f(p / 10_000 ** (2 * i / 8)) for f in (math.sin, math.cos) for i in range(4)] for p in position.tolist()
    ]
    torch.testing.assert_close(sinusoid(position, 8), torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


def test_time_is_seen_at_every_level() -> None:
    network, x = tiny((1, 16, 16)).eval(), torch.randn(1, 1, 16, 16)
    whole = network(x, torch.tensor([0.5]))
    assert (whole - network(x, torch.tensor([0.51]))).abs().max() > 1e-4
    start = 0
    for width in network.time_widths:  # without its share of the projection every place loses something
        held = network.time.weight.detach().clone()
        with torch.no_grad():
            network.time.weight[start : start + width] = 0
        assert (whole - network(x, torch.tensor([0.5]))).abs().max() > 1e-4
        network.time.weight.data = held
        start += width


def test_bfloat16_and_channels_last_stay_close() -> None:
    network = tiny((3, 16, 16))
    x, t = torch.randn(8, 3, 16, 16), torch.rand(8)
    expected = network(x, t)
    network = network.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        got = network(x.to(memory_format=torch.channels_last), t)
        reduced = torch.cat(network._times(t), 1)
    got.float().square().mean().backward()
    assert got.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    relative = ((got.float() - expected).square().mean() / expected.square().mean()).sqrt().item()
    assert 0 < relative < 0.05
    assert torch.equal(reduced, torch.cat(network._times(t), 1))  # the time keeps its float32
