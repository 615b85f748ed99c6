"""A small convolutional classifier. Its last hidden activations are the features that images are measured by.

A convolution block is conv 3x3 - batch norm - ReLU. The first stage is one block at full size; every further stage
halves the size by max pooling, widens by one block and adds a residual block, h + block(h) (He et al. 2016). The
features are the global average of the last stage, so D = widths[-1]; the logits are linear in them.
Loss: cross-entropy -log p(label | image), in nats.
"""

from itertools import pairwise
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trilemma.config import ModelConfig
from trilemma.data import Split
from trilemma.errors import UserError
from trilemma.pictures.levels import to_float
from trilemma.types import Batch, Logs, Model, Phase, Player


class ClassifierConfig(ModelConfig):
    """Settings of the classifier."""

    n_classes: int = Field(default=10, ge=2, description="number of classes")
    widths: tuple[int, ...] = Field(default=(16, 32, 64), description="channels of the stages; the last is D")

    @model_validator(mode="after")
    def _widths(self) -> Self:
        if not self.widths or min(self.widths) < 1:
            raise ValueError("widths needs at least one positive number")
        return self


class Classifier(Model):
    """Images (B, C, H, W) in [0, 1] of the config's shape -> features (B, D) -> logits (B, n_classes)."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [_block(config.shape[0], config.widths[0])]
        for c_in, c_out in pairwise(config.widths):
            layers += [nn.MaxPool2d(2, ceil_mode=True), _block(c_in, c_out), _Residual(c_out)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(config.widths[-1], config.n_classes)
        self.phases = [Phase("classifier", Player("classifier", list(self.parameters())), self.loss)]

    def features(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the activations before the last layer, (B, D), not negative."""
        if tuple(image.shape[1:]) != tuple(self.config.shape):
            raise ValueError(f"this classifier takes images of shape {self.config.shape}, not {tuple(image.shape[1:])}")
        return self.body(2 * image - 1).float().mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """Features (B, D) -> unnormalised log-probabilities (B, n_classes)."""
        return self.head(features).float()

    def logits(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> unnormalised log-probabilities (B, n_classes)."""
        return self.classify(self.features(image))

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Mean cross-entropy in nats; parts: cross_entropy, accuracy (a fraction)."""
        logits, label = self.logits(batch.image), _label(batch)
        loss = nn.functional.cross_entropy(logits, label)
        accuracy = (logits.detach().argmax(1) == label).float().mean()
        return loss, {"cross_entropy": loss.detach(), "accuracy": accuracy}

    @torch.no_grad()
    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): error, 1 where the most probable class is not the label; cross_entropy in nats."""
        logits, label = self.logits(batch.image), _label(batch)
        return {
            "error": (logits.argmax(1) != label).float(),
            "cross_entropy": nn.functional.cross_entropy(logits, label, reduction="none"),
        }


class _Residual(nn.Module):
    """h + block(h)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = _block(width, width)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.block(h)


def _block(c_in: int, c_out: int) -> nn.Sequential:
    convolution = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


def _label(batch: Batch) -> Tensor:
    if batch.condition.label is None:
        raise UserError("a classifier learns from labelled images, and these have no labels; choose data with classes")
    return batch.condition.label


@torch.no_grad()
def scores_of(model: Classifier, split: Split, batch: int = 500) -> tuple[float, float]:
    """Accuracy and mean cross-entropy in nats of a classifier on a split, in float32 on the CPU."""
    assert split.labels is not None
    model = model.cpu().float().eval()
    parts: list[Tensor] = [model.logits(to_float(images)) for images in split.images.split(batch)]
    logits = torch.cat(parts)
    accuracy = (logits.argmax(1) == split.labels).double().mean().item()
    return accuracy, nn.functional.cross_entropy(logits.double(), split.labels).item()
