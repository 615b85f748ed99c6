"""Encoders e(x, y) and decoders d(z, y) by name, for images of any size and number of channels.

    mlp        linear layers and ReLU
    conv       convolutions with max-pooling, whose map is averaged to a code (global average pooling)
    strided    convolutions with stride 2, then a linear layer
    recurrent  the rows of the image as the steps of an LSTM (Hochreiter & Schmidhuber 1997)
    residual   residual blocks (He et al. 2016) with group norm (Wu & He 2018), for colour images of 32 to 128 px

The label y, where there is one, is joined to the input as a one-hot vector: to a code or the pixels of `mlp` as they
are, to an image as constant planes, to each step of a sequence. Decoders return logits: no activation at the end.
"""

import math
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from trilemma.config import ModelConfig
from trilemma.nets import conv, recurrent, residual
from trilemma.nets.mlp import ACTIVATIONS, mlp
from trilemma.types import no_label


class NetworkConfig(ModelConfig):
    """Which networks encode and decode; the decoder mirrors the encoder."""

    network: Literal["mlp", "conv", "strided", "recurrent", "residual"] = Field(
        default="mlp", description="kind of encoder and decoder"
    )
    hidden: tuple[PositiveInt, ...] = Field(default=(128,), description="mlp: widths of the encoder's hidden layers")
    width: PositiveInt = Field(default=32, description="residual: channels at full size")


class Backbone(nn.Module):
    """A network that may be given a label: net(join(arrange(x), one-hot label)).

    Args:
        arrange: brings the input into the order (B, channels, ...) that `net` takes.
        n_classes: 0 for a network without labels.
    """

    def __init__(self, net: nn.Module, *, n_classes: int = 0, arrange: nn.Module | None = None) -> None:
        super().__init__()
        self.net, self.n_classes, self.arrange = net, n_classes, arrange

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """x: image (B, C, H, W) or code (B, Z); label int64 (B,), if and only if there are classes."""
        if self.arrange is not None:
            x = self.arrange(x)
        return self.net(join(x, label, self.n_classes) if self.n_classes else x)


def make_encoder(config: NetworkConfig, outputs: int, *, n_classes: int = 0, last: str = "none") -> Backbone:
    """A network image (B, C, H, W), label -> (B, outputs), with `last` (a key of ACTIVATIONS) at its end.

    Of `conv` with last="relu", the averaged map itself is the output; otherwise a linear layer follows it.
    """
    channels, height, width = config.shape
    shape, arrange = (channels + n_classes, height, width), None
    match config.network:
        case "mlp":
            net, arrange = mlp([channels * height * width + n_classes, *config.hidden, outputs]), nn.Flatten()
        case "conv":
            net = conv.pooled_encoder(shape, outputs, linear=last != "relu")
        case "strided":
            net = conv.strided_encoder(shape, outputs)
        case "recurrent":
            net, arrange = recurrent.RowEncoder(channels * width + n_classes, outputs), recurrent.Rows()
        case "residual":
            net = residual.residual_encoder(shape, outputs, config.width)
    return Backbone(nn.Sequential(net, ACTIVATIONS[last]()), n_classes=n_classes, arrange=arrange)


def make_decoder(config: NetworkConfig, inputs: int, *, n_classes: int = 0, channels: int | None = None) -> Backbone:
    """A network code (B, inputs), label -> logits (B, channels, H, W); `channels` defaults to that of the images."""
    shape = (channels or config.shape[0], *config.shape[1:])
    inputs += n_classes
    match config.network:
        case "mlp":
            net = mlp([inputs, *reversed(config.hidden), math.prod(shape)])
            net = nn.Sequential(net, nn.Unflatten(1, shape))
        case "conv":
            net = conv.pooled_decoder(inputs, shape)
        case "strided":
            net = conv.strided_decoder(inputs, shape)
        case "recurrent":
            net = recurrent.RowDecoder(inputs, shape)
        case "residual":
            net = residual.residual_decoder(inputs, shape, config.width)
    return Backbone(net, n_classes=n_classes)


def join(x: Tensor, label: Tensor | None, n_classes: int) -> Tensor:
    """One-hot labels as further channels: x (B, C, ...) and label (B,) -> (B, C + n_classes, ...).

    Raises:
        UserError: without labels.
    """
    if label is None:
        raise no_label(f"give labels from 0 to {n_classes - 1}")
    hot = (label[:, None] == torch.arange(n_classes, device=label.device)).to(x)
    return torch.cat([x, hot.view(*hot.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])], dim=1)
