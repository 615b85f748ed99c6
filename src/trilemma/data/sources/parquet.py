"""Parquet files as the Hugging Face hub keeps image data: a column of {bytes, path}, one row per image.

Needs pyarrow (extra `hub`). Only the group of rows that is being decoded is in memory.
"""

import io
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import IO, Any

from trilemma.data.decoding.cache import read_cached
from trilemma.data.decoding.decode import Item, Room
from trilemma.data.decoding.listing import ARCHIVES, LESS, files_below, outweighs
from trilemma.data.decoding.pixels import SUFFIXES, check_length
from trilemma.data.sources.decoded import DecodedSource, Entry, read_entries, without_unlabelled
from trilemma.data.sources.folder_layout import OUTSIDE, arrange
from trilemma.data.sources.labels import CAPTION, LABEL, Wrong, named, read_columns
from trilemma.data.split import counted
from trilemma.errors import UserError
from trilemma.extras import install_line
from trilemma.files import parse_json

IMAGE = ("image", "img", "images", "picture", "photo")
TABLES = "parquet rows"
LARGEST_TEXTS = 2**28  # bytes of a column of labels or captions
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
        raise UserError(f"parquet files need pyarrow; install it with: {install_line('hub')}") from None
    return pyarrow


def parquet_files(path: Path) -> list[Path]:
    """The parquet files that hold images: the file itself, or those in a folder and below."""
    if not path.is_dir():
        return [path]
    found = (path / name for name in files_below(path, (".parquet",)))
    return sorted(file for file in found if not file.name.startswith("metadata."))


def is_parquet(path: Path) -> bool:
    """Whether a folder holds parquet files of images, and no more images of other files (by their bytes)."""
    tables = {str(file): file.stat().st_size for file in parquet_files(path)}
    return bool(tables) and outweighs(tables, files_below(path, (*SUFFIXES, *ARCHIVES)))


def read_parquet(
    path: Path, size: tuple[int, int] | None = None, channels: int | None = None, frames: str = "first"
) -> DecodedSource:
    """Images of a parquet file or a folder of them, whose names and folders tell their splits (train-0.parquet).

    Raises:
        UserError: pyarrow is missing, a file is broken, or no column holds images.
    """
    arrow()
    files, root = parquet_files(path), path if path.is_dir() else path.parent
    names = [file.relative_to(root).as_posix() for file in files]
    layout = arrange(["row"] * len(files), [name.removesuffix(".parquet") for name in names], TABLES)
    left_out = {OUTSIDE: [names[k] for k in layout.left_out]}
    left_out[LESS] = [*files_below(path, (*SUFFIXES, *ARCHIVES))] if path.is_dir() else []

    def read(room: Room) -> DecodedSource:
        entries: list[Entry] = []
        classes: dict[str, None] | None = {}
        wrong: list[str] = []
        notes: dict[str, None] = dict.fromkeys(layout.notes if len(files) > 1 else layout.notes[1:])
        for file, name, place in zip(files, names, layout.places, strict=True):
            if place is None:
                continue
            found, words, bad, said = _entries(file, place[0], name if path.is_dir() else "")
            entries += found
            notes |= dict.fromkeys(said)
            wrong += [f"{name} row {row}: {why}" for row, why in bad]
            classes = None if words is None or classes is None else classes | dict.fromkeys(words)
        _table.cache_clear()
        return read_entries(
            without_unlabelled(entries),
            size,
            channels,
            room,
            frames,
            classes=tuple(classes) if classes else None,
            notes=[*notes],
            counts=[counted("labels that are not a class", wrong)],
            left_out=left_out,
            unmatched=wrong,
        )

    return read_cached([path], size, channels, read, frames)


def _entries(path: Path, split: str, shard: str) -> tuple[list[Entry], tuple[str, ...] | None, Wrong, list[str]]:
    """The rows of a file, the names of the classes where the file gives them, what is wrong with labels, and which
    columns were read, in words."""
    try:
        file = arrow().parquet.ParquetFile(path)
        image, said = _image_column(file, path)
        names = _class_names(file.schema_arrow)
        beside = dict.fromkeys([*names, *named(file.schema_arrow.names, (*LABEL, *CAPTION))])
        beside.pop(image, None)
        columns = read_columns(_texts(path, [*beside]), names)
        lengths = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
    except UserError:
        raise
    except Exception as error:  # arrow has its own kinds
        raise UserError(f"{path} is not a whole parquet file: {error}; make or fetch it again") from error
    entries, row = [], 0
    for group, length in enumerate(lengths):
        for k in range(length):
            item = Item(f"row {row}", partial(_open, path, group, image, k), shard, forks=False)
            label = columns.labels[row] if columns.labels else None
            entries.append(Entry(item, split, label, columns.captions[row] if columns.captions else None))
            row += 1
    return entries, names.get(columns.label), columns.wrong, [*said, columns.note]


def _image_column(file: Any, path: Path) -> tuple[str, list[str]]:
    """The column of the images: of several with bytes the one named so, else the largest; and that, in words."""
    schema = file.schema_arrow
    columns = [f.name for f in schema if "bytes" in str(f.type) or str(f.type) in ("binary", "large_binary")]
    if not columns:
        raise UserError(f"{path} has no column of image bytes; its columns are {', '.join(schema.names)}")
    sizes = _column_sizes(file) if len(columns) > 1 else {}
    return choose_column(sorted(columns, key=lambda name: -sizes.get(name, 0)))


def choose_column(columns: Sequence[str]) -> tuple[str, list[str]]:
    """The column called IMAGE, else the first; and which it was of several, in words.

    >>> choose_column(["mask", "image"])
    ('image', ['images are read from the column image, not from mask'])
    """
    image = next((name for word in IMAGE for name in columns if name.lower() == word), columns[0])
    others = ", ".join(name for name in columns if name != image)
    return image, [f"images are read from the column {image}, not from {others}"] if others else []


def _column_sizes(file: Any) -> dict[str, int]:
    """The compressed bytes of each column."""
    sizes: dict[str, int] = {}
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group)
        for column in map(rows.column, range(rows.num_columns)):
            name = column.path_in_schema.partition(".")[0]
            sizes[name] = sizes.get(name, 0) + column.total_compressed_size
    return sizes


def _class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """The names behind class numbers by column, as the hub writes them into the file."""
    try:
        features = parse_json(schema.metadata[b"huggingface"])["info"]["features"]
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
    return _shared(path, [column]).read_row_group(group, columns=[column]).column(0)


def _shared(path: Path, columns: Sequence[str]) -> Any:
    """A file of whose columns of bytes or text a value that stands there once for many rows is held once, too."""
    schema = arrow().parquet.ParquetFile(path).schema
    leaves = [leaf for leaf in map(schema.column, range(len(schema))) if leaf.physical_type == "BYTE_ARRAY"]
    wanted = {*columns, *(f"{column}.bytes" for column in columns)}  # the latter of a column of images
    return arrow().parquet.ParquetFile(path, read_dictionary=[x.path for x in leaves if x.path in wanted])


def _texts(path: Path, columns: Sequence[str]) -> dict[str, list[Any]]:
    """The values of columns of labels and captions.

    Raises:
        UserError: if one is larger than LARGEST_TEXTS once each row has its own.
    """
    table = _shared(path, columns).read(columns=[*columns])
    for name in columns:
        chunks = [chunk for chunk in table[name].chunks if hasattr(chunk, "dictionary")]
        size = sum(_bytes_in(chunk) for chunk in chunks)
        if size > LARGEST_TEXTS:
            raise UserError(f"{path}: the column {name} holds {size:,} bytes; at most {LARGEST_TEXTS:,} are read")
    return table.to_pydict()


def _bytes_in(chunk: Any) -> int:
    """Bytes of the values of an array that shares them, once each row has its own."""
    from pyarrow.compute import call_function

    lengths = call_function("binary_length", [chunk.dictionary]).take(chunk.indices)
    return call_function("sum", [lengths]).as_py() or 0
