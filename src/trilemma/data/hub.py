"""Data sets of the Hugging Face hub, `hf:NAME`, through its own library (extra `hub`), which fetches and keeps them.

The images come as the bytes they are stored in, and go through the same decoding as files do. No code of a data set
is run: the library has not done that since version 4, which the extra asks for.
"""

import io
from functools import partial
from typing import IO, Any

from trilemma.data.cache import read_cached
from trilemma.data.decode import Item, Room
from trilemma.data.folder import SPLITS
from trilemma.data.labels import CAPTION, LABEL, Columns, named, read_columns
from trilemma.data.pixels import check_length, open_file
from trilemma.data.raw import Entry, Raw, read_entries, without_unlabelled
from trilemma.data.split import counted
from trilemma.errors import UserError

PREFIX = "hf:"


def read_hub(
    source: str, size: tuple[int, int] | None = None, channels: int | None = None, frames: str = "first"
) -> Raw:
    """The images of `hf:NAME`.

    Raises:
        UserError: the library is missing, the data set cannot be had, or holds no images.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(f'{source} needs the library datasets: pip install "trilemma[hub]"') from None
    name = source.removeprefix(PREFIX)
    try:
        found = datasets.load_dataset(name)
    except Exception as error:  # the library has many kinds
        raise UserError(f"cannot load {source}: {error}; check the name, the connection and your login") from error
    parts = dict(found) if isinstance(found, dict) else {"train": found}
    used = {split: part for split, part in parts.items() if split.lower() in SPLITS}
    if "train" not in {SPLITS[split.lower()] for split in used}:
        used = {"train": next(iter(parts.values()))} if len(parts) == 1 else used
    left = counted("splits left out", [split for split in parts if split not in used])

    def read(room: Room) -> Raw:
        entries: list[Entry] = []
        names, wrong, notes = None, [], {}
        for split, part in used.items():
            more, names, columns = _entries(datasets, part, split, source)
            entries += more
            wrong += [f"{split} row {row}: {why}" for row, why in columns.wrong]
            notes[columns.note] = None
        return read_entries(
            without_unlabelled(entries),
            size,
            channels,
            room,
            frames,
            classes=names,
            notes=[left, *notes],
            counts=[counted("labels that are no class", wrong)],
            unmatched=wrong,
        )

    marks = [str(getattr(part, "_fingerprint", "")) for part in used.values()]
    return read_cached([], size, channels, read, frames, source, *marks)


def _entries(datasets: Any, part: Any, split: str, source: str) -> tuple[list[Entry], tuple[str, ...] | None, Columns]:
    """The rows of a split, the names of the classes where it has them, and what was read beside the images."""
    features = part.features
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if not images:
        raise UserError(f"{source} has no column of images; its columns are {', '.join(features)}")
    names = {name: tuple(feature.names) for name, feature in features.items() if type(feature).__name__ == "ClassLabel"}
    beside = dict.fromkeys([*names, *named((name for name in features if name not in images), (*LABEL, *CAPTION))])
    columns = read_columns({name: part[name] for name in beside}, names)
    rows = part.cast_column(images[0], datasets.Image(decode=False)).select_columns([images[0]])
    entries = []
    for k in range(len(part)):
        item = Item(f"{split} row {k}", partial(_open, rows, k, images[0]), forks=False)
        label = columns.labels[k] if columns.labels else None
        entries.append(Entry(item, SPLITS[split.lower()], label, columns.captions[k] if columns.captions else None))
    return entries, names.get(columns.label), columns


def _open(rows: Any, k: int, column: str) -> IO[bytes]:
    value = rows[k][column]
    if value and value.get("bytes"):
        check_length(len(value["bytes"]))
        return io.BytesIO(value["bytes"])
    if value and value.get("path"):
        return open_file(value["path"])
    raise ValueError("the row holds no image")
