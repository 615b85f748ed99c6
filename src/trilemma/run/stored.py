"""A run folder, read: what its files say, the network with the weights that were trained, and the images it saw."""

from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from torch import Tensor, nn

from trilemma.config import ModelConfig, make
from trilemma.data import Data, load_data
from trilemma.data.config import DataConfig, load_keys
from trilemma.data.load import Source
from trilemma.data.sources.arrays import GIVEN
from trilemma.data.sources.consent import check_allowed
from trilemma.errors import UserError
from trilemma.files import sha256_of
from trilemma.hardware import pick_device, to_channels_last
from trilemma.modes import own_modes
from trilemma.own import recipe_of
from trilemma.registry import Blueprint, Recipe, build_unfilled, count_parameters, outline, recipe_named_in, require
from trilemma.run.command import command_of
from trilemma.run.hub import place_of
from trilemma.run.locate import CONFIG, WEIGHTS
from trilemma.run.log import read_log
from trilemma.run.parts import blueprints, read_parts
from trilemma.run.record import (
    DIVERGED,
    SUMMARY,
    changed_data,
    fingerprints,
    read_config,
    read_summary,
    written_hash,
)
from trilemma.run.unfinished import Snapshot, find_snapshot, finish, newest_snapshot, summary_of
from trilemma.run.weights import difference, forms_of, load_tensors, read_forms
from trilemma.text import note, printable, quoted
from trilemma.types import Finishes, flags

T = TypeVar("T")
SPARE_TENSORS = 100  # that a network may make while it is built, besides its weights


class StoredRun:
    """A run folder: `config` and `summary` as they lie there; model and data are loaded when first used."""

    _kept: Path | None = None  # a file of earlier weights, in place of the last ones

    def __init__(
        self, path: str | Path, *, device: str = "auto", model: nn.Module | None = None, data: Source | None = None
    ) -> None:
        self._given = place_of(path)
        self._place, self._source = self._given.absolute(), data
        self.device = pick_device(device)
        self.config = read_config(self.path)
        self.recipe = self._recipe(model)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def _recipe(self, model: nn.Module | None) -> Recipe:
        """What stands behind the model's name, or behind a module that was given as it is."""
        settings, name = self.config["model_config"], self.config["model"]
        kind = settings.get("module") if isinstance(settings, dict) else None
        if kind is None and model is not None:
            raise UserError(f"{self.path} is a run of {name}, which needs no model=; leave it out")
        if kind is None:
            return recipe_named_in(self.path / CONFIG, name)
        if model is None:
            raise UserError(
                f"{self.path} was trained on a module of your own, {kind}: open it in Python with "
                "trilemma.load(path, model=MODULE), where MODULE is made as it was then; see docs/own-model.md"
            )
        return recipe_of(model, tuple(settings["shape"]))

    @property
    def path(self) -> Path:
        """The folder: as it was given, or in full once the working folder is another."""
        return self._given if self._given.absolute() == self._place else self._place

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of its images."""
        return self.model_config.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes; () where there are none."""
        return tuple(self.config["classes"])

    @property
    def count(self) -> None:
        """Whether it can draw any number of images."""

    @property
    def seconds(self) -> float:
        """What its training took, with those of its parts."""
        return self.summary["seconds"] + sum(part.seconds or 0.0 for part in read_parts(self.config).values())

    @cached_property
    def model_config(self) -> ModelConfig:
        """The settings of the network."""
        try:
            return make(type(self.recipe.config), self.config["model_config"])
        except UserError as error:
            raise UserError(f"{self.path / CONFIG}: in model_config, {error}") from None

    @cached_property
    def _parts(self) -> dict[str, Blueprint]:
        """What the parts of its model are built from; {} for a model without parts."""
        return blueprints(read_parts(self.config), self.path / CONFIG)

    @cached_property
    @own_modes()
    def model(self) -> nn.Module:
        """The trained network, in eval mode on the run's device; of an unfinished training, as it is by now.

        Raises:
            UserError: if there are no weights, or they are not those of this network, or not those that were written.
        """
        weights = self._finished_weights() if self.snapshot is None else self._unfinished_weights()
        model = build_unfilled(self.recipe, self.model_config, self._parts)
        model.load_state_dict(weights)
        flags(model).release()
        if self.config["training"].get("channels_last"):  # the layout that gained in training gains in sampling
            to_channels_last(model)
        model = model.to(self.device).eval()
        if self.snapshot is not None:
            note(f"{self.path}: {self.unfinished}")
            if isinstance(model, Finishes):
                finish(model, lambda: self.data, self.config["training"]["seed"])
        return model

    def require(self, doing: str, capability: type[T], *more: type) -> T:
        """The model, which has a capability; see `registry.require`.

        Args:
            doing: what it would do, as in "does not reconstruct".
        Raises:
            UserError: it lacks one, with the models that have them all.
        """
        require(self.model, self.recipe.name, doing, capability, *more)
        return cast(T, self.model)

    def at(self, weights_id: str) -> Self | None:
        """The run as it was at the checkpoint of that `weights_id`; None where it is not there any more."""
        if (snapshot := find_snapshot(self.path, weights_id)) is None:
            return None
        earlier = copy(self)
        for name in ("model", "_guides"):
            earlier.__dict__.pop(name, None)
        earlier.snapshot = snapshot
        return earlier

    @property
    def weights_file(self) -> Path:
        """The file of its weights."""
        return self._kept or self.path / WEIGHTS

    def with_weights(self, file: Path) -> Self:
        """The run with the weights of another file of its folder."""
        other = copy(self)
        for name in ("model", "_weights_hash", "_guides"):
            other.__dict__.pop(name, None)
        other._kept, other.snapshot = file, None
        return other

    def _outline(self, most: int) -> nn.Module:
        """The network without memory, if its settings ask for no more tensors than there are weights."""
        config = self.model_config
        try:
            return outline(self.recipe, config, most=SPARE_TENSORS + 2 * most, parts=self._parts)
        except UserError as error:
            raise UserError(f"{self.path / CONFIG}: in model_config, {error}") from None

    def _finished_weights(self) -> dict[str, Tensor]:
        """Those in the folder, which are looked at before anything is allocated for them."""
        file = self.weights_file
        forms = read_forms(file)
        if (text := difference(forms, forms_of(self._outline(len(forms)).state_dict()))) is not None:
            raise UserError(f"{file} does not hold the weights of {self.recipe.name} with these settings: {text}")
        written = None if self._kept else written_hash(self.path)
        if written not in (None, self._weights_hash):
            raise UserError(
                f"{file} is not the file that the training wrote (SHA-256 {self._weights_hash[:16]}, written "
                f"{written[:16]}): it was damaged or replaced; restore it{self._or_resume}"
            )
        return load_tensors(file)

    def _unfinished_weights(self) -> dict[str, Tensor]:
        assert self.snapshot is not None
        try:
            return self.snapshot.weights(self._outline)
        except FileNotFoundError:  # the training is running, and has removed this checkpoint since
            if (newest := newest_snapshot(self.path)) is None:
                raise
            self.snapshot = newest
            return newest.weights(self._outline)

    @cached_property
    def snapshot(self) -> Snapshot | None:
        """The checkpoint that the weights are of; None of a finished training.

        Raises:
            UserError: if there is neither.
        """
        if (self.path / WEIGHTS).exists():
            return None
        if (newest := newest_snapshot(self.path)) is not None:
            return newest
        raise UserError(f"{self.path} is not finished: it has neither {WEIGHTS} nor a checkpoint yet{self._or_resume}")

    @property
    def unfinished(self) -> str | None:
        """How far a training that is not finished was when its weights were saved; None of a finished one."""
        if self.snapshot is None:
            return None
        reached = self.snapshot.reached(self.config["training"].get("minutes"))
        return f"not finished: {reached}; from its newest checkpoint"

    @property
    def _or_resume(self) -> str:
        """The command that resumes the training, as the end of a message."""
        command = self.command
        return "" if command is None else f". Resume with: {command} {quoted([f'out={self.path}'])}"

    @cached_property
    @own_modes()
    def data(self) -> Data:
        """The images it was trained on, read again from their source.

        Raises:
            UserError: if the source is gone, or its images or captions changed: what was held out may have been trained
                on; or the user never named it.
        """
        source = self.config["data"]
        if self._source is None and not source.startswith(f"{GIVEN}:"):
            check_allowed(source, self.path)
        return self.read(source if self._source is None else self._source)

    def read(self, source: Source) -> Data:
        """Images as those of the run were read and divided.

        Raises:
            UserError: they, or captions that it was trained on, have changed since.
        """
        data = load_data(source, **load_keys(make(DataConfig, self.config["data_config"]).model_dump()))
        if changed := changed_data(self.config, fingerprints(data)):
            raise UserError(
                f"the {changed} in {data.source} have changed since {self.path} was trained (files were added, removed "
                "or changed, or an earlier version read them otherwise); restore them, or train again"
            )
        return data

    @property
    def command(self) -> str | None:
        """The line that trains it again, made from its settings; None where they are not those of a training."""
        return command_of(self.config)

    @property
    def summary(self) -> dict[str, Any]:
        """Last and best scores by name, images, seconds, images per second, parameters; of the training so far.

        Raises:
            UserError: if it cannot be read.
        """
        if self.snapshot is None:
            return read_summary(self.path)
        if (self.path / SUMMARY).exists():  # of a training that diverged, and may have been resumed since
            written, step = read_summary(self.path), self.snapshot.values["step"]
            steps = written.get("steps")
            if steps == step or (DIVERGED in written and isinstance(steps, int) and steps > step):
                return written
        return summary_of(self.snapshot, count_parameters(self.model))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What happened to its training and what is wrong with its model, with the step; () of earlier versions."""
        texts = self.summary.get("warnings", [])
        texts = [printable(text) for text in texts if isinstance(text, str)] if isinstance(texts, list) else []
        return (*filter(None, [self.unfinished]), *texts)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The rows of log.jsonl."""
        return read_log(self.path / "log.jsonl")

    @property
    def weights_id(self) -> str:
        """The first 16 digits of the SHA-256 of these weights; of an unfinished training, of its checkpoint's."""
        return self._weights_hash[:16] if self.snapshot is None else self.snapshot.weights_id

    @property
    def origin(self) -> dict[str, str]:
        """What a file says of the run that it was made with."""
        origin = {"run": str(self.path.resolve()), "weights": self.weights_id}
        return origin if self.unfinished is None else {**origin, "unfinished": self.unfinished}

    @cached_property
    def _weights_hash(self) -> str:
        return sha256_of(self.weights_file)
