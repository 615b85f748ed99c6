"""Which sources of images the user has named himself.

A run folder says where its images lie, and it may be a stranger's: its words must not decide what is read on this
machine, or fetched. So a source that a run names is read only if the user has given it to any command before, if it
lies in $TRILEMMA_DATA, or if it is a data set known by name whose files are here. Sources are remembered in
CACHE/sources.jsonl, one a line.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

from trilemma.data.places import data_dir
from trilemma.data.sources.builtin import is_named, where_is
from trilemma.data.sources.hub import PREFIX
from trilemma.errors import UserError
from trilemma.files import cache_dir, read_plain
from trilemma.text import quoted

FETCHED = "to be fetched"  # how `where_is` begins for a source whose files are not here
LARGEST = 16 << 20  # bytes of the file
_named: set[str] = set()  # by this process: what counts where the cache cannot be written


def note_source(source: str) -> None:
    """Note a source that the user named; one known by name is allowed once it is fetched."""
    if source in _named:
        return
    _named.add(source)
    if is_named(source) or json.dumps(source) in _lines():
        return
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        with open(_file(), "ab", buffering=0) as file:
            file.write(f"{json.dumps(source)}\n".encode())


def is_allowed(source: str) -> bool:
    """Whether a run may have this source read. Nothing of the source is touched to find out."""
    if is_named(source) and not where_is(source.partition(":")[0]).startswith(FETCHED):
        return True
    return source in _named or _in_data_folder(source) or json.dumps(source) in _lines()


def _in_data_folder(source: str) -> bool:
    """Whether it is a path below $TRILEMMA_DATA, which the user says is for data."""
    folder = data_dir()
    if folder is None or not os.path.isabs(source):
        return False
    return Path(os.path.normpath(source)).is_relative_to(folder.absolute())


def has_form(source: object) -> TypeGuard[str]:
    """Whether it is what a training writes of its source: a word, a name on the hub, or a full path."""
    return isinstance(source, str) and (is_named(source) or source.startswith(PREFIX) or os.path.isabs(source))


def check_allowed(source: object, run: object) -> None:
    """Refuse a source that a run names and its user never did.

    Raises:
        UserError: with the line that allows it.
    """
    if not has_form(source):
        raise UserError(f"{run} names no images that can be found here (its config.json has {source!r}); give data=")
    if not is_allowed(source):
        look = quoted(["trilemma", "data", "check", source])
        raise UserError(
            f"{run} was trained on {source}, says its config.json. You have not used that here yet, so it is not read. "
            f"To allow it, type: {look}"
        )


def _file() -> Path:
    return cache_dir() / "sources.jsonl"


def _lines() -> list[str]:
    try:
        return read_plain(_file(), LARGEST).decode("ascii").splitlines()
    except (OSError, UserError, ValueError):
        return []
