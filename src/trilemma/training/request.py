"""What `train` is asked for: a preset, a module or the config.json of a run, and keys, which are checked before any
data are read.

A key is the model's where the model has it, else the training's: `schedule` of a diffusion model is that of its noise.
`lr_schedule` is the learning rate's for every model. `NAME.key` goes to the training of the part NAME.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from trilemma import vocabulary
from trilemma.arguments import word
from trilemma.config import make
from trilemma.data.config import DataConfig
from trilemma.data.load import Source
from trilemma.data.transform import check_transforms
from trilemma.errors import UserError, unknown_key
from trilemma.files import read_json, user_path
from trilemma.own import ModuleConfig, recipe_of
from trilemma.registry import Recipe, get_recipe, recipe_named_in
from trilemma.run.command import FROM_DATA, OTHER_NAMES, own_keys
from trilemma.run.config import LENGTHS, TrainConfig
from trilemma.run.parts import part_keys, read_parts
from trilemma.run.record import check_config
from trilemma.types import config_of

FIELDS = {**TrainConfig.model_fields, **DataConfig.model_fields}  # the keys of every training
READING = tuple(DataConfig.model_fields)  # those that say how a source is read


class Request(NamedTuple):
    """What is to be trained, before the keys of the call.

    module: given as it is, instead of a preset; settings: of the network, training and reading: keys, those of the
    recipe or of a config.json; parts: keys of theirs; data: as there, None of a recipe; again: the config.json that is
    trained again, if one is.
    """

    recipe: Recipe
    module: nn.Module | None
    settings: dict[str, Any]
    training: dict[str, Any]
    reading: Mapping[str, Any] = {}
    parts: Mapping[str, Any] = {}
    data: Source | None = None
    again: Mapping[str, Any] | None = None


def request_of(model: "str | Path | nn.Module") -> Request:
    """The request behind the first argument of `train`.

    Raises:
        UserError: no such model or file, a file that is not the config.json of a run, a module without phases.
    """
    if isinstance(model, nn.Module):
        config = config_of(model)
        reading = {} if config is None else {"size": config.shape[1:], "channels": config.shape[0]}
        return Request(recipe_of(model), model, {}, {}, reading)
    path = user_path(model)
    if path.suffix == ".json":
        return _of_file(path)
    if str(model) not in vocabulary.models() and (path / "config.json").is_file():
        raise UserError(f"{path} is a run; to train the same again give {path / 'config.json'}")
    recipe = get_recipe(str(model))
    return Request(recipe, None, {}, dict(recipe.training))


def _of_file(path: Path) -> Request:
    """That of a config.json, which may be somebody else's: nothing but its settings is used."""
    try:
        config = check_config(read_json(path), path)
    except FileNotFoundError:
        raise UserError(f"file {path} not found; give the config.json of a run, or a model's name") from None
    if "module" in config["model_config"]:
        raise UserError(f"{path} is of a module that was given as it is: call trilemma.train(module, ...) in Python")
    recipe, settings = recipe_named_in(path, config["model"]), config["model_config"]
    training = {key: value for key, value in config["training"].items() if key != "device"}
    try:
        make(TrainConfig, training)
        make(type(recipe.config), settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    settings = {key: value for key, value in settings.items() if key not in FROM_DATA}
    parts = part_keys(read_parts(config), recipe.parts)
    return Request(recipe, None, settings, training, config["data_config"], parts, config["data"], config)


def key_names(verb: Callable[..., Any]) -> list[str]:
    """The keys that every training takes: those in the signature of `train`, and those of its settings."""
    return list(dict.fromkeys([*keywords(verb), *FIELDS, *OTHER_NAMES]))


def further_keys(recipe: Recipe, verb: Callable[..., Any]) -> list[tuple[str, str, str]]:
    """Name, default and meaning of the keys of a training that are not in the signature of `train`."""
    own, common = own_keys(recipe), keywords(verb)
    names = {("lr_schedule" if name in own else name): name for name in FIELDS if name not in common}
    defaults = {name: recipe.training.get(name, FIELDS[name].default) for name in names.values()}
    return [(key, word(defaults[name]), FIELDS[name].description or "") for key, name in names.items()]


def keywords(verb: Callable[..., Any]) -> list[str]:
    """The names of a function's keys."""
    return [name for name, p in inspect.signature(verb).parameters.items() if p.kind is p.KEYWORD_ONLY]


def split_keys(
    recipe: Recipe, keys: Mapping[str, Any], common: Iterable[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys of the training (and its data), and of the model.

    Args:
        common: names of the keys that `train` has besides.
    Raises:
        UserError: for a key that neither has, with the nearest of both.
    """
    training, own = {}, own_keys(recipe)
    for key, value in keys.items():
        name = OTHER_NAMES.get(key, key)
        if key not in own and name not in FIELDS:
            names = list(dict.fromkeys([*common, *FIELDS, *OTHER_NAMES]))
            is_preset = not isinstance(recipe.config, ModuleConfig)
            see = f"`trilemma list {recipe.name}` shows its keys" if is_preset else ""
            takes = {"training": names, recipe.name: [*own, *recipe.parts]}
            raise unknown_key(key, takes, see, vocabulary.trained_with(key))
        if key not in own and name in training:
            raise UserError(f"{key} and {name} are the same key here; give one of them")
        if key not in own:
            training[name] = value
    return training, {key: value for key, value in keys.items() if key in own}


def split_parts(recipe: Recipe, keys: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys of the parts, as `NAME` and `NAME.key`, and the others.

    >>> from dataclasses import replace
    >>> recipe = replace(get_recipe("vae"), parts={"teacher": "vae"})
    >>> split_parts(recipe, {"teacher": {"steps": 5}, "teacher.lr": 0.1, "beta": 2})
    ({'teacher.steps': 5, 'teacher.lr': 0.1}, {'beta': 2})
    """
    parts, others = {}, {}
    for key, value in keys.items():
        name = key.partition(".")[0]
        if name in recipe.parts and isinstance(value, Mapping) and key == name:
            parts |= {f"{name}.{own}": setting for own, setting in value.items()}
        else:
            (parts if name in recipe.parts else others)[key] = value
    return parts, others


def check_settings(recipe: Recipe, settings: Mapping[str, Any]) -> None:
    """Refuse settings of a model, as far as they do not depend on the images.

    Raises:
        UserError: a value does not fit.
    """
    classes = {"n_classes": 1} if "n_classes" in type(recipe.config).model_fields else {}
    recipe.config.with_(**(classes | dict(settings)))


def training_config(base: Mapping[str, Any], user_keys: Mapping[str, Any]) -> TrainConfig:
    """The training keys: those of a recipe or a file with the user's in their place.

    A length of the user's replaces any other, a warm-up is not cut short, and betas of the recipe's go where the user's
    optimiser has none.

    Raises:
        UserError: a value does not fit.
    """
    replaced = set(LENGTHS) if any(name in user_keys for name in LENGTHS) else set()
    replaced |= {"betas"} if user_keys.get("optimizer") == "rmsprop" else set()
    warmup = {"warmup_share": None} if "warmup_images" in user_keys else {}
    return make(TrainConfig, {**{k: v for k, v in base.items() if k not in replaced}, **warmup, **user_keys})


def augmentations(augment: Any) -> tuple[str, ...]:
    """The words of `augment=`, checked.

    Raises:
        UserError: one is unknown.
    """
    words = augment.split(",") if isinstance(augment, str) else augment
    return check_transforms(tuple(word for word in words if word))
