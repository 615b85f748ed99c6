"""What is asked of a run's model: a class by its name or number, one for all images or one for each."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from trilemma.data.sources.labels import class_number
from trilemma.errors import UserError, unknown
from trilemma.registry import models_that
from trilemma.types import UNCONDITIONAL, Condition, Conditional, check_condition, codes_need, flags, for_codes

Label = str | int | Tensor | None  # one class by name or number for all images, or int64 (N,)


def condition_of(
    label: Label, count: int, model: nn.Module, classes: Sequence[str], *, name: str, path: Path
) -> Condition:
    """What `label` asks of a model for `count` images or codes.

    Args:
        classes: of the data that it was trained on, in their order.
        name, path: of the model and its run, for messages.
    Raises:
        UserError: the model takes no class, or has none of that name or number, or the labels are not one for each.
    """
    if label is None:
        return UNCONDITIONAL
    if isinstance(label, str | int):
        return Condition(label=torch.tensor([_class_index(label, model, classes, name, path)]).expand(count))
    condition = Condition(label=label)
    check_condition(condition, count, flags(model).n_classes)
    return condition


def _class_index(label: str | int, model: nn.Module, classes: Sequence[str], name: str, path: Path) -> int:
    if not classes:
        raise UserError(f"label={label}: the data of {path} has no classes; leave label out")
    if not isinstance(model, Conditional):
        raise UserError(
            f"label={label}: {name} was not trained to take a class; leave label out, or use a "
            f"model that takes one: {', '.join(models_that(Conditional))}"
        )
    number = class_number(label, classes)
    if number is None:
        raise unknown("label", str(label), classes)
    return number


def needed(model: nn.Module, condition: Condition, *, advise: bool = False) -> Condition:
    """What the codes of a model need of a condition.

    Args:
        advise: whether the caller takes label=, which the error then advises.
    Raises:
        UserError: if it is not given, or a label is not a class of the model.
    """
    part = for_codes(model, condition)
    if "label" not in codes_need(model):
        return part
    if part.label is None:
        advice = ", or say the class with label=" if advise else ""
        raise UserError(f"this model needs the class of each image; give images with classes{advice}")
    n_classes = flags(model).n_classes
    outside = part.label[(part.label < 0) | (part.label >= n_classes)]
    if len(outside):
        raise UserError(f"label {int(outside[0])} is not a class of this model: it has 0 to {n_classes - 1}")
    return part
