"""The convolutional networks: at 28x28 those of the published figures, and weights that keep a signal's scale."""

import pytest
import torch
from torch import nn

from trilemma.nets.conv import (
    CentreCrop,
    centre_crop,
    conv3,
    pooled_decoder,
    pooled_encoder,
    strided_decoder,
    strided_encoder,
)


def sizes(net: nn.Sequential, x: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes of the maps after each convolution and pooling, without the batch."""
    results = []
    for layer in net:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d):
            results.append(tuple(x.shape[1:]))
    return results


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 4), (5, 8), (7, 6)])
def test_a_3x3_convolution_keeps_sides_or_halves_them(size: tuple[int, int], stride: int) -> None:
    net = conv3(2, 3, stride)
    assert net(torch.rand(1, 2, *size)).shape[2:] == tuple(-(-n // stride) for n in size)
    assert net.weight.shape == (3, 2, 3, 3) and net.bias is not None


def test_the_pooled_encoder_is_the_published_one() -> None:
    net = pooled_encoder((1, 28, 28), 32, linear=False)
    maps = sizes(net, torch.rand(2, 1, 28, 28))
    assert maps == [(16, 28, 28), (16, 14, 14), (32, 14, 14), (32, 7, 7), (64, 7, 7), (64, 3, 3), (32, 3, 3)]
    fans = [(1, 16), (16, 32), (32, 64), (64, 32)]
    assert sum(p.numel() for p in net.parameters()) == sum(9 * a * b + b for a, b in fans)
    assert pooled_encoder((1, 28, 28), 8, linear=True)(torch.rand(2, 1, 28, 28)).shape == (2, 8)


def test_the_pooled_decoder_is_the_published_one_and_cuts_nothing() -> None:
    net = pooled_decoder(32, (1, 28, 28))
    assert sizes(net, torch.rand(2, 32)) == [(32, 7, 7), (16, 14, 14), (1, 28, 28)]
    fans = [(16, 32), (32, 16), (16, 1)]
    expected = 33 * 16 * 3 * 3 + sum(9 * a * b + b for a, b in fans)
    assert sum(p.numel() for p in net.parameters()) == expected


def test_the_strided_networks_are_the_published_ones_and_cut_nothing() -> None:
    encoder, decoder = strided_encoder((1, 28, 28), 4), strided_decoder(2, (1, 28, 28))
    assert sizes(encoder, torch.rand(2, 1, 28, 28)) == [(16, 28, 28), (32, 14, 14), (64, 7, 7)]
    assert sizes(decoder, torch.rand(2, 2)) == [(32, 14, 14), (16, 28, 28), (1, 28, 28)]
    assert sum(p.numel() for p in encoder.parameters()) == 160 + 32 * 145 + 64 * 289 + (64 * 49 + 1) * 4
    assert sum(p.numel() for p in decoder.parameters()) == 3 * 64 * 49 + (64 * 32 * 9 + 32) + (32 * 16 * 9 + 16) + 145


@pytest.mark.parametrize("make", [pooled_decoder, strided_decoder])
@pytest.mark.parametrize("side", range(1, 70))
def test_the_map_covers_the_image_and_not_much_more(make, side: int) -> None:
    *layers, crop = make(3, (2, side, side))
    assert isinstance(crop, CentreCrop)
    whole = nn.Sequential(*layers)(torch.rand(1, 3)).shape[2]
    assert side <= whole < max(side + 8, 13)


def test_weights_keep_the_scale_of_a_signal_through_relu() -> None:
    torch.manual_seed(0)
    net = strided_encoder((64, 32, 32), 1)[:-2]  # without the linear layer
    with torch.no_grad():
        x = torch.randn(16, 64, 32, 32)
        out = net(x)  # E[relu(h)**2] = var(h) / 2, which the factor 2 makes up for; the padding takes a little away
    assert 0.5 < float(2 * out.square().mean()) < 2.0


def test_a_crop_is_the_middle() -> None:
    image = torch.arange(5 * 6).view(1, 1, 5, 6)
    assert torch.equal(centre_crop(image, 3, 2), image[:, :, 1:4, 2:4])
