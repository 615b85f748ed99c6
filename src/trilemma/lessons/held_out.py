"""Held-out images that several runs are given alike."""

from collections.abc import Sequence

from torch import Tensor

from trilemma.data.load import Source
from trilemma.errors import UserError
from trilemma.explore.codes import condition_for
from trilemma.explore.images import pick_images
from trilemma.run.run import Run
from trilemma.types import Batch, Reconstructs


def common_images(runs: Sequence[Run], data: Source | None, n: int) -> Batch:
    """At most n images that none of the runs was trained on, chosen from the whole split.

    Args:
        data: other images than those the runs were trained on.
    Raises:
        UserError: the runs take images of different shapes, or were trained on different images and `data` is None.
    """
    shapes = {run.model_config.shape for run in runs}
    if len(shapes) > 1:
        raise UserError(
            f"the runs take images of different shapes, {', '.join(map(str, sorted(shapes)))}; choose others"
        )
    seen = {(run.config["fingerprint"], run.config["data_config"]["valid"]) for run in runs}
    if data is None and len(seen) > 1:
        raise UserError("the runs were trained on different images; choose others, or give all the same with data=")
    return pick_images(runs[0], data, n, seed=0)


def reconstructed(run: Run, batch: Batch) -> Tensor:
    """What a run's model gives back for the images, (N, C, H, W) on the CPU."""
    model = run.require("reconstruct", Reconstructs)
    return run.apply(model.reconstruct, batch.image, condition_for(run, batch))


def rmse(results: Tensor, images: Tensor) -> float:
    """Root of the mean squared error over all pixels of all images."""
    return float((results - images.cpu()).square().mean().sqrt())
