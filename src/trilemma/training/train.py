"""From words to a run folder: `train("vae", "fashion-mnist")`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from torch import nn

from trilemma.arguments import typed
from trilemma.data import Data
from trilemma.data.load import Source
from trilemma.data.sources.arrays import GIVEN
from trilemma.data.sources.consent import check_allowed
from trilemma.errors import Diverged, UserError
from trilemma.files import sha256_of, write_json
from trilemma.hardware import describe, supports_fast_bf16, tune_allocator
from trilemma.healthy import MEAN_IMAGE
from trilemma.keys import Channels, Frames, Quiet, Resize
from trilemma.modes import own_modes
from trilemma.progress import Display
from trilemma.ranks import connected_ranks, current_team
from trilemma.registry import Recipe, count_parameters
from trilemma.run.config import TrainConfig
from trilemma.run.folder import RunFolder, open_run_folder
from trilemma.run.locate import CONFIG, WEIGHTS
from trilemma.run.parts import read_parts
from trilemma.run.record import CAPTIONS, changed_data, fingerprints, read_config
from trilemma.run.run import Run
from trilemma.run.unfinished import CHECKPOINTS
from trilemma.team import Team, by_writer, check_same, in_turn, smallest, together
from trilemma.text import quoted
from trilemma.training.gates import OF_NOISE, check_autoencoder
from trilemma.training.loop import Trainer
from trilemma.training.order import Order, after_parts, order_of
from trilemma.training.players import check_divisible
from trilemma.training.prepare import Plan, plan_of, read_images
from trilemma.training.request import keywords, request_of
from trilemma.training.results import draw_batch, has_results, optional, update_source, write_diverged, write_results
from trilemma.training.shards import check_shards
from trilemma.training.signals import Stopped
from trilemma.types import UsesCodeMap
from trilemma.values import checked_call

MODEL = "a model's name, the config.json of a run, or a module of your own"
PARTS = "parts"  # of a run folder: a run of each part that was trained for it
AUTOENCODER = "autoencoder"  # the part that draws the images of a model of codes


class _Owner(NamedTuple):
    """The processes that train, and the training that a part is trained for: what stands before the part's keys, and
    the command that resumes it."""

    team: Team
    prefix: str = ""
    resume: str = ""


@checked_call
@own_modes()
@connected_ranks("the same command resumes from the last checkpoint")
def train(
    model: Annotated[
        str | Path | nn.Module,
        Field(description="a name from `trilemma list`, or RUN/config.json to train it again", title=MODEL),
    ],
    data: Annotated[
        Source | None, Field(description="a word from `trilemma data list`, or a path (default: digits)")
    ] = None,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    images: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    lr: float | dict[str, float] | None = None,
    seed: int | None = None,
    size: Resize = None,
    channels: Channels = None,
    valid: float | None = None,
    split_seed: int | None = None,
    frames: Frames = None,
    augment: Annotated[
        Sequence[str] | None,
        Field(
            description="augmentation of the training images: flip,shift,binarise; '': none (default: set by the model)"
        ),
    ] = None,
    device: str = "auto",
    precision: str = "auto",
    save_every: int | None = None,
    sample_every: int | None = None,
    out: Annotated[str | Path | None, Field(description="run folder (default: chosen for you and printed)")] = None,
    quiet: Quiet = False,
    **settings: Any,
) -> Run:
    """Train a model and leave a run folder; the same call again continues it, or does nothing if it is done.

    Args:
        model: a preset of `list_models()`; the config.json of a run, which trains the same again, in a new folder; or a
            module of your own (docs/own-model.md), a copy of which is trained from the weights that it has.
        data: a word (digits, shapes, mnist, fashion-mnist, cifar10; shapes:20000 for that many images), a path, an
            array or tensor of images, a pair (images, labels), or data already loaded, which is loaded again where a
            key below says otherwise (default: digits, or the data of the config.json).
        steps, epochs, images, minutes: the length, one of them (default: the preset's).
        batch: images per step (default: the preset's).
        lr: learning rate of every player, or one for each by name, as {"critic": 5e-4, "generator": 1e-3} (default:
            the preset's).
        seed: of the weights, the order of the images and all noise; not of the data (default: 0, or the seed in the
            config.json).
        size: height and width of the images, px (default: inferred).
        channels: 1 converts the images to grey, 3 to colour (default: inferred).
        valid: fraction held out for validation, where the data has no split of its own.
        split_seed: chooses the images held out, and draws data that are drawn; the `seed` of `load_data` (default: 0,
            or as `data` was loaded).
        frames: of image files with several frames or pages: "first", or "all", each an image of its own (default:
            "first", or as `data` was loaded).
        augment: changes to the training images: flip, shift, or both with a comma; "" for none (default: the
            preset's).
        device: "auto" takes what the machine has.
        precision: "auto" is the preset's own, or what the machine gains from where it has none.
        save_every, sample_every: images between checkpoints, and between sample pictures.
        out: the run folder (default: runs/MODEL-DATA, -2, -3, ...).
        quiet: print nothing.
        settings: the other fields of `TrainConfig` (optimizer, betas, weight_decay, clip, lr_schedule, warmup_images,
            ema_halflife_images, monitor, ...), and those of the model's config: `trilemma list MODEL` shows both. For a
            model with parts NAME=RUN takes one from a finished run, NAME=MODEL trains it by another preset, and
            NAME={"steps": 500} has keys of its training; on the command line NAME.steps=500.
    Raises:
        UserError: a wrong name, key or value, data that cannot be read, or a disk that refuses.
        Diverged: if its numbers are not finite at the end, or stop being finite for good.
        Stopped: after Ctrl-C or SIGTERM, when the state is saved.
    """
    tune_allocator()
    team = current_team()
    request = together(team, lambda: request_of(model))
    length = {"steps": steps, "epochs": epochs, "images": images, "minutes": minutes}
    changes = {"batch": batch, "lr": lr, "seed": seed, "save_every": save_every, "sample_every": sample_every}
    changes |= {"precision": precision if precision != "auto" else None, "augment": augment, "device": device}
    reading = {"size": size, "channels": channels, "valid": valid, "split_seed": split_seed, "frames": frames}
    keys = length | changes | reading
    order = together(team, lambda: order_of(request, keys, settings, keywords(train)))
    source = data if data is not None else request.data if request.data is not None else "digits"
    if data is None and request.again is not None:
        together(team, lambda: check_allowed(source, model))
    quiet = quiet or not team.writes
    display = Display(order.recipe.name, quiet=quiet)
    try:
        loaded = in_turn(team, lambda: read_images(order, source, out, quiet=quiet))
        now = fingerprints(loaded)
        check_same(team, loaded.fingerprint, "images")
        check_same(team, now[CAPTIONS], "captions")
        for note in () if isinstance(source, Data) else loaded.notes:
            display.say(f"  {note}")
        if request.again and data is None and (changed := changed_data(request.again, now)):
            as_then = f"the same as in {model}: they, or how they are read, have changed"
            display.say(f"  note: the {changed} are not {as_then}")
        path = _carry_out(order, loaded, display, out, _Owner(team))
    finally:
        display.close()
    run = Run(path, model=request.module, data=None if loaded.given is None else loaded)
    for text in run.warnings:  # they were printed during training: the last lines have them together
        display.say(f"warning: {text}")
    return run


def _carry_out(order: Order, data: Data, display: Display, out: str | Path | None, owner: _Owner) -> Path:
    """Train as ordered, the parts first; gives the run folder."""
    team = owner.team
    plan = together(team, lambda: _divisible(plan_of(order, data, display.say), team))
    folder = by_writer(team, lambda: _open(plan, out, display))
    path = Path(team.broadcast("" if folder is None else str(folder.path)))
    try:
        if plan.recipe.parts:
            plan = together(team, lambda: _after_parts(plan, path, display))
        owner = _Owner(team, owner.prefix, owner.resume or _resume_command(path, plan, team))
        if plan.recipe.parts:
            plan = _with_trained_parts(plan, path, display, owner)
            plan = together(team, lambda: _with_checked_autoencoder(plan, path, display))
        try:
            _train_in(path, plan, display, owner)
        except Diverged as error:
            another = "" if out is None or owner.prefix else " and another out="
            rate = _lower_rate(plan.training.lr, plan.recipe)
            raise Diverged(f"{path}: {error}. Try {owner.prefix}lr={rate}{another}") from None
    finally:
        if folder is not None:
            folder.close()
    return path


def _divisible(plan: Plan, team: Team) -> Plan:
    """The plan, whose batches can be divided over processes, and its weights where they are to be."""
    check_divisible(plan.module, plan.training.batch, team)
    check_shards(list(plan.module.parameters()), plan.training, team)
    return plan


def _open(plan: Plan, out: str | Path | None, display: Display) -> RunFolder:
    """The run folder of a plan, held by this process."""
    return open_run_folder(plan.name, plan.record, out, display.say, new=plan.order.request.again is not None)


def _after_parts(plan: Plan, path: Path, display: Display) -> Plan:
    """The plan for a folder where the parts may be trained already: minutes that are added are all the model's."""
    order = after_parts(plan.order, read_parts(read_config(path)))
    if order is plan.order:
        return plan
    display.say(f"  its parts are trained; of the minutes {order.training.minutes:g} are left for {plan.recipe.name}")
    return plan_of(order, plan.data, lambda text: None)


def _with_trained_parts(plan: Plan, path: Path, display: Display, owner: _Owner) -> Plan:
    """The plan with its parts, each from its run: one that is trained now, unless it is finished, or that was given.

    Raises:
        UserError: the weights of a part are not those with which the training of the model began.
    """
    recorded, modules, records = read_parts(read_config(path)), {}, dict(plan.record["parts"])
    for name, part in plan.order.parts.items():
        if isinstance(part, Order):
            display.restart(f"{name}: {part.recipe.name}")
            inside = _Owner(owner.team, f"{owner.prefix}{name}.", owner.resume)
            run = Run(_carry_out(part, plan.data, display, path / PARTS / name, inside), device=str(plan.order.device))
        else:
            run = part
        weights = sha256_of(run.path / WEIGHTS)
        if recorded[name].weights not in (None, weights):
            raise UserError(
                f"the part {name} in {run.path} has changed since the training in {path} began: its weights are "
                f"{weights[:16]}, and were {str(recorded[name].weights)[:16]}; restore it, or choose another out="
            )
        check = recorded[name].check
        outcome = {"weights": weights, "seconds": run.seconds, "check": check and check.to_json()}
        modules[name], records[name] = run.model, {**records[name], **outcome}
    display.restart(plan.recipe.name)
    return plan.with_parts(modules, records)


def _with_checked_autoencoder(plan: Plan, path: Path, display: Display) -> Plan:
    """The plan, whose record has what was measured of its autoencoder, if it has one that is to be good enough.

    Raises:
        UserError: it is not.
    """
    module: object = plan.module
    begun = any((path / CHECKPOINTS).glob("*"))
    if not isinstance(module, UsesCodeMap) or begun:
        return plan
    if not module.checks_autoencoder:
        display.say(f"  the autoencoder is not checked. {OF_NOISE}")
        return plan
    of_part = isinstance(plan.order.parts.get(AUTOENCODER), Order)
    trained = read_config(path / PARTS / AUTOENCODER) if of_part else None
    check = check_autoencoder(module.autoencoder, plan.data, plan.order.device, display.say, trained)
    parts = plan.record["parts"]
    if AUTOENCODER in parts:
        parts = {**parts, AUTOENCODER: {**parts[AUTOENCODER], "check": check.to_json()}}
    return replace(plan, record={**plan.record, "parts": parts})


def _train_in(path: Path, plan: Plan, display: Display, owner: _Owner) -> None:
    """Train in a folder that is ours, from where it was left."""
    data, module, training, record, team = plan.data, plan.module, plan.training, plan.record, owner.team
    device = next(module.parameters()).device
    bf16 = training.precision == "bf16" or (training.precision == "auto" and supports_fast_bf16(device))
    environment = {**describe(device), "precision": "bf16 autocast" if bf16 else "float32"}
    trainer = Trainer(module, data, training, path, display, bf16=bf16, command=record["command"], team=team)
    at = trainer.calendar
    if at.progress >= 1 and smallest(team, has_results(path, at.step, module)):  # in all alike
        display.say(f"{path} is already trained ({at.images:,} images); to train longer, give a greater length")
        by_writer(team, lambda: update_source(path, record))
        return
    for name, values in ((CONFIG, record), ("environment.json", environment)):
        by_writer(team, partial(write_json, path / name, values))
    display.say(
        f"{path}: {plan.recipe.name}, {count_parameters(module):,} parameters, on {device} in "
        f"{environment['precision']}"
    )
    with trainer.evaluation.budget.timed("baseline"):
        baseline = trainer.validation.baseline
    if baseline is not None:
        display.say(f"  {MEAN_IMAGE.format(rmse=baseline)}")
    if team.writes and not (path / "batch.png").exists():
        with optional("batch.png", display):
            draw_batch(path / "batch.png", data, training, record["command"])
    try:
        with trainer.signals.handled():
            trainer.run()
            results = partial(write_results, path, plan.recipe, trainer, record, environment)
            by_writer(team, results)
    except Stopped as stopped:  # nothing but the line: who stops a training wants it to end
        display.say(f"{stopped}. Resume with: {owner.resume}")
        raise
    except Diverged as error:
        text = f"the training diverged: {error}"
        if team.writes:
            write_diverged(path, trainer, text)
        raise Diverged(text) from None


def _lower_rate(lr: float | dict[str, float], recipe: Recipe) -> str:
    """The learning rate to try after one with which a training diverged: the recipe's own, else a tenth."""
    if isinstance(lr, dict):
        return ",".join(f"{player}:{_lower_rate(rate, recipe)}" for player, rate in lr.items())
    usual = recipe.training.get("lr", TrainConfig.model_fields["lr"].default)
    usual = min(usual.values()) if isinstance(usual, dict) else usual
    return f"{usual if usual < lr else lr / 10:g}"


def _resume_command(path: Path, plan: Plan, team: Team) -> str:
    """The command line that continues a folder in as many processes, with keys that do not change what is trained."""
    record, training = plan.record, plan.training
    if "module" in record["model_config"] or record["data"].startswith(f"{GIVEN}:"):  # which cannot be typed
        return f"the same call of trilemma.train, with out={str(path)!r}"
    keys = {name: getattr(training, name) for name in ("save_every", "sample_every")}
    keys["device"] = training.device if training.device != "auto" else None
    keys["shard"] = True if training.shard else None
    words = typed({name: value for name, value in keys.items() if value is not None})
    return f"{_launcher(team)}{record['command']} {quoted([*words, f'out={path}'])}"


def _launcher(team: Team) -> str:
    """What stands before the command of a training in several processes; dots where they are on several machines."""
    if team.size == 1:
        return ""
    on_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(team.size)
    return f"torchrun {f'--standalone --nproc-per-node {team.size}' if on_one_machine else '...'} -m "
