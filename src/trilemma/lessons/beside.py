"""The same images through several models: what each gives back, as they are or after noise, and what each draws."""

from itertools import chain
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from trilemma import rng
from trilemma.lessons.held_out import common_images, reconstructed, rmse
from trilemma.pictures.table import table
from trilemma.run.run import Run
from trilemma.types import Batch, Reconstructs, Samples

if TYPE_CHECKING:
    from PIL import Image

MEASURED = 2000  # images behind each RMSE


def disturbed(images: Tensor, noise: float, drop: float, seed: int = 0) -> Tensor:
    """Images (N, C, H, W) with Gaussian noise of a standard deviation, and a share of the pixels dropped and the rest
    raised to keep the mean: what denoising autoencoders train on (Vincent et al. 2008)."""
    shape, ids = tuple(images.shape[1:]), torch.arange(len(images))
    mask = (rng.uniform(ids, shape, seed, "drop") >= drop).to(images) / (1 - drop)
    return images * mask + noise * rng.normal(ids, shape, seed, "noise").to(images)


def beside(
    first: Run,
    *others: Run,
    n: PositiveInt = 10,
    data: str | None = None,
    noise: NonNegativeFloat = 0.0,
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    samples: bool = True,
    seed: int = 0,
) -> "Image.Image":
    """Rows of held-out images, of each run's reconstructions with their RMSE, and of each run's samples.

    Args:
        n: images in a row; the RMSE in front of a row is over 2,000.
        data: other images than the runs' own.
        noise, drop: done to what the models are given, not to what the result is compared with: standard deviation
            of Gaussian noise, share of pixels dropped.
        samples: whether to draw some, of the models that do.
        seed: of the samples and the noise.
    """
    runs = (first, *others)
    for run in runs:
        run.require("reconstruct", Reconstructs)
    batch = common_images(runs, data, MEASURED)
    images, inputs, blank = batch.image.cpu(), batch, [""] * min(n, len(batch.image))
    rows = [("held out", images, blank)]
    if noise or drop:
        inputs = Batch(disturbed(batch.image, noise, drop, seed), batch.condition)
        rows.append(("given", inputs.image.cpu(), blank))
    for run in runs:
        results = reconstructed(run, inputs)
        errors = [f"{rmse(*pair):.3f}" for pair in zip(results[:n], images[:n], strict=True)]
        rows.append((f"{run.name}: RMSE {rmse(results, images):.4f}", results, errors))
    for run in runs:
        if samples and isinstance(run.model, Samples):
            rows.append((f"{run.name}: samples", run.sample(len(blank), seed=seed), blank))
    names, pictures, texts = zip(*rows, strict=True)
    return table(torch.cat([part[:n] for part in pictures]), names, texts=list(chain(*texts)))
