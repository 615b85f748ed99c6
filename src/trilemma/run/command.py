"""The command line that trains a run again, with the keys that say all of it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from trilemma.arguments import typed
from trilemma.config import ModelConfig, make
from trilemma.data.config import DataConfig
from trilemma.data.sources.consent import has_form
from trilemma.errors import UserError
from trilemma.own import ModuleConfig
from trilemma.registry import Recipe, get_recipe
from trilemma.run.config import LENGTHS, TrainConfig
from trilemma.run.parts import PartConfig, part_keys, read_parts
from trilemma.text import quoted


def command_of(config: dict[str, Any]) -> str | None:
    """The command line that trains a run again, made from the settings in its config.json, which may be a stranger's:
    the line that stands there is not used. None where they are not those of a training."""
    try:
        recipe, source = get_recipe(config["model"]), config["data"]
        model_config = make(type(recipe.config), config["model_config"])
        data_config, training = make(DataConfig, config["data_config"]), make(TrainConfig, config["training"])
        command = train_command(recipe, source, model_config, data_config, training, read_parts(config))
        return command if has_form(source) else None
    except (UserError, LookupError, TypeError, ValueError, AttributeError):
        return None


def train_command(
    recipe: Recipe,
    source: str,
    model_config: ModelConfig,
    data_config: DataConfig,
    training: TrainConfig,
    parts: Mapping[str, PartConfig] = MappingProxyType({}),
) -> str:
    """The command line that trains this again; `source` is a word of `source_word`."""
    keys = command_keys(recipe, model_config, data_config, training) | part_keys(parts, recipe.parts)
    imports = dict.fromkeys(word for own in _recipes_of(recipe, parts) for word in _imports(own))
    options = [word for module in imports for word in ("--import", module)]
    return quoted(["trilemma", *options, "train", recipe.name, source, *typed(keys)])


def _recipes_of(recipe: Recipe, parts: Mapping[str, PartConfig]) -> list[Recipe]:
    """A recipe and those of its parts."""
    others = [own for part in parts.values() for own in _recipes_of(get_recipe(part.recipe), part.parts)]
    return [recipe, *others]


def _imports(recipe: Recipe) -> list[str]:
    """What has to be imported for a recipe of the user's to be known."""
    module = recipe.build.__module__
    is_known = module.partition(".")[0] in ("trilemma", "__main__") or isinstance(recipe.config, ModuleConfig)
    return [] if is_known else [module]


OTHER_NAMES = {"lr_schedule": "schedule"}
COMMON = ("precision", "augment")  # said wherever they are not the common ones, also where the recipe has them
ELSEWHERE = {
    *LENGTHS,
    "batch",
    "lr",
    "seed",
    "device",
    "save_every",
    "sample_every",
    "keep_weights",
    "shard",
}  # typed first, or never
TYPED = [name for name in TrainConfig.model_fields if name not in ELSEWHERE]
DATA_DEFAULTS = {"split_seed": 0, "split_rule": "enough", "frames": "first"}  # of `load_data`, which are not typed
NOT_TYPED = ("shape", "words", "examples", "data_mean")  # settings of a model that are not keys of `train`
FROM_DATA = (*NOT_TYPED, "n_classes")  # those that the images decide


def own_keys(recipe: Recipe) -> list[str]:
    """The settings of a model that are keys of `train`."""
    given_as_it_is = isinstance(recipe.config, ModuleConfig)
    return [] if given_as_it_is else [key for key in type(recipe.config).model_fields if key not in NOT_TYPED]


def command_keys(recipe: Recipe, config: ModelConfig, data_config: DataConfig, training: TrainConfig) -> dict[str, Any]:
    """The keys that say all that is trained, as they are typed: those that differ from the recipe's."""
    keys: dict[str, Any] = {name: getattr(training, name) for name in LENGTHS if getattr(training, name) is not None}
    keys |= {name: getattr(training, name) for name in ("batch", "lr", "seed")}
    own, values = own_keys(recipe), training.model_dump()
    for name in TYPED:
        default = TrainConfig.model_fields[name].default
        if values[name] == (default if name in COMMON else recipe.training.get(name, default)):
            continue
        keys["lr_schedule" if name == "schedule" and name in own else name] = values[name]
    if "warmup_images" in keys and training.warmup_share is None:
        del keys["warmup_share"]
    keys |= _data_keys(config, data_config)
    settings, defaults = dict(config), dict(recipe.config)
    return keys | {key: settings[key] for key in own if key not in FROM_DATA and settings[key] != defaults[key]}


def _data_keys(config: ModelConfig, data_config: DataConfig) -> dict[str, Any]:
    """Those of how the images are read."""
    height, width = data_config.size or config.shape[1:]
    keys = {"size": f"{height}x{width}", "channels": data_config.channels or config.shape[0]}
    values = data_config.model_dump(exclude={"size", "channels"})
    return keys | {name: value for name, value in values.items() if value not in (None, DATA_DEFAULTS.get(name))}
