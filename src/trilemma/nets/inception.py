"""Inception v3 (Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", table 1 and figures 5
to 7), as the network of 2015 behind the published Frechet distances and Inception Scores has it.

That network differs from the paper's in three places: an average over 3 x 3 pixels counts only those inside the map;
the last block takes the largest instead of the average; the classifier has 1,008 outputs. Batch norm has eps 0.001.
Images are 299 x 299 in colour; the features are the 2,048 averages of the last maps.

A block runs several paths side by side and joins their channels. A path is a sequence of layers; in the last kind of
block it ends with two layers side by side.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-3  # of batch norm
CLASSES = 1008
SIDE = 299  # px


class Layer(NamedTuple):
    """A convolution by its name, with its output channels, kernel (height, width) and stride; `same` where it keeps the
    size of the map."""

    name: str
    out: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    same: bool = True


Path = tuple[Layer | str | tuple[Layer, ...], ...]  # of a block; a text is a pooling: AVERAGE or LARGEST
AVERAGE, LARGEST, SHRINK = "average", "largest", "shrink"

STEM: Path = (
    Layer("Conv2d_1a_3x3", 32, (3, 3), 2, same=False),
    Layer("Conv2d_2a_3x3", 32, (3, 3), same=False),
    Layer("Conv2d_2b_3x3", 64, (3, 3)),
    SHRINK,
    Layer("Conv2d_3b_1x1", 80),
    Layer("Conv2d_4a_3x3", 192, (3, 3), same=False),
    SHRINK,
)


def block_35(pool: int) -> list[Path]:
    """At 35 x 35 pixels (figure 5)."""
    return [
        (Layer("branch1x1", 64),),
        (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5))),
        (
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, (3, 3)),
            Layer("branch3x3dbl_3", 96, (3, 3)),
        ),
        (AVERAGE, Layer("branch_pool", pool)),
    ]


def block_17(width: int) -> list[Path]:
    """At 17 x 17 pixels, with 7 x 7 kernels in two factors (figure 6)."""
    across, down = (1, 7), (7, 1)
    return [
        (Layer("branch1x1", 192),),
        (Layer("branch7x7_1", width), Layer("branch7x7_2", width, across), Layer("branch7x7_3", 192, down)),
        (
            Layer("branch7x7dbl_1", width),
            Layer("branch7x7dbl_2", width, down),
            Layer("branch7x7dbl_3", width, across),
            Layer("branch7x7dbl_4", width, down),
            Layer("branch7x7dbl_5", 192, across),
        ),
        (AVERAGE, Layer("branch_pool", 192)),
    ]


def block_8(pooling: str) -> list[Path]:
    """At 8 x 8 pixels, with 3 x 3 kernels side by side in two factors (figure 7)."""

    def both(name: str) -> tuple[Layer, ...]:
        return Layer(f"{name}a", 384, (1, 3)), Layer(f"{name}b", 384, (3, 1))

    return [
        (Layer("branch1x1", 320),),
        (Layer("branch3x3_1", 384), both("branch3x3_2")),
        (Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, (3, 3)), both("branch3x3dbl_3")),
        (pooling, Layer("branch_pool", 192)),
    ]


TO_17: list[Path] = [
    (Layer("branch3x3", 384, (3, 3), 2, same=False),),
    (
        Layer("branch3x3dbl_1", 64),
        Layer("branch3x3dbl_2", 96, (3, 3)),
        Layer("branch3x3dbl_3", 96, (3, 3), 2, same=False),
    ),
    (SHRINK,),
]
TO_8: list[Path] = [
    (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, (3, 3), 2, same=False)),
    (
        Layer("branch7x7x3_1", 192),
        Layer("branch7x7x3_2", 192, (1, 7)),
        Layer("branch7x7x3_3", 192, (7, 1)),
        Layer("branch7x7x3_4", 192, (3, 3), 2, same=False),
    ),
    (SHRINK,),
]
BLOCKS = {
    "Mixed_5b": block_35(32),
    "Mixed_5c": block_35(64),
    "Mixed_5d": block_35(64),
    "Mixed_6a": TO_17,
    "Mixed_6b": block_17(128),
    "Mixed_6c": block_17(160),
    "Mixed_6d": block_17(160),
    "Mixed_6e": block_17(192),
    "Mixed_7a": TO_8,
    "Mixed_7b": block_8(AVERAGE),
    "Mixed_7c": block_8(LARGEST),
}


def pooled(x: Tensor, kind: str) -> Tensor:
    """A map (B, C, H, W) pooled over 3 x 3 pixels: AVERAGE and LARGEST keep its size, SHRINK halves it."""
    if kind == AVERAGE:
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    if kind == LARGEST:
        return F.max_pool2d(x, 3, stride=1, padding=1)
    return F.max_pool2d(x, 3, stride=2)


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, layer: Layer) -> None:
        super().__init__()
        height, width = layer.kernel
        padding = (height // 2, width // 2) if layer.same else (0, 0)
        self.conv = nn.Conv2d(inputs, layer.out, layer.kernel, layer.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(layer.out, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Paths side by side; `out` is the sum of their channels."""

    def __init__(self, inputs: int, paths: Sequence[Path]) -> None:
        super().__init__()
        self.paths, self.out = paths, 0
        for path in paths:
            width = inputs
            for layers in path:
                if isinstance(layers, str):
                    continue
                together = (layers,) if isinstance(layers, Layer) else layers
                for layer in together:
                    self.add_module(layer.name, Convolution(width, layer))
                width = sum(layer.out for layer in together)
            self.out += width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._follow(x, path) for path in self.paths], dim=1)

    def _follow(self, x: Tensor, path: Path) -> Tensor:
        for layers in path:
            if isinstance(layers, str):
                x = pooled(x, layers)
            elif isinstance(layers, Layer):
                x = self.get_submodule(layers.name)(x)
            else:
                x = torch.cat([self.get_submodule(layer.name)(x) for layer in layers], dim=1)
        return x


class InceptionV3(Block):
    """Its modules have the names of the published weights."""

    def __init__(self) -> None:
        super().__init__(3, [STEM])
        width = self.out
        for name, paths in BLOCKS.items():
            block = Block(width, paths)
            self.add_module(name, block)
            width = block.out
        self.fc = nn.Linear(width, CLASSES)

    def features(self, image: Tensor) -> Tensor:
        """Images (B, 3, 299, 299) in [0, 1] -> (B, 2048)."""
        x = self._follow((255 * image - 128) / 128, STEM)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """Features (B, 2048) -> logits (B, 1008), without the biases, as the Inception Score is defined by."""
        return F.linear(features, self.fc.weight)

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(self.features(image))
