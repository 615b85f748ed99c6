"""Originals over their reconstructions, with the error of each: sqrt(mean((x_hat - x)**2)) over the pixels of x."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trilemma.explore.images import Source, labels_for, made_by, pick_images, require, through
from trilemma.pictures import TILE, grid, save_png
from trilemma.run import Run, as_run
from trilemma.types import Reconstructs

COLUMNS = 16


@dataclass(frozen=True)
class Reconstruction:
    """The picture, and the root of the mean squared error over all pixels, in pixel units of [0, 1].

    errors: root mean squared error of each image, (n,).
    """

    picture: Path
    rmse: float
    errors: Tensor


def reconstruct(
    run: Run | str | Path, *, data: Source = None, n: int = 16, split: str | None = None, out: str | Path | None = None
) -> Reconstruction:
    """Pass `n` held-out images through a model and lay the results below them, with the error of each.

    Args:
        data: other images than the run's own; they are brought to the size it was trained on.
        split: "train", "valid" or "test"; the held-out split where None.
        out: the picture to write; RUN/reconstructions.png where None.
    Raises:
        UserError: if the model does not reconstruct, or is conditional and the images have no classes of its own.
    """
    run = as_run(run)
    require(run, "reconstruct", Reconstructs)
    batch = pick_images(run, data, n, split)
    images = batch.image.cpu()
    labels = labels_for(run.model, batch.label)
    results = through(run, run.model.reconstruct, batch.image, labels)  # type: ignore[arg-type]
    squared = (results - images).square().flatten(1).mean(1)
    rmse, errors = float(squared.mean().sqrt()), squared.sqrt()
    picture = Path(out) if out is not None else run.path / "reconstructions.png"
    sheet = grid(_pairs(images, results), COLUMNS, scale=1, texts=[f"{error:.3f}" for error in errors.tolist()])
    save_png(sheet, picture, made_by(run, "reconstruct", n=len(images), split=split, rmse=rmse))
    return Reconstruction(picture, rmse, errors)


def _pairs(images: Tensor, results: Tensor) -> Tensor:
    """Each image over its result with a white line between them, enlarged by the factor that `grid` takes by itself."""
    scale = max(1, TILE // max(images.shape[2:]))
    large = [part.repeat_interleave(scale, 2).repeat_interleave(scale, 3) for part in (images, results)]
    line = torch.ones_like(large[0][:, :, :1])
    return torch.cat([large[0], line, large[1]], dim=2)  # (n, C, 2 H scale + 1, W scale)
