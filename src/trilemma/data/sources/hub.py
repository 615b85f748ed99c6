"""Data sets of the Hugging Face hub, `hf:NAME`, through its own library (extra `hub`), which fetches and keeps them.

The images come as the bytes they are stored in, and go through the same decoding as files do. No code of a data set
is run: the library has not done that since version 4, which the extra asks for. A row may name a file instead; it is
opened only if it is one of the data set's own, which the library has fetched.
"""

import io
import os
from functools import partial
from pathlib import Path
from typing import IO, Any

from trilemma.data.decoding.cache import read_cached
from trilemma.data.decoding.decode import Item, Room
from trilemma.data.decoding.decoded import DecodedSource
from trilemma.data.decoding.pixels import check_length, open_file
from trilemma.data.options import Options
from trilemma.data.sources.folder_layout import name_splits, split_of
from trilemma.data.sources.labels import CAPTION, LABEL, named, read_columns
from trilemma.data.sources.table import Table, choose_column, read_tables, table_of
from trilemma.errors import UserError
from trilemma.extras import install_line
from trilemma.words import names_counted

PREFIX = "hf:"


def read_hub(source: str, options: Options) -> DecodedSource:
    """The images of `hf:NAME`.

    Raises:
        UserError: the library is missing, the data set cannot be loaded, or holds no images.
    """
    parts = _load(source)
    splits = _splits(list(parts), source)
    skipped = names_counted("splits skipped", [name for name in parts if name not in splits])

    def read(room: Room) -> DecodedSource:
        tables = [_table(parts[name], name, split, source) for name, split in splits.items()]
        return read_tables(tables, options, room, [skipped])

    marks = [str(getattr(parts[name], "_fingerprint", "")) for name in splits]
    return read_cached([], options, read, options.frames, source, *marks)


def _load(source: str) -> dict[str, Any]:
    """The splits of a data set by the hub's names for them."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(f"{source} needs the library datasets; install it with: {install_line('hub')}") from None
    name = source.removeprefix(PREFIX)
    if not name.strip():
        raise UserError(f"{PREFIX} has no name; give hf:OWNER/NAME, as the hub shows it")
    try:
        parts = datasets.load_dataset(name)
    except Exception as error:  # the library has many kinds
        raise UserError(f"cannot load {source}: {error}; check the name, the connection and your login") from error
    return dict(parts) if isinstance(parts, dict) else {"train": parts}


def _splits(names: list[str], source: str) -> dict[str, str]:
    """The splits that are read, with what each is for."""
    if len(names) == 1:
        return {names[0]: "train"}
    words = name_splits(names) or {name: word for name in names if (word := split_of(name))}
    splits = {name: words[name].split for name in names if name in words}
    if "train" not in splits.values():
        raise UserError(f"{source} has no split to train on; its splits are {', '.join(names)}")
    return splits


def _table(part: Any, name: str, split: str, source: str) -> Table:
    """The rows of a split, whose images are fetched when they are decoded."""
    import datasets  # pyright: ignore[reportMissingImports]

    features = part.features
    images = [key for key, feature in features.items() if type(feature).__name__ == "Image"]
    if not images:
        raise UserError(f"{source} has no column of images; its columns are {', '.join(features)}")
    names = {key: tuple(feature.names) for key, feature in features.items() if type(feature).__name__ == "ClassLabel"}
    beside = dict.fromkeys([*names, *named((key for key in features if key not in images), (*LABEL, *CAPTION))])
    columns = read_columns({key: part[key] for key in beside}, names)
    image, notes = choose_column(images)
    rows = part.cast_column(image, datasets.Image(decode=False)).select_columns([image])
    items = [Item(f"{name} row {k}", partial(_open, rows, k, image, source), forks=False) for k in range(len(part))]
    return table_of(name, items, split, columns, names, notes)


def _open(rows: Any, k: int, column: str, source: str) -> IO[bytes]:
    value = rows[k][column]
    if value and value.get("bytes"):
        check_length(len(value["bytes"]))
        return io.BytesIO(value["bytes"])
    if value and value.get("path"):
        return open_file(_own_file(value["path"], source.removeprefix(PREFIX)))
    raise ValueError("the row holds no image")


def _own_file(path: str, name: str) -> str:
    """The path of a file that a row names.

    Raises:
        ValueError: it is not one of the data set's own, which lie in the folder of that name or where the library puts
            what it fetches.
    """
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(folder)) for folder in _own_folders(name)):
        raise ValueError(f"it names a file outside the data set, {path}")
    return str(real)


def _own_folders(name: str) -> list[str | Path]:
    """Where the files of a data set lie."""
    if os.path.isdir(name):
        return [name]
    import datasets  # pyright: ignore[reportMissingImports]
    import huggingface_hub.constants  # pyright: ignore[reportMissingImports]

    snapshots = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    return [snapshots, datasets.config.DOWNLOADED_DATASETS_PATH]
