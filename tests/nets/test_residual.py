"""The residual networks: their sizes, and blocks that start as the identity."""

import pytest
import torch
from torch import nn

from trilemma.nets.residual import CAP, SMALLEST, Block, residual_decoder, residual_encoder


def maps(net: nn.Sequential, x: torch.Tensor) -> list[tuple[int, ...]]:
    results = []
    for layer in net:
        x = layer(x)
        if x.ndim == 4:
            results.append(tuple(x.shape[1:]))
    return results


@pytest.mark.parametrize(("side", "smallest"), [(8, 8), (9, 5), (28, 7), (32, 8), (48, 6), (64, 8), (100, 7), (128, 8)])
def test_halvings_end_at_the_smallest_map(side: int, smallest: int) -> None:
    encoder, decoder = residual_encoder((3, side, side), 4, 8), residual_decoder(4, (3, side, side), 8)
    seen, written = maps(encoder, torch.rand(1, 3, side, side)), maps(decoder, torch.rand(1, 4))
    assert seen[0] == (8, side, side) and seen[-1][1] == written[0][1] == smallest <= SMALLEST
    assert written[-1] == (3, side, side)
    halvings = len({shape[1] for shape in seen}) - 1
    assert seen[-1][0] == written[0][0] == 8 * min(2**halvings, CAP)


def test_a_block_starts_as_the_identity_and_can_learn() -> None:
    block, h = Block(16), torch.randn(2, 16, 5, 4)
    assert torch.equal(block(h), h)
    block(h).square().sum().backward()
    last = block.body[-1]
    assert isinstance(last, nn.Conv2d) and last.weight.grad is not None and last.weight.grad.abs().max() > 0
