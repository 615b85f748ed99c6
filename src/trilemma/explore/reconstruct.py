"""Originals over their reconstructions, with the error of each."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trilemma.data import load_data
from trilemma.errors import UserError
from trilemma.pictures import grid, save_png
from trilemma.registry import create, list_models
from trilemma.run import Run, as_run
from trilemma.types import Reconstructs


@dataclass(frozen=True)
class Reconstruction:
    """The picture, and the root of the mean squared error over all pixels, in pixel units of [0, 1].

    errors: root mean squared error of each image, (n,).
    """

    picture: Path
    rmse: float
    errors: Tensor


def reconstruct(
    run: Run | str | Path, *, data: str | Path | None = None, n: int = 16, out: str | Path | None = None
) -> Reconstruction:
    """Pass `n` held-out images through a model and lay the results below them.

    Args:
        data: other images than the run's own; they are brought to the size it was trained on.
        out: the picture to write; RUN/reconstructions.png where None.
    Raises:
        UserError: if the model does not reconstruct.
    """
    run = as_run(run)
    if n < 1:
        raise UserError(f"n={n}: at least 1 image is needed")
    if not isinstance(run.model, Reconstructs):
        able = [name for name in list_models() if isinstance(create(name), Reconstructs)]
        raise UserError(f"{run.recipe.name} does not reconstruct: it has no encoder; models that do: {', '.join(able)}")
    channels, height, width = run.model_config.shape
    source = run.data if data is None else load_data(data, size=(height, width), channels=channels)
    images = source.held_out[1].images[:n].to(run.device).float() / 255
    with torch.no_grad():
        results = run.model.reconstruct(images)
    squared = (results - images).square().flatten(1).mean(1).cpu()
    columns = min(16, len(images))
    rows = [part for pair in zip(images.split(columns), results.split(columns), strict=True) for part in pair]
    picture = Path(out) if out is not None else run.path / "reconstructions.png"
    save_png(grid(torch.cat([_fill(row, columns) for row in rows]).cpu(), columns=columns), picture)
    return Reconstruction(picture, float(squared.mean().sqrt()), squared.sqrt())


def _fill(row: Tensor, columns: int) -> Tensor:
    """A row of images made as long as the others with white ones."""
    return torch.cat([row, row.new_ones(columns - len(row), *row.shape[1:])])
