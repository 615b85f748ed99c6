"""What a pipeline draws from: the embeddings of a prompt, and noise; and the way from those of one to those of another.

Both go along arcs (`interpolation.spherical`): noise as one vector, for it lies near a sphere, and embeddings token by
token, so that each keeps about its norm.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.interpolation import spherical
from trilemma.pretrained.drawing import is_guided, noise_of, note_unused_negative
from trilemma.pretrained.libraries import silence
from trilemma.pretrained.pipeline import Pipeline, their_errors

NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
Embeddings = dict[str, Tensor]


def embeddings_of(pipeline: Pipeline, prompt: str, keys: Mapping[str, Any]) -> Embeddings:
    """The embeddings of a prompt by the keywords of the pipeline's call; each (1, T, D), pooled ones (1, D).

    Args:
        keys: by our names; of them guidance and negative matter.
    Raises:
        UserError: the pipeline does not take embeddings and noise, or others than these.
    """
    pipe = pipeline.for_task("text")
    known = inspect.signature(type(pipe).__call__).parameters
    if not {"latents", NAMES[0]} <= set(known) or not hasattr(pipe, "encode_prompt"):
        raise _refusal(pipeline)
    note_unused_negative(pipe, keys)
    device = pipeline.device
    with torch.no_grad(), silence(), their_errors(f"{pipeline.place.name} cannot read this"):
        values = pipe.encode_prompt(
            prompt=prompt,
            device=device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=is_guided(pipe, keys.get("guidance")),
            negative_prompt=keys.get("negative"),
        )
    if len(values) not in (2, 4) or not set(NAMES[: len(values)]) <= set(known):
        raise _refusal(pipeline)
    return {name: value for name, value in zip(NAMES, values, strict=False) if value is not None}


def _refusal(pipeline: Pipeline) -> UserError:
    kind = type(pipeline.base).__name__
    return UserError(
        f"{pipeline.place.name} ({kind}) does not draw from given embeddings and noise; take a Stable Diffusion"
    )


def noise_for(pipeline: Pipeline, size: tuple[int, int] | None, seed: int, k: int, dtype: torch.dtype) -> Tensor:
    """The noise that image k of a seed is drawn from, (1, C, h, w) on the CPU.

    Args:
        size: of the image, px (default: the pipeline's own).
    """
    pipe = pipeline.for_task("text")
    network = pipe.components.get("unet") or pipe.components["transformer"]
    if size is None:
        side = network.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
    else:
        height, width = (side // pipe.vae_scale_factor for side in size)
    return torch.randn(1, network.config.in_channels, height, width, generator=noise_of(seed, k), dtype=dtype)


def between_noise(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The noise a share t of the way from a to b, as one vector: of their shape and type."""
    way = spherical(a.double().flatten(), b.double().flatten(), torch.tensor([t], dtype=torch.float64))
    return way.view_as(a).to(a.dtype)


def between_embeddings(a: Embeddings, b: Embeddings, t: float) -> Embeddings:
    """The embeddings a share t of the way from a to b, token by token."""
    return {name: _token_by_token(a[name], b[name], t) for name in a}


def _token_by_token(a: Tensor, b: Tensor, t: float) -> Tensor:
    one, other = (x.double().cpu().flatten(0, -2) for x in (a, b))  # (tokens, D)
    way = spherical(one, other, torch.full((len(one),), t, dtype=torch.float64))
    return way.view_as(a).to(a)
