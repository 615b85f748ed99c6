"""EfficientNet-Lite0: padding as TensorFlow has it, batch norm inside convolutions, published names and strides."""

import pytest
import torch
from torch import nn

from trilemma.nets.efficientnet import (
    CLASSES,
    FEATURES,
    STAGES,
    EfficientNetLite0,
    SameConv2d,
    fuse,
    load_published,
    pairs,
)


def random_network(seed: int = 0) -> EfficientNetLite0:
    """Random weights and statistics, float64, in eval mode."""
    torch.manual_seed(seed)
    network = EfficientNetLite0().double().eval()
    for owner, _, norm in pairs(network):
        for tensor in (getattr(owner, norm).running_mean, getattr(owner, norm).bias):
            nn.init.normal_(tensor, std=0.1)
        for tensor in (getattr(owner, norm).running_var, getattr(owner, norm).weight):
            nn.init.uniform_(tensor, 0.5, 2)
    return network


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "reads"),
    [
        (6, 3, 2, [[0, 1, 2], [2, 3, 4], [4, 5]]),  # one pixel of padding, at the end
        (5, 3, 2, [[0, 1], [1, 2, 3], [3, 4]]),  # one at either end
        (6, 5, 2, [[0, 1, 2, 3], [1, 2, 3, 4, 5], [3, 4, 5]]),  # one before, two after
        (3, 3, 1, [[0, 1], [0, 1, 2], [1, 2]]),
        (4, 1, 1, [[0], [1], [2], [3]]),
    ],
)
def test_which_rows_an_output_reads(size: int, kernel: int, stride: int, reads: list[list[int]]) -> None:
    layer = SameConv2d(1, 1, kernel, stride)
    nn.init.ones_(layer.weight)
    rows = torch.eye(size)[:, None, :, None].expand(-1, 1, size, size)  # image k: ones in row k
    read = layer(rows)[:, 0, :, size // 2 // stride] > 0  # (row, output)
    assert [column.nonzero().flatten().tolist() for column in read.T] == reads


def test_shapes_of_maps_features_and_logits() -> None:
    network, image = random_network(), torch.rand(2, 3, 65, 40, dtype=torch.float64)
    maps = network.stages(image)
    assert [tuple(x.shape[1:]) for x in maps] == [
        (16, 33, 20),
        (24, 17, 10),
        (40, 9, 5),
        (80, 5, 3),
        (112, 5, 3),
        (192, 3, 2),
        (320, 3, 2),
    ]
    assert [x.shape[1] for x in maps] == [stage[-1] for stage in STAGES]
    assert network.features(image).shape == (2, FEATURES) and network.logits(image).shape == (2, CLASSES)
    assert network.features(image).min() >= 0


def test_the_number_of_weights_is_the_published_one() -> None:
    """296 tensors with 4,694,073 numbers, of which 49 count the batches of a norm."""
    state = EfficientNetLite0().state_dict()
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (296, 4_694_073)


def test_a_batch_norm_inside_the_convolution_changes_nothing() -> None:
    network, image = random_network(), torch.rand(2, 3, 33, 32, dtype=torch.float64)
    fused = fuse(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    torch.testing.assert_close(fused.features(image), network.features(image), rtol=1e-9, atol=1e-9)
    for one, other in zip(fused.stages(image), network.stages(image), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert isinstance(network.bn0, nn.BatchNorm2d)  # the original is as it was


def test_published_names_and_strides() -> None:
    network, other = random_network(), random_network(seed=1)
    published = {}
    for name, tensor in network.state_dict().items():
        key = ".".join(
            part if part in ("weight", "bias") or part.isdigit() or part.startswith(("running", "num")) else f"_{part}"
            for part in name.split(".")
        )
        if tensor.ndim == 4:  # a view of what lies in TensorFlow's order
            tensor = tensor.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
        published[key] = tensor
    assert "_blocks.3._depthwise_conv.weight" in published and "_fc.bias" in published
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    assert (other.logits(image) - network.logits(image)).abs().max() > 1e-3
    load_published(other, published)
    torch.testing.assert_close(other.logits(image), network.logits(image), rtol=1e-9, atol=1e-9)
    with pytest.raises(RuntimeError, match=r"fc\.bias"):
        load_published(other, {name: tensor for name, tensor in published.items() if name != "_fc.bias"})
