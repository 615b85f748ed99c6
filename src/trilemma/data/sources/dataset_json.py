"""dataset.json, in which the packing tool of StyleGAN keeps classes: {"labels": [[file, class number], ...]} or null.

Karras et al. (2020), dataset_tool. The files lie in numbered folders, which are not classes.
"""

import posixpath
from collections.abc import Collection, Sequence
from typing import Any

from trilemma.data.decoding.listing import nfc
from trilemma.data.decoding.pixels import Item
from trilemma.data.sources.labels import UNLABELLED, marks_unlabelled, read_labels
from trilemma.data.sources.metadata import Key, Metadata, key_of
from trilemma.files import parse_json

NAME = "dataset.json"


def add_dataset_json(files: Sequence[Item], names: Collection[Key], metadata: Metadata) -> None:
    """Add the classes that files called dataset.json give to images; what is not of this form is left alone.

    Args:
        names: of the images; see `key_of`.
    """
    for item in files:
        if posixpath.basename(item.name) != NAME or (rows := _rows(item)) is None:
            continue
        metadata.used.add(key_of(item))
        folder, names = posixpath.dirname(item.name), set(names)
        column = read_labels([label for _, label in rows])
        labels = [] if isinstance(column, str) else column[0]
        none = UNLABELLED if marks_unlabelled(labels) else None
        keys = [(item.shard, nfc(posixpath.normpath(posixpath.join(folder, str(name))))) for name, _ in rows]
        classes = {
            key: label
            for key, label in zip(keys, labels, strict=False)
            if key in names and label is not None and label != none
        }
        metadata.labels |= classes
        metadata.notes.append(f"{item.name}: {len(rows):,} rows, of which {len(classes):,} give the class of an image")


def _rows(item: Item) -> list[Any] | None:
    """The pairs of file and label; None for a file of another form."""
    try:
        with item.open() as file:
            content = parse_json(file.read())
        rows = content["labels"] or []
        return rows if all(isinstance(row, list) and len(row) == 2 for row in rows) else None
    except (ValueError, OSError, KeyError, TypeError):
        return None
