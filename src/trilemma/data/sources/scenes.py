"""Drawn scenes for images from words: one group of equal shapes, or two beside or above each other, with a caption.

A group has a count (1 to 3), a colour, a size, a kind and a place. In a fifth of their combinations the number

    count + 2 kind + colour + 3 size + place    (each as the number of its name, from 0)

is divisible by 5: those are in the test split alone. Each value, and each pair of values, is in the training. Image i
depends on (seed, i) alone.

    two small red circles at the top                        a large blue square left of three small green triangles
"""

from itertools import product

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data.decoding.size import with_channels
from trilemma.data.sources.shapes import BACKGROUND, COLOURS, JITTER, KINDS, covers
from trilemma.data.split import Split

COUNTS_IN_WORDS = ("one", "two", "three")
SIZES = {"small": 0.06, "large": 0.1}  # radius as a share of the shorter side
PLACES = ("top", "bottom", "left", "right")
PARTNER = {0: 1, 2: 3}  # of a place at the top and at the left
RELATIONS = {0: "above", 2: "left of"}
LINE = (0.22, 0.5, 0.78)  # where objects of a group stand along their line, as a share of the side
DEPTH = {"top": 0.25, "bottom": 0.75, "left": 0.25, "right": 0.75}
FACTORS = {"count": 3, "colour": len(COLOURS), "size": len(SIZES), "kind": len(KINDS), "place": len(PLACES)}
HELD_OUT = 5  # one combination in so many is in the test split alone
CHUNK = 500  # images drawn at a time


def combinations(held_out: bool) -> Tensor:
    """The combinations of the test split, or all others: int64 (N, 5), in the order of FACTORS."""
    every = torch.tensor(list(product(*(range(n) for n in FACTORS.values()))))
    count, colour, size, kind, place = every.unbind(1)
    is_held_out = (count + 2 * kind + colour + 3 * size + place) % HELD_OUT == 0
    return every[is_held_out == held_out]


def draw_scenes(
    n: int, *, size: tuple[int, int] = (32, 32), channels: int = 3, seed: int = 0, purpose: str = "train"
) -> Split:
    """Images 0 ... n - 1 of a purpose ("train", "valid", "test"), of (height, width) = `size`.

    The factors are those of FACTORS for the first group, `groups` (1 or 2), and those of the second with a 2 after
    their names, -1 where there is none. The labels are the kinds of the first group.
    """
    factors = draw_factors(torch.arange(n), seed, purpose)
    images = torch.empty(n, channels, *size, dtype=torch.uint8)
    for at in range(0, n, CHUNK):
        part = {name: values[at : at + CHUNK] for name, values in factors.items()}
        images[at : at + CHUNK] = with_channels(
            render(part, size, torch.arange(at, at + len(part["count"])), seed), channels
        )
    return Split(images, factors["kind"], captions_of(factors, channels > 1), factors=factors)


def draw_factors(ids: Tensor, seed: int, purpose: str) -> dict[str, Tensor]:
    """The factors of the images `ids`, int64 (n,) each."""
    u, allowed = rng.uniform(ids, (3,), seed, f"scenes/{purpose}"), combinations(purpose == "test")
    first = allowed[(u[:, 0] * len(allowed)).long()]
    factors = dict(zip(FACTORS, first.unbind(1), strict=True))
    two = (u[:, 1] < 0.5) & ((factors["place"] == 0) | (factors["place"] == 2))
    second = torch.full_like(first, -1)
    for place, partner in PARTNER.items():
        others = allowed[allowed[:, 4] == partner]
        chosen = others[(u[:, 2] * len(others)).long()]
        second = torch.where((two & (factors["place"] == place))[:, None], chosen, second)
    return factors | {"groups": 1 + two.long()} | {f"{name}2": second[:, k] for k, name in enumerate(FACTORS)}


def render(factors: dict[str, Tensor], size: tuple[int, int], ids: Tensor, seed: int) -> Tensor:
    """The images with these factors, uint8 (n, 3, H, W); `ids` and `seed` give the places their jitter."""
    n = len(ids)
    image = torch.full((n, 3, *size), float(BACKGROUND))
    jitter = JITTER * (2 * rng.uniform(ids, (2, 3, 2), seed, "scenes/jitter") - 1)
    colours = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
    radii = torch.tensor(list(SIZES.values()), dtype=torch.float32)
    for group, suffix in enumerate(("", "2")):
        count, colour, length, kind, place = (factors[f"{name}{suffix}"] for name in FACTORS)
        for k in range(3):
            shown = count >= k
            y, x = (jitter[:, group, k, axis] + centres(count, place, k)[axis] for axis in (0, 1))
            cover = covers(kind.clamp(min=0), radii[length.clamp(min=0)], y, x, size) * shown[:, None, None, None]
            image += (colours[colour.clamp(min=0)][:, :, None, None] - image) * cover
    return image.round().to(torch.uint8)


def centres(count: Tensor, place: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """y and x of the k-th object of groups, as shares of the sides: along a line at their place, around its middle."""
    lines = torch.tensor([[0.5, 0.5, 0.5], [0.33, 0.67, 0.5], LINE], dtype=torch.float32)
    along = lines[count.clamp(min=0), k]
    across = torch.tensor([DEPTH[name] for name in PLACES], dtype=torch.float32)[place.clamp(min=0)]
    is_row = place < 2
    return torch.where(is_row, across, along), torch.where(is_row, along, across)


def captions_of(factors: dict[str, Tensor], coloured: bool = True) -> tuple[str, ...]:
    """One sentence per image."""
    rows = zip(
        *(factors[name].tolist() for name in (*FACTORS, "groups", *(f"{name}2" for name in FACTORS))), strict=True
    )
    texts = []
    for row in rows:
        first, (groups, *second) = row[:5], row[5:]
        one = group_in_words(first[:4], coloured)
        if groups == 1:
            texts.append(f"{one} at the {PLACES[first[4]]}")
        else:
            texts.append(f"{one} {RELATIONS[first[4]]} {group_in_words(second[:4], coloured)}")
    return tuple(texts)


def group_in_words(values: "list[int] | tuple[int, ...]", coloured: bool = True) -> str:
    """A group by its count, colour, size and kind.

    >>> group_in_words((1, 0, 0, 0)), group_in_words((0, 2, 1, 1))
    ('two small red circles', 'a large blue square')
    """
    count, colour, size, kind = values
    number = "a" if count == 0 else COUNTS_IN_WORDS[count]
    words = [
        number,
        tuple(SIZES)[size],
        *([tuple(COLOURS)[colour]] if coloured else []),
        KINDS[kind] + "s" * (count > 0),
    ]
    return " ".join(words)
