"""Where files of data lie on this machine: in $TRILEMMA_DATA, which the user fills, and in the cache."""

import os
from pathlib import Path

from trilemma.files import cache_dir


def data_dir() -> Path | None:
    """$TRILEMMA_DATA, if it is set."""
    own = os.environ.get("TRILEMMA_DATA")
    return Path(own) if own else None


def places(name: str) -> list[Path]:
    """The folders in which a published source is searched, in this order."""
    return [folder / name for folder in (data_dir(), cache_dir()) if folder]


def find(name: str, file: str) -> Path | None:
    """A file of a published source, as it is or with .gz, where it exists."""
    return next((path for folder in places(name) if (path := in_folder(folder, file))), None)


def in_folder(folder: Path, file: str) -> Path | None:
    """A file in a folder, as it is or with .gz, where it exists."""
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.exists()), None)
