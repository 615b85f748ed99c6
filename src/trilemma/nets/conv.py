"""Convolutional encoders and decoders of two kinds, and what all convolutional networks share: a crop, a convolution.

pooled   conv 16, 32, 64, 32 with ReLU, max-pooling after the first three, the mean over the map; back by a linear layer
         to 16 small maps and transposed convolutions 32, 16, C
strided  conv 16, 32 (stride 2), 64 (stride 2) with ReLU, a linear layer; back by a linear layer to 64 small maps,
         transposed convolutions 32, 16 and a convolution to C

All kernels are 3x3. The small map of a decoder is the smallest one whose output covers the image, which is cut out of
its middle: for 28x28 it is 3x3 (pooled) or 7x7 (strided), and nothing is cut.

Weights start from N(0, 2 / n) with n inputs to each output and biases from 0 (He et al. 2015, "Delving deep into
rectifiers"), which keeps the scale of a signal through ReLU; with smaller weights, pooled codes start almost equal and
some never come to life.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F


def centre_crop(image: Tensor, height: int, width: int) -> Tensor:
    """The middle of an image: (B, C, H, W) -> (B, C, height, width), with height <= H and width <= W."""
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[:, :, top : top + height, left : left + width]


def masked_places(mask: Tensor, factor: int, top: int = 0, left: int = 0) -> Tensor:
    """A mask of pixels (B, 1, H, W) as one of places of factor x factor pixels, (B, 1, h, w): 1 where any of them is.

    Args:
        top, left: pixels of the first places that lie outside the image.
    """
    below, right = (-(side + first) % factor for side, first in ((mask.shape[2], top), (mask.shape[3], left)))
    return F.max_pool2d(F.pad(mask, (left, right, top, below)), factor)


class CentreCrop(nn.Module):
    """`centre_crop` as a layer."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size = height, width

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, height, width)."""
        return centre_crop(image, *self.size)


def conv3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution; each side n becomes ceil(n / stride)."""
    return nn.Conv2d(c_in, c_out, 3, stride, 1)


def pooled_encoder(shape: tuple[int, int, int], outputs: int, *, linear: bool) -> nn.Sequential:
    """Image (B, C, H, W) -> (B, outputs): the mean of the last map, or a linear function of the mean of 32 maps."""
    channels, *size = shape
    layers: list[nn.Module] = []
    for c_out in (16, 32, 64):
        window = min(2, size[0]), min(2, size[1])
        layers += [nn.Conv2d(channels, c_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(window)]
        channels, size = c_out, [n // k for n, k in zip(size, window, strict=True)]
    last = 32 if linear else outputs
    layers += [nn.Conv2d(channels, last, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return he(nn.Sequential(*layers, *([nn.Linear(last, outputs)] if linear else [])))


def pooled_decoder(inputs: int, shape: tuple[int, int, int]) -> nn.Sequential:
    """Code (B, inputs) -> image before its last activation (B, C, H, W)."""
    height, width = (max(1, math.ceil((math.ceil(n / 4) - 1) / 2)) for n in shape[1:])  # n <= 4 * (2 * side + 1)
    net = nn.Sequential(
        nn.Linear(inputs, 16 * height * width),
        nn.Unflatten(1, (16, height, width)),
        nn.ConvTranspose2d(16, 32, 3, 2),  # n -> 2 n + 1
        nn.ReLU(),
        _doubling(32, 16),
        nn.ReLU(),
        _doubling(16, shape[0]),
        CentreCrop(*shape[1:]),
    )
    return he(net)


def strided_encoder(shape: tuple[int, int, int], outputs: int) -> nn.Sequential:
    """Image (B, C, H, W) -> (B, outputs)."""
    height, width = (math.ceil(n / 4) for n in shape[1:])
    net = nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * height * width, outputs),
    )
    return he(net)


def strided_decoder(inputs: int, shape: tuple[int, int, int]) -> nn.Sequential:
    """Code (B, inputs) -> image before its last activation (B, C, H, W)."""
    height, width = (math.ceil(n / 4) for n in shape[1:])
    net = nn.Sequential(
        nn.Linear(inputs, 64 * height * width),
        nn.Unflatten(1, (64, height, width)),
        _doubling(64, 32),
        nn.ReLU(),
        _doubling(32, 16),
        nn.ReLU(),
        nn.Conv2d(16, shape[0], 3, padding=1),
        CentreCrop(*shape[1:]),
    )
    return he(net)


def he(net: nn.Sequential) -> nn.Sequential:
    """The network, its convolutions with the weights of He et al. (2015) for ReLU and biases of 0."""
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            taps = math.prod(layer.kernel_size)
            if isinstance(layer, nn.ConvTranspose2d):  # an output meets one tap in stride**2
                taps /= math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (layer.in_channels * taps)))
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return net


def _doubling(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    """Transposed 3x3 convolution: each side n becomes 2 n."""
    return nn.ConvTranspose2d(c_in, c_out, 3, 2, padding=1, output_padding=1)


def within_range(image: Tensor) -> Tensor:
    """Kept in [0, 1], with the gradient of the identity: a pixel beyond an end can still come back."""
    return image + (image.clamp(0, 1) - image).detach()
