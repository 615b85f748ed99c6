"""Objects in three dimensions, by Shap-E: views from a camera that goes round, and the surface.

Jun & Nichol (2023), "Shap-E: generating conditional 3D implicit functions". Views are rendered with random points on
each ray, which depend on (seed, k) here, too. The surface is where a signed distance is 0, by marching cubes.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trilemma.errors import UserError, check_finite
from trilemma.files import read_json
from trilemma.pictures.mesh import Mesh
from trilemma.pretrained.drawing import arguments, call, noise_of, text_of
from trilemma.pretrained.fetch import Place
from trilemma.pretrained.kinds import SOLIDS
from trilemma.pretrained.libraries import silence
from trilemma.pretrained.pipeline import Pipeline, their_errors
from trilemma.pretrained.safety import INDEX, LARGEST_SETTINGS

MULTIPLE = 32  # px: of the side of a view, for the 20 views have whole batches of 4,096 rays


class EmptySurface(Exception):
    """Nowhere is a distance of 0."""


def is_solid(place: Place) -> bool:
    """Whether the pipeline in a folder makes objects, by the class that its index names."""
    index = read_json(place.folder / INDEX, LARGEST_SETTINGS) if (place.folder / INDEX).is_file() else None
    return isinstance(index, dict) and index.get("_class_name") in SOLIDS


def draw_solid(
    pipeline: Pipeline, prompt: str, k: int, *, seed: int, keys: Mapping[str, Any], scheduler: str | None
) -> Tensor:
    """What object k of a seed is described by, for `views_of` and `mesh_of`: (1, T, D).

    Args:
        keys: by our names; of size, see `views_of`.
    Raises:
        UserError: the pipeline reads no text, needs an image, does not take a key, or cannot draw this.
    """
    pipe, text = pipeline.base, text_of(pipeline, prompt, keys.get("image"))
    values = {**arguments(pipe, {key: value for key, value in keys.items() if key != "size"}), **text}
    pipeline.use_scheduler(scheduler)
    latents = call(pipeline, pipe, **values, generator=noise_of(seed, k), output_type="latent").images
    check_finite(latents, "objects", "take another scheduler=, or more steps=", first=k)
    return latents


def side_of(size: tuple[int, int] | None) -> int | None:
    """The side of a view, px; None: the pipeline's own.

    Raises:
        UserError: a view has not that size.
    """
    if size is None or (size[0] == size[1] and size[0] % MULTIPLE == 0):
        return None if size is None else size[0]
    raise UserError(f"size={size[0]}x{size[1]}: views are squares with a side of {MULTIPLE} px or a multiple of it")


def views_of(pipeline: Pipeline, latents: Tensor, k: int, *, seed: int, side: int | None) -> Tensor:
    """Views of an object from all round, (V, 3, side, side) in [0, 1]: a round without its end, which is its start."""
    own = inspect.signature(type(pipeline.base).__call__).parameters["frame_size"].default
    with _random(seed, k), silence(), their_errors(f"{pipeline.place.name} cannot show this"):
        views = pipeline.base.shap_e_renderer.decode_to_image(latents, pipeline.device, size=side or own)
    return views[:-1].permute(0, 3, 1, 2).float().cpu().clamp(0, 1)


@contextmanager
def _random(seed: int, k: int) -> Iterator[None]:
    """Inside, random numbers without a generator are those of (seed, k)."""
    first = int(torch.randint(2**31, (1,), generator=noise_of(seed, k)))
    with torch.random.fork_rng():
        torch.manual_seed(first)
        yield


def mesh_of(pipeline: Pipeline, latents: Tensor) -> Mesh | None:
    """The surface of an object; None where it has none."""
    renderer = pipeline.base.shap_e_renderer
    hook = renderer.mesh_decoder.register_forward_hook(_refuse_empty)
    try:
        with silence(), their_errors(f"{pipeline.place.name} makes no surface of this"):
            mesh = _decoded(renderer, latents, pipeline.device)
    finally:
        hook.remove()
    if mesh is None:
        return None
    linear = torch.stack([mesh.vertex_channels[name] for name in "RGB"], dim=-1).clamp(0, 1)
    colours = as_shown(linear.float().cpu().numpy())
    return Mesh(mesh.verts.float().cpu().numpy(), colours, mesh.faces.cpu().numpy())


def _decoded(renderer: Any, latents: Tensor, device: torch.device) -> Any:
    try:
        return renderer.decode_to_mesh(latents, device)
    except EmptySurface:
        return None


def _refuse_empty(module: Any, given: Any, mesh: Any) -> None:
    """What comes after a surface without triangles fails in other words."""
    if not len(mesh.faces):
        raise EmptySurface


def as_shown(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] as sRGB (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)
