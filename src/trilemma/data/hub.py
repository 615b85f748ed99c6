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
from trilemma.data.metadata import CAPTION, LABEL
from trilemma.data.pixels import check_length, open_file
from trilemma.data.raw import Entry, Raw, read_entries
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
        names = None
        for split, part in used.items():
            more, names = _entries(datasets, part, split, source)
            entries += more
        return read_entries(entries, size, channels, room, frames, classes=names, notes=[left])

    marks = [str(getattr(part, "_fingerprint", "")) for part in used.values()]
    return read_cached([], size, channels, read, frames, source, *marks)


def _entries(datasets: Any, part: Any, split: str, source: str) -> tuple[list[Entry], tuple[str, ...] | None]:
    """The rows of a split, and the names of the classes where it has them."""
    features = part.features
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if not images:
        raise UserError(f"{source} has no column of images; its columns are {', '.join(features)}")
    label = next((n for n, f in features.items() if type(f).__name__ == "ClassLabel"), None)
    label = label or next((name for name in LABEL if name in features), None)
    caption = next((name for name in CAPTION if name in features), None)
    names = tuple(features[label].names) if label and hasattr(features[label], "names") else None
    labels, captions = (part[column] if column else None for column in (label, caption))
    rows = part.cast_column(images[0], datasets.Image(decode=False)).select_columns([images[0]])
    entries = []
    for k in range(len(part)):
        value = labels[k] if labels is not None else None
        word = None if value is None else names[value] if names else str(value)
        text = str(captions[k] or "") if captions is not None else None
        item = Item(f"{split} row {k}", partial(_open, rows, k, images[0]), forks=False)
        entries.append(Entry(item, SPLITS[split.lower()], word, text))
    return entries, names


def _open(rows: Any, k: int, column: str) -> IO[bytes]:
    value = rows[k][column]
    if value and value.get("bytes"):
        check_length(len(value["bytes"]))
        return io.BytesIO(value["bytes"])
    if value and value.get("path"):
        return open_file(value["path"])
    raise ValueError("the row holds no image")
