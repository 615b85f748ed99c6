"""A picture of a published pipeline, of `imagine` or of another verb, drawn again from its receipt."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma.errors import UserError
from trilemma.explore.between_prompts import WAY, images_between, way_picture, way_receipt
from trilemma.explore.by_pipeline import PAGES, page_receipt
from trilemma.explore.film import film_picture, film_receipt, frames_of
from trilemma.explore.imagination import load_for, sheet, sheet_receipt, stacked
from trilemma.explore.prompted import (
    ADAPTED_BY,
    FILES,
    FORMAT,
    MOST_FRAMES,
    SIDES,
    Inputs,
    Request,
    draw_cells,
    read_cells,
    request_in,
    sums_of,
    whole_sides,
)
from trilemma.explore.solid import latents_of, solid_picture, solid_receipt, solid_views
from trilemma.files import open_plain
from trilemma.hardware import pick_device
from trilemma.pictures.grid import to_image
from trilemma.pretrained.content import origin
from trilemma.pretrained.fetch import Place, locate, locate_adapter
from trilemma.pretrained.pipeline import Pipeline
from trilemma.pretrained.solid import is_solid

if TYPE_CHECKING:
    from PIL import Image

BETWEEN = "interpolate"
VERBS = (BETWEEN, *PAGES)  # that take a pipeline in the place of a run, beside `imagine`


def is_by_pipeline(receipt: Mapping[str, Any]) -> bool:
    """Whether a published pipeline drew a picture, by its receipt."""
    return receipt.get("verb") == "imagine" or (receipt.get("verb") in VERBS and "pipeline" in receipt)


def draw_again(receipt: Mapping[str, Any], path: Path) -> tuple["Image.Image", Pipeline, dict[str, Any]]:
    """The picture of a receipt (see `is_by_pipeline`), drawn again; nothing is downloaded because a picture says so.

    Args:
        path: of the picture.
    Returns:
        The picture, the pipeline, and the receipt of now.
    Raises:
        UserError: the receipt is of a later version, or does not say how the picture was made; its pipeline, or a file
            that it names, is not here or has changed.
    """
    if receipt.get("format") != FORMAT:
        raise UserError(f"{path} has format {receipt.get('format')}; this version reads {FORMAT}: update")
    try:
        request = _request_in(receipt)
        cells = request.cells if receipt["verb"] != BETWEEN else request.cells[:1] * _count(receipt)
    except UserError as error:
        raise UserError(f"{path} does not say how it was made as `{receipt['verb']}` does: {error}") from None
    _check_size(path, cells)
    source = locate(_source(receipt, cells, path), download=False)
    _check_origin(path, source, receipt)
    if request.adapter is not None:
        _check_origin(path, locate_adapter(request.adapter, download=False), receipt.get(ADAPTED_BY))
    if changed := _changed_files(request, receipt):
        raise UserError(f"{path} was made from files that are not here, or have changed since: {', '.join(changed)}")
    inputs = read_cells(request)
    pipeline = load_for(request, source, _device(receipt))
    if receipt["verb"] == BETWEEN:
        images = images_between(pipeline, request, len(cells))
        return way_picture(images), pipeline, way_receipt(pipeline, request, images)
    picture, now = _drawn(pipeline, request, inputs, receipt["verb"])
    return picture, pipeline, now


def _request_in(receipt: Mapping[str, Any]) -> Request:
    """What a receipt says was asked for, of pictures of each verb.

    Raises:
        UserError: it does not say so, or not what its verb needs.
    """
    if receipt["verb"] != BETWEEN:
        request = request_in(receipt)
        if receipt["verb"] in PAGES and request.image is None:
            raise UserError("it names no image")
        return request
    request = request_in({**receipt, "frames": None})  # there it is the number of images, not of a film
    if len(request.prompts) != 2:
        raise UserError(f"a way leads from one prompt to another, and it names {len(request.prompts)}")
    return request


def _count(receipt: Mapping[str, Any]) -> int:
    """How many images lead from one prompt to another.

    Raises:
        UserError: the receipt does not say it.
    """
    count = receipt.get("frames")
    if not isinstance(count, int) or not 2 <= count <= MOST_FRAMES or receipt.get("how") != WAY:
        raise UserError(f"frames={count!s:.20} how={receipt.get('how')!s:.20} is not a way between prompts")
    return count


def _drawn(
    pipeline: Pipeline, request: Request, inputs: Sequence[Inputs], verb: str
) -> tuple["Image.Image", dict[str, Any]]:
    """The picture of a request, and its receipt of now."""
    if request.frames is not None:
        frames = frames_of(pipeline, request, inputs[0])
        return film_picture(frames, request.frame), film_receipt(pipeline, request, frames)
    if is_solid(pipeline.place):
        views = solid_views(pipeline, request, latents_of(pipeline, request))
        return solid_picture(views), solid_receipt(pipeline, request, views)
    drawn = list(draw_cells(pipeline, request, inputs))
    images = [image for image, _ in drawn]
    if verb in PAGES:
        page = PAGES[verb](inputs[0], stacked(images), request.first)
        return page, page_receipt(pipeline, request, images[0], verb)
    if len(images) == 1:
        return to_image(images[0]), drawn[0][1]
    return sheet(request, images), sheet_receipt(pipeline, request, images)


def _changed_files(request: Request, receipt: Mapping[str, Any]) -> list[str]:
    """KEY=FILE of each file that is not what the receipt says; of a grid, of each file of a key that has changed."""
    now, then = sums_of(request), receipt.get("sums")
    then = then if isinstance(then, dict) else {}
    return [f"{key}={name}" for key in FILES if now.get(key) != then.get(key) for name in request.values_of(key)]


def _check_origin(path: Path, place: Place, recorded: object) -> None:
    """Raises UserError for a picture that was made with another commit or content of what lies at a place."""
    then = recorded if isinstance(recorded, Mapping) else {}
    for key, value in origin(place).items():
        if key != "folder" and value != then.get(key):
            restore = "put the folder back as it was, or " if key == "content" else ""
            raise UserError(
                f"{path} was made with another {key} of {place.name} ({then.get(key)!s:.40}; now {value}); {restore}"
                "draw it anew with `trilemma imagine`"
            )


def _check_size(path: Path, cells: Sequence[Request]) -> None:
    """Raises UserError, before anything is drawn, for a picture that is too small to hold what it says it shows."""
    from PIL import Image

    with open_plain(path) as file, Image.open(file, formats=["PNG"]) as picture:
        size = picture.size
    pixels = sum(math.prod(_sides(cell)) for cell in cells)
    if math.prod(size) < pixels:
        raise UserError(f"{path} has {size[0]}x{size[1]} pixels, too few for the images that it says it shows")


def _sides(cell: Request) -> tuple[int, int]:
    """Of the image of a request for one, px, the least that it can have."""
    sides = cell.size or (SIDES, SIDES)
    return sides if cell.image is None else whole_sides(*sides)


def _source(receipt: Mapping[str, Any], cells: Sequence[Request], path: Path) -> str:
    """The repository or the folder that a receipt names; a place on another machine, as Windows names them, is not
    asked."""
    source = receipt.get("repository") or receipt.get("folder")
    files = [source, *(getattr(one, key) for one in cells for key in (*FILES, "adapter"))]
    if not isinstance(source, str) or any(str(file).startswith(("\\\\", "//")) for file in files):
        raise UserError(f"{path} does not name a pipeline and files of this machine")
    return source


def _device(receipt: Mapping[str, Any]) -> str:
    """The device of then, if this machine has it."""
    try:
        return str(pick_device(str(receipt.get("device"))))
    except UserError:
        return "auto"
