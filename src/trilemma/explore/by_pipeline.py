"""An image edited or enlarged by a published pipeline in the place of a run, `pipeline:NAME`.

Their files and receipts are those of the verbs; each image beside a picture says how `imagine` draws it. `again` makes
both again.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trilemma.config import Config, make
from trilemma.data.decoding.size import parse_size
from trilemma.errors import UserError
from trilemma.explore.images import numbered_paths
from trilemma.explore.naming import image_word
from trilemma.explore.prompted import (
    MOST,
    Inputs,
    Request,
    Text,
    draw_cells,
    full_mask,
    full_path,
    read_inputs,
    receipt_of,
    sums_of,
)
from trilemma.explore.redraw import Redrawing, how_redrawn, redrawing_page
from trilemma.explore.upscaling import Upscaling, check_enlarged, upscaling_page
from trilemma.pictures.png import png_content
from trilemma.pretrained.fetch import locate
from trilemma.pretrained.pipeline import Pipeline, load_pipeline
from trilemma.pretrained.table import check_verb, defaults_of
from trilemma.results import Results, place

if TYPE_CHECKING:
    from PIL import Image

K = TypeVar("K", bound="DrawingKeys")


class DrawingKeys(Config):
    """The keys that a pipeline takes in every verb."""

    seed: int = Field(default=0, ge=0)
    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=0, le=1000)
    negative: Text | None = None
    scheduler: Text | None = None
    out: str | Path | None = None


class RedrawingKeys(DrawingKeys):
    """Those of edit and upscale."""

    caption: Text | None = None
    n: int = Field(default=1, ge=1, le=MOST)
    first: int = Field(default=0, ge=0)


class EditKeys(RedrawingKeys):
    """Those of edit."""

    n: int = Field(default=4, ge=1, le=MOST)
    strength: float | None = Field(default=None, gt=0, le=1)
    mask: Text | None = None
    size: tuple[int, int] | None = None


def keys_of(kind: type[K], verb: Callable[..., Any], values: Mapping[str, Any]) -> K:
    """What a call of a verb asks of a pipeline: the keys that differ from their defaults, and its settings.

    Args:
        values: the arguments of the call by name, `settings` among them.
    Raises:
        UserError: a pipeline does not take one of them, or not with this value.
    """
    keys = {name: p.default for name, p in inspect.signature(verb).parameters.items() if p.kind is p.KEYWORD_ONLY}
    own = {name: values[name] for name, default in keys.items() if not _equal(values[name], default)}
    own |= values.get("settings", {})
    if strange := [key for key in own if key not in kind.model_fields]:
        takes = ", ".join(sorted(kind.model_fields))
        raise UserError(f"{verb.__name__} with a pipeline does not take {strange[0]}=; it takes {takes}")
    return make(kind, {**own, **({"size": parse_size(own["size"])} if "size" in own else {})})


def _equal(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, str | int | float) and value == default)


def edit_by_pipeline(name: str, image: object, keys: EditKeys) -> Redrawing:
    """See `edit`, the verb.

    Raises:
        UserError: what to draw, or where and how much, is not given; the image is not a file; as `imagine`.
    """
    check_verb(name, "edit")
    if keys.strength is None and keys.mask is None:
        raise UserError("edit with a pipeline draws the image again: give strength=, mask= or both")
    if keys.caption is None:
        raise UserError("edit with a pipeline needs caption=, what the image is to show")
    request = _request(name, image, keys, strength=keys.strength, mask=full_mask(keys.mask), size=keys.size)
    stem = f"edit-{image_word(str(image))}-{how_redrawn(keys.strength, keys.mask, None)}"
    files = _files("edit", stem, keys)
    inputs = read_inputs(request)
    pipeline = load_pipeline(locate(name), verb="edit")
    images, contents = _drawn(pipeline, request, inputs, files.beside)
    assert inputs.pixels is not None
    files.write(_edit_page(inputs, images, keys.first), page_receipt(pipeline, request, images[0], "edit"), contents)
    return Redrawing(files.picture, None, files.beside, inputs.pixels, inputs.area, images, None)


def upscale_by_pipeline(name: str, image: object, keys: RedrawingKeys) -> Upscaling:
    """See `upscale`, the verb.

    Raises:
        UserError: the pipeline does not enlarge images, the image is not a file, or would become too large.
    """
    check_verb(name, "upscale")
    request = _request(name, image, keys)
    files = _files("upscale", f"upscale-{image_word(str(image))}", keys)
    inputs = read_inputs(request)
    small = inputs.pixels
    assert small is not None
    pipeline = load_pipeline(locate(name), verb="upscale")
    size = [side * pipeline.base.vae_scale_factor for side in small.shape[2:]]
    check_enlarged(image, size)
    images, contents = _drawn(pipeline, request, inputs, files.beside)
    page = _upscale_page(inputs, images, keys.first)
    files.write(page, page_receipt(pipeline, request, images[0], "upscale"), contents)
    return Upscaling(files.picture, files.beside, small, _bicubic(small, images), images, None)


def _edit_page(inputs: Inputs, images: Tensor, first: int) -> "Image.Image":
    """The picture of `edit`, of images (n, 3, H, W)."""
    assert inputs.pixels is not None
    return redrawing_page(inputs.pixels, inputs.area, images, first)


def _upscale_page(inputs: Inputs, images: Tensor, first: int) -> "Image.Image":
    """The picture of `upscale`, of images (n, 3, H, W)."""
    assert inputs.pixels is not None
    return upscaling_page(inputs.pixels, _bicubic(inputs.pixels, images), images, None, first)


def _bicubic(small: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(small, size=list(images.shape[2:]), mode="bicubic").clamp(0, 1)


PAGES = {"edit": _edit_page, "upscale": _upscale_page}  # the picture of a verb, beside which its images lie


def page_receipt(pipeline: Pipeline, request: Request, image: Tensor, verb: str) -> dict[str, Any]:
    """How the picture of a verb is made.

    Args:
        image: one of its images, (3, H, W).
    """
    return {**receipt_of(pipeline, request, sums_of(request), list(image.shape[1:])), "verb": verb}


def _request(name: str, image: object, keys: RedrawingKeys, **more: Any) -> Request:
    """What is asked of a pipeline, as of `imagine`; nothing is read."""
    if not isinstance(image, str | Path):
        raise UserError("a pipeline has no held-out images and no codes: give an image file")
    asked = {key: getattr(keys, key) for key in ("n", "seed", "first", "steps", "guidance", "negative", "scheduler")}
    given = {key: value for key, value in {**asked, **more, "image": full_path(image)}.items() if value is not None}
    return make(Request, {**defaults_of(name, given), **given, "prompts": (keys.caption or "",)})


def _files(verb: str, stem: str, keys: RedrawingKeys) -> Results:
    """The picture, in this folder where nothing is said, and the file of each image beside it."""
    picture, within = place(keys.out, Path(), f"{stem}.png")
    return Results(picture, numbered_paths(picture, keys.first, keys.n), verb=verb, within=within)


def _drawn(
    pipeline: Pipeline, request: Request, inputs: Inputs, paths: list[Path]
) -> tuple[Tensor, dict[Path, bytes | str]]:
    """The images (n, 3, H, W), and the content of their files."""
    images, contents = [], dict[Path, bytes | str]()
    cells = draw_cells(pipeline, request, [inputs] * len(request.cells))
    for path, (image, receipt) in zip(paths, cells, strict=True):
        images.append(image)
        contents[path] = png_content(image, receipt)
    return torch.stack(images), contents
