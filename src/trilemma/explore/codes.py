"""Codes of images, and images of codes, with the condition that a model needs, in parts that fit into memory."""

from collections.abc import Callable

import torch
from torch import Tensor

from trilemma.run.condition import needed
from trilemma.run.run import Run
from trilemma.types import UNCONDITIONAL, Batch, Condition

PART = 256  # images that go through a model at a time


def condition_for(run: Run, batch: Batch, label: str | int | None = None, *, advise: bool = False) -> Condition:
    """What the codes of some images need: a class by name or number for all of them, or else each image's own.

    Args:
        advise: whether the caller takes label=, which the error then advises.
    Raises:
        UserError: if the model needs what is not given, takes no class, or has none of that name.
    """
    condition = run.condition(label, len(batch.image), batch.condition if label is None else UNCONDITIONAL)
    return needed(run.model, condition, advise=advise)


def encode(run: Run, images: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
    """Codes of images (N, C, H, W), under a condition for each: (N, Z) on the CPU."""
    return run.encode(images, batch=PART, condition=condition)


def code_width(run: Run) -> int:
    """How many numbers a code has."""
    blank = torch.zeros(1, *run.model_config.shape, dtype=torch.float32)
    return encode(run, blank, needed(run.model, Condition(label=torch.zeros(1, dtype=torch.int64)))).shape[1]


def decode_codes(run: Run, codes: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
    """Images of codes (N, Z), under a condition for each: (N, C, H, W) in [0, 1] on the CPU."""
    return run.decode(codes, batch=PART, condition=condition)


def decode_alike(run: Run, codes: Tensor, condition: Condition) -> Tensor:
    """As `decode_codes`, all under the condition of one image."""
    return decode_codes(run, codes, condition.rows(torch.zeros(len(codes), dtype=torch.int64)))


def through(
    run: Run,
    function: Callable[[Tensor, Condition], Tensor],
    inputs: Tensor,
    condition: Condition = UNCONDITIONAL,
) -> Tensor:
    """`function(inputs, condition)` on the run's device, PART rows at a time, without gradients; on the CPU."""
    return run.apply(function, inputs, condition, PART)
