"""The sources known by name: digits, shapes, scenes (shapes:N), ellipse, mnist, fashion-mnist, cifar10 ...

The published ones are searched in $TRILEMMA_DATA/NAME, then in the user's cache, and are otherwise fetched into the
cache once.
"""

import math
import re
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from trilemma.data.decoding.limits import memory_limit
from trilemma.data.hold_out import split_off
from trilemma.data.options import Options, share
from trilemma.data.places import in_folder, places
from trilemma.data.sources import cifar
from trilemma.data.sources.cifar import load_cifar10
from trilemma.data.sources.ellipse import COUNTS as POINTS
from trilemma.data.sources.ellipse import draw_ellipse
from trilemma.data.sources.mnist import FILES, NUMERALS, load_fashion_mnist, load_mnist, load_mnist_binary
from trilemma.data.sources.scenes import draw_scenes
from trilemma.data.sources.shapes import COUNTS, KINDS, draw_shapes
from trilemma.data.split import Data, Split, cut_last, make_data, resized
from trilemma.errors import UserError
from trilemma.words import listed

DIGITS_TEST = 360  # of the 1,797
BESIDE = 150  # bytes of memory that the factors and the caption of a drawn shape take


def load_digits(options: Options) -> Data:
    """1,797 handwritten digits of 8x8 inside scikit-learn, whose levels 0 ... 16 become 0 ... 255; works offline."""
    images, labels = _digits()
    levels = torch.from_numpy(np.rint(images * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    rest, test = cut_last(Split(levels, torch.from_numpy(labels.astype(np.int64))), DIGITS_TEST)
    train, valid = split_off(rest, share(len(rest), options.valid), options.seed)
    return resized("digits", {"train": train, "valid": valid, "test": test}, NUMERALS, options)


@cache
def _digits() -> tuple[Any, Any]:
    """Images (1797, 64) and labels (1797,), from the file that scikit-learn reads, too: importing it takes a second."""
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits as load

    return load(return_X_y=True)  # pyright: ignore[reportReturnType]


def load_drawn(word: str, draw: Callable[..., Split], options: Options, count: int | None = None) -> Data:
    """Images drawn here, by default 32x32 in colour, with factors and captions.

    Args:
        count: training images (default: COUNTS); those for validation and testing are drawn besides.
    Raises:
        UserError: so many do not fit into memory.
    """
    counts = COUNTS if count is None else COUNTS | {"train": count}
    counts = counts if options.valid is None else counts | {"valid": share(counts["train"], options.valid)}
    size, channels, seed = options.size or (32, 32), options.channels or 3, options.seed
    source = word if count is None else f"{word}:{count}"
    needed, limit = sum(counts.values()) * (channels * math.prod(size) + BESIDE), memory_limit()
    if needed > limit:
        raise UserError(
            f"{source} of {size[0]}x{size[1]} takes {needed:,} bytes of memory, and images may take {limit:,}; ask "
            f"for fewer ({word}:N) or smaller ones (size=), or set TRILEMMA_MEMORY"
        )
    splits = {p: draw(n, size=size, channels=channels, seed=seed, purpose=p) for p, n in counts.items()}
    notes = [f"drawn with seed {seed}, with captions"]
    return make_data(source.replace(":", "-"), source, splits, options, classes=KINDS, notes=notes)


def load_ellipse(options: Options) -> Data:
    """Points near a tilted ellipse in space: images of one pixel, whose three channels are the coordinates."""
    counts = POINTS if options.valid is None else POINTS | {"valid": share(POINTS["train"], options.valid)}
    splits = {purpose: draw_ellipse(n, seed=options.seed, purpose=purpose) for purpose, n in counts.items()}
    notes = [f"drawn with seed {options.seed}", "a channel is a coordinate x from -2 to 2: level / 255 = (x + 2) / 4"]
    return resized("ellipse", splits, (), options, notes)


class NamedSource(NamedTuple):
    """A source known by name."""

    load: Callable[..., Data]  # (options), and (options, number of training images) where these can be chosen
    what: str
    files: tuple[str, ...] = ()  # that must be found or fetched
    megabytes: int = 0  # to fetch
    folder: str = ""  # where they lie, if not in one of the source's own name
    unlimited: bool = False  # the number of training images can be chosen


SOURCES = {
    "digits": NamedSource(load_digits, "1,797 handwritten digits, 8x8 grey, 10 classes"),
    "shapes": NamedSource(
        partial(load_drawn, "shapes", draw_shapes),
        "drawn shapes, any size, grey or colour, captions, factors, 3 classes; shapes:N trains on N (10,000)",
        unlimited=True,
    ),
    "scenes": NamedSource(
        partial(load_drawn, "scenes", draw_scenes),
        "drawn groups of shapes, with captions; combinations of words for testing that no training image has",
        unlimited=True,
    ),
    "ellipse": NamedSource(load_ellipse, "points near a tilted ellipse in 3-D as one-pixel images, no classes"),
    "mnist": NamedSource(load_mnist, "70,000 handwritten digits, 28x28 grey, 10 classes", FILES, 12),
    "fashion-mnist": NamedSource(load_fashion_mnist, "70,000 articles of clothing, 28x28 grey, 10 classes", FILES, 31),
    "cifar10": NamedSource(load_cifar10, "60,000 photographs, 32x32 colour, 10 classes", (cifar.ARCHIVE,), 170),
    "mnist-binary": NamedSource(
        load_mnist_binary, "mnist in black and white, each pixel drawn once", FILES, 12, "mnist"
    ),
}


def is_named(source: str | Path) -> bool:
    """Whether this is a word of SOURCES, by itself or before a colon; a path never is."""
    return isinstance(source, str) and source.partition(":")[0] in SOURCES


def load_named(source: str, options: Options) -> Data:
    """A word of SOURCES, or WORD:N for N training images.

    Raises:
        UserError: N is not a number of images, or the source has a fixed number; see its `load`, too.
    """
    word, colon, text = source.partition(":")
    if not colon:
        return SOURCES[word].load(options)
    able = [name for name, named in SOURCES.items() if named.unlimited]
    if word not in able:
        raise UserError(
            f"{source}: {word} has a fixed number of images; only {listed(able)} take a number ({able[0]}:20000)"
        )
    if not re.fullmatch("0*[1-9][0-9]*", text):
        raise UserError(f"{source}: give a whole number of training images, 1 or more, as {word}:20000")
    return SOURCES[word].load(options, int(text))


def where_is(word: str) -> str:
    """Where a source's files are: "built in", "in FOLDER", or "to be fetched (12 MB)"."""
    files, megabytes = SOURCES[word].files, SOURCES[word].megabytes
    if not files:
        return "built in"
    for folder in places(SOURCES[word].folder or word):
        zips = word == "cifar10" and cifar.has_zips(folder)
        if zips or all(in_folder(folder, file) for file in files):
            return f"in {folder}"
    return f"to be fetched ({megabytes} MB)"
