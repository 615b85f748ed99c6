"""Models of one's own: a module that is given as it is, and files that register recipes, named with --import.

A module has to say what moves which of its parameters, in `phases`; docs/own-model.md has one that works. Nothing is
ever imported because a file of a run names it.
"""

import copy
import hashlib
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from trilemma.config import Config, ModelConfig
from trilemma.errors import UserError
from trilemma.files import user_path
from trilemma.registry import Recipe
from trilemma.rng import isolated
from trilemma.types import Batch, Model, Phase, PhaseError, check_together, flags

FAMILY = "own"
PAGE = "docs/own-model.md"


class ModuleConfig(ModelConfig):
    """What is kept of a module that was given as it is."""

    module: str = Field(description="its class")
    start: str = Field(description="digest of its settings and its weights before the training")


def recipe_of(module: nn.Module, shape: tuple[int, int, int] | None = None) -> Recipe:
    """What stands behind a module: no preset, and no settings but its own; `build` gives a copy of it.

    Args:
        shape: (channels, height, width) of the images it is for.
    Raises:
        UserError: if it does not say what moves its parameters.
    """
    check_phases(module)
    kind = type(module)
    config = ModuleConfig(module=f"{kind.__module__}.{kind.__qualname__}", start=digest(module))
    return Recipe(
        name=re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", kind.__name__).lower(),
        family=FAMILY,
        summary=f"a module of one's own, {kind.__qualname__}",
        source="its author",
        build=lambda _: cast(Model, copy.deepcopy(module)),
        config=config if shape is None else config.with_(shape=shape),
        data="",
        listed=False,
    )


def check_phases(module: nn.Module) -> None:
    """Refuse a module without phases of its own parameters, or whose phases call what is not its own.

    Raises:
        UserError: with what is missing.
    """
    name = type(module).__name__
    try:
        phases = flags(module).phases
    except PhaseError as error:
        raise UserError(f"{name}: {error}; see {PAGE}") from None
    if not isinstance(phases, Sequence) or not phases or not all(isinstance(phase, Phase) for phase in phases):
        raise UserError(
            f"{name} does not say how it is trained: give it phases, for instance self.phases = "
            f'[Phase("model", Player("model", list(self.parameters())), self.loss)]; see {PAGE}'
        )
    own = {id(parameter) for parameter in module.parameters()}
    for phase in phases:
        player = phase.player
        if any(id(parameter) not in own for parameter in player.parameters):
            raise UserError(f'the player "{player.name}" of {name} must move parameters of {name}; see {PAGE}')
        _check_method(module, f'the loss of the phase "{phase.name}"', phase.loss)
        _check_method(module, f'start of the phase "{phase.name}"', phase.start)
        _check_method(module, f'after_step of the player "{player.name}"', player.after_step)
    try:
        check_together(phases)
    except PhaseError as error:
        raise UserError(f"{name}: {error}; see {PAGE}") from None


def _check_method(module: nn.Module, what: str, function: Any) -> None:
    """Refuse a function that would act on the module which was given, where a copy of it is trained."""
    owner = getattr(function, "__self__", None)
    if function is not None and all(part is not owner for part in module.modules()):
        name = type(module).__name__
        raise UserError(
            f"{what} of {name} must be a method of {name} or of a part of it, such as self.loss: a copy of the module "
            f"is trained, on which no other function acts; see {PAGE}"
        )


def try_losses(module: nn.Module, batch: Batch) -> None:
    """Compute each loss once on a copy, before a training begins.

    Raises:
        UserError: if one is not a scalar with named parts, or moves nothing.
    """
    name, trial = type(module).__name__, copy.deepcopy(module).train()
    for phase in flags(trial).phases:
        with isolated(0):
            result = phase.loss(batch, torch.Generator(batch.image.device).manual_seed(0))
        what = f'the loss of the phase "{phase.name}" of {name}'
        pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        if not pair or not isinstance(result[0], Tensor) or result[0].ndim:
            raise UserError(f"{what} must return (loss, parts): a scalar tensor and a dict of tensors; see {PAGE}")
        if not result[0].requires_grad:
            raise UserError(f"{what} does not depend on any parameter; see {PAGE}")
        result[0].backward()
        if all(parameter.grad is None for parameter in phase.player.parameters):
            raise UserError(f"{what} moves none of its parameters; it must be a method of the module; see {PAGE}")


def digest(module: nn.Module) -> str:
    """What tells a module from another: the plain attributes of its parts, and its weights and buffers.

    Raises:
        UserError: if its state has something else than tensors.
    """
    sha256 = hashlib.sha256()
    for name, part in module.named_modules():
        plain = {key: value for key, value in vars(part).items() if not key.startswith("_") and _is_plain(value)}
        sha256.update(repr((name, type(part).__qualname__, sorted((plain | {"training": None}).items()))).encode())
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise UserError(
                f'the state of {type(module).__name__} has "{name}", which is not a tensor and cannot be saved; keep '
                f"it in a buffer, or leave get_extra_state out; see {PAGE}"
            )
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha256.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()[:16]


def _is_plain(value: Any) -> bool:
    """Whether a value's text says all of it."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | Config)


def import_own(word: str) -> None:
    """Import a module of the user's, which registers recipes: by name, or a file ending in .py.

    Raises:
        UserError: it is not found, or its name is in use.
    """
    path = user_path(word)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise UserError(f"--import {word}: file {path.absolute()} not found")
    name = path.stem if is_file else word
    loaded_from = getattr(sys.modules.get(name), "__file__", None) if is_file else None
    if loaded_from is not None and Path(loaded_from).resolve() != path.resolve():
        raise UserError(f"--import {word}: a module named {name} is already in use; rename the file")
    with _importable(path.absolute().parent if is_file else Path.cwd()):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0] and error.name != name:
                raise
            raise UserError(f"--import {word}: no module named {name} here; give its name or its file.py") from None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Inside, modules of a folder are found first."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
