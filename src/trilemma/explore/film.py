"""A film from a text or an image, with a published checkpoint: an animation, and a picture of each frame beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.explore.images import numbered_paths
from trilemma.explore.imagination import Imagination, load_for
from trilemma.explore.prompted import Inputs, Request, call_keys, read_inputs, receipt_of, sums_of
from trilemma.keys import Film
from trilemma.pictures.animation import animated, check_film
from trilemma.pictures.grid import grid, to_image
from trilemma.pictures.png import png_content
from trilemma.pretrained.drawing import draw_film, rate_of
from trilemma.pretrained.pipeline import Pipeline
from trilemma.progress import drawing_progress
from trilemma.results import Results
from trilemma.run.compute import one_algorithm
from trilemma.text import note

if TYPE_CHECKING:
    from PIL import Image

FORMATS: dict[str, Film] = {"gif": "gif", "webp": "webp", "mp4": "mp4"}  # by the ending of a name
SHOWN = 16  # frames of the picture, at most, as far from each other


def imagine_film(request: Request, model: str, picture: Path, within: Path, film: Film | None) -> Imagination:
    """See `imagine`, the verb, with frames=.

    Args:
        picture: of some frames; the animation has its name and an ending of its own. Where it ends as an animation
            does, that is its format.
    """
    assert request.frames is not None
    ending = picture.suffix.lower().removeprefix(".")
    own = film or FORMATS.get(ending, "gif")
    check_film(own)
    picture = picture.with_suffix(".png") if ending in FORMATS else picture
    animation = picture.with_suffix(f".{own}")
    paths = numbered_paths(picture, 0, request.frames)
    files = Results(picture, [animation, *paths], verb="imagine", within=within)
    inputs = read_inputs(request)
    pipeline = load_for(request, model)
    frames = frames_of(pipeline, request, inputs)
    if len(frames) != request.frames:
        note(f"{model} draws {len(frames)} frames where {request.frames} are asked for")
        paths = numbered_paths(picture, 0, len(frames))
        files = Results(picture, [animation, *paths], verb="imagine", within=within)
    rate = rate_of(pipeline, request.fps)
    contents: dict[Path, bytes | str] = {animation: film_content(frames, rate, own)}
    for k, path in enumerate(paths):
        contents[path] = png_content(frames[k], film_receipt(pipeline, request.with_(frame=k), frames))
    files.write(film_picture(frames), film_receipt(pipeline, request, frames), contents)
    return Imagination(picture, paths, frames, animation)


def frames_of(pipeline: Pipeline, request: Request, inputs: Inputs) -> Tensor:
    """The frames of the film of a request, (F, 3, H, W) in [0, 1]."""
    keys: dict[str, Any] = {"keys": call_keys(request, inputs), "scheduler": request.scheduler}
    with one_algorithm(), drawing_progress(1) as on_steps_of:
        return draw_film(pipeline, request.prompts[0], request.first, seed=request.seed, **keys, on_step=on_steps_of(0))


def film_content(frames: Tensor, rate: int, film: Film) -> bytes:
    """The content of an animation, `rate` frames in a second."""
    pictures = [to_image(frame) for frame in frames]
    return animated(pictures, [round(1000 / rate)] * len(pictures), film, rate)


def film_picture(frames: Tensor, frame: int | None = None) -> "Image.Image":
    """A frame, or SHOWN of them at most with their numbers.

    Raises:
        UserError: there is no such frame.
    """
    if frame is None:
        shown = torch.linspace(0, len(frames) - 1, min(SHOWN, len(frames))).round().int().tolist()
        return grid(frames[shown], scale=1, pad=4, texts=[str(k) for k in shown])
    if frame >= len(frames):
        raise UserError(f"the film has {len(frames)} frames, and none of number {frame}")
    return to_image(frames[frame])


def film_receipt(pipeline: Pipeline, request: Request, frames: Tensor) -> dict[str, Any]:
    """How a film, or the frame of a request, is made."""
    return receipt_of(pipeline, request, sums_of(request), list(frames.shape[2:]))
