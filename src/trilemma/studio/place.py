"""The folder that a studio works in, which one studio at a time holds, and what it keeps there of its own."""

import os
from pathlib import Path
from typing import IO

from trilemma.errors import UserError
from trilemma.files import NO_LINK, disk_errors, lock, refuse_links, user_path

OWN = ".studio"  # in the folder: what is the studio's
LOCK = "lock"
LONGEST_LOCK = 500  # letters
NO_PAGE = "Page not found. The first page, /, leads to all others."
NO_RUN = "Run not found. The page Runs lists all runs, and those in the bin."


class Missing(LookupError):
    """Nothing has the id that was asked for (any more), with a sentence that says what."""


def checked_folder(folder: str | Path) -> Path:
    """The folder, in full.

    Raises:
        UserError: it is not a folder that exists.
    """
    path = user_path(folder)
    if not path.exists():
        raise UserError(f"folder {path} not found; make it, or give another: trilemma studio FOLDER")
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the folder in which the results are to lie")
    return path.resolve()


def hold(folder: Path, address: str) -> IO[str]:
    """The lock of a folder, which the system drops when the process ends, however it ends.

    Args:
        address: of this studio, without its token, for the message of another one.
    Raises:
        UserError: another studio holds it, or the folder cannot be written.
    """
    place = folder / OWN
    refuse_links(place, place / LOCK)
    with disk_errors(place):
        place.mkdir(mode=0o700, exist_ok=True)
        file = os.fdopen(os.open(place / LOCK, os.O_RDWR | os.O_CREAT | NO_LINK, 0o600), "r+", encoding="utf-8")
    try:
        lock(file)
    except OSError:
        holder = file.read(LONGEST_LOCK).strip()
        file.close()
        raise UserError(
            f"{folder} is already open in a studio{f' ({holder})' if holder else ''}; use that one, close it, or give "
            "another folder"
        ) from None
    file.truncate(0)
    file.write(f"{address}, process {os.getpid()}")
    file.flush()
    return file
