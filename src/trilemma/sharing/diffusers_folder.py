"""A folder that diffusers loads with its own classes: UNet2DModel and DDIMScheduler, or DDIMPipeline with both where
there are no classes to ask for. What is loaded from it is compared with the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.modes import own_modes
from trilemma.pretrained.libraries import load_diffusers, silence
from trilemma.types import UNCONDITIONAL, Condition, Conditional, DiffusersParts, HasDiffusersParts, draw, flags

TOLERANCE = 1e-4  # between images in [0, 1], largest absolute difference
STEPS, IMAGES = 10, 2  # that are compared
COUNTERPART = "diffusion, trained with portable=true prediction=v"


def parts_of(model: nn.Module, name: str) -> DiffusersParts:
    """A model in the terms of diffusers.

    Raises:
        UserError: it has no counterpart there, with the reason and the model that has.
    """
    if not isinstance(model, HasDiffusersParts):
        raise UserError(
            f"{name} cannot be exported to diffusers: no class there has its layers, and code of its own is not "
            f"shipped; models that can: {COUNTERPART}"
        )
    try:
        return model.as_diffusers()
    except UserError as error:
        raise UserError(f"{name} cannot be exported to diffusers: {error}") from None


def write_folder(place: Path, model: nn.Module, parts: DiffusersParts, name: str) -> dict[str, Any]:
    """Write a folder of diffusers.

    Args:
        model: on the CPU, in eval mode; name: of the run, for messages.
    Returns:
        What its record says.
    Raises:
        UserError: what diffusers loads from it draws other images.
    """
    diffusers = load_diffusers()
    with silence():
        unet, scheduler = diffusers.UNet2DModel(**parts.unet), diffusers.DDIMScheduler(**parts.scheduler)
        unet.load_state_dict(dict(parts.weights), strict=True)
        if isinstance(model, Conditional):
            unet.save_pretrained(place / "unet", safe_serialization=True)
            scheduler.save_pretrained(place / "scheduler")
        else:
            diffusers.DDIMPipeline(unet, scheduler).save_pretrained(place, safe_serialization=True)
        difference = _difference(diffusers, place, model, parts)
    if not difference <= TOLERANCE:
        raise UserError(
            f"the images of {name} differ by {difference:.2g} in diffusers, more than {TOLERANCE:g}; it was not "
            "exported"
        )
    return {"diffusers": diffusers.__version__, "tolerance": TOLERANCE, "parity": difference, "parity_steps": STEPS}


def _difference(diffusers: Any, place: Path, model: nn.Module, parts: DiffusersParts) -> float:
    """The largest between images of the same noise, in [0, 1]."""
    assert isinstance(model, HasDiffusersParts)
    ids = torch.arange(IMAGES)
    label = ids % flags(model).n_classes if isinstance(model, Conditional) else None
    condition = UNCONDITIONAL if label is None else Condition(label)
    with own_modes(), torch.no_grad():
        ours = draw(model, IMAGES, seed=0, condition=condition, keys=parts.keys(STEPS))
        theirs = images_of(*_loaded(diffusers, place), parts.start(ids, 0), label, STEPS)
    return float((ours - theirs).abs().max())


def _loaded(diffusers: Any, place: Path) -> tuple[Any, Any]:
    """Network and scheduler from a folder, by diffusers."""
    keys: Mapping[str, Any] = {"local_files_only": True}
    unet = diffusers.UNet2DModel.from_pretrained(place, subfolder="unet", use_safetensors=True, **keys)
    return unet.eval(), diffusers.DDIMScheduler.from_pretrained(place, subfolder="scheduler", **keys)


def images_of(unet: Any, scheduler: Any, x: Tensor, label: Tensor | None, steps: int) -> Tensor:
    """Images (B, C, H, W) in [0, 1] of diffusers, from noise x (B, C, H, W).

    As ours does, a step follows x0_hat where that is kept in [-1, 1]; by default theirs follows what it was before.
    """
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        output = unet(x, t, class_labels=label).sample
        x = scheduler.step(output, t, x, use_clipped_model_output=True).prev_sample
    return (x / 2 + 0.5).clamp(0, 1)
