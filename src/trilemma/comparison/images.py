"""The images of a report as data URIs: eight of each model beside real ones, whole grids, and nearest training images.

They are the only part of the page that report.json does not hold. Gaps between images are transparent, so that a dark
page stays dark.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trilemma.errors import UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from trilemma.comparison.document import Entry
    from trilemma.data import Data

SAMPLES, LARGE_SAMPLES, LARGE = 64, 16, 64  # images in a grid; fewer where a side is larger than LARGE px
EIGHT, HALF = 8, 4  # images in a row of the first picture; a row breaks in two on a narrow page
COPIES_AMONG = 360  # generated images of each model, and held-out ones, at most, whose nearest neighbours are looked up
WIDTH = 340  # px on the page that a grid of samples is enlarged towards
SMOOTH = 48  # px: images with a larger side are not enlarged as blocks


def pictures_of(
    entries: Sequence["Entry"], data: "Data", split: str, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pictures of real images of a split and of generated ones, and how near the generated are to training images.

    Returns:
        {"real": image, "eight": [images], "models": {name: {"samples": image, "eight": [images], "nearest": image or
        None}}} with each image as {"uri", "width", "enlarged", "n"}; and by name what `_neighbours` returns or
        {"refused": why}.
    """
    count = SAMPLES if max(data.shape[1:]) <= LARGE else LARGE_SAMPLES
    real = _some(data.splits[split].images, count, seed)
    fakes = {e.name: e.evaluation.fakes for e in entries if e.evaluation is not None}
    near = _nearest({name: images[:COPIES_AMONG] for name, images in fakes.items()}, data, seed)
    models = {
        name: {"samples": picture(images[:count]), "eight": strips(images), "nearest": _pairs(images, near[name], data)}
        for name, images in fakes.items()
    }
    return {"real": picture(real), "eight": strips(real), "models": models}, near


def picture(images: "Tensor", columns: int | None = None) -> dict[str, Any]:
    """Images (N, C, H, W) in a grid as a data URI, one pixel for one pixel, and the width to show it at, px."""
    sheet, buffer = _sheet(images, columns), io.BytesIO()
    sheet.save(buffer, "png", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    factor = max(1, round(WIDTH / sheet.width))
    blocks = factor > 1 and max(images.shape[2:]) <= SMOOTH
    return {"uri": uri, "width": sheet.width * factor, "enlarged": blocks, "n": len(images)}


def strips(images: "Tensor") -> list[dict[str, Any]]:
    """The first eight images as two rows of four."""
    return [picture(part, columns=HALF) for part in images[:EIGHT].split(HALF)]


def _sheet(images: "Tensor", columns: int | None) -> "Image.Image":
    """A grid whose gaps are transparent; images with alpha are laid over white."""
    import torch
    from PIL import Image, ImageOps

    from trilemma.pictures.grid import grid

    sheet = grid(images, columns=columns, scale=1)
    if sheet.mode == "RGBA":
        sheet = Image.alpha_composite(Image.new("RGBA", sheet.size, "white"), sheet)
    black = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.uint8)
    sheet = sheet.convert("LA" if sheet.mode == "L" else "RGBA")
    sheet.putalpha(ImageOps.invert(grid(black, columns=columns, scale=1)))
    return sheet


def _pairs(fakes: "Tensor", near: Mapping[str, Any], data: "Data") -> dict[str, Any] | None:
    """The generated images nearest to a training image, above those training images."""
    if "refused" in near:
        return None
    shown = near["shown"]
    train = data.train.images[[near["index"][k] for k in shown]]
    return picture(_levels([fakes[shown], train]), columns=len(shown))


def _nearest(fakes: Mapping[str, "Tensor"], data: "Data", seed: int) -> dict[str, Any]:
    """Nearest training images of all models' samples, and of held-out ones as the yardstick, in one pass."""
    from trilemma.metrics.features import feature_network
    from trilemma.metrics.nearest import nearest_training_images

    sets = [*fakes.values(), _some(data.held_out[1].images, COPIES_AMONG, seed)]
    try:
        network = feature_network("auto", data.shape, data.name)
        index, distance = nearest_training_images(_levels(sets), data.train.images, network)
    except (UserError, MemoryError, RuntimeError) as error:  # which must not lose the report
        return {name: {"refused": str(error)} for name in fakes}
    sizes = [len(images) for images in sets]
    indices, distances = index.split(sizes), distance.split(sizes)
    return {name: _neighbours(indices[k], distances[k], distances[-1]) for k, name in enumerate(fakes)}


def _neighbours(index: "Tensor", distance: "Tensor", real: "Tensor") -> dict[str, Any]:
    """What is known of one model's samples: nearest training image and distance of each, the eight nearest, the
    different training images among those eight, and the test of copying."""
    from trilemma.metrics.nearest import closeness, copies

    shown = distance.argsort(stable=True)[:EIGHT]
    parts = closeness(index, distance, real=real)
    return {
        "index": index.tolist(),
        "distance": distance.tolist(),
        "n_real": len(real),
        "shown": shown.tolist(),
        "different": index[shown].unique().numel(),
        "closeness": [asdict(part) for part in parts],
        "copies": copies(parts),
    }


def _some(images: "Tensor", n: int, seed: int) -> "Tensor":
    from trilemma import rng

    return images[rng.permutation(len(images), seed, "report")[:n]]


def _levels(parts: Sequence["Tensor"]) -> "Tensor":
    import torch

    from trilemma.pictures.levels import to_uint8

    return torch.cat([to_uint8(part) for part in parts])
