"""Originals over their reconstructions, with the error of each: sqrt(mean((x_hat - x)**2)) over the pixels of x."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trilemma.explore.images import (
    Source,
    class_of,
    labels_for,
    made_by,
    part_of,
    pick_images,
    require,
    rows_of,
    source_of,
)
from trilemma.files import write_json
from trilemma.pictures import TILE, grid, save_png
from trilemma.run import Run, as_run
from trilemma.types import Reconstructs

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


def reconstruct(
    run: Run | str | Path,
    *,
    data: Source = None,
    n: int = 16,
    split: str | None = None,
    label: str | int | None = None,
    out: str | Path | None = None,
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
    source = source_of(run, data)
    batch = pick_images(run, source, n, split)
    images = batch.image.cpu()
    results = run.reconstruct(batch.image, labels_for(run.model, class_of(run, label, batch), label=True))
    squared = (results - images).square().flatten(1).mean(1)
    rmse, errors = float(squared.mean().sqrt()), squared.sqrt()
    picture = Path(out) if out is not None else run.path / "reconstructions.png"
    sheet = grid(_pairs(images, results), COLUMNS, scale=1, texts=[f"{error:.3f}" for error in errors.tolist()])
    made = made_by(run, "reconstruct", n=len(images), split=split, label=label, rmse=rmse)
    save_png(sheet, picture, made)
    part = part_of(run, source, split)
    rows = [row | {"rmse": error} for row, error in zip(rows_of(batch, source, part), errors.tolist(), strict=True)]
    file = write_json(picture.with_suffix(".json"), made | {"split": part.name, "images": rows})
    return Reconstruction(picture, rmse, errors, results, file)


def _pairs(images: Tensor, results: Tensor) -> Tensor:
    """Each image over its result with a white line between them, enlarged by the factor that `grid` takes by itself."""
    scale = max(1, TILE // max(images.shape[2:]))
    large = [part.repeat_interleave(scale, 2).repeat_interleave(scale, 3) for part in (images, results)]
    line = torch.ones_like(large[0][:, :, :1])
    return torch.cat([large[0], line, large[1]], dim=2)  # (n, C, 2 H scale + 1, W scale)
