"""Make a picture again from what its PNG file says of how it was made."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma.config import make
from trilemma.errors import UserError
from trilemma.explore.sample import FORMAT, Receipt, receipt_of
from trilemma.hardware import pick_device
from trilemma.pictures import grid, read_metadata, save_png, to_image
from trilemma.run import WEIGHTS, Run

if TYPE_CHECKING:
    from PIL import Image

WHAT = {
    "seed",
    "label",
    "exact",
    "settings",
    "first",
    "n",
    "grid",
    "batches",
}  # of a receipt; the rest is who and where


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


def again(image: str | Path, *, run: Run | str | Path | None = None, out: str | Path | None = None) -> Again:
    """Make a picture again that `sample` wrote, an image by itself or a grid.

    Args:
        image: the PNG; it names its run and weights, seed, image number and settings.
        run: the run's folder; where None, it is looked for where it was, around the picture, and in runs/.
        out: the picture to write; NAME-again.png in the current folder where None.
    Raises:
        UserError: the file does not say how it was made, or says it in a later format; its run is not found, or has
            other weights by now.
    """
    image = Path(image).expanduser()
    receipt = _read(image)
    if run is None:
        found = _find(receipt, image)
    else:
        found = _checked(run if isinstance(run, Run) else Run(run, device=_device(receipt)), receipt)
    images = _draw(found, receipt)
    picture = grid(images) if receipt.grid else to_image(images[0])
    difference = _difference(picture, image)
    made = receipt_of(found, **receipt.model_dump(include=WHAT))
    path = Path(out).expanduser() if out is not None else Path(f"{image.stem}-again.png")
    save_png(picture, path, made.to_json())
    return Again(path, found.path, difference == 0, difference, tuple(_changes(receipt, made)))


def _read(image: Path) -> Receipt:
    """The receipt in a PNG, checked."""
    found = read_metadata(image)
    version = found.get("format")
    if isinstance(version, int) and version > FORMAT:
        made = found.get("trilemma")
        raise UserError(f"{image} is of format {version}, made by trilemma {made}; this version reads {FORMAT}: update")
    if verb := found.get("verb"):
        raise UserError(f"{image} was made by `trilemma {verb}`; only what `sample` draws can be made again")
    try:
        receipt = make(Receipt, found)
    except UserError as error:
        raise UserError(f"{image} does not say how it was made as trilemma's `sample` does: {error}") from None
    first, end = receipt.first, receipt.first + receipt.n
    if not receipt.batches or not receipt.batches[0][0] <= first < end <= sum(receipt.batches[-1]):
        raise UserError(
            f"{image} does not say which images it shows; only a PNG as trilemma wrote it can be made again"
        )
    return receipt


def _draw(run: Run, receipt: Receipt) -> Tensor:
    """The images of a picture, computed in the batches they were computed in: (n, C, H, W)."""
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in receipt.settings.items()}
    parts = [
        run.sample(
            size, seed=receipt.seed, first=start, label=receipt.label, batch=size, exact=receipt.exact, **settings
        )
        for start, size in receipt.batches
    ]
    skip = receipt.first - receipt.batches[0][0]
    return torch.cat(parts)[skip : skip + receipt.n]


def _find(receipt: Receipt, image: Path) -> Run:
    """The run with the receipt's weights: where it was, in the folders around the picture, or in runs/.

    Raises:
        UserError: with the runs of the same model that were looked at.
    """
    others = []
    for path in dict.fromkeys(place.resolve() for place in _places(receipt, image)):
        if not (path / WEIGHTS).is_file():
            continue
        try:
            run = Run(path, device=_device(receipt))
            if run.recipe.name == receipt.model:
                return _checked(run, receipt)
        except (UserError, OSError) as error:
            others.append(str(error))
    seen = f" ({'; '.join(others)})" if others else ""
    raise UserError(
        f"the run that made {image} was not found: {receipt.run}, a {receipt.model} with weights {receipt.weights}"
        f"{seen}; give its folder with run="
    )


def _places(receipt: Receipt, image: Path) -> Iterator[Path]:
    """Where the run may be, the likeliest first."""
    yield Path(receipt.run)
    folders = image.resolve().parents
    yield from folders
    yield from _folders_in(folders[0])
    for folder in (*folders, Path()):
        yield from _folders_in(folder / "runs")


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:  # not there, or not ours to read
        return []


def _checked(run: Run, receipt: Receipt) -> Run:
    """The run, if it has the weights that made the picture."""
    if run.weights_id != receipt.weights:
        raise UserError(
            f"{run.path} has other weights ({run.weights_id}) than those that made the picture ({receipt.weights}): "
            "it was trained further, or is another run"
        )
    return run


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

    with Image.open(image, formats=["PNG"]) as before:
        if before.size != picture.size:
            return None
        one, other = np.asarray(before.convert(picture.mode), np.int16), np.asarray(picture, np.int16)
    return int(np.abs(one - other).max())


def _changes(then: Receipt, now: Receipt) -> Iterator[str]:
    for name in ("trilemma", "torch", "device", "threads", "precision"):
        if getattr(then, name) != getattr(now, name):
            yield f"{name} {getattr(then, name)} then, {getattr(now, name)} now"
