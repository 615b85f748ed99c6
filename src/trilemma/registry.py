"""Model name -> recipe: the network's settings, how it is trained, and the value it must reach."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import nn

from trilemma import rng
from trilemma.config import Config, ModelConfig
from trilemma.errors import UserError, unknown
from trilemma.modes import own_modes
from trilemma.types import (
    LACKING,
    TRAINED_WITH,
    Decodes,
    Encodes,
    Model,
    PhaseError,
    Reconstructs,
    Samples,
    config_of,
    keys_of,
)
from trilemma.values import checked_call

FAMILIES = ("autoencoder", "vae", "gan", "diffusion")


@dataclass(frozen=True)
class Published:
    """What is published of a preset: settings by the key of `train` that says them, and values by name.

    source: where they are stated; data: on which they were reached.
    """

    source: str
    data: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A preset: everything that stands behind a model's name.

    suits: what it is good for, in a line: sizes, colour, how many images;
    first_samples_s: training seconds until its samples cover a quarter of the held-out images of `data`, as
        benchmarks/first_samples.py measures them on one thread; inf where they did not in 160, None if not measured;
    build: from settings to a module, also on torch's meta device; of a recipe with parts, from settings and the parts
    by name (see `assemble`); `config`: the settings' defaults; `training`: the training keys that differ from the
    common defaults; `targets`: values that it must reach on `data`, by name;
    published: where its own settings differ from them, docs/results.md says why;
    parts: by name, the recipe that each is trained by before the main training, if no other is named;
    as_part: settings where it is trained as such a part, unless others are given: what only its own samples need is
    left out, and a place of its codes has few numbers.
    """

    name: str
    family: str
    summary: str
    source: str
    build: Callable[..., Model]
    config: ModelConfig
    training: Mapping[str, Any] = field(default_factory=dict)
    data: str = "fashion-mnist"
    targets: Mapping[str, float] = field(default_factory=dict)
    listed: bool = True
    suits: str = ""
    first_samples_s: float | None = None
    published: Published | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    as_part: Mapping[str, Any] = field(default_factory=dict)


class Blueprint(NamedTuple):
    """What a network is built from: a recipe, its settings, and the same for each part."""

    recipe: Recipe
    config: ModelConfig
    parts: "Mapping[str, Blueprint]"


Parts = Mapping[str, nn.Module | Blueprint]

_recipes: dict[str, Recipe] = {}
_examples: dict[str, tuple[Recipe, Model]] = {}  # of recipes by name


def register(recipe: Recipe) -> Recipe:
    """Add a preset: its name is known from then on, in this process. For models of one's own see docs/own-model.md.

    Raises:
        UserError: if the name is taken or the family is not one of FAMILIES (unlisted helpers may have another).
    """
    if recipe.name in _recipes:
        raise UserError(f'a model named "{recipe.name}" is already registered; choose another name')
    if recipe.listed and recipe.family not in FAMILIES:
        raise unknown("family", recipe.family, FAMILIES)
    _recipes[recipe.name] = recipe
    return recipe


@contextmanager
def registered(*recipes: Recipe) -> Iterator[None]:
    """Inside, these presets are known too; afterwards they are not, nor is any that was registered inside."""
    _load()
    before, examples = dict(_recipes), dict(_examples)
    try:
        for recipe in recipes:
            register(recipe)
        yield
    finally:
        _recipes.clear()
        _recipes.update(before)
        _examples.clear()
        _examples.update(examples)


def get_recipe(name: str) -> Recipe:
    """The preset of that name.

    Raises:
        UserError: with the nearest name.
    """
    _load()
    if name not in _recipes:
        raise unknown("model", name, list_models())
    return _recipes[name]


@checked_call
def recipe_named_in(file: Path, name: str) -> Recipe:
    """The preset that a file of a run names, which may be a model of the user's own.

    Raises:
        UserError: if it is not known, with how to make it known.
    """
    _load()
    if name not in _recipes:
        raise UserError(
            f'{file}: unknown model "{name}". If it is one of your own, name the file that registers it: trilemma '
            "--import FILE.py VERB ...; in Python, import it first. Else see trilemma list"
        )
    return _recipes[name]


def list_models(
    pattern: Annotated[str, Field(description="a name, or a pattern such as 'vae*'")] = "*",
) -> list[str]:
    """Names that match a wildcard pattern, in the order of the families."""
    _load()
    listed = [r for r in _recipes.values() if r.listed and fnmatchcase(r.name, pattern)]
    return [r.name for r in sorted(listed, key=lambda r: FAMILIES.index(r.family))]


def models_that(*protocols: type) -> list[str]:
    """Names of the models with all these capabilities."""
    models = {name: _example(get_recipe(name)) for name in list_models()}
    return [name for name, model in models.items() if all(isinstance(model, protocol) for protocol in protocols)]


def sampling_keys(recipe: Recipe) -> type[Config]:
    """The settings of the sampler of a recipe's models; none for models that do not draw samples."""
    model = _example(recipe)
    return keys_of(model) if isinstance(model, Samples) else Config


def _example(recipe: Recipe) -> Model:
    """The recipe's network with its own settings, without memory; built once in a process, and nobody changes it."""
    known = _examples.get(recipe.name)
    if known is None or known[0] is not recipe:
        known = _examples[recipe.name] = recipe, without_memory(recipe)
    return known[1]


def without_memory(recipe: Recipe, config: ModelConfig | None = None, parts: Parts | None = None) -> Model:
    """The recipe's network on the meta device, by default with its own settings; `parts`: as `assemble`."""
    with torch.device("meta"):
        return assemble(recipe, config or recipe.config, parts)


def require(model: object, name: str, doing: str, *capabilities: type) -> None:
    """Refuse a model that lacks a capability, with the reason and the models that have them all.

    Args:
        name: of the model; doing: what it would do, as in "does not draw samples".
    Raises:
        UserError: it lacks one.
    """
    missing = [capability for capability in capabilities if not isinstance(model, capability)]
    if not missing:
        return
    if Reconstructs in missing:  # by way of codes
        missing += [part for part in (Encodes, Decodes) if not isinstance(model, part)]
    reason = next((LACKING[part] for part in missing if part in LACKING), "")
    why = f": it {reason}" if reason not in ("", f"does not {doing}") else ""
    able = ", ".join(models_that(*capabilities)) or "none is installed"
    config = config_of(model)
    own = {} if config is None else type(config).model_fields
    if key := next((key for part, key in TRAINED_WITH.items() if part in missing and key in own), None):
        raise UserError(f"{name} does not {doing}{why}; train it with {key}=true, or choose one of {able}")
    raise UserError(f"{name} does not {doing}{why}; models that do: {able}")


def assemble(recipe: Recipe, config: ModelConfig, parts: Parts | None = None) -> Model:
    """The recipe's network. Its parts are frozen: nobody moves their parameters, and they stay in eval mode.

    Args:
        parts: modules, or what they are built from; default: by the recipes that it names, for the same images.
    Raises:
        UserError: a player or a phase of it does not fit.
    """
    sources = (default_parts(recipe, config) if parts is None else parts) if recipe.parts else {}
    modules = {name: assemble(*part) if isinstance(part, Blueprint) else part for name, part in sources.items()}
    for module in modules.values():
        _freeze(module)
    try:
        return recipe.build(config, modules) if recipe.parts else recipe.build(config)
    except PhaseError as error:
        raise UserError(f"{recipe.name}: {error}") from None


def default_parts(recipe: Recipe, config: ModelConfig) -> dict[str, Blueprint]:
    """The parts of a recipe by the recipes that it names, for images of the same shape."""
    blueprints = {}
    for name, default in recipe.parts.items():
        own = get_recipe(default)
        part_config = own.config.with_(shape=config.shape)
        blueprints[name] = Blueprint(own, part_config, default_parts(own, part_config))
    return blueprints


def _freeze(module: nn.Module) -> None:
    """No optimiser and no mode of the model around it changes the module any more."""
    module.requires_grad_(False).eval()
    vars(module)["train"] = MethodType(lambda module, mode=True: module, module)


@checked_call
def create(name: str, *, shape: tuple[int, int, int] | None = None, seed: int = 0, **settings: Any) -> Model:
    """A fresh, untrained model.

    Args:
        name: a preset (`list_models()`).
        shape: (channels, height, width) of its images; default: the recipe's own.
        seed: of the initial weights.
        settings: fields of the model's config.
    Raises:
        UserError: unknown model or key (the nearest is named), or a value that does not fit.
    """
    recipe = get_recipe(name)
    config = recipe.config.with_(**settings, **({} if shape is None else {"shape": shape}))
    return build(recipe, config, seed=seed)


def build(recipe: Recipe, config: ModelConfig, *, seed: int = 0, parts: Parts | None = None) -> Model:
    """The recipe's network as `assemble` makes it, in float32, with initial weights that depend on `seed` alone."""
    with own_modes(), rng.OwnStart(rng.generator(seed, "weights")):
        return assemble(recipe, config, parts)


def outline(recipe: Recipe, config: ModelConfig, *, most: int, parts: Parts | None = None) -> nn.Module:
    """The recipe's network on the meta device: names, types and shapes, and no memory, whatever the settings ask for.

    Args:
        most: tensors that may be created; parts: as `assemble`.
    Raises:
        UserError: if the settings make no network, or a larger one.
    """
    try:
        with torch.device("meta"), own_modes(), rng.Unfilled(most):
            return assemble(recipe, config, parts)
    except Exception as error:  # settings that fit each by itself may not fit together
        text = str(error).partition("\n")[0][:200]
        raise UserError(
            f"the settings do not make a network of {recipe.name}: {text or type(error).__name__}"
        ) from None


def build_unfilled(recipe: Recipe, config: ModelConfig, parts: Parts | None = None) -> nn.Module:
    """As `build`, without initial weights, for those that are loaded next."""
    with own_modes(), rng.Unfilled(sys.maxsize):
        return assemble(recipe, config, parts)


def count_parameters(module: nn.Module) -> int:
    """Numbers that a network learns."""
    return sum(p.numel() for p in module.parameters())


def _load() -> None:
    """Recipes register themselves when their package is imported."""
    import_module("trilemma.recipes")
