"""The weight of the KL divergence, beta, over a range: with little of it the code says much and the samples are poor;
with too much the code says nothing, and the decoder can do no better than the mean image: underfitting.

Higgins et al. (2017), "beta-VAE"; Alemi et al. (2018), "Fixing a broken ELBO", for the trade of divergence (the rate)
against reconstruction error (the distortion)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from trilemma import rng
from trilemma.data.load import slug
from trilemma.errors import UserError
from trilemma.explore.codes import condition_for
from trilemma.keys import OneOrMore
from trilemma.lessons.held_out import common_images, reconstructed, rmse
from trilemma.pictures import plots
from trilemma.pictures.levels import to_float
from trilemma.pictures.page import below, side_by_side
from trilemma.pictures.table import table
from trilemma.run.run import Run
from trilemma.training import train
from trilemma.types import Batch, Condition, Reconstructs, Samples, Validates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

MEASURED = 2000  # images
TRAINED = Path("figures", "beta")  # apart from the runs of the user


class Point(NamedTuple):
    """One weight: root mean squared error of reconstructions from drawn codes, KL divergence in nats per image."""

    beta: float
    rmse: float
    kl_nats: float


def beta(
    *runs: Run,
    model: str = "vae",
    data: str = "digits",
    betas: OneOrMore[NonNegativeFloat] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    steps: PositiveInt = 2000,
    n: PositiveInt = 6,
    seed: int = 0,
) -> "Image.Image":
    """Error and divergence over beta, then for each beta a row of reconstructions and one of samples.

    Args:
        runs: finished runs that differ in beta; default: models are trained, into figures/beta/.
        model, data, betas, steps: what to train, and how many steps each.
        n: images in a row.
        seed: of the training, the drawn codes and the samples.
    """
    if not runs:
        name = TRAINED / f"{model}-{slug(Path(data))}-seed-{seed}"
        each = {"steps": steps, "seed": seed, "quiet": True}
        runs = tuple(train(model, data, beta=b, out=f"{name}-beta-{b:g}", **each) for b in sorted(set(betas)))
    runs = tuple(sorted(runs, key=_beta_of))
    batch = common_images(runs, None, MEASURED)
    points = [measure(run, batch, seed) for run in runs]
    mean = to_float(runs[0].data.train.images).mean(0)
    curves = _curves(points, rmse(mean.expand_as(batch.image), batch.image), _trained(runs))
    return below([curves, _rows(runs, batch, n, seed)])


def measure(run: Run, batch: Batch, seed: int) -> Point:
    """Error and divergence of a run on held-out images, from one drawn code each.

    Raises:
        UserError: if its model has no beta, or does not report its error and divergence.
    """
    value = _beta_of(run)
    model = run.require("reconstruct and draw samples", Validates, Reconstructs, Samples)
    draw = rng.generator(seed, "beta", device=run.device)

    def both(image: Tensor, condition: Condition) -> Tensor:
        values = model.validation(Batch(image, condition), draw)
        return torch.stack([values["mse"], values["kl_nats"]], dim=1)

    mse, kl = run.apply(both, batch.image, condition_for(run, batch)).mean(0).tolist()
    return Point(value, mse**0.5, kl)


def _beta_of(run: Run) -> float:
    """The weight that a run was trained with."""
    value = run.model_config.get("beta")
    if value is None:
        raise UserError(f"{run.path}: {run.recipe.name} has no beta; take runs of vae, vae-conv or vae-beta")
    return float(value)


def _curves(points: Sequence[Point], of_mean: float, how: str) -> "Image.Image":
    """Error and divergence over beta."""
    values = [point.beta for point in points]
    figure, (errors, divergences) = plots.row_of_plots(2)
    errors.axhline(of_mean, color=plots.GREY, linewidth=1, label="the mean image for every image")
    errors.plot(
        values, [point.rmse for point in points], marker="o", markersize=4, label="model", **plots.line_style(0)
    )
    divergences.plot(values, [point.kl_nats for point in points], marker="o", markersize=4, **plots.line_style(1))
    for ax in (errors, divergences):
        _mark_betas(ax, values)
        ax.set_ylim(0, 1.1 * float(ax.dataLim.y1) or 1)  # no line on the frame
    errors.legend(fontsize=8.5, frameon=False)
    plots.label_axes(errors, f"reconstruction error, {how}", "beta", "RMSE, held out, from a drawn code")
    plots.label_axes(divergences, "what a code says: KL(q(z|x) || p(z))", "beta", "nats per image")
    return plots.pixels(figure)


def _mark_betas(ax: "Axes", values: Sequence[float]) -> None:
    """A logarithmic axis whose marks are the weights themselves, with room on both sides."""
    positive = [value for value in values if value > 0] or [1.0]
    ax.set_xscale("symlog", linthresh=min(positive)) if 0 in values else ax.set_xscale("log")
    ax.margins(x=0.08)
    ax.set_xticks(sorted(set(values)), [f"{value:g}" for value in sorted(set(values))])
    ax.minorticks_off()


def _rows(runs: Sequence[Run], batch: Batch, n: int, seed: int) -> "Image.Image":
    """Held-out images over each run's reconstructions of them, and other ones over its samples."""
    images, n = batch.image.cpu(), min(n, len(batch.image) // 2)
    few = batch.rows(slice(n))
    results = [images[:n], *(reconstructed(run, few) for run in runs)]
    samples = [images[n : 2 * n], *(run.sample(n, seed=seed) for run in runs)]
    errors = [f"{rmse(one, image):.3f}" for row in results[1:] for one, image in zip(row, images[:n], strict=True)]
    names = ["held out", *(f"beta {_beta_of(run):g}" for run in runs)]
    return side_by_side(
        [
            table(torch.cat(results), names, ["reconstructions"], [""] * n + errors),
            table(torch.cat(samples), names, ["samples"], [""] * n * len(names)),
        ]
    )


def _trained(runs: Sequence[Run]) -> str:
    """How long the runs were trained, in words."""
    steps = sorted({int(run.log[-1]["step"]) for run in runs})
    return f"{steps[0]:,} steps" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,} steps"
