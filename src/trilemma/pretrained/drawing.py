"""One image of a pipeline at a time: image k depends on (seed, k) alone.

Our keys have their names in diffusers by the signature of the call; a key that a pipeline does not take is refused.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from trilemma import rng
from trilemma.errors import UserError, check_finite
from trilemma.pretrained.libraries import silence
from trilemma.pretrained.pipeline import Pipeline, their_errors
from trilemma.progress import OnStep
from trilemma.text import note

THEIRS = {  # the names of our keys in a call
    "steps": ("num_inference_steps",),
    "guidance": ("guidance_scale",),
    "negative": ("negative_prompt",),
    "size": ("height", "width"),
    "image": ("image",),
    "strength": ("strength",),
    "mask": ("mask_image",),
    "frames": ("num_frames",),
}
STEP_END = "callback_on_step_end"  # keyword of the calls that say when a step is done
RATES = ("fps", "frame_rate")  # keywords of films that know how fast they are
RATE = 8  # images in a second of those that do not


def task_of(keys: Mapping[str, Any]) -> str:
    """What is drawn from, by the keys that are given.

    Raises:
        UserError: keys that belong together are not all given.
    """
    if keys.get("mask") is not None and keys.get("image") is None:
        raise UserError("mask= needs image=, the image that is drawn in part")
    if keys.get("strength") is not None and keys.get("image") is None:
        raise UserError("strength= needs image=, the image that is drawn again")
    if keys.get("image") is None:
        return "text"
    return "image" if keys.get("mask") is None else "mask"


def arguments(pipe: Any, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a pipeline's call for our keys; those that are None are left to the pipeline.

    Raises:
        UserError: it does not take one of them.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    own = [key for key, theirs in THEIRS.items() if set(theirs) <= set(known)]
    given = {key: value for key, value in keys.items() if value is not None}
    if strange := [key for key in given if key not in own]:
        raise UserError(
            f"{type(pipe).__name__} does not take {strange[0]}=; it takes {', '.join(own) or 'a text alone'}"
        )
    note_unused_negative(pipe, given)
    values: dict[str, Any] = {}
    for key, value in given.items():
        values |= dict(zip(THEIRS[key], value if key == "size" else (value,), strict=True))
    return values


def is_guided(pipe: Any, guidance: float | None) -> bool:
    """Whether a pipeline is guided away from negative=: guidance, or else the pipeline's own, is above 1."""
    theirs = inspect.signature(type(pipe).__call__).parameters.get("guidance_scale")
    scale = theirs.default if guidance is None and theirs is not None else guidance
    return scale is None or scale > 1


def note_unused_negative(pipe: Any, keys: Mapping[str, Any]) -> None:
    """Say, once, where negative= changes nothing.

    Args:
        keys: by our names.
    """
    if keys.get("negative") and not is_guided(pipe, keys.get("guidance")):
        _note_once("negative= changes nothing without guidance; give guidance= above 1, or leave negative= out")


def draw(
    pipeline: Pipeline,
    prompt: str,
    k: int,
    *,
    seed: int,
    keys: Mapping[str, Any],
    scheduler: str | None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Image k of a seed, float32 (1, 3, H, W) in [0, 1] on the CPU.

    Args:
        keys: by our names; image and mask as pictures of PIL.
        on_step: is told each step, where the pipeline says when it is done.
    Raises:
        UserError: the pipeline does not take a key, or cannot draw this.
    """
    task = task_of(keys)
    pipe = pipeline.for_task(task)
    known = inspect.signature(type(pipe).__call__).parameters
    if task != "text" and "height" not in known:
        keys = {**keys, "size": None}  # that of the image
    values = arguments(pipe, keys)
    strength = known["strength"].default if "strength" in known else None
    check_steps(values.get("num_inference_steps"), values.get("strength", strength))
    pipeline.use_scheduler(scheduler)
    noise = noise_of(seed, k)
    result = call(pipeline, pipe, on_step, prompt=prompt, **values, generator=noise, output_type="pt")
    return _checked(pipeline, pipe, result, k)


def noise_of(seed: int, k: int) -> torch.Generator:
    """What image k of a seed is drawn from."""
    return rng.generator(seed, "imagine", k)


def call(pipeline: Pipeline, pipe: Any, on_step: OnStep | None = None, /, **values: Any) -> Any:
    """What a pipeline answers to a call; in silence.

    Args:
        on_step: is told each step, where the pipeline says when it is done.
    Raises:
        UserError: it cannot draw this.
    """
    if on_step is not None and STEP_END in inspect.signature(type(pipe).__call__).parameters:
        values[STEP_END] = _step_end(on_step)
    with torch.no_grad(), silence() as warned, their_errors(f"{pipeline.place.name} cannot draw this"):
        result = pipe(**values)
    if any("truncated" in text for text in warned):
        start = str(values.get("prompt"))[:40]
        _note_once(f'{pipeline.place.name} does not read the end of a long prompt: "{start}..."')
    return result


def _step_end(on_step: OnStep) -> Callable[..., dict[str, Any]]:
    """What a pipeline calls at the end of a step; {}: no tensor of its own is changed."""

    def step_end(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, getattr(pipe, "num_timesteps", None) or len(pipe.scheduler.timesteps))
        return {}

    return step_end


def _checked(pipeline: Pipeline, pipe: Any, result: Any, k: int) -> Tensor:
    """The images of an answer, float32 (n, 3, H, W) in [0, 1] on the CPU.

    Raises:
        UserError: it holds none, or they are not finite.
    """
    images = getattr(result, "images", None)
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise UserError(
            f"{pipeline.place.name} ({type(pipe).__name__}) draws something else than images; choose another model="
        )
    images = images.float().cpu()
    check_finite(images, "images", "take another scheduler=, or more steps=", first=k)
    return images.clamp(0, 1)


def rate_of(pipeline: Pipeline, fps: int | None) -> int:
    """Images in a second of a film: as asked for, else as the pipeline has it, else RATE."""
    known = inspect.signature(type(pipeline.base).__call__).parameters
    own = [known[name].default for name in RATES if name in known]
    return fps or (int(own[0]) if own else RATE)


def draw_film(
    pipeline: Pipeline,
    prompt: str,
    k: int,
    *,
    seed: int,
    keys: Mapping[str, Any],
    scheduler: str | None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Film k of a seed, float32 (F, 3, H, W) in [0, 1] on the CPU.

    Args:
        keys: as `draw`, with frames and fps; a pipeline may draw another number of frames that suits it.
        on_step: as `draw`.
    Raises:
        UserError: the pipeline does not take a key, reads no text, needs an image, or cannot draw this.
    """
    pipe, text = pipeline.base, text_of(pipeline, prompt, keys.get("image"))
    known = inspect.signature(type(pipe).__call__).parameters
    values = {**arguments(pipe, {key: value for key, value in keys.items() if key != "fps"}), **text}
    values |= {name: keys["fps"] for name in RATES if name in known and keys.get("fps") is not None}
    pipeline.use_scheduler(scheduler)
    result = call(pipeline, pipe, on_step, **values, generator=noise_of(seed, k), output_type="pt")
    films = result.frames.float().cpu()  # (1, F, 3, H, W)
    check_finite(films, "images", "take another scheduler=, or more steps=", first=k)
    return films[0].clamp(0, 1)


def text_of(pipeline: Pipeline, prompt: str, image: Any) -> dict[str, str]:
    """The prompt by its keyword in the call of `pipeline.base`; {} where that reads no text.

    Raises:
        UserError: it reads no text and is given one, or draws from an image and is given none.
    """
    known = inspect.signature(type(pipeline.base).__call__).parameters
    name = f"{pipeline.place.name} ({type(pipeline.base).__name__})"
    if prompt and "prompt" not in known:
        raise UserError(f'{name} reads no text, only an image; give "" for it')
    if image is None and "image" in known and known["image"].default in (inspect.Parameter.empty, None):
        raise UserError(f"{name} draws from an image; give image=")
    return {"prompt": prompt} if "prompt" in known else {}


def draw_between(
    pipeline: Pipeline,
    latents: Tensor,
    embeddings: Mapping[str, Tensor],
    *,
    seed: int,
    keys: Mapping[str, Any],
    on_step: OnStep | None = None,
) -> Tensor:
    """An image from given noise and given embeddings of a prompt, float32 (1, 3, H, W) in [0, 1] on the CPU.

    Args:
        latents: the noise, (1, C, h, w); embeddings: by their keywords; keys: by our names, without the prompt's.
        on_step: as `draw`.
    Raises:
        UserError: as `draw`.
    """
    pipe = pipeline.for_task("text")
    values = {**arguments(pipe, keys), **embeddings, "latents": latents}
    noise = rng.generator(seed, "between", 0)  # of a scheduler that adds some, alike in all images of a way
    return _checked(pipeline, pipe, call(pipeline, pipe, on_step, **values, generator=noise, output_type="pt"), 0)


def check_steps(steps: int | None, strength: float | None) -> None:
    """Raises UserError where an image is drawn again in less than one step: pipelines take steps * strength of them."""
    if steps is not None and strength is not None and steps * strength < 1:
        raise UserError(f"steps={steps} strength={strength:g}: no step is left; their product must be 1 or more")


@cache
def _note_once(text: str) -> None:
    note(text)
