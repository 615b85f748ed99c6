"""From an order and its images to a training that can begin: settings that fit the images, the network, and what
config.json says of both."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trilemma import __version__
from trilemma.announce import announced
from trilemma.config import ModelConfig
from trilemma.data import Data, batches, load_data
from trilemma.data.config import config_of_data, load_keys
from trilemma.data.load import Source, source_word
from trilemma.data.sources.folder_layout import class_advice
from trilemma.data.sources.labels import UNUSED
from trilemma.errors import UserError
from trilemma.files import sha256_of
from trilemma.own import try_losses
from trilemma.registry import Parts, Recipe, build, without_memory
from trilemma.run.command import train_command
from trilemma.run.config import TrainConfig
from trilemma.run.folder import earlier_fingerprints
from trilemma.run.locate import WEIGHTS
from trilemma.run.migration import FORMAT
from trilemma.run.parts import PartConfig, blueprints
from trilemma.run.record import fingerprints
from trilemma.run.run import Run
from trilemma.tokeniser import LENGTH, MOST_EXAMPLES, examples_of, vocabulary_of, words_of
from trilemma.training.adversarial import few_images
from trilemma.training.fit import fit_model, fit_training, too_narrow
from trilemma.training.optim import check_players
from trilemma.training.order import Order
from trilemma.training.validation import check_monitor
from trilemma.types import Conditional, Model, ReadsCaptions, config_of, count_players, flags
from trilemma.words import counted

SPREAD_IMAGES = 4096  # whose mean and standard deviation are measured


@dataclass(frozen=True)
class Plan:
    """A training that can begin.

    recipe, config, training: as they fit the images; module: with its first weights, on its device, or without memory
    until its parts are trained; record: the content of config.json.
    """

    order: Order
    recipe: Recipe
    config: ModelConfig
    training: TrainConfig
    data: Data
    module: Model
    record: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"{self.recipe.name}-{self.data.name}"

    def with_parts(self, modules: Mapping[str, nn.Module], records: Mapping[str, Any]) -> "Plan":
        """The plan with its parts as they are after their training, and what config.json says of them."""
        module = build(self.recipe, self.config, seed=self.training.seed, parts=modules).to(self.order.device)
        return replace(self, module=module, record={**self.record, "parts": dict(records)})


def read_images(order: Order, source: Source, out: str | Path | None, *, quiet: bool) -> Data:
    """The images, divided as those of a run of an earlier version that this training continues, or lies beside."""
    keys = load_keys(order.reading)
    with announced(None if quiet else "reading the images"):
        data = load_data(source, **keys)
        if keys["rule"] is not None or isinstance(source, Data):
            return data
        if data.fingerprint in (marks := earlier_fingerprints(f"{order.recipe.name}-{data.name}", out)):
            return data
        earlier = load_data(source, **{**keys, "rule": "tenth"}) if marks else data
        return earlier if earlier.fingerprint in marks else data


def plan_of(order: Order, data: Data, say: Callable[[str], None]) -> Plan:
    """The plan of an order for these images.

    Args:
        say: called with what was changed to fit the images.
    Raises:
        UserError: the model is for other images, or its players, phases or figures do not fit.
    """
    config, fitted = fit_model(order.recipe, config_for(order.recipe, data, order.settings))
    recipe = order.recipe if order.request.module is None else replace(order.recipe, config=config)
    parts = {name: part_config(name, part, data) for name, part in order.parts.items()}
    modules: Parts = {
        **blueprints(parts, Path()),
        **{name: run.model for name, run in order.parts.items() if isinstance(run, Run)},
    }
    if recipe.parts:
        module = without_memory(recipe, config, modules)
    else:
        module = build(recipe, config, seed=order.training.seed).to(order.device)
    if order.request.module is not None:
        _check_module(module, data)
    training, changed = fit_training(recipe, order.training, order.fixed_keys, module, len(data.train))
    for note in fitted + changed:
        say(f"  {note}")
    if isinstance(module, ReadsCaptions):
        for note in _caption_notes(module, data.train.captions or ()):
            say(f"  {note}")
    if count_players(module.phases) > 1 and (note := few_images(len(data.train), training.augment, config)):
        say(f"  note: {note}")
    if note := too_narrow(module, config):
        say(f"  note: {note}")
    for key, other in config.without_effect.items():
        if key in order.keys:
            say(f"  note: {key}= has no effect with {other}")
    check_players(module.phases, training)
    flags(module).check_batch(training.batch)
    _check_classes(module, recipe, data)
    if order.user_keys.get("monitor") is not None:
        whole = build(recipe, config, parts=modules).to(order.device) if recipe.parts else module
        check_monitor(whole, data, training)
    return Plan(order, recipe, config, training, data, module, _record(recipe, data, config, training, parts, module))


def _caption_notes(module: ReadsCaptions, captions: Sequence[str]) -> Iterator[str]:
    """What the model does not read of training captions, or reads in bytes, in words."""
    if cut := module.captions_cut(captions):
        yield f"{counted(cut, 'caption')} of the training images {'is' if cut == 1 else 'are'} cut at {LENGTH} tokens"
    different = dict.fromkeys(captions)
    words = {word for caption in different for word in words_of(caption)}
    if spelled := {word for caption in different for word in module.unknown_words(caption)}:
        have = "has no token, and is" if len(spelled) == 1 else "have no token, and are"
        yield f"{len(spelled):,} of the {len(words):,} words of the training captions {have} spelled"


def config_for(recipe: Recipe, data: Data, settings: Mapping[str, Any]) -> ModelConfig:
    """The model's settings for these images: their shape, and where it has keys for them their classes, the words of
    their captions, their mean and their spread."""
    from_data: dict[str, Any] = {"shape": data.shape}
    keys = type(recipe.config).model_fields
    if "n_classes" in keys and data.classes:
        from_data["n_classes"] = len(data.classes)
    if "data_std" in keys and not recipe.parts:  # with parts it is of codes, which are standardised
        measured = mean_and_spread(data.train.images)
        from_data["data_mean"] = measured["data_mean"]
        if recipe.config.get("data_std") is None:
            from_data["data_std"] = measured["data_std"]
    config = recipe.config.with_(**{**from_data, **settings})
    if config.get("captions") and (captions := data.train.captions):
        return config.with_(words=vocabulary_of(captions), examples=examples_of(captions, MOST_EXAMPLES))
    return config


def mean_and_spread(images: Tensor) -> dict[str, float]:
    """data_mean and data_std: mean, in four decimals, and standard deviation, in two digits, of uint8 images
    (N, C, H, W) in [-1, 1], of SPREAD_IMAGES of them."""
    index = torch.linspace(0, len(images) - 1, min(len(images), SPREAD_IMAGES)).long()
    counts = torch.stack([torch.bincount(images[k].flatten(), minlength=256) for k in index.tolist()]).sum(0)
    shares, levels = counts.double() / counts.sum(), torch.arange(256, dtype=torch.float64)
    mean = (shares * levels).sum()
    variance = (shares * levels.square()).sum() - mean.square()
    spread = float(f"{2 / 255 * math.sqrt(max(0.0, float(variance))):.2g}")
    return {"data_mean": round(2 / 255 * float(mean) - 1, 4), "data_std": max(0.01, spread)}


def part_config(name: str, part: Order | Run, data: Data) -> PartConfig:
    """What config.json says of a part.

    Raises:
        UserError: it is for other images.
    """
    if isinstance(part, Order):
        config, _ = fit_model(part.recipe, config_for(part.recipe, data, part.settings))
        parts = {own: part_config(own, inner, data) for own, inner in part.parts.items()}
        keys = {
            key: str(value.path.absolute()) if isinstance(value, Run) else value for key, value in part.keys.items()
        }
        return PartConfig(
            recipe=part.recipe.name,
            settings=config.to_json(),
            keys=keys,
            shares_minutes=part.shares_minutes,
            parts=parts,
        )
    if part.model_config.shape != data.shape:
        raise UserError(
            f"{name}={part.path} is for images of {part.model_config.shape}, and {data.name} has {data.shape}; give a "
            "run that was trained on images of this shape, or other size= and channels="
        )
    if flags(part.model).n_classes and list(part.config["classes"]) != list(data.classes):
        own, here = (", ".join(classes) or "none" for classes in (part.config["classes"], data.classes))
        raise UserError(
            f"{name}={part.path} draws the classes {own}; those of {data.name} are {here}: give images of the same "
            "classes, or a run without them"
        )
    return PartConfig(
        recipe=part.recipe.name,
        settings=part.model_config.to_json(),
        run=str(part.path.absolute()),
        weights=sha256_of(part.path / WEIGHTS),
        parts=part.config["parts"],
    )


def _check_module(module: Model, data: Data) -> None:
    """Refuse a module of the user's that is for other images, or whose losses cannot be trained."""
    config = config_of(module)
    if config is not None and tuple(config.shape) != data.shape:
        raise UserError(f"{type(module).__name__} is for images of {config.shape}, and {data.name} has {data.shape}")
    batch = next(batches(data.train, 4, next(module.parameters()).device))
    unlabelled = replace(batch, condition=replace(batch.condition, label=None))
    try_losses(module, batch if isinstance(module, Conditional) else unlabelled)


def _check_classes(module: Model, recipe: Recipe, data: Data) -> None:
    """Refuse data without classes, or captions, for a model that learns from them."""
    if isinstance(module, Conditional) and not data.classes:
        because = next((f" ({note})" for note in data.notes if note.endswith(UNUSED)), "")
        raise UserError(
            f"{data.source} has no classes{because}, and {recipe.name} learns to draw a class: "
            f"{class_advice(data.notes)}, or choose a model without labels, such as vae"
        )
    if isinstance(module, ReadsCaptions) and data.train.captions is None:
        without = "choose a model without captions, such as diffusion"
        raise UserError(
            f"{data.source} has no captions, and {recipe.name} learns to draw what they say: put a text file beside "
            "each image (a.txt for a.png) or a column caption into metadata.csv, or "
            f"{without if recipe.config.get('captions') else 'leave captions=true out'}"
        )


def _record(
    recipe: Recipe,
    data: Data,
    config: ModelConfig,
    training: TrainConfig,
    parts: Mapping[str, PartConfig],
    module: Model,
) -> dict[str, Any]:
    """config.json: everything needed to train it again."""
    word, data_config = source_word(data.source), config_of_data(data)
    return {
        "format": FORMAT,
        "trilemma": __version__,
        "model": recipe.name,
        "data": word,
        **fingerprints(data, captions=isinstance(module, ReadsCaptions)),
        "n_images": sum(map(len, data.splits.values())),
        "classes": list(data.classes),
        "notes": list(data.notes),
        "model_config": config.to_json(),
        "data_config": data_config.to_json(),
        "parts": {name: part.to_json() for name, part in parts.items()},
        "training": training.to_json(),
        "command": train_command(recipe, word, config, data_config, training, parts),
    }
