"""Make a picture again from what its PNG file says of how it was made.

The file may be anyone's: what it asks for is bounded by what it is, a picture of so many images of a run.
"""

import math
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trilemma.config import make
from trilemma.errors import UserError
from trilemma.explore.imagine_again import draw_again, is_by_pipeline
from trilemma.explore.sample import FORMAT, GRID_LIMIT, Receipt, asked_in_cell, axes_of_picture, receipt_of, sheet_of
from trilemma.files import open_plain, user_path
from trilemma.hardware import pick_device
from trilemma.pictures.grid import grid_size, to_image
from trilemma.pictures.png import read_metadata, save_png
from trilemma.results import claim, out_path
from trilemma.run.locate import CONFIG
from trilemma.run.run import LARGEST_NUMBER, Run
from trilemma.types import flags
from trilemma.values import checked_call

if TYPE_CHECKING:
    from PIL import Image

LARGEST_PICTURE = 2**22  # pixels that are decoded whatever the receipt says
CONDITIONS = ("trilemma", "torch", "diffusers", "transformers", "device", "threads", "precision")
LARGEST_BATCH = 2**24  # numbers in the images of a batch: 21,399 of 28x28
# of a receipt; the rest: who and where
KEYS = {"seed", "label", "caption", "settings"}
ASKED = {"seed", "label", "caption", "exact", "settings", "first", "n", "grid", "batches", "x", "y"}


@dataclass(frozen=True)
class Again:
    """The picture made again, the run that made it, and how it compares with the one before.

    equal: every pixel is the same.
    difference: the largest one in a pixel, in levels of 0 ... 255; None if the sizes differ.
    changed: what was different when the picture was first made (versions, device), in words.
    """

    picture: Path
    run: Path
    equal: bool
    difference: int | None
    changed: tuple[str, ...]


@checked_call
def again(
    image: Annotated[
        str | Path,
        Field(description="a PNG drawn by `trilemma sample` or `imagine`, or by a pipeline in another verb"),
    ],
    *,
    run: Annotated[Run | str | Path | None, Field(description="its run folder (default: searched for)")] = None,
    out: Annotated[
        str | Path | None, Field(description="picture to write (default: NAME-again.png in this folder)")
    ] = None,
) -> Again:
    """Make a picture again that `sample` or `imagine` drew, or a pipeline in another verb: a single image or a grid.

    Args:
        run: default: it is searched where it was, around the picture, and in runs/.
    Raises:
        UserError: the file does not say how it was made, or says it in a later format; its run is not found, or has
            other weights by now.
    """
    image = user_path(image)
    if is_by_pipeline(metadata := read_metadata(image)):
        return _imagine_again(image, metadata, run, out)
    receipt = _read(image)
    path = out_path(out) if out is not None else Path(f"{image.stem}-again.png")
    claim([path], within=path.parent)
    if run is None:
        run = _find(receipt, image)
    else:
        run = _checked(run if isinstance(run, Run) else Run(run, device=_device(receipt)), receipt)
    _check_size(image, receipt, run)
    if flags(run.model).takes_guides and (guide := run.sampling(receipt.settings, Run.sample).get("guide")):
        run = copy(run)  # what the caller's own run opened, or opens later, is another matter
        run.guide_runs = {guide: _find_guide(receipt, image)}
    axes = axes_of_picture(run, receipt.x, receipt.y, receipt.n, asked := receipt.model_dump(include=KEYS))
    images = [_draw(run, receipt, asked_in_cell(asked, cell)) for cell in ([{}] if axes is None else axes.cells)]
    _checked(run, receipt)  # a training that is running may have replaced the checkpoint meanwhile
    picture = sheet_of(images, axes) if receipt.grid else to_image(images[0][0])
    difference = _difference(picture, image)
    new = receipt_of(run, **receipt.model_dump(include=ASKED))
    save_png(picture, path, new.to_json())
    return Again(path, run.path, difference == 0, difference, tuple(_changes(receipt.to_json(), new.to_json())))


def _imagine_again(image: Path, then: dict[str, Any], run: object, out: str | Path | None) -> Again:
    """A picture that a published pipeline drew, made again by the one that it names."""
    if run is not None:
        raise UserError(f"{image} was drawn by a published checkpoint, which it names; leave run= out")
    path = out_path(out) if out is not None else Path(f"{image.stem}-again.png")
    claim([path], within=path.parent)
    picture, pipeline, now = draw_again(then, image)
    difference = _difference(picture, image)
    save_png(picture, path, now)
    return Again(path, pipeline.place.folder, difference == 0, difference, tuple(_changes(then, now)))


def _read(image: Path) -> Receipt:
    """The receipt in a PNG, checked."""
    metadata = read_metadata(image)
    version = metadata.get("format")
    if isinstance(version, int) and version > FORMAT:
        writer = metadata.get("trilemma")
        raise UserError(f"{image} has format {version} of trilemma {writer}; this version reads {FORMAT}: update")
    if verb := metadata.get("verb"):
        raise UserError(
            f"{image} was made by `trilemma {verb}`; only what `sample` and `imagine` draw, or a pipeline in another "
            "verb, can be made again"
        )
    try:
        receipt = make(Receipt, metadata)
    except UserError as error:
        raise UserError(f"{image} does not say how it was made as trilemma's `sample` does: {error}") from None
    if not _is_possible(receipt):
        raise UserError(
            f"{image} does not say which images it shows; only a PNG as trilemma wrote it can be made again"
        )
    return receipt


def _is_possible(receipt: Receipt) -> bool:
    """Whether a picture can show these images: as many as a grid holds at most, of batches that follow each other, and
    none of them in vain."""
    first, end, batches = receipt.first, receipt.first + receipt.n, receipt.batches
    varies = receipt.x is not None or receipt.y is not None
    if varies and not receipt.grid:
        return False
    if not (0 <= first < end <= LARGEST_NUMBER and receipt.n <= (GRID_LIMIT if receipt.grid else 1)):
        return False
    ends = [start + size for start, size in batches]
    return bool(
        batches
        and all(size >= 1 for _, size in batches)
        and 0 <= batches[0][0] <= first < ends[0]
        and [start for start, _ in batches[1:]] == ends[:-1]
        and batches[-1][0] < end <= ends[-1]
    )


def _check_size(image: Path, receipt: Receipt, run: Run) -> None:
    """Refuse a receipt that does not describe its picture, or batches that no picture of ours was computed in; before
    anything is drawn.

    Raises:
        UserError: see above.
    """
    from PIL import Image

    _, height, width = run.model_config.shape
    expected = _size_of(receipt, run) if receipt.grid else (width, height)
    with open_plain(image) as file, Image.open(file, formats=["PNG"]) as picture:
        size = picture.size
    if math.prod(size) > LARGEST_PICTURE and size != expected:
        raise UserError(f"{image} has {size[0]}x{size[1]} pixels, where its images make {expected[0]}x{expected[1]}")
    largest = max(size for _, size in receipt.batches)
    if largest * math.prod(run.model_config.shape) > LARGEST_BATCH:
        raise UserError(f"{image} says that it was drawn in a batch of {largest:,} images, which is too many to draw")


def _size_of(receipt: Receipt, run: Run) -> tuple[int, int]:
    """Width and height in pixels of the picture of a receipt of several images."""
    channels, height, width = run.model_config.shape
    axes = axes_of_picture(run, receipt.x, receipt.y, receipt.n, receipt.model_dump(include=KEYS))
    if axes is None:
        return grid_size(receipt.n, height, width)
    blank = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(receipt.n, channels, height, width)
    return sheet_of([blank] * len(axes.cells), axes).size


def _draw(run: Run, receipt: Receipt, cell: Mapping[str, Any]) -> Tensor:
    """The images of a cell of a picture, computed in the batches they were computed in: (n, C, H, W).

    Args:
        cell: its seed, label, caption and settings.
    """
    keys = run.sampling(cell["settings"], Run.sample)
    parts = [
        run.sample(
            size,
            seed=cell["seed"],
            first=start,
            label=cell["label"],
            caption=cell["caption"],
            batch=size,
            exact=receipt.exact,
            keys=keys,
        )
        for start, size in receipt.batches
    ]
    skip = receipt.first - receipt.batches[0][0]
    return torch.cat(parts)[skip : skip + receipt.n]


def _find(receipt: Receipt, image: Path) -> Run:
    """The run with the receipt's weights: where it was, in the folders around the picture, or in runs/.

    Raises:
        UserError: with the runs of the same model that were tried.
    """
    others: list[str] = []
    tried: set[Path] = set()
    for place in _places(receipt, image):
        try:
            path = place.resolve()
            if path in tried or not (path / CONFIG).is_file():
                continue
            tried.add(path)
            run = Run(path, device=_device(receipt))
            if run.recipe.name == receipt.model:
                return _checked(run, receipt)
        except (OSError, ValueError, RuntimeError) as error:
            others.append(str(error))
    reasons = f" ({'; '.join(others)})" if others else ""
    raise UserError(
        f"the run that made {image} was not found: {receipt.run}, a {receipt.model} with weights {receipt.weights}"
        f"{reasons}; give its folder with run="
    )


def _find_guide(receipt: Receipt, image: Path) -> Run:
    """The run that guided the picture's, as `_find`.

    Raises:
        UserError: it is not found, or the receipt does not say which it was.
    """
    name = receipt.settings["guide"]
    if receipt.guide is None:
        raise UserError(f"{image} was guided by {name}, and does not say which weights that had: draw it with `sample`")
    try:
        return _find(receipt.with_(**{"unfinished": None, **receipt.guide}), image)
    except UserError as error:
        raise UserError(f"guide={name}: {error}") from None


def _places(receipt: Receipt, image: Path) -> Iterator[Path]:
    """Where the run may be, the likeliest first. A place on another machine, as Windows names them, is not asked."""
    if not receipt.run.startswith(("\\\\", "//")):
        yield Path(receipt.run)
    folders = image.resolve().parents
    yield from folders
    yield from _folders_in(folders[0])
    for folder in (*folders, Path()):
        yield from _folders_in(folder / "runs")


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:  # does not exist, or may not be read
        return []


def _checked(run: Run, receipt: Receipt) -> Run:
    """The run with the weights that made the picture.

    Raises:
        UserError: if it has others.
    """
    if run.weights_id == receipt.weights:
        return run
    if receipt.unfinished:
        if (earlier := run.at(receipt.weights)) is not None:
            return earlier
        raise UserError(
            f"{run.path} no longer has the checkpoint that made the picture (weights {receipt.weights}; "
            f"{receipt.unfinished[:80]}): further training replaced it"
        )
    raise UserError(
        f"{run.path} has other weights ({run.weights_id}) than the picture was made with ({receipt.weights}): "
        "it was trained longer, or it is another run"
    )


def _device(receipt: Receipt) -> str:
    """The device of then, if this machine has it."""
    try:
        return str(pick_device(receipt.device))
    except UserError:
        return "auto"


def _difference(picture: "Image.Image", image: Path) -> int | None:
    """The largest difference in a pixel between a picture and a PNG file, in levels; None if the sizes differ."""
    import numpy as np
    from PIL import Image

    with open_plain(image) as file, Image.open(file, formats=["PNG"]) as before:
        if before.size != picture.size:
            return None
        one, other = np.asarray(before.convert(picture.mode), np.int16), np.asarray(picture, np.int16)
    return int(np.abs(one - other).max())


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in CONDITIONS:
        if then.get(name) != now.get(name):
            yield f"{name} {then.get(name)!s:.40} then, {now.get(name)} now"
