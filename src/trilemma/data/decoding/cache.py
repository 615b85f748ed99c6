"""Decoded sources kept in the user's cache, so that the second opening takes no decoding.

An entry is the folder CACHE/decoded/KEY: images.u8, the plain bytes of the tensor (N, C, H, W), and entry.json, all
else, with a checksum (CRC-32) of itself and of each block of the images. KEY is the hash of the paths, sizes and times
of change of the source's files, the size, channels and frames asked for and the version of the decoding: a file that
changes gives another key. At each opening some blocks are compared with their checksums, and all of them where the file
was changed; an entry that is damaged is made again.

An entry is written in a draft beside its place and put there in one move, so that processes that decode the same source
at once do not meet. The next opening of any source removes what a process that was killed had begun, and entries not
opened for KEEP_DAYS. A source of less than SMALL bytes decoded is not kept. All of this may fail: then the images stay
in memory, or in a file without a name.
"""

import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import PIL
import torch
from torch import Tensor

from trilemma.data.decoding.decode import Room
from trilemma.data.decoding.decoded import DecodedSource
from trilemma.data.decoding.drafts import (
    DAY_S,
    PREFIX,
    Draft,
    read_checked,
    remove_left_over,
    sampled,
    seal,
    write_checked,
)
from trilemma.data.decoding.limits import check_count, memory_limit, most_items
from trilemma.data.decoding.listing import HIDDEN
from trilemma.data.decoding.storage import create, let_go, mapped, nameless, room_for
from trilemma.data.decoding.walk import walk
from trilemma.data.options import Options
from trilemma.errors import UserError
from trilemma.files import cache_dir

VERSION = 7  # of the listing, the decoding and the entries
SMALL = 2**23  # bytes
KEEP_DAYS = 30
IMAGES, ENTRY, NEW = "images.u8", "entry.json", "entry"  # in a draft, the folder NEW becomes the entry
PART = 2**18  # bytes that have a checksum
PLAIN = [f.name for f in fields(DecodedSource) if f.name not in ("images", "large", "folder")]


def read_cached(
    paths: Sequence[Path], options: Options, read: Callable[[Room], DecodedSource], *extra: str
) -> DecodedSource:
    """What `read` makes of the files at `paths` (folders with all that is in them), from the cache if it is there.

    Args:
        read: takes the place for the images; see `decode`.
        extra: what else the result depends on, beside the size and the channels.
    """
    limit = [f"most {options.most_px} px"] if options.most_px and not options.size else []
    key = key_of(paths, options.size, options.channels, *extra, *limit)
    entry = _recall(_folder() / key)
    _tidy(_folder())
    if entry:
        return entry
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


def _stamps(path: str) -> Iterator[bytes]:
    """Name, size and times of change of a file, or of all files below a folder, in order.

    The time of the last change of the entry (ctime) counts too: tools that copy set the other one back.
    """
    if not os.path.isdir(path):
        yield _stamp(os.stat(path))
        return
    most, count, links, closed = most_items(), 0, [], []
    for folder in walk(path, lambda *what: closed.append(what), links, hidden=lambda name: bool(HIDDEN.search(name))):
        yield os.fsencode(folder.path) + b"\0"
        for entry in folder.files:
            try:
                stamp = _stamp(entry.stat())
            except OSError:  # a broken link
                stamp = b"broken\0"
            yield os.fsencode(entry.name) + b" " + stamp
        check_count(count := count + len(folder.files), most)
    yield os.fsencode(json.dumps([links, closed]))


def _stamp(status: os.stat_result) -> bytes:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\0".encode()


def _folder() -> Path:
    return cache_dir() / "decoded"


def _recall(folder: Path) -> DecodedSource | None:
    """An entry, if it exists and is whole."""
    try:
        entry = json.loads(read_checked(folder / ENTRY))
        shape, sums = tuple(entry.pop("shape")), entry.pop("sums")
        count = int(torch.Size(shape).numel())
        if (folder / IMAGES).stat().st_size != count:
            return None
        images = mapped(folder / IMAGES, shape)
        if not _is_whole(folder / IMAGES, images, sums):
            return None
        values: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in entry.items()}
        with suppress(OSError):
            os.utime(folder)
        return DecodedSource(images=images, large=count > memory_limit(), folder=folder, **values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_whole(path: Path, images: Tensor, sums: list[int]) -> bool:
    """Whether the blocks that are compared have their checksums: some of a sealed file, all of another, which is then
    sealed again."""
    places = sampled(path, len(sums), PART)
    parts = images.reshape(-1).split(PART) if len(sums) else ()
    whole = len(parts) == len(sums) and all(zlib.crc32(parts[k].numpy().data) == sums[k] for k in places)
    if len(places) * PART > SMALL:
        let_go(images)
    if whole and len(places) == len(sums):
        with suppress(OSError):
            seal(path)
    return whole


class _CacheRoom(Room):
    """Memory for few images, else a file that becomes an entry; or one without a name."""

    def __init__(self) -> None:
        self.draft: Draft | None = None
        self.in_file = False

    @property
    def shared(self) -> bool:  # pyright: ignore
        return self.in_file

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Room for a uint8 tensor; the last one is given up."""
        self.drop()
        count, limit = int(torch.Size(shape).numel()), memory_limit()
        self.in_file = count >= SMALL or count > limit
        if self.in_file:
            try:
                return self._in_cache(shape, count)
            except (OSError, UserError) as error:
                self.drop()
                self.in_file = count > limit
                why = error
            if self.in_file:
                return self._elsewhere(shape, count, limit, why)
        return torch.empty(shape, dtype=torch.uint8)

    def _in_cache(self, shape: tuple[int, ...], count: int) -> Tensor:
        if not room_for(_folder(), count):
            raise UserError(f"{_folder()} has too little room")
        self.draft = Draft(_folder())
        return create(self.draft.path / NEW / IMAGES, shape)

    def _elsewhere(self, shape: tuple[int, ...], count: int, limit: int, why: Exception) -> Tensor:
        try:
            return nameless(shape)
        except (OSError, UserError) as error:
            raise UserError(
                f"the decoded images are {count:,} bytes, more than the {limit:,} that memory allows, and cannot be "
                f"kept on the disk: {why}; make room, set TRILEMMA_CACHE to a folder on another disk, or give a "
                "smaller size="
            ) from error

    def keep(self, decoded: DecodedSource, folder: Path) -> DecodedSource:
        """Put what was decoded in its place in the cache; nothing happens to what lies in memory."""
        try:
            entry = self._put(decoded, folder, self.draft) if self.draft else None
        except (OSError, UserError):
            entry = None
        self.drop()
        return entry or replace(decoded, large=decoded.images.numel() > memory_limit())

    def _put(self, decoded: DecodedSource, folder: Path, draft: Draft) -> DecodedSource | None:
        """The entry, as it is opened again."""
        new, count = draft.path / NEW, decoded.images.numel()
        decoded = replace(decoded, notes=(*decoded.notes, f"decoded once into {folder} ({count:,} bytes)"))
        os.truncate(new / IMAGES, count)  # without those that could not be read
        seal(new / IMAGES)
        sums = [zlib.crc32(part.numpy().data) for part in decoded.images.reshape(-1).split(PART)] if count else []
        entry = {"shape": list(decoded.images.shape), "sums": sums, **{key: getattr(decoded, key) for key in PLAIN}}
        write_checked(new / ENTRY, json.dumps(entry))
        try:
            os.rename(new, folder)
        except OSError:  # another process was first, or an entry there is damaged
            if entry := _recall(folder):
                return entry
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(new, folder)
        return _recall(folder)

    def drop(self) -> None:
        if self.draft is not None:
            self.draft.close()
            self.draft = None


def _tidy(folder: Path) -> None:
    """Remove what a process that was ended left, and what was not opened for long."""
    remove_left_over(folder)
    with suppress(OSError):
        for entry in folder.iterdir():
            if not entry.name.startswith(PREFIX) and time.time() - entry.stat().st_mtime > KEEP_DAYS * DAY_S:
                shutil.rmtree(entry, ignore_errors=True)
