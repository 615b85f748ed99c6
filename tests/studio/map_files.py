"""Files of a map of any number of images, without a model: points of a normal distribution, and a tile each."""

import json

import numpy as np
from PIL import Image

COLOURS = ("#0b62a8", "#c2410c", "#15803d", "#7c3aed")


def write_map(folder, count, side=32):
    """A run folder that holds a map; the neighbours of an image are those after it."""
    place = folder / "map-pca-interactive"
    place.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model": "vae", "data": "digits"}))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, count)).round(4).tolist()
    kinds = [k % len(COLOURS) for k in range(count)]
    content = {
        "format": 1, "how": "pca", "weights": None, "split": "test", "own": True, "side_px": side,
        "columns": 1 + int((count - 1) ** 0.5), "x": x, "y": y, "index": list(range(count)), "class": kinds,
        "classes": [{"name": f"class-{k}", "colour": colour} for k, colour in enumerate(COLOURS)], "file": None,
        "nearest": [[(k + j) % count for j in range(1, 9)] for k in range(count)],
        "distance": [[j / 8 for j in range(1, 9)]] * count,
    }  # fmt: skip
    (place / "points.json").write_text(json.dumps(content))
    pixels = content["columns"] * side
    sheet = rng.integers(0, 256, (pixels, pixels, 3), np.uint8)  # noise, which a PNG does not make smaller
    Image.fromarray(sheet).save(place / "thumbnails.png", compress_level=1)
    return content
