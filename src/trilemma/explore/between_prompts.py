"""The way from one prompt to another by a published pipeline: `interpolate` with pipeline:NAME in the place of a run.

At one end the embeddings of the first prompt and the noise of image 0 of a seed, at the other those of the second
prompt and of image 1; between them both go along arcs (`pretrained.embeddings`).
"""

from pathlib import Path
from typing import Any, Literal

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
    check_film(keys.film)
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
    moving = {WAY: _images(pipeline, request, (keys.frames - 1) * finer + 1)}
    images = moving[WAY][::finer]
    heads = [f"{t:.2f}" for t in torch.linspace(0, 1, keys.frames).tolist()]
    receipt = receipt_of(pipeline, request, {}, list(images.shape[2:]))
    shown: dict[str, Any] = {"verb": "interpolate", "frames": keys.frames, "how": keys.how}
    contents = {animation: animated_ways(moving, keys.film)} if animation else {}
    files.write(table(images, [WAY], heads), {**receipt, **shown}, contents)
    return Interpolation(picture, animation, {WAY: images})


def _images(pipeline: Pipeline, request: Request, count: int) -> Tensor:
    """Images from one prompt to the other, both ends among them: (count, 3, H, W) in [0, 1]."""
    keys = {key: getattr(request, key) for key in ("steps", "guidance", "negative", "size")}
    ends = [embeddings_of(pipeline, prompt, keys) for prompt in request.prompts]
    dtype = next(iter(ends[0].values())).dtype
    noise = [noise_for(pipeline, request.size, request.seed, k, dtype) for k in (0, 1)]
    pipeline.use_scheduler(request.scheduler)
    drawn = {**keys, "negative": None}  # it is in the embeddings
    images = []
    with drawing_progress(count) as on_steps_of, one_algorithm():
        for k, t in enumerate(torch.linspace(0, 1, count, dtype=torch.float64).tolist()):
            latents = between_noise(noise[0], noise[1], t).to(pipeline.device)
            embeddings, on_step = between_embeddings(ends[0], ends[1], t), on_steps_of(k)
            images.append(draw_between(pipeline, latents, embeddings, seed=request.seed, keys=drawn, on_step=on_step))
    return torch.cat(images)
