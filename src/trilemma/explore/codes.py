"""Codes of images and images of codes, with the condition that a model needs."""

import torch
from torch import Tensor

from trilemma.run.condition import needed
from trilemma.run.run import Run
from trilemma.types import UNCONDITIONAL, Batch, Condition, flags


def condition_for(run: Run, batch: Batch, label: str | int | None = None, *, advise: bool = False) -> Condition:
    """What the codes of some images need: a class by name or number for all of them, or else each image's own.

    Args:
        advise: whether the caller takes label=, which the error then advises.
    Raises:
        UserError: if the model needs what is not given, takes no class, or has none of that name.
    """
    condition = run.condition(label, len(batch.image), batch.condition if label is None else UNCONDITIONAL)
    return needed(run.model, condition, advise=advise)


def code_width(run: Run) -> int:
    """How many numbers a code has."""
    if (length := flags(run.model).code_length) is not None:
        return length
    blank = torch.zeros(1, *run.shape, dtype=torch.float32)
    condition = needed(run.model, Condition(label=torch.zeros(1, dtype=torch.int64)))
    return run.encode(blank, condition=condition).shape[1]


def decode_alike(run: Run, codes: Tensor, condition: Condition) -> Tensor:
    """As `run.decode`, all under the condition of one image."""
    return run.decode(codes, condition=condition.rows(torch.zeros(len(codes), dtype=torch.int64)))
