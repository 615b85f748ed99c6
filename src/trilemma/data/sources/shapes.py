"""Images drawn by the project, each with its true factors and a caption: as many as asked for, of any size.

A shape is where a signed distance d (in pixels, negative inside) is below 0; a pixel is covered by a share of
clamp(1/2 - d, 0, 1), which antialiases the edge. With p the offset from the centre and r the radius, d is |p| - r for
the circle, max(|p_x|, |p_y|) - r sqrt(pi) / 2 for the square (the circle's area), and for the triangle the greatest of
its three half-planes n . p - R / 2, with R = 1.2 r the distance of its corners. Image i depends on (seed, i) alone.
"""

import math

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data.decoding.size import with_channels
from trilemma.data.split import Split

KINDS = ("circle", "square", "triangle")
COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 190, 70),
    "blue": (50, 80, 240),
    "yellow": (245, 220, 50),
    "purple": (160, 60, 200),
    "cyan": (60, 210, 225),
}
SIZES = {"small": 0.09, "medium": 0.135, "large": 0.18}  # radius as a share of the shorter side
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
CENTRES = (0.25, 0.5, 0.75)  # of rows and columns, as a share of the side
JITTER = 0.03  # the centre lies up to this share of the side beside it
BACKGROUND = 16  # level of the background
CHUNK = 500  # images drawn at a time
COUNTS = {"train": 10_000, "valid": 1_000, "test": 1_000}


def draw_shapes(
    n: int,
    *,
    size: tuple[int, int] = (32, 32),
    channels: int = 3,
    seed: int = 0,
    purpose: str = "train",
    first: int = 0,
) -> Split:
    """Images first ... first + n - 1 of a purpose ("train", "valid", "test"), of (height, width) = `size`.

    The factors are kind, colour, size, row and column (numbers of the names above), and x and y, the centre in [0, 1].
    The labels are the kinds. Grey images (channels=1) show the colours' lightness, and their captions name no colour.
    """
    factors = draw_factors(torch.arange(first, first + n), seed, purpose)
    images = torch.empty(n, channels, *size, dtype=torch.uint8)
    for at in range(0, n, CHUNK):
        part = {name: values[at : at + CHUNK] for name, values in factors.items()}
        images[at : at + CHUNK] = with_channels(render(part, size), channels)
    return Split(images, factors["kind"], captions_of(factors, channels > 1), factors=factors)


def draw_factors(ids: Tensor, seed: int, purpose: str) -> dict[str, Tensor]:
    """The factors of the images `ids`, each (n,): int64 numbers, and float32 for x and y."""
    u = rng.uniform(ids, (7,), seed, f"shapes/{purpose}")
    counts = {"kind": len(KINDS), "colour": len(COLOURS), "size": len(SIZES), "row": 3, "column": 3}
    factors = {name: (u[:, k] * count).long() for k, (name, count) in enumerate(counts.items())}
    centres = torch.tensor(CENTRES, dtype=torch.float32)
    for k, name, cell in ((5, "y", "row"), (6, "x", "column")):
        factors[name] = centres[factors[cell]] + JITTER * (2 * u[:, k] - 1)
    return factors


def render(factors: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
    """The images with these factors, uint8 (n, 3, H, W)."""
    radius = torch.tensor(list(SIZES.values()), dtype=torch.float32)[factors["size"]]
    cover = covers(factors["kind"], radius, factors["y"], factors["x"], size)
    colour = torch.tensor(list(COLOURS.values()), dtype=torch.float32)[factors["colour"]][:, :, None, None]
    return (BACKGROUND + (colour - BACKGROUND) * cover).round().to(torch.uint8)


def covers(kind: Tensor, radius: Tensor, y: Tensor, x: Tensor, size: tuple[int, int]) -> Tensor:
    """The share of each pixel that a shape covers, float32 (n, 1, H, W); kind, radius (a share of the shorter side) and
    centre (shares of the sides) are (n,) each."""
    height, width = size
    rows, columns = (torch.arange(side, dtype=torch.float32) + 0.5 for side in size)
    p_y = rows[None, :, None] - height * y[:, None, None]  # (n, H, 1)
    p_x = columns[None, None, :] - width * x[:, None, None]  # (n, 1, W)
    r = min(size) * radius[:, None, None]
    circle = (p_x**2 + p_y**2).sqrt() - r
    square = torch.maximum(p_x.abs(), p_y.abs()) - r * math.sqrt(math.pi) / 2
    corner = 1.2 * r
    triangle = torch.maximum(math.sqrt(3) / 2 * p_x.abs() - p_y / 2, p_y) - corner / 2  # a corner at the top
    distance = torch.stack([circle, square, triangle])[kind, torch.arange(len(r))]  # (n, H, W)
    return (0.5 - distance).clamp(0, 1)[:, None]


def captions_of(factors: dict[str, Tensor], coloured: bool = True) -> tuple[str, ...]:
    """One sentence per image: "a large red circle at the top left"."""
    colours, sizes = tuple(COLOURS), tuple(SIZES)
    columns = (factors[name].tolist() for name in ("kind", "colour", "size", "row", "column"))
    return tuple(
        f"a {sizes[s]}{f' {colours[c]}' if coloured else ''} {KINDS[k]} {place(row, column)}"
        for k, c, s, row, column in zip(*columns, strict=True)
    )


def place(row: int, column: int) -> str:
    """One of the nine places in words.

    >>> place(0, 0), place(1, 2), place(1, 1)
    ('at the top left', 'at the right', 'in the centre')
    """
    if row == column == 1:
        return "in the centre"
    return "at the " + " ".join(name for name in (ROWS[row], COLUMNS[column]) if name not in ("middle", "centre"))
