"""A finished (or stopped) training, read from its folder: `run = trilemma.load("runs/vae-digits")`."""

import inspect
import json
import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from trilemma.config import ModelConfig, make
from trilemma.data import Data, load_data
from trilemma.data.labels import class_number
from trilemma.errors import UserError, check_codes, check_images, check_labels, unknown, unknown_key
from trilemma.files import sha256_of
from trilemma.hardware import pick_device
from trilemma.locate import run_folder
from trilemma.memory import halving, is_out_of_memory
from trilemma.migration import stated_variance
from trilemma.modes import own_modes
from trilemma.registry import Recipe, build, get_recipe, list_models, models_that
from trilemma.types import Conditional, Decodes, Encodes, Reconstructs, Samples, codes_need_labels
from trilemma.vocabulary import sampling_keys

FORMAT = 1
Label = str | int | Tensor | None  # of given images: one class by name or index for all, or int64 (N,)
WEIGHTS = "weights.safetensors"
KEYS = ("format", "model", "model_config", "training", "data", "fingerprint", "classes", "command")  # of config.json
EXACT_BATCH = 64  # images computed together where each must be bit-equal; image k has place k % 64 in its batch


def load(path: str | Path, *, device: str = "auto") -> "Run":
    """Open a run folder.

    Raises:
        UserError: if it is not a run, is not finished, or was made by a later version.
    """
    return Run(path, device=device)


def as_run(what: "Run | str | Path") -> "Run":
    """A run as it is, or the run of a folder."""
    return what if isinstance(what, Run) else Run(what)


class Drawn(NamedTuple):
    """Images number `first` and on (n, C, H, W), and the batch they were computed in: its first number, its size."""

    images: Tensor
    first: int
    batch: tuple[int, int]


class Run:
    """A run folder: `config` and `summary` as they lie there; model and data are loaded when first used."""

    def __init__(self, path: str | Path, *, device: str = "auto") -> None:
        self.path = run_folder(path)
        self.device = pick_device(device)
        self.config = self._read("config.json")
        missing = [key for key in KEYS if not isinstance(self.config, dict) or key not in self.config]
        if missing:
            raise UserError(f"{self.path} is not a run: its config.json has no {', '.join(missing)}")
        if self.config["format"] != FORMAT:
            came = self.config["format"]
            raise UserError(f"{self.path} has format {came}; this version reads {FORMAT}: use the version that made it")
        self.recipe: Recipe = get_recipe(self.config["model"])

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @cached_property
    def model_config(self) -> ModelConfig:
        """The settings of the network."""
        return make(type(self.recipe.config), stated_variance(self.config["model_config"]))

    @cached_property
    @own_modes()
    def model(self) -> nn.Module:
        """The trained network, in eval mode on the run's device."""
        weights = self.path / WEIGHTS
        if not weights.exists():
            go_on = f"{self.config['command']} out={shlex.quote(str(self.path))}"
            raise UserError(f"{self.path} is not finished: it has no {WEIGHTS}. Resume with: {go_on}")
        model = build(self.recipe, self.model_config)
        try:
            model.load_state_dict(load_file(weights))
        except Exception as error:  # safetensors and torch have no common error
            raise UserError(f"{weights} does not hold the weights of {self.recipe.name}: {error}") from error
        if self.config["training"]["channels_last"]:  # the layout that gained in training gains in sampling
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.to(self.device).eval()

    @cached_property
    @own_modes()
    def data(self) -> Data:
        """The images it was trained on, read again from their source.

        Raises:
            UserError: if the source is gone or its images changed: what was held out may have been trained on.
        """
        training, source = self.config["training"], self.config["data"]
        data = load_data(
            source,
            size=tuple(training["size"]) if training["size"] else None,
            channels=training.get("channels") or self.model_config.shape[0],  # earlier versions did not write the key
            valid=training["valid"],
            seed=training.get("split_seed"),
            frames=training.get("frames"),
            rule=training.get("split_rule", "tenth"),  # as earlier versions divided
        )
        if data.fingerprint != self.config["fingerprint"]:
            raise UserError(
                f"the images of {source} are not those that {self.path} was trained on (files were added, removed or "
                "changed, or an earlier version read them otherwise); restore them, or train again"
            )
        return data

    @property
    def summary(self) -> dict[str, Any]:
        """Last and best figures by name, images, seconds, images per second, parameters."""
        return self._read("summary.json")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What happened to its training and what is wrong with its model, each with the step; () of earlier versions,
        which did not write it."""
        found = self.summary.get("warnings", [])
        return tuple(text for text in found if isinstance(text, str)) if isinstance(found, list) else ()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The rows of log.jsonl."""
        from trilemma.training.log import read_log  # training imports this module

        return read_log(self.path / "log.jsonl")

    @property
    def weights_id(self) -> str:
        """The first 16 digits of the SHA-256 of the weights."""
        return sha256_of(self.path / WEIGHTS)[:16]

    def sample(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        first: int = 0,
        label: str | int | None = None,
        batch: int = 256,
        exact: bool = False,
        **settings: Any,
    ) -> Tensor:
        """Draw images number first ... first + n - 1 of `seed`; image k is the same whatever n, first and batch are.

        Its noise is bit-equal; its values may differ by rounding, 1/255 at most, because a processor adds up batches
        of different sizes in a different order.

        Args:
            label: a class by name or index, for a model that takes one.
            batch: images computed at a time, which bounds the memory; halved if it runs out.
            exact: bit-equal values too (same machine and version): whole batches of EXACT_BATCH are computed, in
                which each image has its own place. One image then costs as much as 64; `batch` has no effect.
            settings: what this model's sampler takes (steps, eta, temperature, ...).
        Returns:
            float32 in [0, 1] on the CPU, (n, C, H, W).
        Raises:
            UserError: if the model does not sample, does not take the label or a setting, or draws NaN.
        """
        parts = self.draw(n, seed=seed, first=first, label=label, batch=batch, exact=exact, **settings)
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
        label: str | int | None = None,
        batch: int = 256,
        exact: bool = False,
        **settings: Any,
    ) -> Iterator[Drawn]:
        """As `sample`, batch by batch: never more than one batch is held."""
        if n < 1 or batch < 1 or first < 0:
            raise UserError(f"n={n}, batch={batch}, first={first}: n and batch must be at least 1, first at least 0")
        model = self.model
        if not isinstance(model, Samples):
            raise UserError(f"{self.recipe.name} does not draw samples; models that do: {', '.join(list_models())}")
        settings = self.checked(settings, Run.sample)
        index = self._label_index(label)

        def compute(start: int, count: int) -> Tensor:
            labels = None if index is None else torch.full((count,), index, device=self.device)
            with own_modes(), _one_algorithm():
                return model.sample(count, seed=seed, first=start, labels=labels, **settings).float().cpu()

        return self._in_parts(compute, first, first + n, batch, exact)

    def encode(self, images: Tensor, label: Label = None, batch: int = 256) -> Tensor:
        """Codes of images.

        Args:
            images: floats in [0, 1], (N, C, H, W), on any device.
            label: the class of all of them by name or index, or of each, int64 (N,), for a model that takes one; where
                the codes do not depend on it (`codes_need_labels`), it makes no difference.
            batch: images computed at a time, which bounds the memory; halved if it runs out.
        Returns:
            float32 on the CPU, (N, Z).
        Raises:
            UserError: if the model does not encode, images or labels do not fit it, or a code is not finite.
        """
        self.require("encode images", Encodes)
        check_images(images, self.model_config.shape)
        results = self._passed(self.model.encode, images, label, batch)  # type: ignore[arg-type]
        return self._finite("codes", images, results)

    def decode(self, codes: Tensor, label: Label = None, batch: int = 256) -> Tensor:
        """Images of codes (N, Z), as `encode`: float32 in [0, 1] on the CPU, (N, C, H, W).

        Raises:
            UserError: if the model does not decode, codes or labels do not fit it, or an image is not finite.
        """
        self.require("decode", Decodes)
        if (length := getattr(self.model, "code_length", None)) is not None:
            check_codes(codes, length)
        results = self._passed(self.model.decode, codes, label, batch)  # type: ignore[arg-type]
        return self._finite("images", codes, results)

    def reconstruct(self, images: Tensor, label: Label = None, batch: int = 256) -> Tensor:
        """Images after a pass through the model, as `encode`: float32 in [0, 1] on the CPU, (N, C, H, W).

        Raises:
            UserError: if the model does not reconstruct, images or labels do not fit it, or a result is not finite.
        """
        self.require("reconstruct", Reconstructs)
        check_images(images, self.model_config.shape)
        results = self._passed(self.model.reconstruct, images, label, batch)  # type: ignore[arg-type]
        return self._finite("images", images, results)

    def require(self, doing: str, *protocols: type) -> None:
        """Refuse a model that lacks a capability, with the models that have it.

        Args:
            doing: what it would do, as in "does not reconstruct".
        """
        missing = [protocol for protocol in protocols if not isinstance(self.model, protocol)]
        if missing:
            part = "decoder" if missing == [Decodes] else "encoder"
            able = ", ".join(models_that(*protocols))
            raise UserError(f"{self.recipe.name} does not {doing}: it has no {part}; models that do: {able}")

    def _passed(self, function: Callable[..., Tensor], inputs: Tensor, label: Label, batch: int) -> Tensor:
        """`function(inputs, labels)` on the run's device, batch by batch, without gradients: float32 on the CPU."""
        if batch < 1 or not len(inputs):
            raise UserError(f"batch={batch}, {len(inputs)} given: at least 1 of each is needed")
        labels = self._labels(label, len(inputs))

        def compute(start: int, count: int) -> Tensor:
            part = slice(start, start + count)
            of_part = None if labels is None else labels[part].to(self.device)
            with own_modes(), torch.no_grad():
                return function(inputs[part].to(self.device, torch.float32), of_part).float().cpu()

        done, results = 0, torch.empty(0, dtype=torch.float32)
        while done < len(inputs):
            part = halving(partial(compute, done), min(batch, len(inputs) - done), _warn)
            batch = min(batch, len(part))  # smaller from now on if memory ran out
            results = results if done else torch.empty(len(inputs), *part.shape[1:], dtype=torch.float32)
            results[done : done + len(part)] = part
            done += len(part)
        return results

    def _labels(self, label: Label, count: int) -> Tensor | None:
        """Labels (count,) of given images or codes; None for a model that takes none."""
        if label is None and codes_need_labels(self.model):
            raise UserError(f"{self.recipe.name} in {self.path} needs the class of each image or code; give label=")
        if isinstance(label, str | int):
            return torch.tensor([self._label_index(label)]).expand(count)
        check_labels(label, self.model.n_classes if isinstance(self.model, Conditional) else 0, count)
        return label

    def _finite(self, what: str, inputs: Tensor, results: Tensor) -> Tensor:
        """The results, if they are finite."""
        if results.isfinite().all():
            return results
        what = f"{self.path}: the model gives NaN or infinite {what}"
        if not inputs.isfinite().all():
            raise UserError(f"{what}, because some of what it was given is; give finite values")
        raise UserError(f"{what}; train again with a lower lr=")

    def checked(self, settings: dict[str, Any], verb: Callable[..., Any]) -> dict[str, Any]:
        """Settings of this run's sampler, as values of the types it says; for a model that samples.

        Args:
            verb: what was called with them, whose own keys may have been meant.
        Raises:
            UserError: for a key it does not take, with those it takes, or a value that does not fit.
        """
        known = sampling_keys(self.model)
        types = get_type_hints(self.model.sample)
        checked = {}
        for key, value in settings.items():
            if key not in known:
                own = [word for word, p in inspect.signature(verb).parameters.items() if p.kind is p.KEYWORD_ONLY]
                raise unknown_key(key, {verb.__name__: own, f"drawing from {self.recipe.name}": known})
            try:
                checked[key] = TypeAdapter(types[key]).validate_python(value)
            except ValidationError as error:
                raise UserError(f"{key}={value}: {error.errors()[0]['msg'].lower()}") from None
        return checked

    def _in_parts(
        self, compute: Callable[[int, int], Tensor], first: int, end: int, batch: int, exact: bool
    ) -> Iterator[Drawn]:
        """Images number first ... end - 1 from `compute(start, count)`."""
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

    def _label_index(self, label: str | int | None) -> int | None:
        if label is None:
            return None
        classes = self.config["classes"]
        if not classes:
            raise UserError(f"label={label}: the data of {self.path} has no classes; leave label out")
        if not isinstance(self.model, Conditional):
            raise UserError(
                f"label={label}: {self.recipe.name} was not trained to take a class; leave label out, or use a "
                f"model that takes one: {', '.join(models_that(Conditional))}"
            )
        number = class_number(label, classes)
        if number is None:
            raise unknown("label", str(label), classes)
        return number

    def _read(self, name: str) -> Any:
        file = self.path / name
        try:
            return json.loads(file.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.path} is not a finished run: it has no {name}; train it to its end") from None
        except ValueError as error:
            raise UserError(f"{file} is not readable JSON ({error}); restore it or train again") from None

    def _repr_html_(self) -> str:
        """In a notebook: the samples and the curves."""
        import base64

        pictures = [self.path / "samples" / "last.png", self.path / "curves.png"]
        data = [base64.b64encode(picture.read_bytes()).decode() for picture in pictures if picture.exists()]
        return f"<p>{self!r}</p>" + "".join(f'<img src="data:image/png;base64,{text}">' for text in data)


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
