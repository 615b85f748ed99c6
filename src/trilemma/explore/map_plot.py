"""The plot of a map: a point for each image in the colour of its class, and thumbnails that do not overlap.

Thumbnails are put one after the other on their points where they stay clear of those before.
"""

import textwrap
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data import Data
from trilemma.explore.images import class_name
from trilemma.pictures import plots
from trilemma.pictures.grid import enlarged, reduced, tile_scale, to_image
from trilemma.pictures.levels import to_uint8
from trilemma.run.run import Run
from trilemma.text import printable
from trilemma.types import Batch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

LEGEND = 40  # classes; more are not listed
SIDE_IN, DPI = 8.0, 150  # of the map
FRAME = 2  # px around a thumbnail
THUMBNAIL = 44  # px: images are enlarged or reduced towards this side
CLEAR = 0.5  # of a thumbnail's side that is left free around it, so that the points between stay visible
LEAST_SIDE = 0.8  # of the longer side of the map, so that a title fits over it
TITLE = 60  # letters in a line of the title


def draw_map(
    run: Run, points: Tensor, batch: Batch, source: Data, thumbnails: bool, titles: tuple[str, str, str]
) -> "Image.Image":
    """The map as a picture.

    Args:
        points: (N, 2), of the images in `batch`.
        titles: what the map is, and the names of its axes; without these, the axes have no values either.
    """
    from matplotlib.figure import Figure

    labels = (
        torch.zeros(len(points), dtype=torch.int64) if batch.condition.label is None else batch.condition.label.cpu()
    )
    kinds = sorted(set(labels.tolist()))
    figure = Figure(figsize=(SIDE_IN, SIDE_IN), dpi=DPI)
    ax = figure.add_subplot()
    _set_limits(ax, points)
    what, *axes = titles
    title = textwrap.fill(f"{printable(run.name)}: {what}", TITLE)
    if batch.condition.label is None:
        title += "\nThe images have no classes, so there is one colour."
    ax.set_title(title, fontsize=11, loc="left", parse_math=False)
    ax.set_xlabel(axes[0], fontsize=9)
    ax.set_ylabel(axes[1], fontsize=9)
    ax.tick_params(labelsize=8)
    if not any(axes):
        ax.set(xticks=[], yticks=[])
    for kind in kinds:
        place, (colour, marker) = points[labels == kind].T.numpy(), plots.class_style(kind)
        ax.scatter(*place, s=9, marker=marker, color=colour, linewidths=0, label=printable(class_name(source, kind)))
    if 1 < len(kinds) <= LEGEND:
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "ncols": 1 + (len(kinds) - 1) // 25}
        ax.legend(**beside, markerscale=2.5, fontsize=9, frameon=False, handletextpad=0.3, borderaxespad=0.3)
    if thumbnails:
        figure.draw_without_rendering()  # settles the limits, from which the places in pixels follow
        _put_thumbnails(ax, points, batch.image, labels)
    return plots.pixels(figure, DPI, margin=0.15)


def _set_limits(ax: "Axes", points: Tensor) -> None:
    """Room around the points, the same on both axes, and no side much shorter than the other."""
    middle, half = (points.amax(0) + points.amin(0)) / 2, (points.amax(0) - points.amin(0)) / 2
    half = 1.06 * half.clamp_min(float(half.max()) * LEAST_SIDE)
    (left, low), (right, high) = (middle - half).tolist(), (middle + half).tolist()
    ax.set(xlim=(left, right), ylim=(low, high), aspect="equal")


def _put_thumbnails(ax: "Axes", points: Tensor, images: Tensor, labels: Tensor) -> None:
    """Images on their points, framed in the colour of their class, where they do not overlap."""
    import numpy as np
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
    from PIL import ImageOps

    height, width = (length + 2 * FRAME for length in thumbnail(images[0]).size[::-1])
    pixels = torch.from_numpy(ax.transData.transform(points.numpy()))
    order = rng.permutation(len(points), 0, "thumbnails")  # in data sorted by class, the first would take the room
    for k in order[clear_places(pixels[order], ((1 + CLEAR) * width, (1 + CLEAR) * height))].tolist():
        picture = ImageOps.expand(thumbnail(images[k]).convert("RGB"), FRAME, plots.class_style(int(labels[k]))[0])
        tile = OffsetImage(np.asarray(picture), zoom=72 / DPI, interpolation="nearest")
        ax.add_artist(AnnotationBbox(tile, tuple(points[k].tolist()), frameon=False, pad=0))


def thumbnail(image: Tensor) -> "Image.Image":
    """An image (C, H, W) enlarged by a whole factor, or reduced, to a longer side of about THUMBNAIL."""
    large = enlarged(to_uint8(image).cpu(), tile_scale(*image.shape[1:], side=THUMBNAIL))
    return reduced(to_image(large), THUMBNAIL)


def clear_places(centres: Tensor, size: tuple[float, float]) -> list[int]:
    """Which rectangles of one size (width, height) to draw around the centres (N, 2), so that no two overlap.

    Each is taken in turn if it stays clear of all taken before: |dx| >= width or |dy| >= height.
    """
    chosen: list[int] = []
    extent = torch.tensor(size)
    for k, centre in enumerate(centres):
        apart = (centres[chosen] - centre).abs() >= extent  # (chosen, 2)
        if apart.any(1).all():
            chosen.append(k)
    return chosen
