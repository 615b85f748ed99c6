"""A pipeline that lies on this disk, loaded: by the class that its index names, from safetensors alone.

One checkpoint draws from text, from an image and under a mask: `for_task` makes the pipelines of the others from the
same networks. On a CPU it computes in float32; on a CUDA device in half precision, its parts moved there one after
another where they do not all fit. What a decoder in half precision makes NaN of is decoded again in float32.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UserError, named
from trilemma.extras import pip
from trilemma.hardware import pick_device
from trilemma.memory import is_out_of_memory
from trilemma.pretrained.content import origin
from trilemma.pretrained.fetch import HALF, Place
from trilemma.pretrained.kinds import check_kind, is_masked, product_of
from trilemma.pretrained.libraries import brief, load_diffusers, silence
from trilemma.pretrained.safety import INDEX, WEIGHTS, check_folder, check_network, components
from trilemma.pretrained.weights import check_memory, parameters_in, precision_for, weight_files
from trilemma.text import note

UNFILLED = ("newly initialized", "MISSING")  # how the libraries say that weights are not in the files
UNFIT = ("unexpected keys", "missing keys", "UNEXPECTED")  # and that a LoRA has other layers than a network
ADAPTED, FILMING, ADAPTER = "StableDiffusionPipeline", "AnimateDiffPipeline", "MotionAdapter"  # classes
MOTION = {  # how the published motion adapters were trained, as the documentation of diffusers says
    "beta_schedule": "linear", "timestep_spacing": "linspace", "clip_sample": False, "steps_offset": 1,
}  # fmt: skip
TASKS = {"text": "Text2Image", "image": "Image2Image", "mask": "Inpainting"}
WITHOUT_CHECKER = {"safety_checker": None, "requires_safety_checker": False}
DRAWS = {"text": "from text alone", "image": "from an image", "mask": "under a mask"}


@dataclass
class Pipeline:
    """A loaded pipeline: where it is, the object of diffusers, what it computes in, and its motion adapter, if any."""

    place: Place
    base: Any
    device: torch.device
    dtype: torch.dtype
    offloads: bool
    adapter: Place | None = None

    def __post_init__(self) -> None:
        self.scheduler = self.base.scheduler
        self._tasks: dict[str, Any] = {}
        self._lora: Path | None = None

    @cached_property
    def origin(self) -> dict[str, str]:
        """See `origin`; the hash is computed once."""
        return origin(self.place)

    @cached_property
    def adapter_origin(self) -> dict[str, str] | None:
        """That of its motion adapter; None without one."""
        return None if self.adapter is None else origin(self.adapter)

    def for_task(self, task: str) -> Any:
        """The pipeline that draws from "text", from an "image", or under a "mask".

        Raises:
            UserError: the checkpoint has none.
        """
        if task not in self._tasks:
            self._tasks[task] = self._made_for(task)
        return self._tasks[task]

    def _made_for(self, task: str) -> Any:
        if takes(self.base, task):
            return self.base
        kind = type(self.base).__name__
        if is_masked(type(self.base), self.place.folder):
            raise UserError(
                f"{self.place.name} ({kind}) draws under a mask alone; give image= and mask=, or choose another model="
            )
        try:
            with silence():
                pipe = getattr(load_diffusers(), f"AutoPipelineFor{TASKS[task]}").from_pipe(self.base)
        except ValueError:
            raise UserError(f"{self.place.name} ({kind}) does not draw {DRAWS[task]}; choose another model=") from None
        if self.offloads:
            pipe.enable_model_cpu_offload(device=self.device)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def use_scheduler(self, name: str | None) -> Any:
        """From now on, draw with the scheduler of that class, or that of the checkpoint.

        Returns:
            The scheduler.
        Raises:
            UserError: there is none of that name that fits the checkpoint.
        """
        scheduler = self.scheduler
        if name is not None and name != type(scheduler).__name__:
            classes = {kind.__name__: kind for kind in sorted(scheduler.compatibles, key=lambda kind: kind.__name__)}
            kind = named("scheduler", name, classes)
            with silence(), their_errors(f"scheduler={name}"):
                scheduler = kind.from_config(scheduler.config)
        for pipe in [self.base, *self._tasks.values()]:
            pipe.scheduler = scheduler
        return scheduler

    def use_lora(self, path: str | Path | None) -> None:
        """From now on, draw with the weights of that LoRA file added, or with those of the checkpoint alone.

        Raises:
            UserError: as `load_lora`.
        """
        lora = None if path is None else Path(path)
        if lora == self._lora:
            return
        if self._lora is not None:
            with silence(), their_errors(f"lora={self._lora}"):
                self.base.unload_lora_weights()
        self._lora = None
        if lora is not None:
            self.load_lora(lora)
        self._lora = lora

    def load_lora(self, path: Path) -> None:
        """Add the weights of a LoRA file.

        Raises:
            UserError: as `check_lora`; the pipeline takes no LoRA, or lacks layers that the file has weights for.
        """
        check_lora(path)
        from safetensors.torch import load_file

        who = f"{self.place.name} ({type(self.base).__name__})"
        if not hasattr(self.base, "load_lora_weights"):
            raise UserError(f"{who} does not take lora=; leave it out, or choose another model=")
        with silence() as warned, their_errors(f"lora={path}"):
            self.base.load_lora_weights(load_file(path))
            is_used = any(self.base.get_list_adapters().values())
        if not is_used:
            raise UserError(f"lora={path}: no network of {who} takes its weights; give a LoRA for this model")
        if any(words in text for text in warned for words in UNFIT):
            raise UserError(f"lora={path}: {who} lacks layers of it; give a LoRA for this model")


def check_lora(path: Path) -> None:
    """Raises UserError, before any work, where the package peft is missing or the file is not one of weights."""
    if find_spec("peft") is None:
        raise UserError(f'lora= needs the package peft: {pip()} install "peft>=0.17"')
    if path.suffix != WEIGHTS or not path.is_file():
        raise UserError(f"lora={path}: give a file of weights that ends in {WEIGHTS}")


def load_pipeline(
    place: Place,
    device: str = "auto",
    *,
    verb: str | None = None,
    frames: bool = False,
    adapter: Place | None = None,
) -> Pipeline:
    """A pipeline from its folder, checked first.

    Args:
        verb: what it is loaded for, if that takes some classes alone; frames: whether a film is asked for.
        adapter: layers between frames, with which a Stable Diffusion draws films (Guo et al. 2023, "AnimateDiff").
    Raises:
        UserError: the folder holds what it may not, its class is unknown or not for the verb, weights are missing or do
            not fit, or the machine has not the memory; or so it is with the adapter.
    """
    index = check_folder(place.folder, place.within)
    diffusers, parts = load_diffusers(), components(index, place.folder / INDEX)
    with silence():  # classes are imported when they are looked up
        kind = pipeline_class(diffusers, _class_of(index, place, adapter))
        _check_classes(diffusers, parts, place)
    if verb is not None:
        check_kind(kind, place, verb, frames=frames)
    where = pick_device(device)
    dtype = precision_for(where)
    files = weight_files(place.folder, parts)
    more = [] if adapter is None else _adapter_files(adapter)
    offloads = check_memory(place.name, parameters_in([*files, *more]) * dtype.itemsize, where, dtype)
    keys: dict[str, Any] = {"variant": "fp16"} if any(HALF in path.name for path in files) else {}
    keys |= {name: value for name, value in WITHOUT_CHECKER.items() if name in _keywords(kind.__init__)}
    keys |= {} if adapter is None else {"motion_adapter": _load_adapter(adapter, dtype)}
    advice = "; download it again, or choose another model="
    with silence() as warned, their_errors(f"{place.name} cannot be loaded", advice):
        pipe = kind.from_pretrained(place.folder, dtype=dtype, use_safetensors=True, local_files_only=True, **keys)
    _check_filled(place, warned)
    if adapter is not None:
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, **MOTION)
    pipe.set_progress_bar_config(disable=True)
    if (vae := pipe.components.get("vae")) is not None and hasattr(vae, "decode"):
        _decode_in_float32_if_nan(vae)
    if offloads:
        pipe.enable_model_cpu_offload(device=where)
    else:
        pipe.to(where)
    return Pipeline(place, pipe, where, dtype, offloads, adapter)


def product_at(place: Place) -> str:
    """What the pipeline at a place draws, by the class that its index names (see `product_of`); no weights are loaded.

    Raises:
        UserError: the folder holds what it may not, or its class is unknown.
    """
    index, diffusers = check_folder(place.folder, place.within), load_diffusers()
    with silence():  # classes are imported when they are looked up
        return product_of(pipeline_class(diffusers, index["_class_name"]))


def _class_of(index: dict[str, Any], place: Place, adapter: Place | None) -> str:
    """The name of the class that an index names, or that of a Stable Diffusion with an adapter.

    Raises:
        UserError: it is not a Stable Diffusion.
    """
    if adapter is None:
        return index["_class_name"]
    if index["_class_name"] != ADAPTED:
        raise UserError(
            f"{place.name} ({index['_class_name']:.80}) takes no adapter=, which makes films of a {ADAPTED}; leave it "
            "out, or choose another model="
        )
    return FILMING


def _adapter_files(place: Place) -> list[Path]:
    """The files of weights of a motion adapter, whose folder is checked first."""
    check_network(place.folder, ADAPTER, place.within)
    return weight_files(place.folder, {".": None})


def _load_adapter(place: Place, dtype: torch.dtype) -> Any:
    """A motion adapter from its folder."""
    keys: dict[str, Any] = {"variant": "fp16"} if any(HALF in path.name for path in _adapter_files(place)) else {}
    advice = "; download it again, or choose another adapter="
    with silence() as warned, their_errors(f"adapter={place.name} cannot be loaded", advice):
        adapter = load_diffusers().MotionAdapter.from_pretrained(
            place.folder, dtype=dtype, use_safetensors=True, local_files_only=True, **keys
        )
    _check_filled(place, warned)
    return adapter


def _check_filled(place: Place, warned: list[str]) -> None:
    """Raises UserError where the libraries filled in weights that the files lack."""
    if unfilled := [text for text in warned if any(words in text for words in UNFILLED)]:
        raise UserError(f"{place.name} lacks weights: {brief(ValueError(unfilled[0]))}; download it again")


def pipeline_class(diffusers: Any, name: str) -> Any:
    """The class of a pipeline of diffusers.

    Raises:
        UserError: it has none of that name.
    """
    kind = getattr(diffusers, name, None) if name.isidentifier() and not name.startswith("_") else None
    if not inspect.isclass(kind) or not issubclass(kind, diffusers.DiffusionPipeline):
        raise UserError(
            f"{name:.80} is not a pipeline of diffusers {diffusers.__version__}; a later version may have it"
        )
    return kind


def _check_classes(diffusers: Any, parts: dict[str, tuple[str, str]], place: Place) -> None:
    """Raises UserError for a part whose class is not a network, scheduler, tokeniser or processor."""
    import transformers  # pyright: ignore[reportMissingImports]
    from diffusers import pipelines  # pyright: ignore[reportMissingImports]

    libraries = {"diffusers": diffusers, "transformers": transformers}
    bases = (
        diffusers.ModelMixin,
        diffusers.SchedulerMixin,
        transformers.PreTrainedModel,
        transformers.PreTrainedTokenizerBase,
        transformers.FeatureExtractionMixin,
        transformers.ProcessorMixin,
        transformers.image_processing_base.ImageProcessingMixin,
    )
    for name, (library, word) in parts.items():
        home = libraries.get(library) or getattr(pipelines, library, None)
        kind = getattr(home, word, None)
        if kind is None and library == "transformers":
            continue  # a former name, for which diffusers knows the present one, or refuses it
        if not inspect.isclass(kind) or not issubclass(kind, bases):
            raise UserError(
                f"{place.folder / INDEX}: {name} is {library}.{word:.80}, which is not a part of a pipeline"
            )


def takes(pipe: Any, task: str) -> bool:
    """Whether a pipeline draws from "text", from an "image", or under a "mask", by the keywords of its call."""
    keys = _keywords(type(pipe).__call__)
    wanted = {"image": task in ("image", "mask"), "mask_image": task == "mask"}
    return all((key in keys) == is_wanted for key, is_wanted in wanted.items())


def _keywords(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def _decode_in_float32_if_nan(vae: Any) -> None:
    """Let a decoder in half precision decode again in float32 what became NaN or infinite."""
    decode = vae.decode

    def safe(z: Tensor, *args: Any, **keys: Any) -> Any:
        decoded = decode(z, *args, **keys)
        dtype = vae.dtype
        if dtype == torch.float32 or decoded[0].isfinite().all():
            return decoded
        note(f"NaN from the decoder in {str(dtype).removeprefix('torch.')}: decoding again in float32")
        vae.to(torch.float32)
        try:
            return decode(z.float(), *args, **keys)
        finally:
            vae.to(dtype)

    vae.decode = safe


@contextmanager
def their_errors(what: str, advice: str = "") -> Iterator[None]:
    """Inside, an error of the libraries becomes one of ours, in a sentence.

    Args:
        advice: what to do about it, where what they say is for programmers.
    Raises:
        UserError: instead of any other.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(f"{what}: memory ran out; ask for a smaller size=, or take a smaller model=") from error
        raise UserError(f"{what}: {brief(error)}{advice}") from error
