"""What lies beside the images: metadata.jsonl, .csv or .parquet, and a.txt, a.cls or a.json beside a.png.

A metadata file has a row per image: `file_name` is its path from the folder of the metadata file; the label and the
caption stand in one of the columns below. Of files beside an image, .txt and .caption hold its caption, .cls its class,
.json both; an image and its files share archive, folder and name up to the last dot.
"""

import csv
import io
import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trilemma.data.listing import nfc
from trilemma.data.pixels import Item
from trilemma.data.split import counted
from trilemma.errors import UserError

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE = ("file_name", "filename", "file", "image")
LABEL = ("label", "class", "cls", "category")
CAPTION = ("text", "caption", "captions", "prompt", "description")
BESIDE = (".txt", ".caption", ".cls", ".json")
TEXT_LIMIT = 2**16  # bytes of a file beside an image

Key = tuple[str, str]  # archive, name


@dataclass
class Known:
    """labels, captions: by image; used: files that were read for them; unmatched, notes: what did not fit, in words."""

    labels: dict[Key, str] = field(default_factory=dict)
    captions: dict[Key, str] = field(default_factory=dict)
    used: set[Key] = field(default_factory=set)
    unmatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_metadata(files: Sequence[Item], images: Sequence[Item]) -> Known:
    """Labels and captions of the images.

    Raises:
        UserError: a metadata file is broken or lacks the column of file names.
    """
    known = Known()
    files = [item for item in files if item.name.lower().endswith((*METADATA, *BESIDE))]
    if not files:
        return known
    names = {key_of(item) for item in images}
    for item in files:
        if posixpath.basename(item.name).lower() in METADATA:
            _add_table(item, names, known)
    _add_beside(files, names, known)
    return known


def key_of(item: Item) -> Key:
    """What tells an image from all others, in one spelling."""
    return item.shard, nfc(posixpath.normpath(item.name))


def _add_table(item: Item, names: set[Key], known: Known) -> None:
    """The rows of a metadata file."""
    folder, rowed, absent = posixpath.dirname(item.name), set(), []
    for row in _rows(item):
        file = _first(row, FILE)
        if file is None:
            columns = ", ".join(map(str, row)) or "none"
            raise UserError(
                f"{item.name}: a row without file_name; its columns are {columns}; name the file in each row"
            )
        key = item.shard, nfc(posixpath.normpath(posixpath.join(folder, file)))
        if key not in names:
            absent.append(file)
            continue
        rowed.add(key)
        _put(known, key, _first(row, LABEL), _first(row, CAPTION))
    inside = (key for key in names if key[0] == item.shard and (not folder or key[1].startswith(f"{folder}/")))
    without = sorted(name for _, name in set(inside) - rowed)
    known.used.add(key_of(item))
    _say(known, f"rows of {item.name} without a file", f"named in {item.name}, but not there", absent)
    _say(known, f"files without a row in {item.name}", f"no row in {item.name}", without)


def _rows(item: Item) -> Iterator[dict[str, Any]]:
    """The rows of a metadata file, each as a mapping from column to value."""
    try:
        with item.open() as file:
            content = file.read()
        if item.name.lower().endswith(".parquet"):
            from trilemma.data.parquet import arrow

            yield from arrow().parquet.read_table(io.BytesIO(content)).to_pylist()
            return
        text = content.decode("utf-8-sig")
        if item.name.lower().endswith(".csv"):
            yield from csv.DictReader(io.StringIO(text, newline=""))
            return
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield _row(line, number)
    except (ValueError, OSError, csv.Error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{item.name} cannot be read: {error}; mend it, or remove it") from error


def _row(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} is no JSON ({error})") from error
    return row if isinstance(row, dict) else {}


def _add_beside(files: Sequence[Item], names: set[Key], known: Known) -> None:
    """Captions and classes in files beside the images."""
    stems: dict[Key, list[Key]] = {}
    for shard, name in names:
        stems.setdefault((shard, posixpath.splitext(name)[0]), []).append((shard, name))
    found: dict[str, set[Key]] = {}
    orphans: dict[str, list[str]] = {}
    for item in files:
        key = key_of(item)
        stem, suffix = posixpath.splitext(key[1])
        if suffix.lower() not in BESIDE:
            continue
        images = stems.get((key[0], stem), [])
        if not images:
            orphans.setdefault(suffix.lower(), []).append(item.name)
            continue
        known.used.add(key)
        found.setdefault(suffix.lower(), set()).update(images)
        try:
            label, caption = _beside(item, suffix.lower())
        except (ValueError, OSError) as error:
            known.unmatched.append(f"{item.name}: cannot be read: {error}")
            continue
        for image in images:
            _put(known, image, label, caption)
    for suffix, having in found.items():
        lonely = orphans.get(suffix, [])
        known.used |= {("", nfc(name)) for name in lonely}
        _say(known, f"{suffix} files without an image", "no image of this name", lonely)
        _say(known, f"images without a {suffix} file", f"no {suffix} file", sorted(name for _, name in names - having))


def _beside(item: Item, suffix: str) -> tuple[Any, Any]:
    """(label, caption) of a file beside an image, None for what it does not tell."""
    with item.open() as file:
        text = file.read(TEXT_LIMIT).decode("utf-8-sig").strip()
    if suffix == ".json":
        row = json.loads(text)
        return (_first(row, LABEL), _first(row, CAPTION)) if isinstance(row, dict) else (None, None)
    return (text, None) if suffix == ".cls" else (None, text)


def _first(row: dict[str, Any], columns: Sequence[str]) -> str | None:
    """The value of the first of the columns that has one, as text."""
    values = (row.get(column) for column in columns)
    found = next((value for value in values if value is not None and not isinstance(value, (dict, list))), None)
    return None if found is None or not str(found).strip() else str(found).strip()


def _put(known: Known, key: Key, label: str | None, caption: str | None) -> None:
    if label is not None:
        known.labels[key] = label
    if caption is not None:
        known.captions[key] = caption


def _say(known: Known, what: str, reason: str, names: list[str]) -> None:
    """Names that did not fit: all of them for the report, a count with the first few for the notes."""
    known.unmatched += [f"{name}: {reason}" for name in names]
    known.notes += [counted(what, names)] if names else []
