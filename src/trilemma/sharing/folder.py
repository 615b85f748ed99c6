"""A folder that an export writes: whole, or not at all; never over files of others.

It is written beside its place and then put there. It is ours if its record names every file in it with the SHA-256 that
the file has: what was changed or added since is kept, and the export refused.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import disk_errors, read_json, refuse_links, scratch_of, sha256_of, user_path, write_json
from trilemma.run.run import Run

RECORD = "export.json"
FORMAT = 1


def claim_export(out: str | Path | None, run: Run, to: str) -> Path:
    """The folder to write: `out`, or RUN/export/TO.

    Raises:
        UserError: something else is there.
    """
    folder = run.path / "export" / to if out is None else user_path(out)
    if folder.name in ("", ".."):
        raise UserError(f'out="{out}" has no name; give the name of a folder, for instance out=exported/{to}')
    refuse_links(folder, *([folder.parent] if out is None else []))
    _refuse_others(folder)
    return folder


def write_export(folder: Path, run: Run, to: str, write: Callable[[Path], dict[str, Any]]) -> Path:
    """Write a claimed folder, with its record.

    Args:
        write: writes the files into the folder that it is given, and returns what the record says of them.
    Returns:
        The record.
    """
    scratch, old = scratch_of(folder), scratch_of(folder.with_name(f"{folder.name}.old"))
    _remove(scratch)
    _remove(old)
    try:
        with disk_errors(folder):
            scratch.mkdir(parents=True)
            about = write(scratch)
            origin = {"model": run.recipe.name, "weights": run.weights_id, "shape": list(run.shape)}
            write_json(scratch / RECORD, {"format": FORMAT, "to": to, **origin, **about, "files": _sums(scratch)})
            _replace(folder, scratch, old)
    finally:
        _remove(scratch)
        _remove(old)
    return folder / RECORD


def _replace(folder: Path, scratch: Path, old: Path) -> None:
    """Put what was written in place of a folder, which stays where it is if that fails."""
    _refuse_others(folder)  # the conversion takes minutes
    if not folder.exists():
        scratch.rename(folder)
        return
    folder.rename(old)
    try:
        scratch.rename(folder)
    except OSError:
        old.rename(folder)
        raise


def _refuse_others(folder: Path) -> None:
    if os.path.lexists(folder) and not _is_ours(folder):
        raise UserError(
            f"{folder} exists and was not written by trilemma export, or was changed since; choose another out=, or "
            "delete it"
        )


def _is_ours(folder: Path) -> bool:
    """Whether the record in a folder names all that is there, as it is; an empty folder is, too."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        record = read_json(folder / RECORD)
        return record["format"] == FORMAT and record["files"] == _sums(folder)
    except (OSError, UserError, LookupError, TypeError):
        return False


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file but the record, by its path from the folder."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() and path != folder / RECORD)
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _remove(folder: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(folder)
