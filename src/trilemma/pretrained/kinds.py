"""What pipelines of a class draw, and which verbs take them: known by the class, before any weights are loaded."""

from inspect import signature
from typing import Any

from trilemma.errors import UserError

IMAGES, FILMS, OBJECTS = "images from a text", "films", "objects"
ENLARGED, UNPROMPTED = "enlarged images", "images, but not from a text"
SOLIDS = ("ShapEPipeline", "ShapEImg2ImgPipeline")
UPSCALER = "StableDiffusionUpscalePipeline"


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


def check_kind(kind: Any, name: str, verb: str, *, frames: bool = False) -> None:
    """Refuse a pipeline that a verb does not take, by its class.

    Args:
        name: of the pipeline; frames: whether a film is asked for.
    Raises:
        UserError: the verb does not take it.
    """
    product, who = product_of(kind), f"{name} ({kind.__name__})"
    if verb == "upscale" and product != ENLARGED:
        raise UserError(f"{who} does not enlarge images; take a checkpoint whose class is {UPSCALER}")
    if verb == "imagine" and frames and product != FILMS:
        raise UserError(f"{who} draws no films; leave frames= out, or choose another model=")
    if verb == "imagine" and not frames and product == FILMS:
        raise UserError(f"{who} draws films; give frames=")
    if verb not in ("imagine", "upscale") and product != IMAGES:
        raise UserError(f"{who} draws {product}; {verb} takes pipelines that draw {IMAGES}")
