"""Parquet files as the Hugging Face hub keeps image data: a column of {bytes, path}, one row per image.

Needs pyarrow (extra `hub`). Only the group of rows that is being decoded is in memory.
"""

import io
import json
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import IO, Any

from trilemma.data.cache import read_cached
from trilemma.data.decode import Item, Room
from trilemma.data.folder import split_of
from trilemma.data.labels import CAPTION, LABEL, Columns, named, read_columns
from trilemma.data.pixels import check_length
from trilemma.data.raw import Entry, Raw, read_entries, without_unlabelled
from trilemma.data.split import counted
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
        wrong, notes = [], {}
        for file in files:
            found, names, columns = _entries(file, path)
            entries += found
            classes = None if names is None or classes is None else classes | dict.fromkeys(names)
            wrong += [f"{file.name} row {row}: {why}" for row, why in columns.wrong]
            notes[columns.note] = None
        _table.cache_clear()
        return read_entries(
            without_unlabelled(entries),
            size,
            channels,
            room,
            frames,
            classes=tuple(classes) if classes else None,
            notes=[*notes],
            counts=[counted("labels that are no class", wrong)],
            unmatched=wrong,
        )

    return read_cached(files, size, channels, read, frames)


def _entries(path: Path, root: Path) -> tuple[list[Entry], tuple[str, ...] | None, Columns]:
    """The rows of a file, the names of the classes where the file gives them, and what was read beside the images."""
    try:
        file = arrow().parquet.ParquetFile(path)
        image = _column(file.schema_arrow, path)
        names = _class_names(file.schema_arrow)
        beside = dict.fromkeys([*names, *named(file.schema_arrow.names, (*LABEL, *CAPTION))])
        beside.pop(image, None)
        columns = read_columns(file.read(columns=[*beside]).to_pydict(), names)
        lengths = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
    except UserError:
        raise
    except Exception as error:  # arrow has its own kinds
        raise UserError(f"{path} is not a whole parquet file: {error}; make or fetch it again") from error
    split, shard = split_of(path.stem) or "train", path.name if root.is_dir() else ""
    entries, row = [], 0
    for group, length in enumerate(lengths):
        for k in range(length):
            item = Item(f"row {row}", partial(_open, path, group, image, k), shard, forks=False)
            label = columns.labels[row] if columns.labels else None
            entries.append(Entry(item, split, label, columns.captions[row] if columns.captions else None))
            row += 1
    return entries, names.get(columns.label), columns


def _column(schema: Any, path: Path) -> str:
    """The name of the column of the images."""
    images = [f.name for f in schema if "bytes" in str(f.type) or str(f.type) in ("binary", "large_binary")]
    if not images:
        raise UserError(f"{path} has no column of image bytes; its columns are {', '.join(schema.names)}")
    return images[0]


def _class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """The names behind class numbers by column, as the hub writes them into the file."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if column in schema.names and isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}


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
