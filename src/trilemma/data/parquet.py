"""Parquet files as the Hugging Face hub keeps image data: a column of {bytes, path}, one row per image.

Needs pyarrow (extra `hub`). Only the group of rows that is being decoded is in memory.
"""

import io
import json
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import IO, Any

from trilemma.data.cache import read_cached
from trilemma.data.decode import Item, Room
from trilemma.data.folder import split_of
from trilemma.data.metadata import CAPTION, LABEL
from trilemma.data.pixels import check_length
from trilemma.data.raw import Entry, Raw, read_entries
from trilemma.errors import UserError

GROUPS = 2  # row groups held in memory
_lock = Lock()


def arrow() -> Any:
    """The pyarrow module, with its parquet part.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError('parquet files need pyarrow: pip install "trilemma[hub]"') from None
    return pyarrow


def parquet_files(path: Path) -> list[Path]:
    """The parquet files that hold images: the file itself, or those in a folder and its subfolders."""
    if not path.is_dir():
        return [path]
    found = [*path.glob("*.parquet"), *path.glob("*/*.parquet")]
    return sorted(file for file in found if not file.name.startswith((".", "metadata.")))


def read_parquet(
    path: Path, size: tuple[int, int] | None = None, channels: int | None = None, frames: str = "first"
) -> Raw:
    """Images of a parquet file or a folder of them, whose names tell their splits (train-0.parquet).

    Raises:
        UserError: pyarrow is missing, a file is broken, or no column holds images.
    """
    arrow()
    files = parquet_files(path)

    def read(room: Room) -> Raw:
        entries: list[Entry] = []
        classes: dict[str, None] | None = {}
        for file in files:
            found, names = _entries(file, path)
            entries += found
            classes = None if names is None or classes is None else classes | dict.fromkeys(names)
        _table.cache_clear()
        return read_entries(entries, size, channels, room, frames, classes=tuple(classes) if classes else None)

    return read_cached(files, size, channels, read, frames)


def _entries(path: Path, root: Path) -> tuple[list[Entry], tuple[str, ...] | None]:
    """The rows of a file, and the names of the classes where the file gives them."""
    try:
        file = arrow().parquet.ParquetFile(path)
        image, label, caption = _columns(file.schema_arrow, path)
        names = _class_names(file.schema_arrow, label)
        told = file.read(columns=[column for column in (label, caption) if column]).to_pydict()
        lengths = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
    except UserError:
        raise
    except Exception as error:  # arrow has its own kinds
        raise UserError(f"{path} is not a whole parquet file: {error}; make or fetch it again") from error
    split, shard = split_of(path.stem) or "train", path.name if root.is_dir() else ""
    labels, captions = told.get(label), told.get(caption)
    entries, row = [], 0
    for group, length in enumerate(lengths):
        for k in range(length):
            item = Item(f"row {row}", partial(_open, path, group, image, k), shard, forks=False)
            value = labels[row] if labels else None
            word = None if value is None else names[value] if names and isinstance(value, int) else str(value)
            entries.append(Entry(item, split, word, str(captions[row] or "") if captions else None))
            row += 1
    return entries, names


def _columns(schema: Any, path: Path) -> tuple[str, str | None, str | None]:
    """The names of the columns of the image, the label and the caption."""
    images = [f.name for f in schema if "bytes" in str(f.type) or str(f.type) in ("binary", "large_binary")]
    if not images:
        raise UserError(f"{path} has no column of image bytes; its columns are {', '.join(schema.names)}")

    def first(words: Sequence[str]) -> str | None:
        return next((word for word in words if word in schema.names), None)

    return images[0], first(LABEL), first(CAPTION)


def _class_names(schema: Any, label: str | None) -> tuple[str, ...] | None:
    """The names behind the class numbers, as the hub writes them into the file."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (TypeError, KeyError, ValueError):
        return None


def _open(path: Path, group: int, column: str, row: int) -> IO[bytes]:
    with _lock:
        value = _table(path, group, column)[row].as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    if not content:
        raise ValueError("the row holds no bytes")
    check_length(len(content))
    return io.BytesIO(content)


@lru_cache(GROUPS)
def _table(path: Path, group: int, column: str) -> Any:
    """The images of one group of rows."""
    return arrow().parquet.ParquetFile(path).read_row_group(group, columns=[column]).column(0)
