"""One image of a pipeline at a time: image k depends on (seed, k) alone.

Our keys have their names in diffusers by the signature of the call; a key that a pipeline does not take is refused.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from trilemma import rng
from trilemma.errors import UserError, check_finite
from trilemma.pretrained.libraries import silence
from trilemma.pretrained.pipeline import Pipeline, their_errors
from trilemma.text import note

THEIRS = {  # the names of our keys in a call
    "steps": ("num_inference_steps",),
    "guidance": ("guidance_scale",),
    "negative": ("negative_prompt",),
    "size": ("height", "width"),
    "image": ("image",),
    "strength": ("strength",),
    "mask": ("mask_image",),
}


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
    values: dict[str, Any] = {}
    for key, value in given.items():
        values |= dict(zip(THEIRS[key], value if key == "size" else (value,), strict=True))
    return values


def draw(
    pipeline: Pipeline, prompt: str, k: int, *, seed: int, keys: Mapping[str, Any], scheduler: str | None
) -> Tensor:
    """Image k of a seed, float32 (1, 3, H, W) in [0, 1] on the CPU.

    Args:
        keys: by our names; image and mask as pictures of PIL.
    Raises:
        UserError: the pipeline does not take a key, or cannot draw this.
    """
    task = task_of(keys)
    pipe = pipeline.for_task(task)
    known = inspect.signature(type(pipe).__call__).parameters
    if "prompt" not in known:
        raise UserError(
            f"{pipeline.place.name} ({type(pipe).__name__}) does not draw from a text; choose another model="
        )
    if task != "text" and "height" not in known:
        keys = {**keys, "size": None}  # that of the image
    values = arguments(pipe, keys)
    _check_steps({"strength": known["strength"].default if "strength" in known else None, **values})
    pipeline.use_scheduler(scheduler)
    noise = rng.generator(seed, "imagine", k)
    with torch.no_grad(), silence() as warned, their_errors(f"{pipeline.place.name} cannot draw this"):
        result = pipe(prompt=prompt, **values, generator=noise, output_type="pt")
    if any("truncated" in text for text in warned):
        _note_once(f'{pipeline.place.name} does not read the end of a long prompt: "{prompt[:40]}..."')
    images = getattr(result, "images", None)
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise UserError(f"{pipeline.place.name} ({type(pipe).__name__}) draws something else than images")
    images = images.float().cpu()
    check_finite(images, "images", "take another scheduler=, or more steps=", first=k)
    return images.clamp(0, 1)


def _check_steps(values: Mapping[str, Any]) -> None:
    """Raises UserError where an image is drawn again in less than one step: pipelines take steps * strength of them."""
    steps, strength = values.get("num_inference_steps"), values.get("strength")
    if steps is not None and strength is not None and steps * strength < 1:
        raise UserError(f"steps={steps} strength={strength:g}: no step is left; their product must be 1 or more")


@cache
def _note_once(text: str) -> None:
    note(text)
