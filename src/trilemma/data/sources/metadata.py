"""What lies beside the images: metadata.jsonl, .csv or .parquet, and a.txt, a.cls or a.json beside a.png.

A metadata file has a row per image: `file_name` is its path from the folder of the metadata file; the label and the
caption stand in one of the columns of labels.py. Of files beside an image, .txt and .caption hold its caption, .cls its
class, .json both; an image and its files share archive, folder and name up to the last dot.

All of this may add to the images and takes none away: what cannot be read is skipped and named, of a broken row only
that row. A table may have as many rows as a source has images, and COLUMNS columns.
"""

import codecs
import csv
import io
import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from trilemma.data.decoding.limits import most_items
from trilemma.data.decoding.listing import nfc
from trilemma.data.decoding.pixels import FILE_LIMIT, Item, name_of
from trilemma.data.sources.labels import DECIMAL, UNLABELLED, Columns, marks_unlabelled, named, read_columns
from trilemma.errors import UserError
from trilemma.files import parse_json
from trilemma.text import is_unicode
from trilemma.words import first_names, names_counted

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE = ("file_name", "filename", "file", "image")
BESIDE = (".txt", ".caption", ".cls", ".json")
COLUMNS = 1000  # of a table
TEXT_LIMIT = 2**26  # bytes; a longer file beside an image is not read
BOX = 5  # numbers in each line of a .txt that holds boxes: a class and its place (YOLO)

Key = tuple[str, str]  # archive, name


@dataclass
class Metadata:
    """labels, captions: by image; used: files that were read for them; unmatched, notes: what did not fit, in words;
    columns: the metadata files by what was used of them, in words."""

    labels: dict[Key, str] = field(default_factory=dict)
    captions: dict[Key, str] = field(default_factory=dict)
    used: set[Key] = field(default_factory=set)
    unmatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """What was used of which files, in words."""
        return [f"{first_names(names)}: {words}" for words, names in self.columns.items()]


def find_metadata(files: Sequence[Item], images: Sequence[Item]) -> Metadata:
    """Labels and captions of the images."""
    metadata = Metadata()
    files = [item for item in files if item.name.lower().endswith((*METADATA, *BESIDE))]
    if not files:
        return metadata
    names = {key_of(item) for item in images}
    for item in files:
        if posixpath.basename(item.name).lower() in METADATA:
            _add_table(item, names, metadata)
    _add_beside(files, names, metadata)
    if marks_unlabelled(set(metadata.labels.values())):
        metadata.labels = {key: label for key, label in metadata.labels.items() if label != UNLABELLED}
    return metadata


def key_of(item: Item) -> Key:
    """What tells an image from all others, in one spelling."""
    return item.shard, nfc(posixpath.normpath(item.name))


def _add_table(item: Item, names: set[Key], metadata: Metadata) -> None:
    """The rows of a metadata file."""
    try:
        rows = _rows(item, metadata)
        titles = list(dict.fromkeys(column for row in rows for column in row if isinstance(column, str)))
        _check_columns(titles)
    except (ValueError, OSError, csv.Error, ArithmeticError) as error:
        _skip(metadata, item, str(error))
        return
    table = {column: [row.get(column) for row in rows] for column in titles}
    files = _files(table)
    if not any(files):
        _skip(metadata, item, f"no column file_name; its columns are {', '.join(titles) or 'none'}")
        return
    folder, prefix = posixpath.dirname(item.name), f"{item.name}: row"
    keys = [(item.shard, nfc(posixpath.normpath(posixpath.join(folder, file)))) if file else None for file in files]
    columns = read_columns(table)
    metadata.used.add(key_of(item))
    metadata.columns.setdefault(columns.note, []).append(name_of(item))
    _put(metadata, keys, columns, names)
    if twice := [file for file, n in Counter(filter(None, files)).items() if n > 1]:
        note = names_counted("files have several rows, of which the last counts", twice)
        metadata.columns.setdefault(note, []).append(name_of(item))
    inside = {key for key in names if key[0] == item.shard and (not folder or key[1].startswith(f"{folder}/"))}
    absent = [file for file, key in zip(files, keys, strict=True) if file and key not in names]
    without = sorted(name for _, name in inside - set(keys))
    _say(metadata, f"rows of {item.name} without a file", f"listed in {item.name}, but not found", absent)
    _say(metadata, f"files without a row in {item.name}", f"no row in {item.name}", without)
    _say(metadata, "rows without file_name", "no file_name", [f"{prefix} {k}" for k, key in enumerate(keys) if not key])
    _say(metadata, "labels that are not a class", "not a class", [f"{prefix} {k}: {why}" for k, why in columns.wrong])


def _files(table: dict[str, list[Any]]) -> list[str | None]:
    """The file that each row names, in the first column of files that has one."""
    rows = zip(*(table[column] for column in named(table, FILE)), strict=True)
    return [
        next((str(value).strip() for value in row if isinstance(value, str) and value.strip()), None) for row in rows
    ]


def _skip(metadata: Metadata, item: Item, why: str) -> None:
    """A metadata file that is not used."""
    metadata.used.add(key_of(item))
    metadata.unmatched.append(f"{name_of(item)}: not used: {why}")
    metadata.columns.setdefault(f"not used: {why}", []).append(name_of(item))


def _rows(item: Item, metadata: Metadata) -> list[dict[str, Any]]:
    """The rows of a metadata file, each as a mapping from column to value; a broken one is skipped and named."""
    with item.open() as file:
        content = file.read()
    if item.name.lower().endswith(".parquet"):
        return _parquet(content)
    content = content.removeprefix(codecs.BOM_UTF8)
    rows, broken, most = [], [], most_items()
    is_table = item.name.lower().endswith(".csv")
    for where, row in _rows_of_csv(content) if is_table else _rows_of_json(content):
        if isinstance(row, str):
            broken.append(f"{name_of(item)} {where} ({row})")
        elif row:
            rows.append(row)
        if len(rows) + len(broken) > most:
            raise ValueError(f"more than {most:,} rows")
    _say(metadata, "rows that are not UTF-8" if is_table else "lines that are not JSON", "broken", broken)
    return rows


def _rows_of_json(content: bytes) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Where each line stands, and its row or what is wrong with it."""
    for number, line in enumerate(io.BytesIO(content), start=1):
        try:
            row = _json_of(line) if line.strip() else {}
            yield f"line {number}", row if isinstance(row, dict) else "it is not an object"
        except UserError as error:
            yield f"line {number}", str(error)


def _rows_of_csv(content: bytes) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Where each row stands, and the row or what is wrong with it."""
    with _long_fields():
        reader = csv.DictReader(io.StringIO(content.decode(errors="surrogateescape"), newline=""))
        _check_columns(reader.fieldnames or ())
        for number, row in enumerate(reader):
            whole = all(is_unicode(str(value)) for value in row.values())
            yield f"row {number}", row if whole else "it is not UTF-8"


def _json_of(content: bytes) -> Any:
    """A row in JSON; errors as `parse_json`, also for a text in it that is none: an escape may say half of a letter."""
    row = parse_json(content, "it")
    if not is_unicode(json.dumps(row, ensure_ascii=False)):
        raise UserError("it has half of a letter, which is not Unicode text")
    return row


def _check_columns(names: Sequence[str]) -> None:
    if len(names) > COLUMNS:
        raise ValueError(f"{len(names):,} columns; at most {COLUMNS:,} are read")


def _parquet(content: bytes) -> list[dict[str, Any]]:
    from trilemma.data.sources.parquet import arrow

    parquet = arrow().parquet
    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        _check_columns(file.schema_arrow.names)
        if file.metadata.num_rows > (most := most_items()):
            raise ValueError(f"more than {most:,} rows")
        return file.read().to_pylist()
    except Exception as error:  # arrow has its own kinds
        raise ValueError(f"not a whole parquet file: {error}") from error


@contextmanager
def _long_fields() -> Iterator[None]:
    """Inside, a field of a CSV file may be as long as a file."""
    before = csv.field_size_limit(FILE_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _add_beside(files: Sequence[Item], names: set[Key], metadata: Metadata) -> None:
    """Captions and classes in files beside the images."""
    stems: dict[Key, list[Key]] = {}
    for shard, name in names:
        stems.setdefault((shard, posixpath.splitext(name)[0]), []).append((shard, name))
    covered: dict[str, set[Key]] = {}
    orphans: dict[str, list[str]] = {}
    for item in files:
        key = key_of(item)
        stem, suffix = posixpath.splitext(key[1])
        suffix = suffix.lower()
        if suffix not in BESIDE:
            continue
        images = stems.get((key[0], stem), [])
        if not images:
            orphans.setdefault(suffix, []).append(item.name)
            continue
        try:
            columns = _beside(item, suffix)
        except (ValueError, OSError) as error:
            metadata.used.add(key)
            metadata.unmatched.append(f"{item.name}: cannot be read: {error}")
            continue
        if not (columns.labels or columns.captions):  # of another tool
            words = columns.note if "not used" in columns.note else f"{columns.note}: not used"
            metadata.columns.setdefault(words, []).append(name_of(item))
            continue
        metadata.used.add(key)
        covered.setdefault(suffix, set()).update(images)
        _put(metadata, images, columns, names)
    for suffix, labelled in covered.items():
        lonely = orphans.get(suffix, [])
        metadata.used |= {("", nfc(name)) for name in lonely}
        without = sorted(name for _, name in names - labelled)
        _say(metadata, f"{suffix} files without an image", "no image of this name", lonely)
        _say(metadata, f"images without a {suffix} file", f"no {suffix} file", without)


def _beside(item: Item, suffix: str) -> Columns:
    """Label and caption in a file beside an image; neither if it is of another tool."""
    with item.open() as file:
        content = file.read(TEXT_LIMIT + 1)
    if len(content) > TEXT_LIMIT:
        raise ValueError(f"more than {TEXT_LIMIT:,} bytes")
    if suffix == ".json":
        row = _json_of(content)
        return read_columns({str(column): [value] for column, value in row.items()} if isinstance(row, dict) else {})
    text = content.decode("utf-8-sig").strip()
    if suffix == ".cls":
        return read_columns({"cls": [text]})
    return (
        Columns(None, None, [], "boxes, not captions: not used") if _is_boxes(text) else Columns(None, [text], [], "")
    )


def _is_boxes(text: str) -> bool:
    """Whether each line of a text is a row of numbers, as detectors keep their boxes."""
    rows = [line.split() for line in text.splitlines()]
    return bool(rows) and all(len(row) >= BOX and all(map(DECIMAL.fullmatch, row)) for row in rows)


def _put(metadata: Metadata, keys: Sequence[Key | None], columns: Columns, names: set[Key]) -> None:
    """Label and caption of each image in `names`; one row is for all of them."""
    for words, into in ((columns.labels, metadata.labels), (columns.captions, metadata.captions)):
        words = words if words is None or len(words) == len(keys) else words * len(keys)
        into.update((key, word) for key, word in zip(keys, words or (), strict=False) if key in names and word)


def _say(metadata: Metadata, what: str, reason: str, names: list[str]) -> None:
    """Names that did not fit: all of them for the report, a count with the first few for the notes."""
    metadata.unmatched += [f"{name}: {reason}" for name in names]
    metadata.notes += [names_counted(what, names)] if names else []
