"""What a person notes of runs: a star, a title. And the bin, from which a run comes back. Plain files of the studio."""

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import disk_errors, read_json, write_atomic, write_json
from trilemma.studio.library import Library, StudioRun, entries
from trilemma.studio.place import NO_RUN, Missing

MARKS, BIN = "marks.json", "bin"
LONGEST_TITLE = 80  # letters


def title_of(run: StudioRun, mark: Mapping[str, Any]) -> str:
    """The title that a person gave a run, or its name; `mark` is what is noted of it."""
    return str(mark.get("title", "")) or run.name


class Marks:
    """Stars, titles and the bin of a folder.

    Args:
        own: the studio's own folder.
    """

    def __init__(self, library: Library, own: Path) -> None:
        self.library, self._file, self.bin_folder = library, own / MARKS, own / BIN
        self._guard = threading.Lock()  # requests are answered by several threads

    def all(self) -> dict[str, dict[str, Any]]:
        """What is noted, by the run's name; {} where the file cannot be read, see `fault`."""
        with suppress(OSError, UserError):
            return {name: mark for name, mark in self._read().items() if isinstance(mark, dict)}
        return {}

    @property
    def fault(self) -> str:
        """Why stars and titles cannot be shown and changed; "" if they can."""
        try:
            self._read()
        except (OSError, UserError) as error:
            return f"stars and titles are not available: {error}"
        return ""

    def star(self, run: StudioRun, on: bool) -> None:
        """Give a star, or take it.

        Raises:
            UserError: the file of stars cannot be read, so it is not written over; or the disk refuses.
        """
        self._set(run, "star", on)

    def rename(self, run: StudioRun, title: str) -> None:
        """Give a title; its folder keeps its name, by which pictures and commands know it.

        Raises:
            UserError: it is too long; or as `star`.
        """
        if len(title) > LONGEST_TITLE or not title.isprintable():
            raise UserError(f"a title has at most {LONGEST_TITLE} letters in one line; give a shorter one")
        self._set(run, "title", title.strip())

    def remove(self, run: StudioRun) -> None:
        """Put a run into the bin, beside earlier ones of its name.

        Raises:
            Missing: it was removed meanwhile.
            UserError: it is being trained, or the disk refuses.
        """
        if run.is_training:
            raise UserError(f"{run.name} is being trained; stop it first")
        with self._guard:
            if not run.path.is_dir():
                raise Missing(NO_RUN)
            place = self._free_place(run.id)
            write_atomic(place / "name.json", json.dumps(run.name))
            with disk_errors(place):
                os.rename(run.path, place / "run")

    def in_bin(self) -> dict[str, str]:
        """The names of the runs in the bin, by id."""
        plain = [Path(entry.path) for entry in entries(self.bin_folder) if entry.is_dir(follow_symlinks=False)]
        places = [place for place in plain if (place / "run").is_dir() and not (place / "run").is_symlink()]
        names = {place.name: self._name_of(place) for place in places}
        return {ident: name for ident, name in names.items() if name}

    def restore(self, ident: str) -> str:
        """Take a run out of the bin, and give its name.

        Raises:
            Missing: it is not there.
            UserError: another run has its place, or the disk refuses.
        """
        with self._guard:
            if (name := self.in_bin().get(ident)) is None:
                raise Missing("Run not found in the bin. The page Runs lists those that are in it.")
            place = self.library.folder / name
            if os.path.lexists(place):
                raise UserError(f"{name} exists again; move it first")
            try:
                with disk_errors(place):
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.rename(self.bin_folder / ident / "run", place)
            except (FileExistsError, NotADirectoryError):
                raise UserError(f"a file has the place of the folder of {name}; move it first") from None
            return name

    def _free_place(self, ident: str) -> Path:
        """Where a run goes in the bin: its id, with a number where an earlier run of that name has it."""
        names = (ident if k == 1 else f"{ident}-{k}" for k in count(1))
        return next(place for name in names if not os.path.lexists((place := self.bin_folder / name) / "run"))

    def _name_of(self, place: Path) -> str:
        """Where a run in the bin was; "" if that is not said, or not a place in the folder where runs are listed."""
        with suppress(OSError, ValueError):  # ValueError: not JSON, not below the folder, or no path at all
            name = read_json(place / "name.json")
            if isinstance(name, str) and self._is_listed(Path(name)):
                return name if self.library.id_of(self.library.folder / name) == place.name.partition("-")[0] else ""
        return ""

    def _is_listed(self, name: Path) -> bool:
        """Whether a path below the folder is one of a run: nothing in it is hidden, leads upwards or through a link."""
        hidden = any(part.startswith(".") or "\0" in part for part in name.parts)
        if name.is_absolute() or not name.parts or hidden:
            return False
        folder = self.library.folder.resolve()
        return (folder / name).parent.resolve() == (folder / name).parent

    def _read(self) -> dict[str, Any]:
        """The content of the file; {} where there is none.

        Raises:
            UserError, OSError: it is there and cannot be read.
        """
        try:
            marks = read_json(self._file)
        except FileNotFoundError:
            return {}
        if not isinstance(marks, dict):
            raise UserError(f"{self._file} is not an object")
        return marks

    def _set(self, run: StudioRun, key: str, value: Any) -> None:
        with self._guard:
            try:
                marks = self._read()
            except (OSError, UserError) as error:
                raise UserError(f"{error}; nothing was changed: restore {self._file}, or delete it") from None
            mark = marks.get(run.name)
            marks[run.name] = {**(mark if isinstance(mark, dict) else {}), key: value}
            write_json(self._file, marks)
