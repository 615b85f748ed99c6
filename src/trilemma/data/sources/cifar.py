"""CIFAR-10: its binary archive, fetched into the cache if it is not here, or two zips in $TRILEMMA_DATA/cifar10.

The archive holds records of 1 label and 3 * 32 * 32 pixels; nothing is unpickled. Its host publishes the MD5 of the
archive; of its decompressed bytes no hash is published, so the sizes of the members and the number of images per class
are checked besides.
"""

import math
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from trilemma.data.decoding.decode import Item
from trilemma.data.decoding.listing import Listing, listed
from trilemma.data.hold_out import check_enough, hold_out
from trilemma.data.options import Options
from trilemma.data.places import find, places
from trilemma.data.sources.divide import divide
from trilemma.data.sources.download import check_hash, download
from trilemma.data.sources.folder import read_listing
from trilemma.data.split import Data, Split, equal_images, resized
from trilemma.errors import UserError
from trilemma.files import cache_dir

URL = "https://www.cs.toronto.edu/~kriz/"
ARCHIVE = "cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FILES = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
IMAGES, SHAPE = 10_000, (3, 32, 32)  # per file
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar10(options: Options) -> Data:
    """60,000 photographs of ten classes, 32x32 in colour."""
    for folder in places("cifar10"):
        if has_zips(folder):
            return _load_zips(folder, options)
    path = find("cifar10", ARCHIVE) or download(
        URL + ARCHIVE, cache_dir() / "cifar10" / ARCHIVE, check=check_hash(MD5, "md5", decompress=False)
    )
    splits = read_cifar(path)
    check_enough(splits, str(path))
    splits, rule = hold_out(splits, options, equal_images)
    return resized("cifar10", splits, CLASSES, options, [f"read from {path}", rule])


def has_zips(folder: Path) -> bool:
    """Whether a folder has train.zip and test.zip."""
    return all((folder / f"{split}.zip").exists() for split in FILES)


def read_cifar(path: Path) -> dict[str, Split]:
    """The "train" and "test" splits of the binary archive; nothing is extracted to the disk.

    Raises:
        UserError: a member is missing or has another size, or the classes are not equally many.
    """
    splits, record = {}, 1 + math.prod(SHAPE)
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = {Path(member.name).name: member for member in archive if member.isfile()}
            for split, files in FILES.items():
                sizes = {file: members[file].size if file in members else 0 for file in files}
                if set(sizes.values()) != {IMAGES * record}:
                    raise UserError(f"{path} is not the published archive: sizes {sizes}; remove it and try again")
                data = b"".join(archive.extractfile(members[file]).read() for file in files)  # pyright: ignore
                rows = torch.from_numpy(np.frombuffer(data, np.uint8).reshape(-1, record).copy())
                splits[split] = Split(rows[:, 1:].reshape(-1, *SHAPE), rows[:, 0].long())
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}; remove it and try again") from error
    for split in splits.values():
        counts = split.labels.bincount().tolist()
        if counts != [len(split) // len(CLASSES)] * len(CLASSES):
            raise UserError(f"{path} is not the published archive: {counts} images per class; remove it and try again")
    return splits


def _load_zips(folder: Path, options: Options) -> Data:
    """train.zip and test.zip with CLASS/FILE members."""

    @contextmanager
    def both() -> Iterator[Listing]:
        with listed(folder / "train.zip") as train, listed(folder / "test.zip") as test:
            parts = (("train", train), ("test", test))
            yield Listing([Item(f"{split}/{item.name}", item.open) for split, part in parts for item in part.files])

    paths = [folder / "train.zip", folder / "test.zip"]
    return divide(read_listing(paths, both, "cifar10", options), "cifar10", "cifar10", options)
