"""The command line that trains a run again, with the keys that say all of it."""

from typing import Any

from trilemma.arguments import typed
from trilemma.config import ModelConfig, make
from trilemma.data.sources.consent import has_form
from trilemma.errors import UserError
from trilemma.migration import stated_variance
from trilemma.own import ModuleConfig
from trilemma.registry import Recipe, get_recipe
from trilemma.run.config import LENGTHS, TrainConfig
from trilemma.text import quoted


def command_of(config: dict[str, Any]) -> str | None:
    """The command line that trains a run again, made from the settings in its config.json, which may be a stranger's:
    the line that stands there is not used. None where they are not those of a training."""
    try:
        recipe, source = get_recipe(config["model"]), config["data"]
        model_config = make(type(recipe.config), stated_variance(config["model_config"]))
        training = make(TrainConfig, config["training"])
    except (UserError, LookupError, TypeError, AttributeError):
        return None
    return train_command(recipe, source, model_config, training) if has_form(source) else None


def train_command(recipe: Recipe, source: str, model_config: ModelConfig, training: TrainConfig) -> str:
    """The command line that trains this again; `source` is a word of `source_word`."""
    keys = command_keys(recipe, model_config, training)
    return quoted(["trilemma", *_imports(recipe), "train", recipe.name, source, *typed(keys)])


def _imports(recipe: Recipe) -> list[str]:
    """What has to be imported for a recipe of the user's to be known."""
    module = recipe.build.__module__
    known = module.partition(".")[0] in ("trilemma", "__main__") or isinstance(recipe.config, ModuleConfig)
    return [] if known else ["--import", module]


OTHER_NAMES = {"lr_schedule": "schedule"}


FROM_DATA = ("shape", "n_classes")  # settings of a model that the images decide


def own_keys(recipe: Recipe) -> list[str]:
    """The settings of a model that are keys of `train`."""
    given_as_it_is = isinstance(recipe.config, ModuleConfig)
    return [] if given_as_it_is else [key for key in type(recipe.config).model_fields if key != "shape"]


def command_keys(recipe: Recipe, config: ModelConfig, training: TrainConfig) -> dict[str, Any]:
    """The keys that say all that is trained, as they are typed: those that differ from the recipe's."""
    keys: dict[str, Any] = {name: getattr(training, name) for name in LENGTHS if getattr(training, name) is not None}
    keys |= {name: getattr(training, name) for name in ("batch", "lr", "seed")}
    own = own_keys(recipe)
    for name, field in TrainConfig.model_fields.items():
        value = getattr(training, name)
        plain = name in ("precision", "augment", "frames", "split_seed")  # said wherever they are not the common ones
        if name in _NOT_TYPED or value == (field.default if plain else recipe.training.get(name, field.default)):
            continue
        keys["lr_schedule" if name == "schedule" and name in own else name] = value
    if "warmup_images" in keys and training.warmup_share is None:
        del keys["warmup_share"]
    height, width = training.size or config.shape[1:]
    keys |= {"size": f"{height}x{width}", "channels": training.channels or config.shape[0]}
    if training.valid is not None:
        keys["valid"] = training.valid
    return keys | {
        name: getattr(config, name)
        for name in own
        if name not in FROM_DATA and getattr(config, name) != getattr(recipe.config, name)
    }


_NOT_TYPED = {*LENGTHS, "batch", "lr", "seed", "size", "channels", "valid", "device", "save_every", "sample_every"}
