"""A finished (or stopped) training, read from its folder: `run = trilemma.load("runs/vae-digits")`."""

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from trilemma.config import Config, ModelConfig, make
from trilemma.data import Data, load_data
from trilemma.data.config import DataConfig, load_keys
from trilemma.data.load import Source
from trilemma.data.sources.arrays import GIVEN
from trilemma.data.sources.consent import check_allowed
from trilemma.errors import UserError, check_codes, check_images, check_range, unknown_key
from trilemma.files import read_plain, sha256_of
from trilemma.hardware import pick_device, to_channels_last
from trilemma.memory import halving, is_out_of_memory
from trilemma.modes import own_modes
from trilemma.own import recipe_of
from trilemma.registry import (
    Blueprint,
    Recipe,
    build_unfilled,
    count_parameters,
    outline,
    recipe_named_in,
    require,
)
from trilemma.run.command import command_of
from trilemma.run.condition import Label, condition_of
from trilemma.run.guides import guides_of
from trilemma.run.locate import CONFIG, WEIGHTS, run_folder
from trilemma.run.log import read_log
from trilemma.run.parts import blueprints, read_parts
from trilemma.run.record import DIVERGED, SUMMARY, read_config, read_summary, written_hash
from trilemma.run.unfinished import Snapshot, find_snapshot, finish, newest_snapshot, summary_of
from trilemma.run.weights import difference, forms_of, load_tensors, read_forms
from trilemma.text import note, printable, quoted
from trilemma.types import (
    UNCONDITIONAL,
    Coder,
    Condition,
    Decodes,
    Encodes,
    Finishes,
    Guides,
    Inverts,
    Reconstructs,
    Samples,
    codes_need,
    draw,
    flags,
    keys_of,
)
from trilemma.values import checked_call, shown

T = TypeVar("T")
SPARE_TENSORS = 100  # that a network may make while it is built, besides its weights
LARGEST_PICTURE = 64 << 20  # bytes
MOST_NUMBERS = 2**22  # in the images that a CPU computes together: 341 of 64 px in colour, 5 of 512 px
LARGEST_NUMBER = 2**62  # of an image
EXACT_BATCH = 64  # images computed together where each must be bit-equal; image k has place k % 64 in its batch


@checked_call
def load(
    path: str | Path, *, device: str = "auto", model: nn.Module | None = None, data: Source | None = None
) -> "Run":
    """Open a run folder.

    Args:
        model: for a run of a module that was given as it is: such a module, of which a copy takes the weights.
        data: the images it was trained on, where they were an array, or lie elsewhere now.
    Raises:
        UserError: if it is not a run, is not finished, or was made by a later version.
    """
    return Run(path, device=device, model=model, data=data)


def as_run(what: "Run | str | Path") -> "Run":
    """A run as it is, or the run of a folder.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(what, Run | str | Path):
        raise UserError(f"run={shown(what)}: give a run or the path of its folder")
    return what if isinstance(what, Run) else Run(what)


class Drawn(NamedTuple):
    """Images number `first` and on (n, C, H, W), and the batch they were computed in: its first number, its size."""

    images: Tensor
    first: int
    batch: tuple[int, int]


class Facts(NamedTuple):
    """What a contestant cost: parameters, and of its training the seconds, the images seen and those per second."""

    parameters: int
    seconds: float
    images: int
    images_per_second: float


class Run:
    """A run folder: `config` and `summary` as they lie there; model and data are loaded when first used."""

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "auto",
        model: nn.Module | None = None,
        data: Source | None = None,
    ) -> None:
        folder = run_folder(path)
        self._given, self._place, self._source = folder, folder.absolute(), data
        self.device = pick_device(device)
        self.config = read_config(self.path)
        self.recipe = self._recipe(model)
        self.guide_runs: dict[str, Run] = {}  # by what guide= says

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

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
    def facts(self) -> Facts:
        """Its parameters and what its training took."""
        return Facts(*(self.summary[key] for key in Facts._fields))

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
        weights = self._unfinished_weights() if self.snapshot is not None else self._finished_weights()
        model = build_unfilled(self.recipe, self.model_config, self._parts)
        model.load_state_dict(weights)
        if self.config["training"].get("channels_last"):  # the layout that gained in training gains in sampling
            to_channels_last(model)
        model = model.to(self.device).eval()
        if self.snapshot is not None:
            note(f"{self.path}: {self.unfinished}")
            self._finish(model)
        return model

    def at(self, weights_id: str) -> "Run | None":
        """The run as it was at the checkpoint of that `weights_id`; None where it is not there any more."""
        if (snapshot := find_snapshot(self.path, weights_id)) is None:
            return None
        earlier = copy(self)
        earlier.__dict__.pop("model", None)
        earlier.snapshot = snapshot
        return earlier

    def _outline(self, most: int) -> nn.Module:
        """The network without memory, if its settings ask for no more tensors than there are weights."""
        config = self.model_config
        try:
            return outline(self.recipe, config, most=SPARE_TENSORS + 2 * most, parts=self._parts)
        except UserError as error:
            raise UserError(f"{self.path / CONFIG}: in model_config, {error}") from None

    def _finished_weights(self) -> dict[str, Tensor]:
        """Those in the folder, which are looked at before anything is allocated for them."""
        file = self.path / WEIGHTS
        forms = read_forms(file)
        if (text := difference(forms, forms_of(self._outline(len(forms)).state_dict()))) is not None:
            raise UserError(f"{file} does not hold the weights of {self.recipe.name} with these settings: {text}")
        if (written := written_hash(self.path)) not in (None, self._weights_hash):
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

    def _finish(self, model: nn.Module) -> None:
        """The last step of an unfinished training's model, for which some need training images."""
        if isinstance(model, Finishes):
            with torch.no_grad():
                finish(model, self.data, self.config["training"]["seed"])

    @cached_property
    def snapshot(self) -> Snapshot | None:
        """The checkpoint that the weights are of; None of a finished training.

        Raises:
            UserError: if there is neither.
        """
        if (self.path / WEIGHTS).exists():
            return None
        if (newest := newest_snapshot(self.path)) is None:
            raise UserError(
                f"{self.path} is not finished: it has neither {WEIGHTS} nor a checkpoint yet{self._or_resume}"
            )
        return newest

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
            UserError: if the source is gone or its images changed: what was held out may have been trained on; or if it
                is none that the user has named himself.
        """
        if self._source is not None:
            return self.read(self._source)
        source = self.config["data"]
        if not source.startswith(f"{GIVEN}:"):
            check_allowed(source, self.path)
        return self.read(source)

    def read(self, source: Source) -> Data:
        """Images as those of the run were read and divided.

        Raises:
            UserError: they have changed since it was trained.
        """
        if isinstance(source, str) and source.startswith(f"{GIVEN}:"):
            raise UserError(
                f"{self.path} was trained on an array in memory: open it with trilemma.load(path, data=ARRAY), or give "
                "the images to a verb as data="
            )
        data = load_data(source, **load_keys(make(DataConfig, self.config["data_config"]).model_dump()))
        if data.fingerprint != self.config["fingerprint"]:
            raise UserError(
                f"the images in {data.source} have changed since {self.path} was trained (files were added, removed "
                "or changed, or an earlier version read them otherwise); restore them, or train again"
            )
        return data

    @property
    def command(self) -> str | None:
        """The line that trains it again, made from its settings; None where they are not those of a training."""
        return command_of(self.config)

    @property
    def summary(self) -> dict[str, Any]:
        """Last and best figures by name, images, seconds, images per second, parameters; of the training so far where
        it is not finished.

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
        """What happened to its training and what is wrong with its model, each with the step; () of earlier versions,
        which did not write it."""
        texts = self.summary.get("warnings", [])
        said = tuple(printable(text) for text in texts if isinstance(text, str)) if isinstance(texts, list) else ()
        return said if self.unfinished is None else (self.unfinished, *said)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The rows of log.jsonl."""
        return read_log(self.path / "log.jsonl")

    @property
    def weights_id(self) -> str:
        """What tells these weights from others: the first 16 digits of their SHA-256; of a training that is not
        finished, of its checkpoint's."""
        return self._weights_hash[:16] if self.snapshot is None else self.snapshot.weights_id

    @property
    def origin(self) -> dict[str, str]:
        """What a file says of the run that it was made with."""
        origin = {"run": str(self.path.resolve()), "weights": self.weights_id}
        return origin if self.unfinished is None else {**origin, "unfinished": self.unfinished}

    @cached_property
    def _weights_hash(self) -> str:
        return sha256_of(self.path / WEIGHTS)

    @checked_call
    def sample(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        first: int = 0,
        label: Label = None,
        condition: Condition = UNCONDITIONAL,
        batch: int = 256,
        exact: bool = False,
        keys: Config | None = None,
        **settings: Any,
    ) -> Tensor:
        """Draw images number first ... first + n - 1 of `seed`; image k is the same whatever n, first and batch are.

        Its noise is bit-equal; its values may differ by rounding, 1/255 at most, because a processor adds up batches
        of different sizes in a different order.

        Args:
            label: a class by name or number, or one for each image, int64 (n,), for a model that takes one.
            condition: in place of a label, what is asked for in general, for each of the n images.
            batch: images computed at a time, which bounds the memory; halved if it runs out.
            exact: bit-equal values too (same machine and version): whole batches of EXACT_BATCH are computed, in
                which each image has its own place. One image then costs as much as 64; `batch` has no effect.
            settings: of this model's sampler (steps, eta, temperature, ...).
            keys: in place of them, settings that `Run.sampling` has checked.
        Returns:
            float32 in [0, 1] on the CPU, (n, C, H, W).
        Raises:
            UserError: if the model does not sample, does not take the label or a setting, or draws NaN.
        """
        parts = self.draw(
            n, seed=seed, first=first, label=label, condition=condition, batch=batch, exact=exact, keys=keys, **settings
        )
        images = torch.empty(n, *self.model_config.shape, dtype=torch.float32)
        for part in parts:
            images[part.first - first :][: len(part.images)] = part.images
        return images

    def draw(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        first: int = 0,
        label: Label = None,
        condition: Condition = UNCONDITIONAL,
        batch: int = 256,
        exact: bool = False,
        keys: Config | None = None,
        **settings: Any,
    ) -> Iterator[Drawn]:
        """As `sample`, batch by batch: never more than one batch is held."""
        if n < 1 or batch < 1 or first < 0:
            raise UserError(f"n={n}, batch={batch}, first={first}: n and batch must be at least 1, first at least 0")
        if first + n > LARGEST_NUMBER:
            raise UserError(f"n={n}, first={first}: images are numbered up to {LARGEST_NUMBER}")
        model = self.require("draw samples", Samples)
        if keys is not None and settings:
            raise UserError(f"keys= and {next(iter(settings))}= were both given; give one of them")
        keys = self.sampling(settings, Run.sample) if keys is None else keys
        guides = self.guides(keys)
        asked_condition = self.condition(label, n, condition, guides.classifier)

        def compute(start: int, count: int) -> Tensor:
            rows = (torch.arange(start, start + count) - first).clamp(0, n - 1)  # of an exact batch some are left out
            asked = asked_condition.rows(rows).to(self.device)
            with own_modes(), torch.no_grad(), _one_algorithm():
                images = draw(model, count, seed=seed, first=start, condition=asked, keys=keys, guides=guides)
                return images.float().cpu()

        return self._in_parts(compute, first, first + n, batch, exact)

    @checked_call
    def encode(
        self, images: Tensor, label: Label = None, batch: int = 256, *, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        """Codes of images.

        Args:
            images: floats in [0, 1], (N, C, H, W), on any device.
            label: the class of all of them by name or number, or of each, int64 (N,), for a model that takes one; where
                the codes do not depend on it (`codes_need`), it makes no difference.
            condition: in place of a label, what is asked for in general.
            batch: images computed at a time, which bounds the memory; halved if it runs out.
        Returns:
            float32 on the CPU, (N, Z).
        Raises:
            UserError: if the model does not encode, images or labels do not fit it, or a code is not finite.
        """
        model = self.coder("encode images", Encodes)
        check_images(images, self.model_config.shape)
        check_range(images)
        results = self.apply(model.encode, images, self._needed(label, condition, len(images)), batch)
        return self._finite("codes", images, results)

    @checked_call
    def decode(
        self, codes: Tensor, label: Label = None, batch: int = 256, *, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        """Images of codes (N, Z), as `encode`: float32 in [0, 1] on the CPU, (N, C, H, W).

        Raises:
            UserError: if the model does not decode, codes or labels do not fit it, or an image is not finite.
        """
        model = self.coder("decode", Decodes)
        if (length := flags(self.model).code_length) is not None:
            check_codes(codes, length)
        results = self.apply(model.decode, codes, self._needed(label, condition, len(codes)), batch)
        return self._finite("images", codes, results)

    @checked_call
    def reconstruct(
        self, images: Tensor, label: Label = None, batch: int = 256, *, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        """Images after a pass through the model, as `encode`: float32 in [0, 1] on the CPU, (N, C, H, W).

        Raises:
            UserError: if the model does not reconstruct, images or labels do not fit it, or a result is not finite.
        """
        model = self.coder("reconstruct", Reconstructs)
        check_images(images, self.model_config.shape)
        check_range(images)
        results = self.apply(model.reconstruct, images, self._needed(label, condition, len(images)), batch)
        return self._finite("images", images, results)

    def require(self, doing: str, capability: type[T], *more: type) -> T:
        """The model, which has a capability; see `registry.require`.

        Args:
            doing: what it would do, as in "does not reconstruct".
        Raises:
            UserError: it lacks one, with the models that have them all.
        """
        require(self.model, self.recipe.name, doing, capability, *more)
        return cast(T, self.model)

    def coder(self, doing: str, capability: type[T], *more: type) -> T:
        """As `require`, but a model that inverts encodes, decodes and reconstructs by its noise."""
        return cast(T, Coder(self.model)) if isinstance(self.model, Inverts) else self.require(doing, capability, *more)

    def apply(
        self,
        function: Callable[[Tensor, Condition], Tensor],
        inputs: Tensor,
        condition: Condition = UNCONDITIONAL,
        batch: int = 256,
    ) -> Tensor:
        """`function(inputs, condition)` on the run's device, batch by batch, without gradients: float32 on the CPU."""
        if batch < 1 or not len(inputs):
            raise UserError(f"batch={batch}, {len(inputs)} given: at least 1 of each is needed")

        def compute(start: int, count: int) -> Tensor:
            part = slice(start, start + count)
            rows_condition = condition.rows(part).to(self.device)
            with own_modes(), torch.no_grad():
                return function(inputs[part].to(self.device, torch.float32), rows_condition).float().cpu()

        done, results = 0, torch.empty(0, dtype=torch.float32)
        batch = min(batch, self._largest_batch)
        while done < len(inputs):
            part = halving(partial(compute, done), min(batch, len(inputs) - done), _warn)
            batch = min(batch, len(part))  # smaller from now on if memory ran out
            results = results if done else torch.empty(len(inputs), *part.shape[1:], dtype=torch.float32)
            results[done : done + len(part)] = part
            done += len(part)
        return results

    @property
    def _largest_batch(self) -> int:
        """Images that are computed together at most: on a CPU the system ends a process that takes too much memory,
        without an error that could halve the batch."""
        return max(1, MOST_NUMBERS // math.prod(self.model_config.shape)) if self.device.type == "cpu" else sys.maxsize

    def condition(
        self, label: Label, count: int, condition: Condition = UNCONDITIONAL, classifier: nn.Module | None = None
    ) -> Condition:
        """What is asked of the model for `count` images: a class by name or number, or one for each; or a condition.

        Args:
            classifier: takes the label in place of the model.
        Raises:
            UserError: if both are given, the model takes no such class, or a field is not one for each image.
        """
        if label is not None and condition is not UNCONDITIONAL:
            raise UserError("label= and condition= were both given; give one of them")
        if label is None:
            for name, values in vars(condition).items():
                if values is not None and len(values) != count:
                    raise UserError(f"condition has {len(values)} of {name} for {count} images; give one for each")
            return condition
        taker = self.model if classifier is None else classifier
        return condition_of(label, count, taker, self.config["classes"], name=self.recipe.name, path=self.path)

    def guides(self, keys: Config) -> Guides:
        """What guides the sampler from outside, as its settings name it."""
        return guides_of(self, self.model, keys, self._opened)

    def guide_origin(self, keys: Config) -> dict[str, str] | None:
        """What a file says of the run that guided the one it was made with; None without such a guide."""
        if self.guides(keys).weak is None:
            return None
        guide = self.guide_runs[str(keys.get("guide"))]
        return {"model": guide.recipe.name, **guide.origin}

    def _opened(self, path: str) -> "tuple[Run, nn.Module]":
        """A run that guides this one, opened once."""
        if path not in self.guide_runs:
            self.guide_runs[path] = Run(path, device=str(self.device))
        return self.guide_runs[path], self.guide_runs[path].model

    def _needed(self, label: Label, condition: Condition, count: int) -> Condition:
        """What is asked of the model for images or codes that it is given."""
        asked = self.condition(label, count, condition)
        if asked.label is None and "label" in codes_need(self.model):
            raise UserError(f"{self.recipe.name} in {self.path} needs the class of each image or code; give label=")
        return asked

    def _finite(self, what: str, inputs: Tensor, results: Tensor) -> Tensor:
        """The results, if they are finite."""
        if results.isfinite().all():
            return results
        what = f"{self.path}: the model gives NaN or infinite {what}"
        if not inputs.isfinite().all():
            raise UserError(f"{what}, because some of what it was given is; give finite values")
        raise UserError(f"{what}; train again with a lower lr=")

    def sampling(self, settings: Mapping[str, Any], verb: Callable[..., Any]) -> Config:
        """Settings of this run's sampler, checked.

        Args:
            verb: what was called with them, whose own keys may have been meant.
        Raises:
            UserError: the model does not draw samples, or does not take a key, or a value does not fit.
        """
        kind = keys_of(self.require("draw samples", Samples))
        for key in settings:
            if key not in kind.model_fields:
                own = [word for word, p in inspect.signature(verb).parameters.items() if p.kind is p.KEYWORD_ONLY]
                takes = {verb.__name__: own, f"drawing from {self.recipe.name}": list(kind.model_fields)}
                raise unknown_key(key, takes)
        return make(kind, settings)

    def _in_parts(
        self, compute: Callable[[int, int], Tensor], first: int, end: int, batch: int, exact: bool
    ) -> Iterator[Drawn]:
        """Images number first ... end - 1 from `compute(start, count)`."""
        batch = min(batch, self._largest_batch)
        while first < end:
            if exact:
                start = first - first % EXACT_BATCH
                images = _whole(compute, start)
            else:
                start = first
                images = halving(partial(compute, start), min(batch, end - first), _warn)
                batch = min(batch, len(images))  # smaller from now on if memory ran out
            size, images = len(images), images[first - start : end - start]
            self._check_finite(images, first)
            yield Drawn(images, first, (start, size))
            first += len(images)

    def _check_finite(self, images: Tensor, first: int) -> None:
        bad = ~images.flatten(1).isfinite().all(1)
        if not bad.any():
            return
        text = f"{self.path}: {int(bad.sum())} of {len(bad)} images hold NaN or infinite values (the first is number"
        text += f" {first + int(bad.nonzero()[0])})"
        if all(value.isfinite().all() for value in self.model.state_dict().values()):
            raise UserError(f"{text}; the weights are finite, so give the sampler milder settings")
        raise UserError(f"{text}, because the weights do: the training diverged; train again with a lower lr=")

    def _repr_html_(self) -> str:
        """In a notebook: the samples and the curves."""
        import base64

        pictures = [self.path / "samples" / "last.png", self.path / "curves.png"]
        there = [read_plain(picture, LARGEST_PICTURE) for picture in pictures if picture.exists()]
        data = [base64.b64encode(picture).decode() for picture in there]
        return f"<p>{escape(printable(repr(self)))}</p>" + "".join(
            f'<img src="data:image/png;base64,{text}">' for text in data
        )


@contextmanager
def _one_algorithm() -> Iterator[None]:
    """Inside, cuDNN computes equal shapes in one way: no trials of what is fastest, no sums in the order of arrival."""
    cudnn = torch.backends.cudnn
    held = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = held


def _whole(compute: Callable[[int, int], Tensor], start: int) -> Tensor:
    """A batch of EXACT_BATCH, which cannot be halved and stay exact."""
    try:
        return compute(start, EXACT_BATCH)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"exact=true computes {EXACT_BATCH} images at a time, and memory ran out; leave it out"
        ) from error


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


RunLike = Annotated[Run | str | Path, Field(description="a run folder made by `trilemma train`")]
