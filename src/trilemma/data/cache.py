"""Decoded sources kept in the user's cache, so that the second opening takes no decoding.

An entry is the folder CACHE/decoded/KEY: images.u8, the plain bytes of the tensor (N, C, H, W), and entry.json, all
else. KEY is the hash of the paths, sizes and times of change of the source's files, the size, channels and frames asked
for and the version of the decoding: a file that changes gives another key. An entry is written beside its place and put
there in one move, so processes that decode the same source at once do not meet. The next opening of any source removes
what a process that was killed had begun, and entries not opened for KEEP_DAYS. A source of less than SMALL bytes
decoded is not kept.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import PIL
import torch
from torch import Tensor

from trilemma.data.decode import Room
from trilemma.data.download import cache_dir
from trilemma.data.raw import Raw
from trilemma.data.storage import create, left_over, mapped, memory_limit, room_for, temporary
from trilemma.errors import UserError
from trilemma.files import write_atomic

VERSION = 5  # of the listing, the decoding and the entries
SMALL = 2**23  # bytes
KEEP_DAYS = 30
IMAGES, ENTRY = "images.u8", "entry.json"
PLAIN = [f.name for f in fields(Raw) if f.name not in ("images", "large", "folder")]


def read_cached(
    paths: Sequence[Path],
    size: tuple[int, int] | None,
    channels: int | None,
    read: Callable[[Room], Raw],
    *extra: str,
) -> Raw:
    """What `read` makes of the files at `paths` (folders with all that is in them), from the cache where it is there.

    Args:
        read: takes the place for the images; see `decode`.
        extra: what else the result depends on.
    """
    key = key_of(paths, size, channels, *extra)
    found = _recall(_folder() / key)
    _tidy(_folder())
    if found:
        return found
    room = _CacheRoom()
    try:
        return room.keep(read(room), _folder() / key)
    except BaseException:
        room.drop()
        raise


def key_of(paths: Sequence[Path], size: tuple[int, int] | None, channels: int | None, *extra: str) -> str:
    """The name of an entry."""
    rule = [VERSION, PIL.__version__, size, channels, extra]
    digest = hashlib.sha256(json.dumps(rule).encode())
    for path in paths:
        digest.update(os.fsencode(os.path.realpath(path)))
        for line in _stamps(os.fspath(path)):
            digest.update(line)
    return digest.hexdigest()[:32]


def _stamps(path: str, seen: tuple[str, ...] = ()) -> list[bytes]:
    """Name, size and time of change of a file, or of all files below a folder, sorted."""
    if not os.path.isdir(path):
        found = os.stat(path)
        return [f"{found.st_size} {found.st_mtime_ns}\0".encode()]
    here, lines = os.path.realpath(path), []
    try:
        entries = [*os.scandir(path)] if here not in seen else []
    except OSError:  # it may not be listed
        return [b"closed\0"]
    for entry in entries:
        try:
            folder, found = entry.is_dir(), entry.stat()
            stamp = b"" if folder else f" {found.st_size} {found.st_mtime_ns}".encode()
        except OSError:  # a broken link
            folder, stamp = False, b" broken"
        lines.append(os.fsencode(entry.path) + stamp + b"\0")
        lines += _stamps(entry.path, (*seen, here)) if folder else ()
    return sorted(lines)


def _folder() -> Path:
    return cache_dir() / "decoded"


def _recall(folder: Path) -> Raw | None:
    """An entry, where it is there and whole."""
    try:
        kept = json.loads((folder / ENTRY).read_text("utf-8"))
        shape = tuple(kept.pop("shape"))
        count = int(torch.Size(shape).numel())
        if (folder / IMAGES).stat().st_size != count:
            return None
        values: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in kept.items()}
        with suppress(OSError):
            os.utime(folder)
        return Raw(images=mapped(folder / IMAGES, shape), large=count > memory_limit(), folder=folder, **values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _CacheRoom(Room):
    """Memory where the images are few, else a file that becomes an entry."""

    def __init__(self) -> None:
        self.place: Path | None = None

    @property
    def shared(self) -> bool:  # pyright: ignore
        return self.place is not None

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Room for a uint8 tensor; a former one is given up."""
        self.drop()
        count, limit = int(torch.Size(shape).numel()), memory_limit()
        if count < SMALL and count <= limit:
            return torch.empty(shape, dtype=torch.uint8)
        place = temporary(_folder())
        try:
            if not room_for(_folder(), count):
                raise UserError(f"{_folder()} has too little room")
            images = create(place / IMAGES, shape)
        except (OSError, UserError) as error:
            shutil.rmtree(place, ignore_errors=True)
            if count <= limit:
                return torch.empty(shape, dtype=torch.uint8)
            raise UserError(
                f"the decoded images are {count:,} bytes, more than the {limit:,} that memory is given, and cannot be "
                f"kept on the disk: {error}; make room, set TRILEMMA_CACHE to a folder on another disk, or give a "
                "smaller size="
            ) from error
        self.place = place
        return images

    def keep(self, raw: Raw, folder: Path) -> Raw:
        """Put what was decoded in its place in the cache; nothing happens to what lies in memory."""
        if self.place is None:
            return raw
        count = raw.images.numel()
        raw = replace(raw, notes=(*raw.notes, f"decoded once into {folder} ({count:,} bytes)"))
        with open(self.place / IMAGES, "r+b") as file:
            file.truncate(count)  # without those that could not be read
            os.fsync(file.fileno())
        entry = {"shape": list(raw.images.shape), **{key: getattr(raw, key) for key in PLAIN}}
        write_atomic(self.place / ENTRY, json.dumps(entry))
        place, self.place = self.place, None
        try:
            os.rename(place, folder)
        except OSError:  # another process was first, or an entry there is broken
            if found := _recall(folder):
                shutil.rmtree(place, ignore_errors=True)
                return found
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                os.rename(place, folder)
        return _recall(folder) or raw

    def drop(self) -> None:
        if self.place is not None:
            shutil.rmtree(self.place, ignore_errors=True)
            self.place = None


def _tidy(folder: Path) -> None:
    """Remove what was not opened for long, and what a process that was ended left: of another machine after a day."""
    for entry in folder.iterdir() if folder.exists() else ():
        with suppress(OSError):
            days = (time.time() - entry.stat().st_mtime) / 86_400
            if left_over(entry) or days > (1 if entry.name.startswith(".tmp-") else KEEP_DAYS):
                shutil.rmtree(entry, ignore_errors=True)
