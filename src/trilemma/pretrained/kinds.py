"""What a pipeline draws, and which verbs take it: known by its class and settings, before any weights are loaded."""

from inspect import signature
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import read_json
from trilemma.pretrained.fetch import Place
from trilemma.pretrained.safety import CONFIG, LARGEST_SETTINGS

IMAGES, FILMS, OBJECTS = "images from a text", "films", "objects"
ENLARGED, UNPROMPTED = "enlarged images", "images, but not from a text"
SOLIDS = ("ShapEPipeline", "ShapEImg2ImgPipeline")
UPSCALER = "StableDiffusionUpscalePipeline"
CHANNELS = {"unet": "in_channels", "vae": "latent_channels"}  # settings of parts: what the one reads, the other writes
USUAL = 4  # channels, of both in diffusers where the settings do not say


def product_of(kind: Any) -> str:
    """What pipelines of a class draw: IMAGES, FILMS, OBJECTS, ENLARGED or UNPROMPTED."""
    keywords = signature(kind.__call__).parameters
    if "num_frames" in keywords:
        return FILMS
    if kind.__name__ in SOLIDS:
        return OBJECTS
    if kind.__name__ == UPSCALER:
        return ENLARGED
    return IMAGES if "prompt" in keywords else UNPROMPTED


def is_masked(kind: Any, folder: Path) -> bool:
    """Whether a pipeline draws under a mask alone: its network reads the mask and an image beside the noise."""
    reads, written = (_channels(folder / part / CONFIG, key) for part, key in CHANNELS.items())
    return "mask_image" in signature(kind.__call__).parameters and reads > written


def _channels(path: Path, key: str) -> int:
    settings = read_json(path, LARGEST_SETTINGS) if path.is_file() else None
    value = settings.get(key) if isinstance(settings, dict) else None
    return value if isinstance(value, int) else USUAL


def check_kind(kind: Any, place: Place, verb: str, *, frames: bool = False) -> None:
    """Refuse a pipeline that a verb does not take, by its class and settings.

    Args:
        frames: whether a film is asked for.
    Raises:
        UserError: the verb does not take it.
    """
    product, who = product_of(kind), f"{place.name} ({kind.__name__})"
    if verb == "upscale" and product != ENLARGED:
        raise UserError(f"{who} does not enlarge images; take a checkpoint whose class is {UPSCALER}")
    if verb == "imagine" and frames and product != FILMS:
        raise UserError(f"{who} draws no films; leave frames= out, or choose another model=")
    if verb == "imagine" and not frames and product == FILMS:
        raise UserError(f"{who} draws films; give frames=")
    if verb == "imagine" and product == UNPROMPTED:
        raise UserError(f"{who} does not draw from a text; choose another model=")
    if verb not in ("imagine", "upscale") and product != IMAGES:
        raise UserError(f"{who} draws {product}; {verb} takes pipelines that draw {IMAGES}")
    if verb not in ("imagine", "upscale", "edit") and is_masked(kind, place.folder):
        raise UserError(f"{who} draws under a mask alone; {verb} takes pipelines that draw {IMAGES}")
