"""What a sparse code does: the mean activation of a unit over images against its target (Ng 2011, "Sparse
autoencoder"), and the favourite images of a unit: those whose activation is above its 90th percentile."""

from typing import TYPE_CHECKING

import torch
from pydantic import PositiveInt
from torch import Tensor

from trilemma.errors import UserError
from trilemma.explore.codes import condition_for
from trilemma.explore.images import pick_images
from trilemma.pictures import plots
from trilemma.pictures.page import below
from trilemma.pictures.table import table
from trilemma.run.run import Run
from trilemma.types import Encodes

if TYPE_CHECKING:
    from PIL import Image

MEASURED = 5000  # images
FAVOURED = 0.1  # share of the images, those with a unit's largest activations, that are its favourites


def favourites(activations: Tensor, n: int) -> Tensor:
    """Numbers of n images of the tenth with the largest activations (N,) of a unit: the strongest, then in equal steps
    of rank to the last of them. int64; fewer where there are fewer whose activation is above the least."""
    order = activations.argsort(descending=True, stable=True)[: max(1, round(FAVOURED * len(activations)))]
    order = order[activations[order] > activations.min()]
    return order[torch.linspace(0, max(len(order) - 1, 0), min(n, len(order))).round().long()]


def spread(codes: Tensor, n: int) -> list[int]:
    """At most n units of codes (N, Z), from the one whose activation varies most in equal steps of rank to the last
    that varies at all."""
    std = codes.std(0, correction=0)
    order = std.argsort(descending=True, stable=True)[: int((std > 0).sum())]
    return order[torch.linspace(0, max(len(order) - 1, 0), min(n, len(order))).round().long()].tolist()


def sparse_units(
    run: Run, *, units: PositiveInt = 6, images: PositiveInt = 12, data: str | None = None
) -> "Image.Image":
    """Histogram of all activations, mean activation of each unit, and a row of favourite images for some units.

    Args:
        units: rows; images: in a row.
        data: other images than the run's own held-out ones.
    """
    run.require("give activations", Encodes)
    batch = pick_images(run, data, MEASURED, seed=0)
    codes = run.encode(batch.image, condition=condition_for(run, batch))  # (N, Z)
    if (codes < 0).any():
        raise UserError(f"{run.path}: its codes have negative numbers and no activations; take a run of ae-sparse")
    chosen = spread(codes, units)
    if not chosen:
        raise UserError(f"{run.path}: no unit of its code varies with the image; train again with a lower lr=")
    rows = [_row(batch.image.cpu()[favourites(codes[:, unit], images)], images) for unit in chosen]
    names = [f"unit {unit} (mean {codes[:, unit].mean():.3f})" for unit in chosen]
    return below([_histograms(codes, _target(run)), table(torch.cat(rows), names)])


def _row(images: Tensor, n: int) -> Tensor:
    """Images and white ones, n in all."""
    return torch.cat([images, images.new_ones(n - len(images), *images.shape[1:])])


def _histograms(codes: Tensor, target: float | None) -> "Image.Image":
    figure, (all_of_them, means) = plots.row_of_plots(2)
    percent = torch.full((codes.numel(),), 100 / codes.numel())
    top = float(codes.max().clamp(min=1))
    all_of_them.hist(codes.flatten(), bins=50, range=(0, top), weights=percent, color=plots.style(0)[0])
    plots.label_axes(all_of_them, f"{codes.shape[1]} units, {len(codes):,} images", "activation", "% of activations")
    of_units = codes.mean(0)
    means.hist(of_units, bins=50, color=plots.style(1)[0])
    if target is not None:
        means.axvline(target, color=plots.GREY, linewidth=1.2, label=f"target {target:g}")
    means.axvline(float(of_units.mean()), color="black", linestyle=":", label=f"mean {float(of_units.mean()):.4f}")
    means.legend(fontsize=8.5, frameon=False)
    plots.label_axes(means, f"each unit's mean over {len(codes):,} images", "mean activation", "number of units")
    return plots.pixels(figure)


def _target(run: Run) -> float | None:
    """The activation that the training aimed at; None if it had no target."""
    return run.model_config.get("sparsity_target") if run.model_config.get("sparsity", 0) else None
