"""The sources known by name: digits, shapes (shapes:N), ellipse, mnist, fashion-mnist, cifar10, mnist-binary.

MNIST, Fashion-MNIST and CIFAR-10 are looked for in $TRILEMMA_DATA/NAME, then in the user's cache, and are otherwise
fetched into the cache once. MNIST and Fashion-MNIST are idx files, which are checked by the SHA-256 of their
decompressed bytes wherever they come from. CIFAR-10 is the binary version: records of 1 label and 3 * 32 * 32 pixels.
Nothing is unpickled.
"""

import math
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from trilemma import rng
from trilemma.data.decoding.decode import Item
from trilemma.data.decoding.listing import Listing, listed
from trilemma.data.decoding.size import choose_size, fit
from trilemma.data.decoding.storage import memory_limit
from trilemma.data.sources.decoded import finish
from trilemma.data.sources.download import cache_dir, check_hash, download
from trilemma.data.sources.ellipse import COUNTS as POINTS
from trilemma.data.sources.ellipse import draw_ellipse
from trilemma.data.sources.folder import read_listing
from trilemma.data.sources.idx import read_idx
from trilemma.data.sources.shapes import COUNTS, KINDS, draw_shapes
from trilemma.data.split import RULES, Data, Split, complete, cut_last, make_data, share, split_off
from trilemma.data.transform import binarise
from trilemma.errors import UserError

MNIST_VALID = 5_000  # of the 60,000
DIGITS_TEST = 360  # of the 1,797
CHUNK = 1_000  # images binarised at a time
TOLD = 150  # bytes of memory that the factors and the caption of a drawn shape take
URLS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
}
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SHA256 = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
CIFAR = "cifar-10-binary.tar.gz"
# The host publishes the MD5 of the archive; of its decompressed bytes no hash is published, so the sizes of the
# members and the number of images per class are checked besides.
CIFAR_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CIFAR_FILES = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
CIFAR_IMAGES, CIFAR_SHAPE = 10_000, (3, 32, 32)  # per file
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NUMERALS = tuple("0123456789")
ARTICLES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class Options(NamedTuple):
    """What the user may ask of any source; see `load_data`."""

    size: tuple[int, int] | None = None
    channels: int | None = None
    valid: float | None = None
    seed: int = 0
    rule: str = RULES[0]


def load_digits(options: Options) -> Data:
    """1,797 handwritten digits of 8x8 inside scikit-learn, whose levels 0 ... 16 become 0 ... 255; works offline."""
    images, labels = _digits()
    levels = torch.from_numpy(np.rint(images * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    rest, test = cut_last(Split(levels, torch.from_numpy(labels.astype(np.int64))), DIGITS_TEST)
    train, valid = split_off(rest, share(len(rest), options.valid), options.seed)
    return _finish("digits", {"train": train, "valid": valid, "test": test}, NUMERALS, options)


def _digits() -> tuple[Any, Any]:
    """Images (1797, 64) and labels (1797,), from the file that scikit-learn reads, too: importing it takes a second."""
    found = find_spec("sklearn")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits as load

    return load(return_X_y=True)  # pyright: ignore[reportReturnType]


def load_shapes(options: Options, count: int | None = None) -> Data:
    """Shapes drawn here, 32x32 in colour where nothing else is asked for, with factors and captions.

    Args:
        count: training images; COUNTS where None. Those for validation and testing are drawn besides.
    Raises:
        UserError: so many have no room in memory.
    """
    counts = COUNTS if count is None else COUNTS | {"train": count}
    counts = counts if options.valid is None else counts | {"valid": share(counts["train"], options.valid)}
    size, channels, seed = options.size or (32, 32), options.channels or 3, options.seed
    source = "shapes" if count is None else f"shapes:{count}"
    needed, limit = sum(counts.values()) * (channels * math.prod(size) + TOLD), memory_limit()
    if needed > limit:
        raise UserError(
            f"{source} of {size[0]}x{size[1]} takes {needed:,} bytes of memory, and {limit:,} are given to images: ask "
            "for fewer (shapes:N) or smaller ones (size=), or set TRILEMMA_MEMORY"
        )
    splits = {p: draw_shapes(n, size=size, channels=channels, seed=seed, purpose=p) for p, n in counts.items()}
    notes = [f"drawn with seed {seed}, with captions"]
    return make_data(source.replace(":", "-"), source, splits, classes=KINDS, notes=notes)


def load_ellipse(options: Options) -> Data:
    """Points near a tilted ellipse in space: images of one pixel, whose three channels are the coordinates."""
    counts = POINTS if options.valid is None else POINTS | {"valid": share(POINTS["train"], options.valid)}
    splits = {purpose: draw_ellipse(n, seed=options.seed, purpose=purpose) for purpose, n in counts.items()}
    notes = [f"drawn with seed {options.seed}", "a channel is a coordinate x from -2 to 2: level / 255 = (x + 2) / 4"]
    return _finish("ellipse", splits, (), options, notes)


def load_mnist(options: Options) -> Data:
    """70,000 handwritten digits, 28x28."""
    return _load_idx("mnist", NUMERALS, options)


def load_mnist_binary(options: Options) -> Data:
    """MNIST in black and white: each pixel drawn once, the same in every call."""
    grey, first, splits = load_mnist(options), 0, {}
    for name, split in grey.splits.items():
        splits[name] = replace(split, images=_drawn_once(split.images, first))
        first += len(split)
    note = "each pixel drawn once as 0 or 255 with the probability of its grey level; not the file of Larochelle (2011)"
    return make_data("mnist-binary", "mnist-binary", splits, classes=grey.classes, notes=[*grey.notes[1:], note])


def _drawn_once(images: torch.Tensor, first: int) -> torch.Tensor:
    """Images number `first` and on, binarised with numbers that depend on the image's number alone."""
    parts = []
    for at in range(0, len(images), CHUNK):
        part = images[at : at + CHUNK]
        ids = torch.arange(first + at, first + at + len(part))
        parts.append(binarise(part, rng.uniform(ids, tuple(part.shape[1:]), 0, "mnist-binary")))
    return torch.cat(parts)


def load_fashion_mnist(options: Options) -> Data:
    """70,000 articles of clothing, 28x28."""
    return _load_idx("fashion-mnist", ARTICLES, options)


def load_cifar10(options: Options) -> Data:
    """60,000 photographs of ten classes, 32x32 in colour."""
    for folder in places("cifar10"):
        if all((folder / f"{split}.zip").exists() for split in CIFAR_FILES):
            return _load_cifar_zips(folder, options)
    path = find("cifar10", CIFAR) or download(
        URLS["cifar10"] + CIFAR, cache_dir() / "cifar10" / CIFAR, check=check_hash(CIFAR_MD5, "md5", decompress=False)
    )
    splits = read_cifar(path)
    splits, rule = complete(splits, splits, str(path), [], options.valid, options.seed, rule=options.rule)
    return _finish("cifar10", splits, CIFAR_CLASSES, options, [f"read from {path}", rule])


class Source(NamedTuple):
    """A source known by name."""

    load: Callable[..., Data]  # (options), and (options, number of training images) where these can be chosen
    what: str
    files: tuple[str, ...] = ()  # that must be found or fetched
    megabytes: int = 0  # to fetch
    folder: str = ""  # where they lie, if not in one of the source's own name
    unlimited: bool = False  # the number of training images can be chosen


SOURCES = {
    "digits": Source(load_digits, "1,797 handwritten digits, 8x8 grey, 10 classes"),
    "shapes": Source(
        load_shapes,
        "drawn shapes, any size, grey or colour, captions, factors, 3 classes; shapes:N trains on N (10,000)",
        unlimited=True,
    ),
    "ellipse": Source(load_ellipse, "points near a tilted ellipse in 3-D as one-pixel images, no classes"),
    "mnist": Source(load_mnist, "70,000 handwritten digits, 28x28 grey, 10 classes", FILES, 12),
    "fashion-mnist": Source(load_fashion_mnist, "70,000 articles of clothing, 28x28 grey, 10 classes", FILES, 31),
    "cifar10": Source(load_cifar10, "60,000 photographs, 32x32 colour, 10 classes", (CIFAR,), 170),
    "mnist-binary": Source(load_mnist_binary, "mnist in black and white, each pixel drawn once", FILES, 12, "mnist"),
}


def is_named(source: str | Path) -> bool:
    """Whether this is a word of SOURCES, by itself or before a colon; a path never is."""
    return isinstance(source, str) and source.partition(":")[0] in SOURCES


def load_named(source: str, options: Options) -> Data:
    """A word of SOURCES, or WORD:N for N training images.

    Raises:
        UserError: N is no number of images, or the source has as many as it has; see its `load`, too.
    """
    word, colon, text = source.partition(":")
    if not colon:
        return SOURCES[word].load(options)
    able = [name for name, known in SOURCES.items() if known.unlimited]
    if word not in able:
        raise UserError(f"{source}: {word} has as many images as it has; a number can be given to {', '.join(able)}")
    if not re.fullmatch("0*[1-9][0-9]*", text):
        raise UserError(f"{source}: give a whole number of training images, 1 or more, as {word}:20000")
    return SOURCES[word].load(options, int(text))


def where(word: str) -> str:
    """Where a source's files are: "built in", "in FOLDER", or "to be fetched (12 MB)"."""
    files, megabytes = SOURCES[word].files, SOURCES[word].megabytes
    if not files:
        return "built in"
    for folder in places(SOURCES[word].folder or word):
        zips = word == "cifar10" and all((folder / f"{split}.zip").exists() for split in CIFAR_FILES)
        if zips or all(_in_folder(folder, file) for file in files):
            return f"in {folder}"
    return f"to be fetched ({megabytes} MB)"


def places(name: str) -> list[Path]:
    """The folders in which a source is looked for, in this order."""
    own = os.environ.get("TRILEMMA_DATA")
    return [Path(own) / name, cache_dir() / name] if own else [cache_dir() / name]


def find(name: str, file: str) -> Path | None:
    """A file of a source, as it is or with .gz, where it exists."""
    return next((path for folder in places(name) if (path := _in_folder(folder, file))), None)


def _in_folder(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.exists()), None)


def read_cifar(path: Path) -> dict[str, Split]:
    """The "train" and "test" splits of the binary archive; nothing is extracted to the disk.

    Raises:
        UserError: a member is missing or has another size, or the classes are not equally many.
    """
    splits, record = {}, 1 + math.prod(CIFAR_SHAPE)
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = {Path(member.name).name: member for member in archive if member.isfile()}
            for split, files in CIFAR_FILES.items():
                sizes = {file: members[file].size if file in members else 0 for file in files}
                if set(sizes.values()) != {CIFAR_IMAGES * record}:
                    raise UserError(f"{path} is not the published archive: sizes {sizes}; remove it and try again")
                data = b"".join(archive.extractfile(members[file]).read() for file in files)  # pyright: ignore
                rows = torch.from_numpy(np.frombuffer(data, np.uint8).reshape(-1, record).copy())
                splits[split] = Split(rows[:, 1:].reshape(-1, *CIFAR_SHAPE), rows[:, 0].long())
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}; remove it and try again") from error
    for split in splits.values():
        counts = split.labels.bincount().tolist()
        if counts != [len(split) // len(CIFAR_CLASSES)] * len(CIFAR_CLASSES):
            raise UserError(f"{path} is not the published archive: {counts} images per class; remove it and try again")
    return splits


def _load_cifar_zips(folder: Path, options: Options) -> Data:
    """train.zip and test.zip with CLASS/FILE members."""

    @contextmanager
    def both() -> Iterator[Listing]:
        with listed(folder / "train.zip") as train, listed(folder / "test.zip") as test:
            parts = (("train", train), ("test", test))
            yield Listing([Item(f"{split}/{item.name}", item.open) for split, part in parts for item in part.files])

    paths = [folder / "train.zip", folder / "test.zip"]
    raw = read_listing(paths, both, "cifar10", options.size, options.channels)
    return finish(raw, "cifar10", "cifar10", options.valid, options.seed, options.rule)


def _load_idx(name: str, classes: tuple[str, ...], options: Options) -> Data:
    """The four files of MNIST or Fashion-MNIST; the last of the 60,000 are the validation images."""
    hashes = dict(zip(FILES, SHA256[name], strict=True))
    images, labels, test_images, test_labels = (
        read_idx(_get(name, file), hashes[file], "remove it to have it fetched again") for file in FILES
    )
    whole = Split(images[:, None], labels.long())
    count = MNIST_VALID if options.valid is None else share(len(whole), options.valid)
    train, valid = cut_last(whole, count)
    splits = {"train": train, "valid": valid, "test": Split(test_images[:, None], test_labels.long())}
    return _finish(name, splits, classes, options, [f"the last {count:,} training images are for validation"])


def _get(name: str, file: str) -> Path:
    """A file of MNIST or Fashion-MNIST, fetched where it is nowhere."""
    target = cache_dir() / name / f"{file}.gz"
    check = check_hash(SHA256[name][FILES.index(file)])
    return find(name, file) or download(f"{URLS[name]}{file}.gz", target, check=check)


def _finish(
    name: str, splits: dict[str, Split], classes: tuple[str, ...], options: Options, notes: Sequence[str] = ()
) -> Data:
    """In the size and the channels asked for."""
    shape = splits["train"].images.shape
    target, rule = choose_size([shape[2:]], options.size)
    channels = options.channels or shape[1]
    fitted = {key: Split(fit(split.images, target, channels), split.labels) for key, split in splits.items()}
    return make_data(name, name, fitted, classes=classes, notes=[rule, *notes])
