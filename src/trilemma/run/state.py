"""The state of a training as it is saved, and whether one that was read can be of this training.

A state of another form, at another place of the training than its name says, or with a number that is none, is refused
as a whole.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trilemma.run.weights import is_later

Tensors = dict[str, Tensor]


@dataclass
class Checkpoint:
    """Tensors by file ("model", "ema", "optimizer-PLAYER", "best") and the plain values of the state.

    late: of a form, the files of optimisers that hold nothing before their players begin.
    """

    values: dict[str, Any]
    tensors: dict[str, Tensors] = field(default_factory=dict)
    late: Collection[str] = ()


class Broken(Exception):
    """Why a checkpoint cannot be trusted."""


def check_state(state: Checkpoint, like: Checkpoint, *, images: int) -> None:
    """Whether a state has the form of `like`, a state after the first step of the same training.

    Args:
        images: how many the training had seen, as the checkpoint's name says.
    Raises:
        Broken: with the first difference.
    """
    values, first = state.values, like.values
    if odd := _odd_keys(values, first):
        raise Broken(f"its values do not belong to this training: {', '.join(odd)}")
    if values["images"] != images or values["images"] * first["step"] != values["step"] * first["images"]:
        raise Broken(f"it is of step {values['step']} and image {values['images']}, not of image {images}")
    if values["pieces"] < 1 or not 0 <= values["seconds"] < math.inf:
        raise Broken(f"it says pieces={values['pieces']}, seconds={values['seconds']}")
    expected = {**like.tensors, **({"best": like.tensors["model"]} if values["best"] else {})}
    if state.tensors.keys() != expected.keys():
        raise Broken(f"it has the tensors of {', '.join(state.tensors)}, not of {', '.join(expected)}")
    unmoved = values["step"] == 0 or values["skipped"]
    for group, tensors in expected.items():
        held = state.tensors[group]
        if not group.startswith("optimizer-"):
            _check_group(group, held, tensors)
        elif held or not (unmoved or group in like.late):
            _check_group(group, held, _of_moved(held, tensors))


def _of_moved(held: Tensors, like: Tensors) -> Tensors:
    """The entries of the parameters that an optimiser holds something of: a frozen or unused one has none."""
    moved = {name.split("/")[0] for name in held}
    return {name: tensor for name, tensor in like.items() if not held or name.split("/")[0] in moved}


def _odd_keys(values: Any, like: dict[str, Any]) -> list[str]:
    """The values that are missing, too many, or of another form, each with which of these it is."""
    if not isinstance(values, dict):
        return ["they are not an object"]
    missing = [f"{key} is missing" for key in like if key not in values]
    unknown = [f"{key} is unknown" for key in values if key not in like]
    other = [f"{key} has another form" for key in like if key in values and not _same_form(values[key], like[key])]
    return missing + unknown + other


def _same_form(value: Any, like: Any) -> bool:
    """Whether a plain value has the type, and the keys, of another; what is empty there may hold any single values."""
    if isinstance(like, dict) and like:
        same_keys = isinstance(value, dict) and value.keys() == like.keys()
        return same_keys and all(_same_form(value[key], like[key]) for key in like)
    if isinstance(like, dict | list):
        entries = value.values() if isinstance(value, dict) else value
        return type(value) is type(like) and all(type(entry) in (int, float, str, type(None)) for entry in entries)
    return type(value) is type(like) or (like is None and type(value) is float)


def _check_group(group: str, tensors: Tensors, like: Tensors) -> None:
    if odd := [name for name in tensors.keys() ^ like.keys() if name in tensors or not is_later(name)]:
        raise Broken(f"{group}: missing or too many: {', '.join(sorted(odd)[:3])}")
    for name, tensor in tensors.items():
        form = like[name]
        if (tensor.shape, tensor.dtype) != (form.shape, form.dtype):
            actual, expected = (f"{t.dtype} {tuple(t.shape)}" for t in (tensor, form))
            raise Broken(f"{group}: {name} is {actual}, not {expected}")
        if not is_finite(tensor) and (form.is_meta or is_finite(form)):
            raise Broken(f"{group}: {name} is not finite")


def not_finite(state: Checkpoint) -> list[str]:
    """The tensors with a NaN or an infinity; the best weights were among them when they were the model's."""
    return [
        f"{name} of the {group}"
        for group, tensors in state.tensors.items()
        for name, tensor in tensors.items()
        if group != "best" and not is_finite(tensor)
    ]


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite, by their bounds: one pass, no copy in memory, and nothing that overflows."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return bool(torch.stack(tensor.aminmax()).isfinite().all())
