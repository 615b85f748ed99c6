"""Draw images from a text, with a published checkpoint: single files and one picture of all, each with its receipt."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trilemma.config import make
from trilemma.data.decoding.size import parse_size
from trilemma.errors import UserError
from trilemma.explore.prompted import (
    FORMAT,
    MOST,
    Request,
    draw_cells,
    read_inputs,
    receipt_of,
    request_in,
    sums_of,
)
from trilemma.files import open_plain, read_plain
from trilemma.hardware import pick_device
from trilemma.keys import Picture, Seed
from trilemma.metrics.receipt import protocol_name
from trilemma.modes import own_modes
from trilemma.pictures.grid import grid, to_image
from trilemma.pictures.png import save_png
from trilemma.pretrained.fetch import Place, locate
from trilemma.pretrained.pipeline import Pipeline, check_lora, load_pipeline, origin
from trilemma.pretrained.table import CHECKPOINTS
from trilemma.results import claim, place, with_keys
from trilemma.values import checked_call

if TYPE_CHECKING:
    from PIL import Image

LARGEST_TEXT = 2**20  # bytes of a file of prompts
SMALLEST = 8  # px: a side of an image
LONGEST = 30  # letters of a prompt in the name of a file


@dataclass(frozen=True)
class Imagination:
    """The picture, the file of each image, and the images (n, 3, H, W) in [0, 1]; of one image both files are one."""

    picture: Path
    files: list[Path]
    images: Tensor


@checked_call
@own_modes()
def imagine(
    prompt: Annotated[str | Path, Field(description="what the images show, or a .txt file of prompts, one a line")],
    *,
    model: Annotated[
        str | Path, Field(description=f"{', '.join(CHECKPOINTS)}, a repository of the hub as OWNER/NAME, or a folder")
    ],
    n: Annotated[int, Field(ge=1, le=MOST, description="images of each prompt")] = 1,
    seed: Seed = 0,
    first: Annotated[
        int, Field(ge=0, description="number of the first image; image k of a seed is always the same")
    ] = 0,
    steps: Annotated[int | None, Field(ge=1, le=1000, description="of the scheduler (default: the model's)")] = None,
    guidance: Annotated[
        float | None, Field(ge=0, description="how closely to follow the prompt (default: the model's)")
    ] = None,
    negative: Annotated[str | None, Field(description="what the images are not to show")] = None,
    size: Annotated[
        int | str | tuple[int, int] | None,
        Field(description="px: 512, or height x width as 512x768 (default: the model's, or that of image)"),
    ] = None,
    scheduler: Annotated[
        str | None, Field(description="class of diffusers, as EulerDiscreteScheduler (default: the model's)")
    ] = None,
    image: Annotated[str | Path | None, Field(description="an image file to draw again")] = None,
    strength: Annotated[
        float | None, Field(gt=0, le=1, description="with image: how much to change it (default: the model's)")
    ] = None,
    mask: Annotated[
        str | None, Field(description="with image: where to draw: left,top,right,bottom px, outside:..., or a file")
    ] = None,
    lora: Annotated[str | Path | None, Field(description="a .safetensors file of LoRA weights; needs peft")] = None,
    x: Annotated[str | None, Field(description="a key that varies along a row, as steps:1,2,4")] = None,
    y: Annotated[str | None, Field(description="a key that varies down a column, as guidance:0,3")] = None,
    out: Picture = None,
) -> Imagination:
    """Draw images from a text with a published checkpoint, and write them with how they were made.

    Args:
        model: it is downloaded at the first use, and then used without the network.
        size: px of the images (default: the model's, or that of image).
        out: the picture to write (default: imagine-PROMPT.png in this folder, with the keys in its name); where it
            shows several images, each lies beside it, as NAME-0.png.
    Raises:
        UserError: the model is not found, cannot be downloaded, or holds what is not loaded; it does not take a key; a
            library is missing.
    """
    asked = {
        "n": n, "seed": seed, "first": first, "steps": steps, "guidance": guidance, "negative": negative,
        "size": parse_size(size), "scheduler": scheduler, "image": _full(image), "strength": strength,
        "mask": _full(mask) if mask and Path(mask).expanduser().is_file() else mask,
        "lora": _full(lora), "x": x, "y": y,
    }  # fmt: skip
    given = {key: value for key, value in asked.items() if value is not None}
    request = make(Request, {**_defaults(str(model), given), **given, "prompts": prompts_of(prompt)})
    stem = with_keys(_stem(request), {"model": str(model), **given}, {"n": 1, "seed": 0, "first": 0})
    picture, within = place(out, Path(), f"{stem}.png")
    paths = _paths(picture, request)
    claim(dict.fromkeys([picture, *paths]), within=within)
    inputs = read_inputs(request)
    pipeline = _load(request, str(model))
    images = []
    for path, (drawn, receipt) in zip(paths, draw_cells(pipeline, request, inputs), strict=True):
        save_png(drawn, path, receipt)
        images.append(drawn)
    if len(paths) > 1:
        save_png(_sheet(request, images), picture, _sheet_receipt(pipeline, request, images))
    return Imagination(picture, paths, torch.stack(images))


def _load(request: Request, model: str | Place, device: str = "auto") -> Pipeline:
    """The pipeline of a request, with its LoRA."""
    lora = None if request.lora is None else Path(request.lora)
    if lora is not None:
        check_lora(lora)
    pipeline = load_pipeline(locate(model) if isinstance(model, str) else model, device)
    if lora is not None:
        pipeline.load_lora(lora)
    return pipeline


def prompts_of(prompt: str | Path) -> tuple[str, ...]:
    """The prompt, or those of a .txt file: its lines that are not empty.

    Raises:
        UserError: the file does not exist, is too large, or has no line.
    """
    text, path = str(prompt), Path(prompt).expanduser()
    if path.suffix.lower() != ".txt":
        return (text,)
    if not path.is_file():
        raise UserError(f"{path} not found; give a prompt, or a .txt file of prompts, one a line")
    try:
        lines = read_plain(path, LARGEST_TEXT).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text in UTF-8; save it as one") from None
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise UserError(f"{path} is empty; write one prompt a line")
    return prompts


def _full(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _defaults(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a checkpoint of the table is drawn with where nothing else is said."""
    rows = [row for name, row in CHECKPOINTS.items() if model in (name, row.repository)]
    varied = {str(given.get(axis, "")).partition(":")[0] for axis in ("x", "y")}
    return {key: value for row in rows for key, value in row.keys.items() if key not in varied}


def _stem(request: Request) -> str:
    prompt, *others = request.prompts
    more = f"-and-{len(others)}-more" if others else ""
    return f"imagine-{protocol_name(prompt)[:LONGEST]}{more}"


def _paths(picture: Path, request: Request) -> list[Path]:
    """The file of each image: the picture itself where there is one; NAME-K.png, or NAME-ROW-COLUMN.png in a grid, and
    NAME-PROMPT-K.png of several prompts."""
    cells = request.cells
    if len(cells) == 1:
        return [picture]
    columns = request.columns
    if columns is None:
        return [picture.with_name(f"{picture.stem}-{cell.first}.png") for cell in cells]
    start = request.first if request.x is None else 0
    names = [f"{picture.stem}-{k // columns}-{start + k % columns}.png" for k in range(len(cells))]
    return [picture.with_name(name) for name in names]


def _sheet(request: Request, images: list[Tensor]) -> "Image.Image":
    texts = [request.text_of(cell) for cell in request.cells]
    return grid(torch.stack(images), columns=request.columns, scale=1, pad=4, texts=texts)


def _sheet_receipt(pipeline: Pipeline, request: Request, images: list[Tensor]) -> dict[str, Any]:
    pipeline.use_scheduler(request.scheduler)  # where cells vary it, each says its own
    return receipt_of(pipeline, request, sums_of(request), list(images[0].shape[1:]))


def draw_again(receipt: Mapping[str, Any], path: Path) -> tuple["Image.Image", Pipeline, dict[str, Any]]:
    """The picture of a receipt, drawn again; nothing is downloaded because a picture says so.

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
        request = request_in(receipt)
        cells = request.cells
    except UserError as error:
        raise UserError(f"{path} does not say how it was made as `imagine` does: {error}") from None
    _check_size(path, request)
    source = locate(_source(receipt, path), download=False)
    for key, value in origin(source).items():
        if key != "folder" and value != receipt.get(key):
            raise UserError(
                f"{path} was made with another {key} of {source.name} ({receipt.get(key)!s:.40}; now {value})"
            )
    if sums_of(request) != receipt.get("sums"):
        raise UserError(
            f"{path} was made from files that are not here, or have changed since: {request.image or request.lora}"
        )
    inputs = read_inputs(request)
    pipeline = _load(request, source, _device(receipt))
    drawn = list(draw_cells(pipeline, request, inputs))
    images = [image for image, _ in drawn]
    if len(cells) == 1:
        return to_image(images[0]), pipeline, drawn[0][1]
    return _sheet(request, images), pipeline, _sheet_receipt(pipeline, request, images)


def _check_size(path: Path, request: Request) -> None:
    """Raises UserError, before anything is drawn, for a picture that is too small to hold what it says it shows."""
    from PIL import Image

    with open_plain(path) as file, Image.open(file, formats=["PNG"]) as picture:
        size = picture.size
    pixels = len(request.cells) * math.prod(request.size or (SMALLEST, SMALLEST))
    if math.prod(size) < pixels:
        raise UserError(f"{path} has {size[0]}x{size[1]} pixels, too few for the images that it says it shows")


def _source(receipt: Mapping[str, Any], path: Path) -> str:
    """The repository or the folder that a receipt names; a place on another machine, as Windows names them, is not
    asked."""
    source = receipt.get("repository") or receipt.get("folder")
    files = [source, receipt.get("image"), receipt.get("mask"), receipt.get("lora")]
    if not isinstance(source, str) or any(str(file).startswith(("\\\\", "//")) for file in files):
        raise UserError(f"{path} does not name a pipeline and files of this machine")
    return source


def _device(receipt: Mapping[str, Any]) -> str:
    """The device of then, if this machine has it."""
    try:
        return str(pick_device(str(receipt.get("device"))))
    except UserError:
        return "auto"
