"""The images of a report as data URIs: eight of each model beside real ones, whole grids, and nearest training images.

They are the only part of the page that report.json does not hold. Gaps between images are transparent, so that a dark
page stays dark.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from trilemma.comparison.content import Nearest, Refused
from trilemma.comparison.entries import Entry
from trilemma.errors import UserError
from trilemma.language import translated

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from trilemma.data import Data
    from trilemma.metrics.controls import Reference
    from trilemma.metrics.evaluate import Evaluation

SAMPLES, LARGE_SAMPLES, LARGE = 64, 16, 64  # images in a grid; fewer where a side is larger than LARGE px
EIGHT, HALF = 8, 4  # images in a row of the first picture; a row breaks in two on a narrow page
COPIES_AMONG = 360  # generated images of each model, and held-out ones, at most, whose nearest neighbours are looked up
WIDTH = 340  # px on the page that a grid of samples is enlarged towards
SMOOTH = 48  # px: images with a larger side are not enlarged as blocks
UNKNOWN_TRAINING = "what these images were made from is not known"


class Picture(NamedTuple):
    """A grid of n images as a data URI, and the width to show it at, px; `enlarged` as blocks."""

    uri: str
    width: int
    enlarged: bool
    n: int


class RowPictures(NamedTuple):
    """The pictures of one row: a grid of samples, the first eight, and those nearest to training images."""

    samples: Picture
    eight: list[Picture]
    nearest: Picture | None


class Pictures(NamedTuple):
    """All pictures of a report: real images, eight of them, and those of each row by name."""

    real: Picture
    eight: list[Picture]
    models: dict[str, RowPictures]


def pictures_of(entries: Sequence[Entry], reference: "Reference") -> tuple[Pictures, dict[str, Nearest | Refused]]:
    """Pictures of the real images that are measured by and of generated ones, and by name how near the generated ones
    are to training images."""
    from trilemma.data.selection import part_named

    setup = reference.setup
    data, part = setup.data, part_named(setup.data, setup.split)
    count = SAMPLES if max(data.shape[1:]) <= LARGE else LARGE_SAMPLES
    real = part.take(_chosen(len(part), count, setup.seed)).images
    measured = {e.name: e.evaluation for e in entries if e.evaluation is not None}
    near = _nearest(measured, reference)
    models = {
        name: RowPictures(picture(one.fakes[:count]), strips(one.fakes), _pairs(one.fakes, near[name], data))
        for name, one in measured.items()
    }
    return Pictures(picture(real), strips(real), models), near


def picture(images: "Tensor", columns: int | None = None) -> Picture:
    """Images (N, C, H, W) in a grid, one pixel for one pixel."""
    sheet, buffer = _sheet(images, columns), io.BytesIO()
    sheet.save(buffer, "png", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    factor = max(1, round(WIDTH / sheet.width))
    blocks = factor > 1 and max(images.shape[2:]) <= SMOOTH
    return Picture(uri, sheet.width * factor, blocks, len(images))


def strips(images: "Tensor") -> list[Picture]:
    """The first eight images as two rows of four."""
    return [picture(part, columns=HALF) for part in images[:EIGHT].split(HALF)]


def _sheet(images: "Tensor", columns: int | None) -> "Image.Image":
    """A grid whose gaps are transparent."""
    import torch
    from PIL import ImageOps

    from trilemma.pictures.grid import grid

    sheet = grid(images, columns=columns, scale=1)
    black = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.uint8)
    sheet = sheet.convert("LA" if sheet.mode == "L" else "RGBA")
    sheet.putalpha(ImageOps.invert(grid(black, columns=columns, scale=1)))
    return sheet


def _pairs(fakes: "Tensor", near: Nearest | Refused, data: "Data") -> Picture | None:
    """The generated images nearest to a training image, above those training images."""
    import torch

    if isinstance(near, Refused):
        return None
    nearest = list(near.shown)
    train = data.train.images[[near.index[k] for k in nearest]]
    return picture(torch.cat([fakes[nearest], train]), columns=len(nearest))


def _nearest(measured: "Mapping[str, Evaluation]", reference: "Reference") -> dict[str, Nearest | Refused]:
    """Nearest training images of the samples of every row, and of held-out images as the yardstick, in one pass, by the
    features that were measured; none where no model is known to be trained on the data."""
    import torch

    from trilemma.metrics.nearest import nearest_training_images

    setup = reference.setup
    if not setup.own:
        return {name: Refused(translated(UNKNOWN_TRAINING)) for name in measured}
    try:
        features = {name: one.features[:COPIES_AMONG] for name, one in measured.items()}
        sets = [*features.values(), _held_out_features(reference)]
        index, distance = nearest_training_images(torch.cat(sets), setup.data.train.images, setup.network)
    except (UserError, MemoryError, RuntimeError) as error:  # which must not lose the report
        return {name: Refused(str(error)) for name in measured}
    sizes = [len(one) for one in sets]
    indices, distances = index.split(sizes), distance.split(sizes)
    return {name: _neighbours(indices[k], distances[k], distances[-1]) for k, name in enumerate(measured)}


def _held_out_features(reference: "Reference") -> "Tensor":
    """Features (N, D) of held-out images: of those that were measured by, where they were held out."""
    from trilemma.metrics.features import extract

    setup, (name, split) = reference.setup, reference.setup.data.held_out
    if setup.split == name:
        return reference.real.features[_chosen(setup.n, COPIES_AMONG, setup.seed)]
    return extract(setup.network, split.images[_chosen(len(split), COPIES_AMONG, setup.seed)])


def _neighbours(index: "Tensor", distance: "Tensor", real: "Tensor") -> Nearest:
    """Of the samples of one row."""
    from trilemma.metrics.nearest import closeness, copies

    nearest = distance.argsort(stable=True)[:EIGHT]
    parts = closeness(index, distance, real=real)
    return Nearest(
        index=index.tolist(),
        distance=distance.tolist(),
        n_real=len(real),
        shown=nearest.tolist(),
        different=index[nearest].unique().numel(),
        closeness=parts,
        copies=copies(parts),
    )


def _chosen(total: int, n: int, seed: int) -> "Tensor":
    """Numbers of n of all images at random."""
    from trilemma import rng

    return rng.permutation(total, seed, "report")[:n]
