"""From words to a run folder: `train("vae", "fashion-mnist")`."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from trilemma import __version__
from trilemma.announce import announced
from trilemma.config import ModelConfig
from trilemma.data import Data, Loader, batches, load_data, texts_of
from trilemma.data.load import Source, source_word
from trilemma.data.sources.arrays import GIVEN
from trilemma.data.sources.consent import check_allowed
from trilemma.data.sources.folder_layout import class_advice
from trilemma.data.sources.labels import UNUSED
from trilemma.data.transform import check_transforms
from trilemma.errors import Diverged, UserError
from trilemma.files import sha256_of, write_atomic, write_json
from trilemma.hardware import describe, pick_device, supports_fast_bf16, tune_allocator
from trilemma.modes import own_modes
from trilemma.own import try_losses
from trilemma.pictures.grid import grid
from trilemma.pictures.png import save_png
from trilemma.progress import Display
from trilemma.registry import Recipe, build, count_parameters
from trilemma.run.command import OTHER_NAMES, command_of, train_command
from trilemma.run.config import TrainConfig
from trilemma.run.folder import earlier_fingerprints, open_run_folder
from trilemma.run.log import read_log
from trilemma.run.record import CONFIG, DIVERGED, FORMAT, HASH, SUMMARY, read_config, read_summary, written_hash
from trilemma.run.run import WEIGHTS, Run
from trilemma.run.tensor_files import write_tensors
from trilemma.text import quoted
from trilemma.training.card import model_card
from trilemma.training.fit import fit_model, fit_training
from trilemma.training.loop import Trainer
from trilemma.training.optim import check_players
from trilemma.training.pictures import draw_curves, made_by_training
from trilemma.training.request import READING, check_settings, request_of, split_keys, training_config
from trilemma.training.signals import Stopped
from trilemma.training.validation import check_monitor
from trilemma.types import Conditional, Model, Samples, config_of
from trilemma.values import checked_call

MODEL = "a model's name, the config.json of a run, or a module of your own"
CURVES, CARD, LAST_SAMPLES = "curves.png", "README.md", "samples/last.png"


@checked_call
@own_modes()
def train(
    model: Annotated[str | Path | nn.Module, Field(description=MODEL)],
    data: Source | None = None,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    images: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    lr: float | dict[str, float] | None = None,
    seed: int | None = None,
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
    **settings: Any,
) -> Run:
    """Train a model and leave a run folder; the same call again continues it, or does nothing if it is done.

    Args:
        model: a preset of `list_models()`; the config.json of a run, which trains the same again, in a new folder; or a
            module of your own (docs/own-model.md), a copy of which is trained from the weights that it has.
        data: a word (digits, shapes, mnist, fashion-mnist, cifar10; shapes:20000 for that many images), a path, an
            array or tensor of images, a pair (images, labels), or data already loaded, which is loaded again where a
            key below says otherwise. Where None, digits, or the data of the config.json.
        steps, epochs, images, minutes: the length, one of them; the preset's own where none is given.
        batch: images per step. The preset's own where None.
        lr: learning rate of every player, or one for each by name, as {"critic": 5e-4, "generator": 1e-3}. The preset's
            own where None.
        seed: of the weights, the order of the images and all noise; not of the data. 0, or that of the config.json,
            where None.
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
        settings: the other fields of `TrainConfig` (optimizer, betas, weight_decay, clip, lr_schedule, warmup_images,
            ema_halflife_images, monitor, ...), and those of the model's config: `trilemma list MODEL` shows both.
    Raises:
        UserError: a wrong name, key or value, data that cannot be read, or a disk that refuses.
        Diverged: if its numbers are not finite at the end, or stop being finite for good.
        Stopped: after Ctrl-C or SIGTERM, when the state is saved.
    """
    tune_allocator()
    request = request_of(model)
    recipe = request.recipe
    more, own = split_keys(recipe, settings, _keywords(train))
    own = request.settings | own
    check_settings(recipe, own)
    length = {"steps": steps, "epochs": epochs, "images": images, "minutes": minutes}
    changes = {"batch": batch, "lr": lr, "seed": seed, "save_every": save_every, "sample_every": sample_every}
    changes |= {"precision": precision if precision != "auto" else None, "augment": _augmentations(augment)}
    given = {name: value for name, value in (length | changes).items() if value is not None} | more
    training = training_config(request.training, {**given, "device": device})
    place = pick_device(training.device)
    reading = {"size": size, "channels": channels, "valid": valid, "split_seed": split_seed, "frames": frames} | more
    reading = {name: reading[name] if reading.get(name) is not None else request.training.get(name) for name in READING}
    source = data if data is not None else request.data if request.data is not None else "digits"
    if data is None and request.again is not None:
        check_allowed(source, model)
    display = Display(recipe.name, quiet=quiet)
    try:
        with announced(None if quiet else "reading the images"):
            loaded = _load(recipe.name, source, out, reading)
        for note in () if isinstance(source, Data) else loaded.notes:
            display.say(f"  {note}")
        if request.again and data is None and loaded.fingerprint != request.again:
            display.say(f"  note: the images are not those of {model}: they, or how they are read, have changed")
        training = training.with_(**_as_read(loaded))
        model_config, fitted = fit_model(recipe, _model_config(recipe, loaded, own))
        if request.module is not None:
            recipe = replace(recipe, config=model_config)
        module = build(recipe, model_config, seed=training.seed).to(place)
        if request.module is not None:
            _check_module(module, loaded, place)
        taken = {*given, *request.training} if request.again else set(given)
        training, changed = fit_training(recipe, training, taken, module, len(loaded.train))
        for note in fitted + changed:
            display.say(f"  {note}")
        check_players(module.phases, training)
        _check_classes(module, recipe, loaded)
        if more.get("monitor") is not None:
            check_monitor(module, loaded, training)
        record = _record(recipe, loaded, model_config, training)
        name = f"{recipe.name}-{loaded.name}"
        folder = open_run_folder(name, record, out, display.say, new=request.again is not None)
        try:
            _train_in(folder.path, recipe, loaded, module, training, record, display)
        except Diverged as error:
            another = "" if out is None else " and another out="
            raise Diverged(f"{folder.path}: {error}. Try lr={_lower_rate(training.lr, recipe)}{another}") from None
        finally:
            folder.close()
    finally:
        display.close()
    run = Run(folder.path, model=request.module, data=None if loaded.given is None else loaded)
    for text in run.warnings:  # they went by in the course of the training: the last lines have them together
        display.say(f"warning: {text}")
    return run


def _as_read(data: Data) -> dict[str, Any]:
    """The keys of a training that say how its images were read."""
    return {
        "size": data.shape[1:],
        "channels": data.shape[0],
        "valid": data.fraction,
        "split_seed": data.seed,
        "frames": data.frames,
        "split_rule": data.rule,
    }


def _keywords(function: Callable[..., Any]) -> list[str]:
    """The names of a function's keys."""
    return [name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]


def _augmentations(augment: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The words, checked."""
    if augment is None:
        return None
    words = augment.split(",") if isinstance(augment, str) else augment
    return check_transforms(tuple(word for word in words if word))


def _check_module(module: nn.Module, data: Data, device: torch.device) -> None:
    """Refuse a module of the user's that is for other images, or whose losses cannot be trained."""
    config = config_of(module)
    if config is not None and tuple(config.shape) != data.shape:
        raise UserError(f"{type(module).__name__} is for images of {config.shape}, and {data.name} has {data.shape}")
    batch = next(batches(data.train, 4, device))
    try_losses(
        module,
        batch if isinstance(module, Conditional) else replace(batch, condition=replace(batch.condition, label=None)),
    )


def _load(name: str, data: Source, out: str | Path | None, reading: dict[str, Any]) -> Data:
    """The images, divided as those of a run of an earlier version that this training continues, or lies beside."""
    keys = {key: reading[key] for key in ("size", "channels", "valid", "frames")} | {"seed": reading["split_seed"]}
    rule = reading["split_rule"]
    loaded = load_data(data, **keys, rule=rule)
    if rule is not None or isinstance(data, Data):
        return loaded
    if loaded.fingerprint in (marks := earlier_fingerprints(f"{name}-{loaded.name}", out)):
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
) -> None:
    """Train in a folder that is ours, from where it was left."""
    device = next(module.parameters()).device
    bf16 = training.precision == "bf16" or (training.precision == "auto" and supports_fast_bf16(device))
    environment = {**describe(), "device": str(device), "precision": "bf16 autocast" if bf16 else "float32"}
    trainer = Trainer(module, data, training, path, display, bf16=bf16, command=record["command"])
    at = trainer.calendar
    if at.progress >= 1 and _has_results(path, at.step, module):
        display.say(f"{path} is already trained ({at.images:,} images); to train longer, give a greater length")
        _follow_images(path, record)
        return
    write_json(path / CONFIG, record)
    write_json(path / "environment.json", environment)
    display.say(
        f"{path}: {recipe.name}, {count_parameters(module):,} parameters, on {device} in {environment['precision']}"
    )
    with trainer.evaluation.budget.timed("baseline"):
        baseline = trainer.validation.baseline
    if baseline is not None:
        display.say(f"  the mean of the training images has an RMSE of {baseline:.3f} on the held-out images")
    if not (path / "batch.png").exists():
        batch = Loader(data.train, batch=64, seed=training.seed, augment=training.augment).batch_at(0)
        with _optional("batch.png", display):
            made = made_by_training(record["command"], "batch")
            save_png(grid(batch.image, texts=texts_of(batch, data)), path / "batch.png", made, replace=True)
    try:
        with trainer.signals.handled():
            trainer.run()
            _write_results(path, recipe, trainer, record, environment)
    except Stopped as stopped:  # nothing but the line: who stops a training wants it to end
        display.say(f"{stopped}. Resume with: {_go_on(path, record, training)}")
        raise
    except Diverged as error:
        text = f"the training diverged: {error}"
        _write_diverged(path, trainer, text)
        raise Diverged(text) from None


def _lower_rate(lr: float | dict[str, float], recipe: Recipe) -> str:
    """The learning rate to try after one with which a training diverged: the recipe's own, else a tenth."""
    if isinstance(lr, dict):
        return ",".join(f"{player}:{_lower_rate(rate, recipe)}" for player, rate in lr.items())
    usual = recipe.training.get("lr", TrainConfig.model_fields["lr"].default)
    usual = min(usual.values()) if isinstance(usual, dict) else usual
    return f"{usual if usual < lr else lr / 10:g}"


def _follow_images(path: Path, record: dict[str, Any]) -> None:
    """Let a finished run read its images where they lie now, if they were moved."""
    then = read_config(path)
    if then["data"] != record["data"]:
        moved = {**then, "data": record["data"]}
        write_json(path / CONFIG, {**moved, "command": command_of(moved) or record["command"]})


def _go_on(path: Path, record: dict[str, Any], training: TrainConfig) -> str:
    """The command line that continues a folder, with the keys that are no part of what is trained."""
    if "module" in record["model_config"] or record["data"].startswith(f"{GIVEN}:"):  # which cannot be typed
        return f"the same call of trilemma.train, with out={str(path)!r}"
    keys = {name: getattr(training, name) for name in ("save_every", "sample_every")}
    keys["device"] = training.device if training.device != "auto" else None
    given = [f"{name}={value}" for name, value in keys.items() if value is not None]
    return f"{record['command']} {quoted([*given, f'out={path}'])}"


@contextmanager
def _optional(name: str, display: Display) -> Iterator[None]:
    """Inside, a disk that refuses a file which can be missing costs a warning."""
    try:
        yield
    except (OSError, UserError) as error:
        display.say(f"warning: {name} was not written ({error}); continuing without it")


def _has_results(path: Path, steps: int, module: torch.nn.Module) -> bool:
    """Whether all results of a training of so many steps are there, the weights as they were written; the summary,
    written last, says of how many."""
    names = [WEIGHTS, CURVES, CARD, *([LAST_SAMPLES] if isinstance(module, Samples) else [])]
    if not all((path / name).exists() for name in names):
        return False
    try:
        written = written_hash(path)
        summary = read_summary(path)
        is_end = summary.get("steps") == steps and DIVERGED not in summary
        return is_end and written in (None, sha256_of(path / WEIGHTS))
    except (OSError, UserError):
        return False


def _write_results(
    path: Path, recipe: Recipe, trainer: Trainer, record: dict[str, Any], environment: dict[str, Any]
) -> None:
    """The weights to use, the last pictures, the summary and the card.

    Raises:
        Diverged: if a weight or a figure is not finite; nothing is written then.
    """
    if found := trainer.not_finite:
        more = f" and {len(found) - 1} more are" if len(found) > 1 else " is"
        raise Diverged(f"{found[0]}{more} not finite at its end")
    trainer.evaluation.draw_last(Path(LAST_SAMPLES).stem)
    trainer.evaluation.check_final()
    write_tensors(path / WEIGHTS, dict(trainer.model.state_dict()))
    with _optional(CURVES, trainer.display):
        draw_curves(read_log(path / "log.jsonl"), path / CURVES, record["command"], trainer.validation.baseline)
    summary = {**_summary(trainer), HASH: sha256_of(path / WEIGHTS)}
    with _optional(CARD, trainer.display):
        write_atomic(path / CARD, model_card(path, trainer.data.name, record, recipe, summary, environment))
    write_json(path / SUMMARY, summary)


def _write_diverged(path: Path, trainer: Trainer, text: str) -> None:
    """The summary of a training that diverged; weights of a shorter one stay as they are, and so does their hash."""
    summary = {**_summary(trainer), DIVERGED: True, "warnings": [text, *trainer.warnings]}
    with suppress(OSError, UserError):
        if (written := written_hash(path)) is not None:
            summary[HASH] = written
    write_json(path / SUMMARY, summary)


def _summary(trainer: Trainer) -> dict[str, Any]:
    at = trainer.calendar
    return {
        **trainer.validation.values,
        "images": at.images,
        "steps": at.step,
        "seconds": round(at.seconds, 3),
        "images_per_second": round(at.images / max(at.seconds, 1e-9), 1),
        "parameters": count_parameters(trainer.model),
        "best": trainer.validation.best,
        "mean_image_rmse": trainer.validation.baseline,
        "warnings": trainer.warnings,
    }


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


def training_keys() -> list[str]:
    """The keys that every training takes."""
    return list(dict.fromkeys([*_keywords(train), *TrainConfig.model_fields, *OTHER_NAMES]))


def _record(recipe: Recipe, data: Data, model_config: ModelConfig, training: TrainConfig) -> dict[str, Any]:
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
        "command": train_command(recipe, source_word(data.source), model_config, training),
    }
