"""Codes in the format of the embedding projector, https://projector.tensorflow.org or TensorBoard.

Smilkov et al. (2016), "Embedding projector: interactive visualization and interpretation of embeddings".
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trilemma.files import json_text
from trilemma.pictures.grid import MODES, reduced, to_image
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import png_content, receipt_for
from trilemma.text import csv_cell

if TYPE_CHECKING:
    from PIL import Image

SPRITE = 8192  # px: the largest side that the projector shows
PROJECTOR = ("vectors.tsv", "metadata.tsv", "sprite.png", "projector_config.json", "projector_config.pbtxt")
PBTXT = """embeddings {{
  tensor_name: "codes"
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
}}
"""


def projector_files(codes: Tensor, images: Tensor, rows: Sequence[dict[str, Any]]) -> dict[str, bytes | str]:
    """The content of each file: codes, a line of metadata each, a sheet of thumbnails, and the two configurations.

    Tabs between the values; a header only if the metadata have several columns; thumbnails row by row on a square.
    projector_config.json is for the page (its paths become addresses), projector_config.pbtxt for TensorBoard.
    """
    sheet, side = sprite(images)
    vectors = "\n".join("\t".join(f"{value:.7g}" for value in code) for code in codes.tolist())
    columns = list(rows[0])
    header = ["\t".join(columns)] if len(columns) > 1 else []
    lines = ["\t".join(str(csv_cell(" ".join(str(row[name]).split()))) for name in columns) for row in rows]
    entry = {
        "tensorName": "codes",
        "tensorShape": list(codes.shape),
        "tensorPath": "vectors.tsv",
        "metadataPath": "metadata.tsv",
        "sprite": {"imagePath": "sprite.png", "singleImageDim": [side, side]},
    }
    contents = (
        vectors + "\n",
        "\n".join([*header, *lines]) + "\n",
        png_content(sheet, receipt_for("map", shows="its thumbnails")),
        json_text({"embeddings": [entry]}),
        PBTXT.format(side=side),
    )
    return dict(zip(PROJECTOR, contents, strict=True))


def sprite(images: Tensor, largest: int = SPRITE) -> tuple["Image.Image", int]:
    """Images (N, C, H, W) in as many rows as columns, each in the middle of a square; and the side of that in px.

    Args:
        largest: side of a square, px.
    """
    from PIL import Image

    columns = int((len(images) - 1) ** 0.5) + 1  # least whole number whose square is at least N
    side = min(max(images.shape[2:]), SPRITE // columns, largest)
    sheet = Image.new(MODES[images.shape[1]], (columns * side, columns * side), "white")
    for k, image in enumerate(to_uint8(images).cpu()):
        tile = reduced(to_image(image), side)
        x, y = (k % columns) * side, (k // columns) * side
        sheet.paste(tile, (x + (side - tile.width) // 2, y + (side - tile.height) // 2))
    return sheet, side
