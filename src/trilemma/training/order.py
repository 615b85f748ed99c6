"""A training with all its keys in place, and the trainings or finished runs of its parts: checked before any data are
read."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trilemma.errors import UserError
from trilemma.hardware import pick_device
from trilemma.own import PAGE
from trilemma.registry import Recipe, get_recipe, list_models
from trilemma.run.config import LENGTHS, TrainConfig
from trilemma.run.hub import place_of
from trilemma.run.parts import PartConfig, with_lengths
from trilemma.run.record import read_config
from trilemma.run.run import Run, as_run
from trilemma.training.request import (
    READING,
    Request,
    augmentations,
    check_settings,
    split_keys,
    split_parts,
    training_config,
)


@dataclass(frozen=True)
class Order:
    """What is to be trained.

    settings: of the network; reading: keys of the data; user_keys: the user's keys of the training and of the data;
    keys: all that were given, by their own names, where it is a part of another training; shares_minutes: whether its
    minutes are only its share of those of that.
    """

    request: Request
    settings: Mapping[str, Any]
    training: TrainConfig
    reading: Mapping[str, Any]
    user_keys: Mapping[str, Any]
    keys: Mapping[str, Any]
    device: torch.device
    parts: "Mapping[str, Order | Run]"
    shares_minutes: bool = False

    @property
    def recipe(self) -> Recipe:
        """The recipe, as it is registered."""
        return self.request.recipe

    @property
    def fixed_keys(self) -> set[str]:
        """Names of the keys of the training that stay as they are, whatever the images."""
        return {*self.user_keys, *(self.request.training if self.request.again else ())}


def order_of(
    request: Request, named: Mapping[str, Any], others: Mapping[str, Any], common: Iterable[str] = ()
) -> Order:
    """The order of a request with the user's keys.

    Args:
        named: keys of the training and of the data; others: also those of the model and of its parts.
        common: names of the keys that `train` has, for messages.
    Raises:
        UserError: a key is unknown, a value does not fit, or a part is not a finished run.
    """
    recipe = request.recipe
    of_parts, rest = split_parts(recipe, others)
    more, own = split_keys(recipe, rest, common)
    settings = request.settings | own
    check_settings(recipe, settings)
    user_keys = {name: value for name, value in named.items() if value is not None} | more
    if "augment" in user_keys:
        user_keys["augment"] = augmentations(user_keys["augment"])
    training = training_config(request.training, {key: v for key, v in user_keys.items() if key not in READING})
    reading = {key: user_keys.get(key, request.reading.get(key)) for key in READING}
    parts_keys = {**request.parts, **of_parts}
    shares = _shared_minutes(recipe, parts_keys, user_keys["minutes"]) if "minutes" in user_keys else {}
    if shares:
        training = training.with_(minutes=min(shares.values()))
    parts = _parts(request, {f"{name}.minutes": share for name, share in shares.items()} | of_parts, training, shares)
    return Order(request, settings, training, reading, user_keys, dict(others), pick_device(training.device), parts)


def _shared_minutes(recipe: Recipe, keys: Mapping[str, Any], minutes: float) -> dict[str, float]:
    """Of the minutes of a training, the equal share of each part that is trained and has no length of its own, by its
    name; the training itself has the same."""
    models = list_models()
    trained = [name for name in recipe.parts if keys.get(name, recipe.parts[name]) in models]
    sharing = [name for name in trained if not any(f"{name}.{length}" in keys for length in LENGTHS)]
    return dict.fromkeys(sharing, minutes / (1 + len(sharing)))


def _parts(
    request: Request, user_keys: Mapping[str, Any], training: TrainConfig, sharing: Collection[str]
) -> "dict[str, Order | Run]":
    """The parts of a request; those that are trained have the seed and the device of the main training.

    Args:
        sharing: names of those that share its minutes.
    """
    models, keys = list_models(), {**request.parts, **user_keys}
    parts: dict[str, Order | Run] = {}
    for name, default in request.recipe.parts.items():
        own = {key.removeprefix(f"{name}."): value for key, value in keys.items() if key.startswith(f"{name}.")}
        source = keys.get(name, default)
        try:
            if source == default or source in models:
                parts[name] = _trained_part(source, own, training, shares_minutes=name in sharing)
            elif name not in user_keys:  # a path that a file names is not read
                raise UserError(f"it was taken from the run {source}: name it, as {name}=RUN")
            else:
                parts[name] = _finished_part(source, own, training.device)
        except UserError as error:
            raise UserError(f"the part {name}: {error}") from None
    return parts


def _trained_part(name: str, keys: Mapping[str, Any], main: TrainConfig, *, shares_minutes: bool) -> Order:
    """The order of a part that is trained first."""
    if of_data := [key for key in keys if key in READING]:
        raise UserError(f"it is trained on the images of the main training; give {of_data[0]}= without its name")
    recipe = get_recipe(name)
    request = Request(recipe, None, dict(recipe.as_part), dict(recipe.training))
    order = order_of(request, {"seed": main.seed, "device": main.device}, keys)
    return replace(order, shares_minutes=shares_minutes)


def _finished_part(source: Any, keys: Mapping[str, Any], device: str) -> Run:
    """The run that a part is taken from."""
    folder = source.path if isinstance(source, Run) else source
    if isinstance(folder, str | Path) and "module" in read_config(place_of(folder))["model_config"]:
        raise UserError(
            f"{folder} was trained on a module of your own, which its run folder cannot build again; register a recipe "
            f"that builds it, and give a run of that; see {PAGE}"
        )
    run = Run(as_run(source).path, device=device)  # with a model of its own, for a part is frozen and moved
    if keys:
        raise UserError(f"{run.path} is a finished run, which is not trained again; leave {next(iter(keys))}= out")
    if run.unfinished is not None:
        raise UserError(f"{run.path} is {run.unfinished}; resume its training first, or give a finished run")
    return run


def after_parts(order: Order, recorded: Mapping[str, PartConfig]) -> Order:
    """The order for a folder where the main training has begun: parts that share its minutes stay as long as they were,
    and the main training has the minutes that they left.

    Args:
        recorded: what the config.json there says of the parts.
    Raises:
        UserError: they left none.
    """
    trained: dict[str, Order] = {}
    minutes, spent = order.user_keys.get("minutes", 0.0), 0.0
    for name, part in order.parts.items():
        if isinstance(part, Order) and part.shares_minutes and recorded[name].weights is not None:
            keys = with_lengths(part.keys, recorded[name].keys)
            trained[name] = _trained_part(part.recipe.name, keys, order.training, shares_minutes=True)
            spent += trained[name].user_keys.get("minutes", (recorded[name].seconds or 0.0) / 60)
    if not trained:
        return order
    if spent >= minutes:
        raise UserError(
            f"minutes={minutes:g}: the training of {' and '.join(trained)} took {spent:.3g} of them already; give "
            "more, or another out="
        )
    training = order.training.with_(minutes=minutes - spent)
    return replace(order, training=training, parts={**order.parts, **trained})
