"""Originals over their reconstructions, with the error of each: sqrt(mean((x_hat - x)**2)) over the pixels of x."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma.explore.codes import class_of, labels_for, require
from trilemma.explore.images import Source, made_by, part_of, pick_images, rows_of, source_of
from trilemma.files import json_text
from trilemma.keys import Count, Label, Picture, SplitOf
from trilemma.pictures.grid import TEXT, TILE, font, grid
from trilemma.pictures.table import GAP
from trilemma.results import Results, place
from trilemma.run.run import RunLike, as_run
from trilemma.types import Reconstructs
from trilemma.values import checked_call

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = 16


@dataclass(frozen=True)
class Reconstruction:
    """The picture, and the root of the mean squared error over all pixels, in pixel units of [0, 1].

    errors: root mean squared error of each image, (n,); images: what the model made of each, (n, C, H, W) in [0, 1].
    file: JSON beside the picture: of each image its position in the split, its class and file if any, and its rmse.
    """

    picture: Path
    rmse: float
    errors: Tensor
    images: Tensor
    file: Path


@checked_call
def reconstruct(
    run: RunLike,
    *,
    data: Source = None,
    n: Count = 16,
    split: SplitOf = None,
    label: Label = None,
    out: Picture = None,
) -> Reconstruction:
    """Pass `n` images through a model that was not trained on them; lay the results below, with the error of each.

    Args:
        data: other images than the run's own; they are brought to the size it was trained on.
        split: "train", "valid" or "test"; where None, the run's held-out split, or all images of other data.
        label: the class of all of them, for a conditional model; where None, that of each image.
        out: the picture to write, with the errors as JSON beside it; RUN/reconstructions.png where None.
    Raises:
        UserError: if the model does not reconstruct, or is conditional and the images have no classes of its own.
    """
    run = as_run(run)
    require(run, "reconstruct", Reconstructs)
    picture, within = place(out, run.path, "reconstructions.png")
    file = picture.with_suffix(".json")
    files = Results(picture, [file], verb="reconstruct", within=within)
    source = source_of(run, data)
    batch = pick_images(run, source, n, split)
    images = batch.image.cpu()
    results = run.reconstruct(batch.image, labels_for(run.model, class_of(run, label, batch), label=True))
    squared = (results - images).square().flatten(1).mean(1)
    rmse, errors = float(squared.mean().sqrt()), squared.sqrt()
    sheet = grid(_pairs(images, results), COLUMNS, scale=1, texts=[f"{error:.3f}" for error in errors.tolist()])
    made = made_by(run, "reconstruct", n=len(images), split=split, label=label, rmse=rmse)
    part = part_of(run, source, split)
    rows = [row | {"rmse": error} for row, error in zip(rows_of(batch, source, part), errors.tolist(), strict=True)]
    figures = json_text(made | {"split": part.name, "images": rows})
    files.write(_labelled(sheet, images), made, {file: figures})
    return Reconstruction(picture, rmse, errors, results, file)


def _labelled(sheet: "Image.Image", images: Tensor) -> "Image.Image":
    """The sheet with names beside its rows, and what the numbers are above."""
    from PIL import Image, ImageDraw

    letters, count = font(), -(-len(images) // COLUMNS)
    height = images.shape[2] * max(1, TILE // max(images.shape[2:]))
    names = {"image": height / 2, "reconstruction": 1.5 * height + 1, "RMSE": 2 * height + 1 + TEXT / 2}
    left, top = GAP + math.ceil(max(map(letters.getlength, names))) + GAP, GAP + TEXT + GAP
    title = "RMSE: root mean squared error over the pixels, which lie in [0, 1]"
    width = max(left + sheet.width, math.ceil(GAP + letters.getlength(title) + GAP))
    page = Image.new(sheet.mode, (width, top + sheet.height), "white")
    page.paste(sheet, (left, top))
    draw = ImageDraw.Draw(page)
    draw.text((GAP, GAP), title, fill="black", font=letters)
    step = (sheet.height - 1) / count
    for row in range(count):
        for name, y in names.items():
            draw.text((left - GAP, top + 1 + row * step + y), name, fill="black", font=letters, anchor="rm")
    return page


def _pairs(images: Tensor, results: Tensor) -> Tensor:
    """Each image over its result with a white line between them, enlarged by the factor that `grid` takes by itself."""
    scale = max(1, TILE // max(images.shape[2:]))
    large = [part.repeat_interleave(scale, 2).repeat_interleave(scale, 3) for part in (images, results)]
    line = torch.ones_like(large[0][:, :, :1])
    return torch.cat([large[0], line, large[1]], dim=2)  # (n, C, 2 H scale + 1, W scale)
