"""An object from a text or an image, with a published checkpoint: views from all round, turning, and its surface."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trilemma.errors import UserError
from trilemma.explore.imagination import Imagination, load_for
from trilemma.explore.prompted import Request, read_inputs, receipt_of, sums_of
from trilemma.keys import Film
from trilemma.pictures.animation import animated, check_film
from trilemma.pictures.grid import grid, to_image
from trilemma.pictures.mesh import MeshFormat, mesh_content
from trilemma.pretrained.fetch import Place
from trilemma.pretrained.pipeline import Pipeline
from trilemma.pretrained.solid import draw_solid, mesh_of, side_of, views_of
from trilemma.results import Results
from trilemma.run.compute import one_algorithm
from trilemma.text import note

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = 5  # of the picture
VIEW_MS = 100  # time of a view in the animation


def imagine_solid(
    request: Request, source: Place, picture: Path, within: Path, film: Film = "gif", kind: MeshFormat = "ply"
) -> Imagination:
    """See `imagine`, the verb, with a model of objects.

    Args:
        picture: of all views; the animation and the surface have its name with endings of their own.
    """
    if len(request.cells) > 1 or request.fps is not None:
        raise UserError(f"{source.name} makes one object: give one prompt, and no n=, x= and fps=")
    check_film(film)
    side_of(request.size)
    animation, surface = picture.with_suffix(f".{film}"), picture.with_suffix(f".{kind}")
    files = Results(picture, [animation, surface], verb="imagine", within=within)
    pipeline = load_for(request, source)
    latents = latents_of(pipeline, request)
    views = solid_views(pipeline, request, latents)
    pictures = [to_image(view) for view in views]
    contents: dict[Path, bytes | str] = {animation: animated(pictures, [VIEW_MS] * len(pictures), film)}
    mesh = mesh_of(pipeline, latents)
    if mesh is None:
        note(f"the surface of this object is empty, so there is no {surface.name}; try another seed=, or more steps=")
    else:
        contents[surface] = mesh_content(mesh, kind)
    files.write(solid_picture(views), solid_receipt(pipeline, request, views), contents)
    return Imagination(picture, [picture], views, animation, None if mesh is None else surface)


def latents_of(pipeline: Pipeline, request: Request) -> Tensor:
    """What the object of a request is described by."""
    inputs = read_inputs(request.with_(size=None))
    keys = {key: getattr(request, key) for key in ("steps", "guidance", "negative", "size", "strength")}
    keys |= {"image": inputs.image, "mask": inputs.mask}
    with one_algorithm():
        return draw_solid(
            pipeline, request.prompts[0], request.first, seed=request.seed, keys=keys, scheduler=request.scheduler
        )


def solid_views(pipeline: Pipeline, request: Request, latents: Tensor) -> Tensor:
    """Its views, (V, 3, side, side) in [0, 1]."""
    with one_algorithm():
        return views_of(pipeline, latents, request.first, seed=request.seed, side=side_of(request.size))


def solid_picture(views: Tensor) -> "Image.Image":
    """All views, in their order."""
    return grid(views, columns=COLUMNS, scale=1, pad=4)


def solid_receipt(pipeline: Pipeline, request: Request, views: Tensor) -> dict[str, Any]:
    """How they are made."""
    return receipt_of(pipeline, request, sums_of(request), list(views.shape[2:]))
