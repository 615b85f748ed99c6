"""From words to a run folder: `train("vae", "fashion-mnist")`."""

import inspect
import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trilemma import __version__
from trilemma.arguments import typed
from trilemma.config import Config, ModelConfig, make
from trilemma.data import Data, Loader, load_data, texts_of
from trilemma.data.augment import check_augmentations
from trilemma.data.labels import UNUSED
from trilemma.data.layout import class_advice
from trilemma.data.sources import source_word
from trilemma.errors import UserError, with_hint
from trilemma.files import write_atomic, write_json
from trilemma.hardware import describe, pick_device, supports_fast_bf16, tune_allocator
from trilemma.modes import own_modes
from trilemma.pictures import grid, save_png
from trilemma.registry import Recipe, build, count_parameters, get_recipe
from trilemma.run import FORMAT, WEIGHTS, Run
from trilemma.training.card import model_card
from trilemma.training.checkpoint import write_tensors
from trilemma.training.config import LENGTHS, TrainConfig
from trilemma.training.fit import fit_model, fit_training
from trilemma.training.folder import earlier_fingerprints, open_run_folder
from trilemma.training.log import Display, read_log
from trilemma.training.loop import Trainer
from trilemma.training.optim import learning_rate
from trilemma.training.pictures import draw_curves, made_by_training
from trilemma.training.team import Stopped
from trilemma.types import Conditional, Model, Samples, players_of

CURVES, CARD, LAST_SAMPLES = "curves.png", "README.md", "samples/last.png"


@own_modes()
def train(
    model: str,
    data: str | Path | Data = "digits",
    *,
    steps: int | None = None,
    epochs: float | None = None,
    images: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    lr: float | dict[str, float] | None = None,
    seed: int = 0,
    size: int | str | tuple[int, int] | None = None,
    channels: int | None = None,
    valid: float | None = None,
    split_seed: int | None = None,
    frames: str | None = None,
    augment: str | Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    save_every: int | None = None,
    sample_every: int | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    **model_settings: Any,
) -> Run:
    """Train a model and leave a run folder; the same call again continues it, or does nothing if it is done.

    Args:
        model: a preset of `list_models()`.
        data: a word (digits, shapes, mnist, fashion-mnist, cifar10; shapes:20000 for that many images), a path, or
            data already loaded, which is loaded again where a key below says otherwise.
        steps, epochs, images, minutes: the length, one of them; the preset's own where none is given.
        batch: images per step. The preset's own where None.
        lr: learning rate of every phase, or one for each by name, as {"critic": 5e-4, "generator": 1e-3}. The preset's
            own where None.
        seed: of the weights, the order of the images and all noise; not of the data.
        size: height and width of the images, px; inferred where None.
        channels: 1 brings the images to grey, 3 to colour; inferred where None.
        valid: fraction held out for validation, where the data has no split of its own.
        split_seed: chooses the images held out, and draws data that are drawn; the `seed` of `load_data`. 0, or as
            `data` was loaded, where None.
        frames: of image files with several frames or pages: "first", or "all", each an image of its own. "first", or
            as `data` was loaded, where None.
        augment: changes to the training images: flip, shift, or both with a comma; "" for none. The preset's own
            where None.
        device: "auto" takes what the machine has.
        precision: "auto" is the preset's own, or what the machine gains from where it has none.
        save_every, sample_every: images between checkpoints, and between sample pictures.
        out: the run folder; runs/MODEL-DATA (-2, -3, ...) where None.
        quiet: print nothing.
        model_settings: fields of the model's config (`trilemma list MODEL` shows them).
    Raises:
        UserError: a wrong name, key or value, data that cannot be read, or a disk that refuses.
        Stopped: after Ctrl-C or SIGTERM, when the state is saved.
    """
    tune_allocator()
    recipe = get_recipe(model)
    _check_keys(recipe, model_settings)
    length = {"steps": steps, "epochs": epochs, "images": images, "minutes": minutes}
    changes = {"batch": batch, "lr": lr, "valid": valid, "save_every": save_every, "sample_every": sample_every}
    if augment is not None:
        words = augment.split(",") if isinstance(augment, str) else augment
        changes["augment"] = check_augmentations(tuple(word for word in words if word))
    changes["precision"] = precision if precision != "auto" else None
    training = _training(recipe, length, {**changes, "seed": seed, "device": device})
    place = pick_device(training.device)
    display = Display(model, quiet=quiet)
    try:
        keys = {"size": size, "channels": channels, "valid": training.valid, "seed": split_seed, "frames": frames}
        loaded = _load(model, data, out, keys)
        for note in () if isinstance(data, Data) else loaded.notes:
            display.say(f"  {note}")
        training = training.with_(
            size=loaded.shape[1:],
            channels=loaded.shape[0],
            valid=loaded.fraction,
            split_seed=loaded.seed,
            frames=loaded.frames,
            split_rule=loaded.rule,
        )
        model_config, fitted = fit_model(recipe, _model_config(recipe, loaded, model_settings))
        module = build(recipe, model_config, seed=seed).to(place)
        for player in players_of(module.phases):
            learning_rate(player, training)
        given = {name for name, value in (length | changes).items() if value is not None}
        training, more = fit_training(recipe, training, given, module, len(loaded.train))
        for note in fitted + more:
            display.say(f"  {note}")
        record = _record(recipe, loaded, model_config, training)
        _check_classes(module, recipe, loaded)
        folder = open_run_folder(f"{model}-{loaded.name}", record, out, display.say)
        try:
            run = _train_in(folder.path, recipe, loaded, module, training, record, display)
        finally:
            folder.close()
    finally:
        display.close()
    for text in run.warnings:  # they went by in the course of the training: the last lines have them together
        display.say(f"warning: {text}")
    return run


def _load(model: str, data: str | Path | Data, out: str | Path | None, keys: dict[str, Any]) -> Data:
    """The images, divided as those of a run of an earlier version that this training continues, or lies beside."""
    loaded = load_data(data, **keys)
    if isinstance(data, Data) or loaded.fingerprint in (marks := earlier_fingerprints(f"{model}-{loaded.name}", out)):
        return loaded
    earlier = load_data(data, **keys, rule="tenth") if marks else loaded
    return earlier if earlier.fingerprint in marks else loaded


def _train_in(
    path: Path,
    recipe: Recipe,
    data: Data,
    module: Model,
    training: TrainConfig,
    record: dict[str, Any],
    display: Display,
) -> Run:
    """Train in a folder that is ours, from where it was left."""
    device = next(module.parameters()).device
    bf16 = training.precision == "bf16" or (training.precision == "auto" and supports_fast_bf16(device))
    environment = {**describe(), "device": str(device), "precision": "bf16 autocast" if bf16 else "float32"}
    trainer = Trainer(module, data, training, path, display, bf16=bf16, command=record["command"])
    at = trainer.calendar
    if at.progress >= 1 and _has_results(path, at.step, module):
        display.say(f"{path} is trained already ({at.images:,} images); for more, give a greater length")
        _follow_images(path, record)
        return Run(path)
    write_json(path / "config.json", record)
    write_json(path / "environment.json", environment)
    display.say(
        f"{path}: {recipe.name}, {count_parameters(module):,} parameters, on {device} in {environment['precision']}"
    )
    with trainer.looks.pace.timed("baseline"):
        baseline = trainer.observer.baseline
    if baseline is not None:
        display.say(f"  the mean of the training images has an RMSE of {baseline:.3f} on the held-out images")
    if not (path / "batch.png").exists():
        batch = Loader(data.train, batch=64, seed=training.seed, augment=training.augment).batch_at(0)
        with _optional("batch.png", display):
            made = made_by_training(record["command"], "batch")
            save_png(grid(batch.image, texts=texts_of(batch, data)), path / "batch.png", made, replace=True)
    try:
        with trainer.signals():
            trainer.run()
            _write_results(path, recipe, trainer, record, environment)
    except Stopped as stopped:  # nothing but the line: who stops a training wants it to end
        display.say(f"{stopped}. Go on with: {_go_on(path, record['command'], training)}")
        raise
    return Run(path)


def _follow_images(path: Path, record: dict[str, Any]) -> None:
    """Let a finished run read its images where they lie now, if they were moved."""
    then = json.loads((path / "config.json").read_text("utf-8"))
    if then["data"] != record["data"]:
        command = then["command"].replace(shlex.quote(then["data"]), shlex.quote(record["data"]))
        write_json(path / "config.json", {**then, "data": record["data"], "command": command})


def _go_on(path: Path, command: str, training: TrainConfig) -> str:
    """The command line that continues a folder, with the keys that are no part of what is trained."""
    keys = {name: getattr(training, name) for name in ("save_every", "sample_every")}
    keys["device"] = training.device if training.device != "auto" else None
    given = [f"{name}={value}" for name, value in keys.items() if value is not None]
    return " ".join([command, *given, f"out={shlex.quote(str(path))}"])


@contextmanager
def _optional(name: str, display: Display) -> Iterator[None]:
    """Inside, a disk that refuses a file which can be missing costs a warning."""
    try:
        yield
    except (OSError, UserError) as error:
        display.say(f"warning: {name} was not written ({error}); going on without it")


def _has_results(path: Path, steps: int, module: torch.nn.Module) -> bool:
    """Whether all results of a training of so many steps are there; the summary, written last, says of how many."""
    names = [WEIGHTS, CURVES, CARD, *([LAST_SAMPLES] if isinstance(module, Samples) else [])]
    if not all((path / name).exists() for name in names):
        return False
    try:
        return json.loads((path / "summary.json").read_text("utf-8"))["steps"] == steps
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _write_results(
    path: Path, recipe: Recipe, trainer: Trainer, record: dict[str, Any], environment: dict[str, Any]
) -> None:
    """The weights to use, the last pictures, the summary and the card."""
    at = trainer.calendar
    with trainer.looks.pace.timed("picture"):
        trainer.observer.draw_samples(Path(LAST_SAMPLES).stem, last=True)
    with trainer.looks.pace.timed("judgement"):
        trainer.observer.judge()
    write_tensors(path / WEIGHTS, dict(trainer.model.state_dict()))
    with _optional(CURVES, trainer.display):
        draw_curves(read_log(path / "log.jsonl"), path / CURVES, record["command"], trainer.observer.baseline)
    summary = {
        **trainer.observer.figures,
        "images": at.images,
        "steps": at.step,
        "seconds": round(at.seconds, 3),
        "images_per_second": round(at.images / max(at.seconds, 1e-9), 1),
        "parameters": count_parameters(trainer.model),
        "best": trainer.observer.best,
        "mean_image_rmse": trainer.observer.baseline,
        "warnings": trainer.warnings,
    }
    with _optional(CARD, trainer.display):
        write_atomic(path / CARD, model_card(path, trainer.data.name, record, recipe, summary, environment))
    write_json(path / "summary.json", summary)


def _training(recipe: Recipe, length: dict[str, Any], changes: dict[str, Any]) -> TrainConfig:
    """The recipe's training keys with the given ones in their place; a given length replaces the recipe's."""
    given = {name: value for name, value in length.items() if value is not None}
    kept = {name: value for name, value in recipe.training.items() if not (given and name in LENGTHS)}
    return make(TrainConfig, {**kept, **given, **{k: v for k, v in changes.items() if v is not None}})


def _model_config(recipe: Recipe, data: Data, settings: dict[str, Any]) -> ModelConfig:
    known: dict[str, Any] = {"shape": data.shape}
    if "n_classes" in type(recipe.config).model_fields and data.classes:
        known["n_classes"] = len(data.classes)
    return recipe.config.with_(**{**known, **settings})


def _check_classes(module: Model, recipe: Recipe, data: Data) -> None:
    """Refuses data without classes for a model that learns from them."""
    if isinstance(module, Conditional) and not data.classes:
        because = next((f" ({note})" for note in data.notes if note.endswith(UNUSED)), "")
        raise UserError(
            f"{data.source} has no classes{because}, and {recipe.name} learns to draw a class: "
            f"{class_advice(data.notes)}, or choose a model without labels, such as vae"
        )


def _check_keys(recipe: Recipe, settings: dict[str, Any]) -> None:
    """A key that neither training nor the model knows is named with the nearest of both."""
    own = [name for name in type(recipe.config).model_fields if name != "shape"]
    common = [name for name, p in inspect.signature(train).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for key in settings:
        if key not in own:
            text = f'unknown key "{key}"; training takes {", ".join(common)}; {recipe.name} takes {", ".join(own)}'
            raise UserError(with_hint(text, key, [*common, *own]))


def _record(recipe: Recipe, data: Data, model_config: Config, training: TrainConfig) -> dict[str, Any]:
    """config.json: everything needed to train it again."""
    return {
        "format": FORMAT,
        "trilemma": __version__,
        "model": recipe.name,
        "data": source_word(data.source),
        "fingerprint": data.fingerprint,
        "n_images": sum(map(len, data.splits.values())),
        "classes": list(data.classes),
        "notes": list(data.notes),
        "model_config": model_config.to_json(),
        "training": training.to_json(),
        "command": _command(recipe, data, model_config, training),
    }


def _command(recipe: Recipe, data: Data, model_config: Config, training: TrainConfig) -> str:
    """The command line that trains this again."""
    keys: dict[str, Any] = {name: getattr(training, name) for name in LENGTHS if getattr(training, name) is not None}
    keys |= {name: getattr(training, name) for name in ("batch", "lr", "seed")}
    for name in ("precision", "augment", "frames", "split_seed"):
        if (value := getattr(training, name)) != TrainConfig.model_fields[name].default:
            keys[name] = value
    height, width = data.shape[1:]
    keys |= {"size": f"{height}x{width}", "channels": data.shape[0]}
    if training.valid is not None:
        keys["valid"] = training.valid
    for name in type(model_config).model_fields:
        value = getattr(model_config, name)
        if name not in ("shape", "n_classes") and value != getattr(recipe.config, name):
            keys[name] = value
    return shlex.join(["trilemma", "train", recipe.name, source_word(data.source), *typed(keys)])
