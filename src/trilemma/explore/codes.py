"""Codes of images, and images of codes, with the class that a model needs, in parts that fit into memory."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.run.run import Run
from trilemma.types import Batch, codes_need_labels

if TYPE_CHECKING:
    pass


PART = 256  # images that go through a model at a time


def require(run: Run, doing: str, *protocols: type) -> None:
    """Refuse a run whose model lacks a capability, with the models that have it.

    Args:
        doing: what it would do, as in "does not reconstruct".
    """
    run.require(doing, *protocols)


def labels_for(model: nn.Module, labels: Tensor | None, *, label: bool = False) -> Tensor | None:
    """The labels for a model whose codes need them, None for one whose codes do not.

    Args:
        label: whether the caller takes label=, which the error then advises.
    Raises:
        UserError: if the model needs labels and there are none, or one is not a class of the model.
    """
    if not codes_need_labels(model):
        return None
    if labels is None:
        advice = ", or say the class with label=" if label else ""
        raise UserError(f"this model needs the class of each image; give images with classes{advice}")
    outside = labels[(labels < 0) | (labels >= model.n_classes)]
    if len(outside):
        raise UserError(f"label {int(outside[0])} is not a class of this model: it has 0 to {model.n_classes - 1}")
    return labels


def class_of(run: Run, label: str | int | None, batch: Batch | None = None) -> Tensor | None:
    """A class by name or number as labels for a batch of images, or else (1,); where None, the batch's own, if any.

    Raises:
        UserError: if the model takes no class, or has none of that name.
    """
    if label is None:
        return None if batch is None else batch.label
    return torch.tensor([run._label_index(label)], device=run.device).expand(1 if batch is None else len(batch.image))


def encode(run: Run, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Codes of images (N, C, H, W), with a label for each: (N, Z) on the CPU."""
    return run.encode(images, labels, PART)


def code_width(run: Run) -> int:
    """How many numbers a code has."""
    blank = torch.zeros(1, *run.model_config.shape, dtype=torch.float32)
    return encode(run, blank, labels_for(run.model, torch.zeros(1, dtype=torch.int64))).shape[1]


def decode_codes(run: Run, codes: Tensor, labels: Tensor | None = None) -> Tensor:
    """Images of codes (N, Z): (N, C, H, W) in [0, 1] on the CPU; one label stands for all."""
    return run.decode(codes, None if labels is None else labels.expand(len(codes)), PART)


def through(run: Run, function: Callable[..., Tensor], inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    """`function(inputs, labels)` on the run's device, PART rows at a time, without gradients; on the CPU."""
    return run._passed(function, inputs, labels, PART)
