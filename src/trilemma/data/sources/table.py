"""Images in tables, one a row: what parquet files and data sets of the hub have in common."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from trilemma.data.decoding.decode import Item, Room
from trilemma.data.decoding.decoded import DecodedSource
from trilemma.data.options import Options
from trilemma.data.sources.entries import Entry, Remarks, read_entries, without_unlabelled
from trilemma.data.sources.labels import Columns, Wrong
from trilemma.words import names_counted

IMAGE = ("image", "img", "images", "picture", "photo")


class Table(NamedTuple):
    """The rows of one file or one split; names: of the classes in their order, where the table gives them; wrong: what
    is wrong with labels, by row; notes: which columns were read, in words."""

    title: str
    entries: list[Entry]
    names: tuple[str, ...] | None
    wrong: Wrong
    notes: list[str]


def table_of(
    title: str,
    items: Sequence[Item],
    split: str,
    columns: Columns,
    names: Mapping[str, tuple[str, ...]],
    notes: Sequence[str],
) -> Table:
    """A table of images with what its columns say of each.

    Args:
        names: of the classes, by column; notes: on the column of the images.
    """
    none = [None] * len(items)
    rows = zip(items, columns.labels or none, columns.captions or none, strict=True)
    entries = [Entry(item, split, label, caption) for item, label, caption in rows]
    return Table(title, entries, names.get(columns.label), columns.wrong, [*notes, columns.note])


def read_tables(
    tables: Iterable[Table],
    options: Options,
    room: Room,
    notes: Sequence[str] = (),
    left_out: dict[str, list[str]] | None = None,
) -> DecodedSource:
    """Decode the images of all tables; their classes are named if every table names them.

    Args:
        notes: what there is to say before; left_out: see `Remarks`.
    """
    tables = list(tables)
    wrong = tuple(f"{table.title} row {row}: {why}" for table in tables for row, why in table.wrong)
    names = None if any(table.names is None for table in tables) else [n for table in tables for n in table.names or ()]
    remarks = Remarks(
        notes=tuple(dict.fromkeys([*notes, *(note for table in tables for note in table.notes)])),
        counts=(names_counted("labels that are not a class", wrong),),
        left_out=left_out or {},
        unmatched=wrong,
    )
    entries = without_unlabelled([entry for table in tables for entry in table.entries])
    return read_entries(entries, options, room, remarks, tuple(dict.fromkeys(names)) if names else None)


def choose_column(columns: Sequence[str]) -> tuple[str, list[str]]:
    """The column called IMAGE, else the first; and which it was of several, in words.

    >>> choose_column(["mask", "image"])
    ('image', ['images are read from the column image, not from mask'])
    """
    image = next((name for word in IMAGE for name in columns if name.lower() == word), columns[0])
    others = ", ".join(name for name in columns if name != image)
    return image, [f"images are read from the column {image}, not from {others}"] if others else []
