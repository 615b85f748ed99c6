"""Codes of images and images of codes, with the condition that a model needs."""

from copy import copy
from typing import Literal, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.run.condition import needed
from trilemma.run.run import Run
from trilemma.text import note
from trilemma.types import UNCONDITIONAL, Batch, Condition, DrawsCodes, Encodes, HasStyles, Inverts, flags

_noted: WeakSet[Run] = WeakSet()  # of which the user knows what their codes cost


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


def note_search(run: Run) -> None:
    """Say on standard error, before images are encoded, that it costs much for a model without an encoder."""
    if isinstance(run.model, Encodes) or not isinstance(run.model, Inverts) or run in _noted:
        return
    _noted.add(run)
    note(f"{run.recipe.name} has no encoder: the code of each image takes many network calls (see trilemma invert)")


def in_space(run: Run, space: Literal["z", "w"] | None) -> Run:
    """The run, whose codes are its latents z or its styles w; default: its own.

    Raises:
        UserError: its model has no styles.
    """
    model: object = run.model
    if space == "w" and not isinstance(model, HasStyles):
        raise UserError(f"space=w: {run.recipe.name} has no styles w; leave space out")
    if space == "z" and isinstance(model, DrawsCodes):
        run = copy(run)
        run.model = cast(nn.Module, model.in_z())
    return run
