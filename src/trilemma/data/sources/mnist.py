"""MNIST, Fashion-MNIST and MNIST in black and white: idx files, fetched into the cache if they are not here.

They are checked by the SHA-256 of their decompressed bytes wherever they are.
"""

from dataclasses import replace
from pathlib import Path

import torch

from trilemma import rng
from trilemma.data.options import Options, share
from trilemma.data.places import find
from trilemma.data.sources.download import check_hash, download
from trilemma.data.sources.idx import read_idx
from trilemma.data.split import Data, Split, cut_last, make_data, resized
from trilemma.data.transform import binarise
from trilemma.files import cache_dir

VALID = 5_000  # of the 60,000
CHUNK = 1_000  # images binarised at a time
URLS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
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


def load_mnist(options: Options) -> Data:
    """70,000 handwritten digits, 28x28."""
    return _load("mnist", NUMERALS, options)


def load_mnist_binary(options: Options) -> Data:
    """MNIST in black and white: each pixel is drawn once, the same in every call."""
    grey, first, splits = load_mnist(options), 0, {}
    for name, split in grey.splits.items():
        splits[name] = replace(split, images=_binarised(split.images, first))
        first += len(split)
    note = "each pixel drawn once as 0 or 255 with the probability of its grey level; not the file of Larochelle (2011)"
    return make_data(
        "mnist-binary", "mnist-binary", splits, options, classes=grey.classes, notes=[*grey.notes[1:], note]
    )


def _binarised(images: torch.Tensor, first: int) -> torch.Tensor:
    """The images numbered from `first` on, binarised with numbers that depend on the image's number alone."""
    parts = []
    for at in range(0, len(images), CHUNK):
        part = images[at : at + CHUNK]
        ids = torch.arange(first + at, first + at + len(part))
        parts.append(binarise(part, rng.uniform(ids, tuple(part.shape[1:]), 0, "mnist-binary")))
    return torch.cat(parts)


def load_fashion_mnist(options: Options) -> Data:
    """70,000 articles of clothing, 28x28."""
    return _load("fashion-mnist", ARTICLES, options)


def _load(name: str, classes: tuple[str, ...], options: Options) -> Data:
    """The four files of MNIST or Fashion-MNIST; the last of the 60,000 are the validation images."""
    hashes = dict(zip(FILES, SHA256[name], strict=True))
    images, labels, test_images, test_labels = (
        read_idx(_get(name, file), hashes[file], "remove it to have it fetched again") for file in FILES
    )
    whole = Split(images[:, None], labels.long())
    count = VALID if options.valid is None else share(len(whole), options.valid)
    train, valid = cut_last(whole, count)
    splits = {"train": train, "valid": valid, "test": Split(test_images[:, None], test_labels.long())}
    return resized(name, splits, classes, options, [f"the last {count:,} training images are for validation"])


def _get(name: str, file: str) -> Path:
    """A file of MNIST or Fashion-MNIST, fetched if it is not here."""
    target = cache_dir() / name / f"{file}.gz"
    check = check_hash(SHA256[name][FILES.index(file)])
    return find(name, file) or download(f"{URLS[name]}{file}.gz", target, check=check)
