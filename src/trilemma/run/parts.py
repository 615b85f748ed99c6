"""What a config.json says of the parts of a model: enough to build them, and to train them again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from trilemma.config import Config, make
from trilemma.errors import UserError
from trilemma.registry import Blueprint, recipe_named_in
from trilemma.run.config import LENGTHS


class Check(Config):
    """What was measured of an autoencoder before a model was trained on its codes (training/gates.py)."""

    model_config = ConfigDict(allow_inf_nan=True)  # one that is not finite is refused, and not written

    reconstruction: float = Field(description="distance of a reconstruction, over that of two different images")
    shrunk: float = Field(description="the same of images shrunk to the size of the map and enlarged again")
    gain: float = Field(description="how many times noise on the codes comes out in the images")


class PartConfig(Config):
    """A part of a model, which was trained before it, or taken from a finished run."""

    recipe: str = Field(max_length=100, description="by which it was trained")
    settings: dict[str, Any] = Field(description="of its network")
    keys: dict[str, Any] = Field(default={}, description="of its training that differ from the recipe's")
    shares_minutes: bool = Field(default=False, description="whether its minutes are its share of those of the whole")
    run: str | None = Field(default=None, max_length=4096, description="the finished run that it was taken from")
    weights: str | None = Field(default=None, max_length=64, description="their SHA-256, once they are trained")
    seconds: float | None = Field(default=None, ge=0, description="of its training and its parts', once it is trained")
    check: Check | None = Field(default=None, description="of an autoencoder, once it was measured")
    parts: dict[str, "PartConfig"] = Field(default={}, description="its own parts")


def read_parts(config: Mapping[str, Any]) -> dict[str, PartConfig]:
    """The parts that a config.json has, by name.

    Raises:
        ValueError: one is not as this version writes it.
    """
    return {
        name: PartConfig.model_validate_json(json.dumps(part), strict=True) for name, part in config["parts"].items()
    }


def blueprints(parts: Mapping[str, PartConfig], file: Path) -> dict[str, Blueprint]:
    """What the parts are built from.

    Args:
        file: the config.json, for messages.
    Raises:
        UserError: a recipe is unknown, or settings do not fit it.
    """
    plans = {}
    for name, part in parts.items():
        recipe = recipe_named_in(file, part.recipe)
        try:
            config = make(type(recipe.config), part.settings)
        except UserError as error:
            raise UserError(f"{file}: in the settings of the part {name}, {error}") from None
        plans[name] = Blueprint(recipe, config, blueprints(part.parts, file))
    return plans


def part_keys(parts: Mapping[str, PartConfig], defaults: Mapping[str, str]) -> dict[str, Any]:
    """The keys of `train` that give these parts, as they are typed; `defaults`: the recipes that need no key."""
    keys: dict[str, Any] = {}
    for name, part in parts.items():
        source = part.run or part.recipe
        keys |= {name: source} if source != defaults.get(name) else {}
        keys |= {f"{name}.{key}": value for key, value in part.keys.items()}
    return keys


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the parts of a config.json these, by the key of `train` that says it."""
    return part_keys(read_parts(config), {})


def with_earlier_parts(now: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose parts, where they have the weights of those `then`, are said to lie where those lay, and where
    their only length is a share of the minutes of the whole, to be as long as those."""
    earlier = then.get("parts", {})
    parts = now.get("parts", {}).items()
    return {
        **now,
        "parts": {name: _as_earlier(part, earlier[name]) if name in earlier else part for name, part in parts},
    }


def _as_earlier(now: dict[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    if now["run"] is not None and now["weights"] == then.get("weights"):
        now = {**now, "run": then.get("run")}
    return {**now, "keys": with_lengths(now["keys"], then.get("keys", {}))} if now.get("shares_minutes") else now


def with_lengths(keys: Mapping[str, Any], of: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a training, with the length that others say."""
    own = {key: value for key, value in keys.items() if key not in LENGTHS}
    return own | {key: value for key, value in of.items() if key in LENGTHS}
