"""The files of a map for the studio, which draws it so that it can be moved, enlarged and searched.

points.json holds columns with a value for each image: its place, number, class and file, and the images whose codes are
nearest by Euclidean distance. thumbnails.png holds all images in one sheet, row by row.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trilemma.data import Data
from trilemma.explore.images import class_name
from trilemma.explore.projector import sprite
from trilemma.pictures.plots import class_style
from trilemma.pictures.png import png_content, receipt_for
from trilemma.studio_files import MAP_FORMAT, MAP_POINTS, MAP_THUMBNAILS
from trilemma.types import Batch

if TYPE_CHECKING:
    import numpy as np

MAP_FILES = (MAP_POINTS, MAP_THUMBNAILS)
NEAREST = 8  # neighbours of each image
THUMBNAIL_PX = 32  # at most: 10,000 thumbnails are a sheet of 3,200 px a side


def map_files(
    points: Tensor,
    codes: Tensor,
    batch: Batch,
    rows: Sequence[dict[str, Any]],
    source: Data,
    about: dict[str, Any],
) -> dict[str, bytes | str]:
    """The content of each of MAP_FILES.

    Args:
        points: places in the plane, (N, 2).
        codes: (N, Z).
        batch: the images, (N, C, H, W), with their classes if they have any.
        rows: of each image, as `rows_of` gives them.
        source: where the images come from, which names the classes.
        about: plain values that say how the map was made.
    """
    sheet, side = sprite(batch.image, THUMBNAIL_PX)
    labels = None if batch.condition.label is None else batch.condition.label.tolist()
    kinds = sorted(set(labels or ()))
    place = {kind: k for k, kind in enumerate(kinds)}
    distance, nearest = nearest_codes(codes)
    columns: dict[str, Any] = {
        "x": [float(f"{x:.5g}") for x in points[:, 0].tolist()],
        "y": [float(f"{y:.5g}") for y in points[:, 1].tolist()],
        "index": [row["index"] for row in rows],
        "class": None if labels is None else [place[label] for label in labels],
        "file": [str(row["file"]) for row in rows] if "file" in rows[0] else None,
        "nearest": nearest.tolist(),
        "distance": [[float(f"{d:.4g}") for d in row] for row in distance.tolist()],
    }
    classes = [{"name": class_name(source, kind), "colour": class_style(kind)[0]} for kind in kinds]
    whole = {
        "format": MAP_FORMAT,
        **about,
        "side_px": side,
        "columns": sheet.width // side,
        "classes": classes,
        **columns,
    }
    content = png_content(sheet, receipt_for("map", shows="its thumbnails"))
    return dict(zip(MAP_FILES, (json.dumps(whole, separators=(",", ":")), content), strict=True))


def nearest_codes(codes: Tensor, count: int = NEAREST) -> "tuple[np.ndarray, np.ndarray]":
    """Of each code (N, Z) the Euclidean distances and the rows of the `count` nearest others: (N, count) each, fewer
    where there are fewer codes."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(count, len(codes) - 1), algorithm="brute").fit(codes.double().numpy())
    return search.kneighbors()
