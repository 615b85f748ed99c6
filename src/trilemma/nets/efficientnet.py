"""EfficientNet-Lite0: image (B, 3, H, W) of any size -> maps, features (B, 1280), logits (B, 1000).

Tan & Le (2019), "EfficientNet: rethinking model scaling for convolutional neural networks", without squeeze and
excitation and with ReLU6 (Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite"). A block of stage s:

    x -> 1x1 to expand * C channels -> kernel x kernel depthwise, stride -> 1x1 to C' channels,  + x where shapes agree

each convolution with batch norm (eps 0.001), all but the last with ReLU6. As in TensorFlow, a stride of 2 pads by what
is needed to have ceil(H / 2) rows, the odd pixel at the bottom and on the right.
"""

from collections.abc import Iterator
from copy import deepcopy
from itertools import accumulate

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STAGES = (  # blocks, kernel, stride of the first, expand, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, FEATURES, CLASSES = 32, 1280, 1000
ENDS = tuple(accumulate(stage[0] for stage in STAGES))  # of the stages, in blocks
EPS = 1e-3


class SameConv2d(nn.Conv2d):
    """Convolution without a bias whose output has ceil(size / stride) rows and columns."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, stride, padding=0, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        (top, bottom), (left, right) = (self._pads(n) for n in x.shape[2:])
        if top == bottom == left == right:
            return nn.functional.conv2d(x, self.weight, self.bias, self.stride, top, groups=self.groups)
        return super().forward(nn.functional.pad(x, (left, right, top, bottom)))

    def _pads(self, n: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        both = max(0, (-(-n // stride) - 1) * stride + kernel - n)
        return both // 2, both - both // 2


class Block(nn.Module):
    """Inverted residual block (Sandler et al. 2018, "MobileNetV2"), (B, C, H, W) -> (B, C', H / stride, W / stride)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = expand * c_in
        self.residual = stride == 1 and c_in == c_out
        if expand > 1:
            self.expand_conv, self.bn0 = SameConv2d(c_in, inner, 1), nn.BatchNorm2d(inner, EPS)
        self.depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.bn1 = nn.BatchNorm2d(inner, EPS)
        self.project_conv, self.bn2 = SameConv2d(inner, c_out, 1), nn.BatchNorm2d(c_out, EPS)
        self.expands = expand > 1

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        h = nn.functional.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        h = nn.functional.relu6(self.bn1(self.depthwise_conv(h)))
        h = self.bn2(self.project_conv(h))
        return x + h if self.residual else h


class EfficientNetLite0(nn.Module):
    """The network; its names are those of the published weights without their leading underscores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv2d(3, STEM, 3, 2), nn.BatchNorm2d(STEM, EPS)
        blocks, c_in = [], STEM
        for repeats, kernel, stride, expand, c_out in STAGES:
            for k in range(repeats):
                blocks.append(Block(c_in, c_out, kernel, 1 if k else stride, expand))
                c_in = c_out
        self.blocks = nn.ModuleList(blocks)
        self.conv_head, self.bn1 = SameConv2d(c_in, FEATURES, 1), nn.BatchNorm2d(FEATURES, EPS)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def stages(self, image: Tensor, n: int = len(STAGES)) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> the map at the end of each of the first n of seven stages, (B, C, h, w)."""
        x = (255 * image - 127) / 128
        x = nn.functional.relu6(self.bn0(self.conv_stem(x)))
        maps = []
        for number, block in enumerate(self.blocks[: ENDS[n - 1]], 1):
            x = block(x)
            if number in ENDS:
                maps.append(x)
        return maps

    def features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the mean over the last map, (B, 1280), not negative."""
        last = self.stages(image)[-1]
        return nn.functional.relu6(self.bn1(self.conv_head(last))).mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """Features (B, 1280) -> unnormalised log-probabilities (B, 1000)."""
        return self.fc(features)

    def logits(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> unnormalised log-probabilities (B, 1000)."""
        return self.classify(self.features(image))


def load_published(network: EfficientNetLite0, tensors: dict[str, Tensor]) -> None:
    """Take the published weights, whose kernels are views with strides of their own.

    Raises:
        RuntimeError: a tensor is absent, unknown or of another shape.
    """
    named = {".".join(part.lstrip("_") for part in name.split(".")): value for name, value in tensors.items()}
    network.load_state_dict(named)


def fuse(network: EfficientNetLite0) -> EfficientNetLite0:
    """The same function in eval mode, with each batch norm inside the convolution before it; for use alone."""
    network = deepcopy(network).eval()
    for owner, convolution, norm in pairs(network):
        layer, statistics = getattr(owner, convolution), getattr(owner, norm)
        setattr(owner, convolution, fuse_conv_bn_eval(layer, statistics))
        setattr(owner, norm, nn.Identity())
    return network


def pairs(network: EfficientNetLite0) -> Iterator[tuple[nn.Module, str, str]]:
    """Each convolution with the batch norm that follows it: their owner and names."""
    yield network, "conv_stem", "bn0"
    for block in network.blocks:
        if hasattr(block, "expand_conv"):
            yield block, "expand_conv", "bn0"
        yield block, "depthwise_conv", "bn1"
        yield block, "project_conv", "bn2"
    yield network, "conv_head", "bn1"
