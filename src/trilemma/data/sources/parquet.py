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
from trilemma.data.decoding.decoded import DecodedSource
from trilemma.data.decoding.listing import ARCHIVES, LESS, files_below, outweighs
from trilemma.data.decoding.pixels import SUFFIXES, check_length
from trilemma.data.options import Options
from trilemma.data.sources.folder_layout import OUTSIDE, arrange
from trilemma.data.sources.labels import CAPTION, LABEL, named, read_columns
from trilemma.data.sources.table import Table, choose_column, read_tables, table_of
from trilemma.errors import UserError
from trilemma.extras import install_line
from trilemma.files import parse_json

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
    files = (path / name for name in files_below(path, (".parquet",)))
    return sorted(file for file in files if not file.name.startswith("metadata."))


def is_parquet(path: Path) -> bool:
    """Whether a folder holds parquet files of images, and no more images of other files (by their bytes)."""
    tables = {str(file): file.stat().st_size for file in parquet_files(path)}
    return bool(tables) and outweighs(tables, files_below(path, (*SUFFIXES, *ARCHIVES)))


def read_parquet(path: Path, options: Options) -> DecodedSource:
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
        tables = [
            _table(file, place[0], name, name if path.is_dir() else "")
            for file, name, place in zip(files, names, layout.places, strict=True)
            if place
        ]
        _images.cache_clear()
        return read_tables(tables, options, room, layout.notes if len(files) > 1 else layout.notes[1:], left_out)

    return read_cached([path], options, read, options.frames)


def _table(path: Path, split: str, title: str, shard: str) -> Table:
    """The rows of a file, which are read when they are decoded."""
    try:
        file = arrow().parquet.ParquetFile(path)
        image, notes = _image_column(file, path)
        names = _class_names(file.schema_arrow)
        beside = dict.fromkeys([*names, *named(file.schema_arrow.names, (*LABEL, *CAPTION))])
        beside.pop(image, None)
        columns = read_columns(_texts(path, [*beside]), names)
        lengths = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
    except UserError:
        raise
    except Exception as error:  # arrow has its own kinds
        raise UserError(f"{path} is not a whole parquet file: {error}; make or fetch it again") from error
    places = [(group, k) for group, length in enumerate(lengths) for k in range(length)]
    items = [
        Item(f"row {row}", partial(_open, path, group, image, k), shard, forks=False)
        for row, (group, k) in enumerate(places)
    ]
    return table_of(title, items, split, columns, names, notes)


def _image_column(file: Any, path: Path) -> tuple[str, list[str]]:
    """The column of the images: of several with bytes the one named so, else the largest; and that, in words."""
    schema = file.schema_arrow
    columns = [f.name for f in schema if "bytes" in str(f.type) or str(f.type) in ("binary", "large_binary")]
    if not columns:
        raise UserError(f"{path} has no column of image bytes; its columns are {', '.join(schema.names)}")
    sizes = _column_sizes(file) if len(columns) > 1 else {}
    return choose_column(sorted(columns, key=lambda name: -sizes.get(name, 0)))


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
        value = _images(path, group, column)[row].as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    if not content:
        raise ValueError("the row holds no bytes")
    check_length(len(content))
    return io.BytesIO(content)


@lru_cache(GROUPS)
def _images(path: Path, group: int, column: str) -> Any:
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
