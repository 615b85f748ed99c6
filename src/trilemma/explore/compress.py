"""What a code keeps of an image at its length, beside PCA of equal length and JPEG and WebP of equal bytes.

A code of Z numbers is stored in half precision, 2 Z bytes (really rounded before it is decoded); a model whose codes
are choices out of finite sets says how many bits one takes (`code_bits`). PCA (Pearson 1901; Hotelling 1933) of the
training images keeps as many numbers, rounded likewise. JPEG and WebP take for each image the highest quality that
does not exceed those bytes. All results are compared as 8-bit images:

    RMSE = sqrt(mean (x_hat - x)^2),   PSNR = 10 log10(1 / mean (x_hat - x)^2) dB,   x in [0, 1].

A small image's file is mostly header, so a codec is counted twice: whole files, and the compressed data alone, with
the headers and tables as known to both sides as the model's weights are.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.data.load import Images
from trilemma.errors import UserError
from trilemma.explore.codes import condition_for
from trilemma.explore.images import name_of, pick_images, run_receipt
from trilemma.files import json_text
from trilemma.keys import Count, Picture
from trilemma.metrics.reconstruction import psnr_db
from trilemma.pictures.grid import to_image
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.table import table
from trilemma.results import Results, place
from trilemma.run.run import RunLike, as_run
from trilemma.types import Decodes, Encodes, flags
from trilemma.values import checked_call
from trilemma.words import number

if TYPE_CHECKING:
    from PIL import Image
    from sklearn.decomposition import PCA

SHOWN = 12  # images in a row of the picture
FIT_BYTES = 2**28  # of training images, in float32, that PCA is fitted on
LOWEST, HIGHEST = 5, 100  # qualities: sizes do not rise strictly, so the smallest file is sought among the lowest


@dataclass(frozen=True)
class Row:
    """One way to compress. Bytes are means per image; `within` is the share of images within the budget of bytes.

    psnr_db: infinite where every image comes back exactly.
    """

    name: str
    counted: str
    bytes: float
    ratio: float
    rmse: float
    psnr_db: float
    within: float


@dataclass(frozen=True)
class Compression:
    """The picture, the same values as JSON beside it, and a row for each way to compress.

    numbers: of a code; bytes: of a code, the budget of the others; raw_bytes: of an image, 1 per pixel and channel.
    """

    picture: Path
    file: Path
    n: int
    numbers: int
    bytes: float
    raw_bytes: int
    rows: tuple[Row, ...]


@checked_call
def compress(run: RunLike, *, data: Images = None, n: Count = 1000, out: Picture = None) -> Compression:
    """Compress `n` images that a model was not trained on by its codes, by PCA, JPEG and WebP.

    Args:
        data: other images than the run's own held-out ones; they are brought to the size it was trained on.
        out: the picture to write, with the values as JSON beside it; default: RUN/compression.png.
    Raises:
        UserError: the model does not encode and decode, or a code does not fit into half precision.
    """
    run = as_run(run)
    run.require("store images as codes", Encodes, Decodes)
    picture, within = place(out, run.path, "compression.png")
    file = picture.with_suffix(".json")
    files = Results(picture, [file], verb="compress", within=within)
    batch = pick_images(run, data, n)
    images, condition = to_uint8(batch.image).cpu(), condition_for(run, batch)
    codes = run.encode(batch.image, condition=condition)  # (n, Z)
    budget, storage = code_bytes(run.model, codes.shape[1])
    stored = halved(codes, run.recipe.name) if storage == HALF else codes
    train = run.data.train.images
    few = rng.permutation(len(train), 0, "pca")[: fit_count(images.shape[1:])].sort().values
    pca = fit_pca(train[few], int(budget // 2))
    results = [
        (run.recipe.name, storage, to_uint8(run.decode(stored, condition=condition)), [budget] * len(images)),
        ("PCA", HALF, by_pca(pca, images), [2.0 * pca.n_components_] * len(images)),
    ]
    for codec in CODECS:
        for counted, count in ((DATA, codec.data_bytes), (FILE, len)):
            results.append((codec.name, counted, *by_codec(images, codec, count, budget)))
    rows = tuple(_row(name, counted, images, result, sizes, budget) for name, counted, result, sizes in results)
    parts = [(_caption(row), result[2]) for row, result in zip(rows, results, strict=True) if row.counted != FILE]
    parts.insert(0, (f"original: {images[0].numel():,} bytes", images))
    sheet = table(torch.cat([part[:SHOWN] for _, part in parts]), [caption for caption, _ in parts])
    compression = Compression(picture, file, len(images), codes.shape[1], budget, images[0].numel(), rows)
    receipt = run_receipt(run, "compress", data=name_of(data), n=len(images))
    files.write(sheet, receipt, {file: json_text(_plain(compression))})
    return compression


def code_bytes(model: nn.Module, numbers: int) -> tuple[float, str]:
    """Bytes that a code of so many numbers takes, and what it is stored as."""
    bits = flags(model).code_bits
    return (2.0 * numbers, HALF) if bits is None else (bits / 8, DISCRETE)


def halved(codes: Tensor, name: str) -> Tensor:
    """Codes after a passage through half precision.

    Raises:
        UserError: if a number is beyond its range.
    """
    stored = codes.half().float()
    if not stored.isfinite().all():
        raise UserError(f"{name}: codes reach {codes.abs().max():.3g}; half precision holds up to 65,504")
    return stored


def fit_count(shape: Sequence[int]) -> int:
    """How many images (C, H, W) fit into FIT_BYTES as float32; two at least."""
    return max(2, FIT_BYTES // (4 * math.prod(shape)))


def fit_pca(images: Tensor, numbers: int) -> "PCA":
    """Principal components of uint8 images (N, C, H, W): `numbers` of them, or as many as there can be."""
    from sklearn.decomposition import PCA

    pixels = images.flatten(1).float().div(255).numpy()
    return PCA(max(1, min(numbers, *pixels.shape)), random_state=0).fit(pixels)


def by_pca(pca: "PCA", images: Tensor, *, half: bool = True) -> Tensor:
    """uint8 images (N, C, H, W) from their components: uint8 with these `half` rounded, else unrounded float32."""
    codes = pca.transform(images.flatten(1).float().div(255).numpy())
    codes = halved(torch.as_tensor(codes), "PCA").numpy() if half else codes
    result = torch.as_tensor(pca.inverse_transform(codes), dtype=torch.float32).reshape(images.shape)
    return to_uint8(result) if half else result


@dataclass(frozen=True)
class Codec:
    """A lossy file format of Pillow's, and the bytes of a file that differ from image to image."""

    name: str
    format: str
    data_bytes: Callable[[bytes], int]


def jpeg_data_bytes(file: bytes) -> int:
    """The entropy-coded data of a baseline JPEG: from behind the scan's header to the end marker (ITU T.81, annex B).

    The header's length stands in the two bytes behind its marker ff da, which the data itself cannot hold.
    """
    marker = file.rindex(b"\xff\xda")
    return len(file) - (marker + 2 + int.from_bytes(file[marker + 2 : marker + 4], "big")) - 2


def webp_data_bytes(file: bytes) -> int:
    """The frame of a lossy WebP without its start code and size, 7 bytes (RFC 6386, section 9.1)."""
    at = file.index(b"VP8 ")
    return int.from_bytes(file[at + 4 : at + 8], "little") - 7


HALF, DISCRETE = "half-precision code", "discrete code"
DATA, FILE = "compressed data, without headers and tables", "whole file"
CODECS = (Codec("JPEG", "JPEG", jpeg_data_bytes), Codec("WebP", "WEBP", webp_data_bytes))


def by_codec(
    images: Tensor, codec: Codec, count: Callable[[bytes], int], budget: float
) -> tuple[Tensor, Sequence[float]]:
    """Each uint8 image (N, C, H, W) at the highest quality within the budget, or the smallest file where none is.

    Returns:
        The images decoded, and the bytes of each as `count` counts them.
    """
    files = [best_file(cache(partial(_encode, to_image(image), codec.format)), count, budget) for image in images]
    return torch.stack([_decode(file, images[0], codec.format) for file in files]), [float(count(f)) for f in files]


def best_file(encode: Callable[[int], bytes], count: Callable[[bytes], int], budget: float) -> bytes:
    """The file of the highest quality within the budget by bisection; the smallest of the LOWEST where none is."""
    best = encode(0)
    if count(best) > budget:
        best = min(map(encode, range(LOWEST)), key=count)
    low, high = 1, HIGHEST if count(best) <= budget else 0
    while low <= high:
        quality = (low + high) // 2
        file = encode(quality)
        if count(file) <= budget:
            best, low = file, quality + 1
        else:
            high = quality - 1
    return best


def _encode(image: "Image.Image", kind: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def _decode(file: bytes, like: Tensor, kind: str) -> Tensor:
    """uint8 (C, H, W)."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(file), formats=[kind]) as image:
        pixels = np.array(image.convert("L" if len(like) == 1 else "RGB"))
    return torch.from_numpy(pixels).reshape(*like.shape[1:], len(like)).permute(2, 0, 1)


def _row(name: str, counted: str, images: Tensor, result: Tensor, sizes: Sequence[float], budget: float) -> Row:
    mse = (result.double() - images.double()).div(255).square().mean()
    mean = sum(sizes) / len(sizes)
    within = sum(size <= budget for size in sizes) / len(sizes)
    return Row(name, counted, mean, images[0].numel() / mean, mse.sqrt().item(), psnr_db(mse).item(), within)


def _caption(row: Row) -> str:
    over = f" ({1 - row.within:.0%} over)" if row.within < 1 else ""
    return f"{row.name}: {number(row.bytes)} bytes{over}, {row.psnr_db:.1f} dB"


def _plain(compression: Compression) -> dict[str, Any]:
    """Plain values; an infinite PSNR is none in JSON."""
    rows = [asdict(row) | {"psnr_db": row.psnr_db if math.isfinite(row.psnr_db) else None} for row in compression.rows]
    values = asdict(compression) | {"picture": compression.picture.name, "rows": rows}
    del values["file"]
    return values
