"""A folder that diffusers loads with its own classes: UNet2DModel, DDIMScheduler and AutoencoderKL, as far as the model
has them, or DDIMPipeline with the first two where there are no classes to ask for and no codes to decode. What is
loaded from it is compared with the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.errors import UserError
from trilemma.modes import own_modes
from trilemma.pretrained.libraries import load_diffusers, silence
from trilemma.sharing.parity import Parity, check_parity, parity_of, worst
from trilemma.types import (
    UNCONDITIONAL,
    Condition,
    Conditional,
    DiffusersNetwork,
    DiffusersParts,
    HasDiffusersAutoencoder,
    HasDiffusersParts,
    config_of,
    draw,
    flags,
)

STEPS, IMAGES = 10, 2  # that are compared
UNET, SCHEDULER, VAE = "unet", "scheduler", "vae"  # folders, as in every pipeline
COUNTERPARTS = (
    "diffusion and diffusion-latent, trained with portable=true prediction=v; ae-kl, trained with portable=true"
)


def parts_of(model: nn.Module, name: str) -> DiffusersParts | DiffusersNetwork:
    """A diffusion model, or an autoencoder, in the terms of diffusers.

    Raises:
        UserError: it has no counterpart there, with the reason and the models that have.
    """
    try:
        if isinstance(model, HasDiffusersParts):
            return model.as_diffusers()
        if isinstance(model, HasDiffusersAutoencoder):
            return model.autoencoder_as_diffusers()
    except UserError as error:
        raise UserError(f"{name} cannot be exported to diffusers: {error}") from None
    raise UserError(
        f"{name} cannot be exported to diffusers: no class there has its layers, and code of its own is not shipped; "
        f"models that can: {COUNTERPARTS}"
    )


def write_folder(place: Path, model: nn.Module, parts: DiffusersParts | DiffusersNetwork, name: str) -> dict[str, Any]:
    """Write a folder of diffusers.

    Args:
        model: on the CPU, in eval mode; name: of the run, for messages.
    Returns:
        What its record says.
    Raises:
        UserError: what diffusers loads from it draws, encodes or decodes otherwise.
    """
    diffusers = load_diffusers()
    autoencoder = parts if isinstance(parts, DiffusersNetwork) else parts.autoencoder
    with silence():
        if autoencoder is not None:
            vae = _filled(diffusers.AutoencoderKL, autoencoder)
            vae.save_pretrained(place / VAE, safe_serialization=True)
        if isinstance(parts, DiffusersParts):
            _save_denoiser(diffusers, place, model, parts)
            parity, steps = _parity_of_images(diffusers, place, model, parts), {"parity_steps": STEPS}
        else:
            parity, steps = _parity_of_codes(diffusers, place, model), {}
    check_parity(parity, f"an image or a code of {name}", "diffusers")
    return {"diffusers": diffusers.__version__, **parity.record, **steps}


def _filled(kind: Any, network: DiffusersNetwork) -> Any:
    """A network of a class of diffusers."""
    filled = kind(**network.settings)
    filled.load_state_dict(dict(network.weights), strict=True)
    return filled


def _save_denoiser(diffusers: Any, place: Path, model: nn.Module, parts: DiffusersParts) -> None:
    unet, scheduler = _filled(diffusers.UNet2DModel, parts.unet), diffusers.DDIMScheduler(**parts.scheduler)
    if isinstance(model, Conditional) or parts.autoencoder is not None:
        unet.save_pretrained(place / UNET, safe_serialization=True)
        scheduler.save_pretrained(place / SCHEDULER)
    else:
        diffusers.DDIMPipeline(unet, scheduler).save_pretrained(place, safe_serialization=True)


def _parity_of_images(diffusers: Any, place: Path, model: nn.Module, parts: DiffusersParts) -> Parity:
    """Between images of the same noise, in [0, 1]."""
    assert isinstance(model, HasDiffusersParts)
    ids = torch.arange(IMAGES)
    label = ids % flags(model).n_classes if isinstance(model, Conditional) else None
    condition = UNCONDITIONAL if label is None else Condition(label)
    vae = None if parts.autoencoder is None else loaded_autoencoder(diffusers, place)
    with own_modes(), torch.no_grad():
        ours = draw(model, IMAGES, seed=0, condition=condition, keys=parts.keys(STEPS))
        theirs = images_of(*loaded_denoiser(diffusers, place), parts.start(ids, 0), label, STEPS, vae)
    return parity_of(theirs, ours)


def _parity_of_codes(diffusers: Any, place: Path, model: nn.Module) -> Parity:
    """Between codes of random images, or between the images that are decoded from them, in [0, 1]: the larger one."""
    config = config_of(model)
    assert isinstance(model, HasDiffusersAutoencoder) and config is not None
    vae, images = loaded_autoencoder(diffusers, place), rng.uniform(torch.arange(IMAGES), config.shape, 0, "parity")
    with own_modes(), torch.no_grad():
        codes = model.to_map(images)
        theirs = vae.encode(2 * images - 1).latent_dist.mean
        return worst([parity_of(theirs, codes), parity_of(decoded(vae, codes), model.from_map(codes))])


def loaded_denoiser(diffusers: Any, place: Path) -> tuple[Any, Any]:
    """Network and scheduler from a folder, by diffusers."""
    keys: Mapping[str, Any] = {"local_files_only": True}
    unet = diffusers.UNet2DModel.from_pretrained(place, subfolder=UNET, use_safetensors=True, **keys)
    return unet.eval(), diffusers.DDIMScheduler.from_pretrained(place, subfolder=SCHEDULER, **keys)


def loaded_autoencoder(diffusers: Any, place: Path) -> Any:
    """The autoencoder from a folder, by diffusers."""
    keys: Mapping[str, Any] = {"local_files_only": True, "use_safetensors": True}
    return diffusers.AutoencoderKL.from_pretrained(place, subfolder=VAE, **keys).eval()


def images_of(unet: Any, scheduler: Any, x: Tensor, label: Tensor | None, steps: int, vae: Any = None) -> Tensor:
    """Images (B, C, H, W) in [0, 1] of diffusers, from noise x (B, C, H, W), or of codes where there is a vae.

    As ours does, a step follows x0_hat where that is kept in [-1, 1]; by default theirs follows what it was before.
    """
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        output = unet(x, t, class_labels=label).sample
        x = scheduler.step(output, t, x, use_clipped_model_output=True).prev_sample
    return (x / 2 + 0.5).clamp(0, 1) if vae is None else decoded(vae, x)


def decoded(vae: Any, code: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1] of codes (B, *map_shape)."""
    return (vae.decode(code).sample / 2 + 0.5).clamp(0, 1)
