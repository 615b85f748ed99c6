"""The way from one prompt to another by a published pipeline: `interpolate` with pipeline:NAME in the place of a run.

At one end the embeddings of the first prompt and the noise of image 0 of a seed, at the other those of the second
prompt and of image 1; between them both go along arcs (`pretrained.embeddings`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from trilemma.config import make
from trilemma.errors import UserError
from trilemma.explore.by_pipeline import DrawingKeys
from trilemma.explore.interpolation import FINER, Interpolation, animated_ways
from trilemma.explore.prompted import Request, receipt_of
from trilemma.keys import Film
from trilemma.pictures.animation import check_film
from trilemma.pictures.table import table
from trilemma.pretrained.drawing import draw_between
from trilemma.pretrained.embeddings import between_embeddings, between_noise, embeddings_of, noise_for
from trilemma.pretrained.fetch import locate
from trilemma.pretrained.pipeline import Pipeline, load_pipeline
from trilemma.pretrained.table import check_verb, defaults_of
from trilemma.progress import drawing_progress
from trilemma.results import Results, place
from trilemma.run.compute import one_algorithm

if TYPE_CHECKING:
    from PIL import Image

WAY = "spherical"


class BetweenKeys(DrawingKeys):
    """The keys that a pipeline takes in `interpolate`."""

    frames: int = Field(default=7, ge=2)
    how: Literal["spherical"] = WAY
    animate: bool = True
    film: Film = "gif"
    size: tuple[int, int] | None = None


def interpolate_by_pipeline(name: str, a: object, b: object, keys: BetweenKeys) -> Interpolation:
    """See `interpolate`, the verb.

    Args:
        a, b: the prompts of both ends.
    Raises:
        UserError: they are not texts, or the pipeline does not draw from embeddings and noise.
    """
    check_film(keys.film, keys.animate)
    check_verb(name, "interpolate")
    if not isinstance(a, str) or not isinstance(b, str):
        raise UserError("interpolate with a pipeline goes from one prompt to another; give two texts")
    asked = {key: getattr(keys, key) for key in ("seed", "steps", "guidance", "negative", "size", "scheduler")}
    given = {key: value for key, value in asked.items() if value is not None}
    request = make(Request, {**defaults_of(name), **given, "prompts": (a, b)})
    picture, within = place(keys.out, Path(), "interpolation.png")
    animation = picture.with_suffix(f".{keys.film}") if keys.animate else None
    files = Results(picture, [animation] if animation else [], verb="interpolate", within=within)
    pipeline = load_pipeline(locate(name), verb="interpolate")
    finer = FINER if keys.animate else 1
    moving = images_between(pipeline, request, (keys.frames - 1) * finer + 1)
    images = moving[::finer]
    contents = {animation: animated_ways({WAY: moving}, keys.film)} if animation else {}
    files.write(way_picture(images), way_receipt(pipeline, request, images), contents)
    return Interpolation(picture, animation, {WAY: images})


def way_picture(images: Tensor) -> "Image.Image":
    """Images from one prompt to the other, (F, 3, H, W), in a row, with the share of the way that each is at."""
    return table(images, [WAY], [f"{share:.2f}" for share in shares(len(images))])


def way_receipt(pipeline: Pipeline, request: Request, images: Tensor) -> dict[str, Any]:
    """How they are made."""
    receipt = receipt_of(pipeline, request, {}, list(images.shape[2:]))
    return {**receipt, "verb": "interpolate", "frames": len(images), "how": WAY}


def shares(count: int) -> list[float]:
    """The shares of the way at which images are, from 0 to 1. Each is a rounded quotient, so that those of fewer images
    are among those of FINER times as many.

    >>> shares(3)
    [0.0, 0.5, 1.0]
    """
    return [k / (count - 1) for k in range(count)]


def images_between(pipeline: Pipeline, request: Request, count: int) -> Tensor:
    """Images from one prompt to the other, both ends among them: (count, 3, H, W) in [0, 1]."""
    keys = {key: getattr(request, key) for key in ("steps", "guidance", "negative", "size")}
    ends = [embeddings_of(pipeline, prompt, keys) for prompt in request.prompts]
    dtype = next(iter(ends[0].values())).dtype
    noise = [noise_for(pipeline, request.size, request.seed, k, dtype) for k in (0, 1)]
    pipeline.use_scheduler(request.scheduler)
    drawn = {**keys, "negative": None}  # it is in the embeddings
    images = []
    with drawing_progress(count) as on_steps_of, one_algorithm():
        for k, t in enumerate(shares(count)):
            latents = between_noise(noise[0], noise[1], t).to(pipeline.device)
            embeddings, on_step = between_embeddings(ends[0], ends[1], t), on_steps_of(k)
            images.append(draw_between(pipeline, latents, embeddings, seed=request.seed, keys=drawn, on_step=on_step))
    return torch.cat(images)
