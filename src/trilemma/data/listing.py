"""The files of a folder, a zip or tar files, each with a way to read it; nothing is ever extracted to its name.

Bytes of archives are read by offset, so that threads do not wait for one another. A member of a zip (PKWARE APPNOTE,
4.3.7) has a header of 30 bytes, whose last four are the lengths of the name and the extra field before its content.
"""

import bz2
import gzip
import io
import lzma
import math
import os
import posixpath
import re
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import IO

from trilemma.data.links import end, folders_of, linked
from trilemma.data.pixels import SUFFIXES, Item, check_length, open_file
from trilemma.data.storage import room_for
from trilemma.errors import UserError

# What systems leave in folders: thumbnails, deleted files, older versions. The names of Synology, QNAP, Windows, Linux
# and macOS, in this order.
SYSTEM = (
    *("@eaDir", "@tmp", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot"),
    *("$RECYCLE.BIN", "RECYCLER", "System Volume Information", "Thumbs.db", "ehthumbs.db", "desktop.ini"),
    *("lost+found", "__MACOSX"),
)
HIDDEN = re.compile(rf"(^|/)(\.(?!\./)[^/]+|{'|'.join(map(re.escape, SYSTEM))})(/|$)", re.IGNORECASE)
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVES = (*TARS, ".zip")
STEM = re.compile(f"({'|'.join(map(re.escape, ARCHIVES))})$", re.IGNORECASE)
PACKED = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}  # by their first two bytes
BROKEN = "{}: not a whole tar file: {}"
BLOCK = 2**20
TAR_BLOCK = 512  # bytes
CLOSED = "archives beside unpacked images, which are read instead; give an archive's path to read it"
TWIN = "archives beside a larger one of the same name, which is read instead"
LESS = "images beside larger archives or tables, which are read instead; put the images into a folder of their own"
_lock = Lock()  # where bytes cannot be read by offset


@dataclass(frozen=True)
class Listing:
    """files: sorted by archive and name, without hidden ones; skipped: "name: reason" where an archive breaks off, a
    folder cannot be listed, or a member of a tar is no file and leads to none; links: "name to folder" for each link
    to a folder that is read under another name; hidden: folders of systems and dotted ones; left_out: why, and which
    files, where a folder holds both images and archives of them."""

    files: list[Item]
    skipped: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)


@contextmanager
def listed(path: Path) -> Iterator[Listing]:
    """The files of a folder, a zip or a tar, as long as they may be read; of a folder of archives, what they hold.

    Raises:
        UserError: a zip or tar that cannot be opened at all.
    """
    with ExitStack() as stack:
        found = Listing([])
        if path.is_dir():
            _walk(path, found)
            _open_archives(stack, path, found)
        elif path.name.lower().endswith(TARS):
            _add_tar(stack, path, "", found)
            if not found.files:
                raise UserError(f"{found.skipped[0] if found.skipped else path} and nothing in it can be read")
        else:
            found.files.extend(_members(stack, path, ""))
        hidden = {item.name[: match.end()].rstrip("/") for item in found.files if (match := _hidden_folder(item.name))}
        files = [item for item in found.files if not HIDDEN.search(item.name)]
        files.sort(key=lambda item: (item.shard, nfc(item.name), item.name))
        yield Listing(files, found.skipped, found.links, sorted({*found.hidden, *hidden}), found.left_out)


def _hidden_folder(name: str) -> re.Match[str] | None:
    match = HIDDEN.search(name)
    return match if match and match.end() < len(name) else None


def files_below(path: Path, suffixes: tuple[str, ...]) -> dict[str, int]:
    """Name and bytes of the files below a folder that end so, without hidden ones."""
    found = Listing([])
    _walk(path, found)
    return _sizes(path, [item.name for item in found.files if item.name.lower().endswith(suffixes)])


def _sizes(root: Path, names: Iterable[str]) -> dict[str, int]:
    sizes = {}
    for name in sorted(name for name in names if not HIDDEN.search(name)):
        with suppress(OSError):  # a broken link
            sizes[name] = (root / name).stat().st_size
    return sizes


def outweighs(others: dict[str, int], images: dict[str, int]) -> bool:
    """Whether archives or tables hold more than the images beside them, by their bytes.

    Each image counts as much as in a plain tar: a header (of three blocks at most, in practice) and its bytes in whole
    blocks; a tar ends in a record. So an archive of these very images does not outweigh them.
    """
    packed = sum(TAR_BLOCK * (3 + math.ceil(size / TAR_BLOCK)) for size in images.values())
    tars = sum(name.lower().endswith(TARS) for name in others)
    return sum(others.values()) > (packed + tarfile.RECORDSIZE * tars if images else 0)


def _open_archives(stack: ExitStack, path: Path, found: Listing) -> None:
    """Put the files of the archives in a folder in their place; or leave them closed, where images lie beside them."""
    archives = _sizes(path, [item.name for item in found.files if item.name.lower().endswith(ARCHIVES)])
    images = (
        _sizes(path, [item.name for item in found.files if item.name.lower().endswith(SUFFIXES)]) if archives else {}
    )
    found.files[:] = [item for item in found.files if item.name not in archives]
    largest = {STEM.sub("", name): name for name in sorted(archives, key=lambda name: archives[name])}
    if twins := sorted(set(archives) - set(largest.values())):
        found.left_out[TWIN] = twins
        archives = {name: size for name, size in archives.items() if name not in twins}
    if images and not outweighs(archives, images):
        found.left_out[CLOSED] = sorted(archives)
        return
    if images:
        found.left_out[LESS] = sorted(images)
        found.files[:] = [item for item in found.files if item.name not in images]
    if len(archives) == 1:
        found.files[:] = [_as_inside(item, *archives) for item in found.files]
    for name in archives:
        if name.lower().endswith(TARS):
            _add_tar(stack, path / name, name, found)
        else:
            _add_zip(stack, path / name, name, found)


def _as_inside(item: Item, archive: str) -> Item:
    """A file beside the only archive as one in it, so that metadata meets its images."""
    folder, name = posixpath.split(item.name)
    return replace(item, name=name, shard=archive) if folder == posixpath.dirname(archive) else item


def _add_zip(stack: ExitStack, path: Path, shard: str, found: Listing) -> None:
    """Add the files of one zip of several."""
    try:
        found.files.extend(_members(stack, path, shard))
    except UserError as error:
        found.skipped.append(f"{shard}: {error}")


def nfc(name: str) -> str:
    """One spelling for letters that can be composed in several ways."""
    return unicodedata.normalize("NFC", name)


def _walk(root: Path, found: Listing) -> None:
    """Add all files below a folder. Links to folders are followed after all else, so that of a folder and links to it
    the folder is read; each folder once, under the first name."""
    seen: dict[str, str] = {}
    waiting = [os.fspath(root)]
    while waiting:
        waiting = [link for start in waiting for link in _add_folder(start, root, seen, found)]


def _add_folder(start: str, root: Path, seen: dict[str, str], found: Listing) -> list[str]:
    """Add the files below a folder but not behind links to folders, which are returned.

    Args:
        seen: the name of each real folder that was read; those met here are added.
    """
    links = []

    def closed(error: OSError) -> None:
        found.skipped.append(f"{_name(error.filename or start, root)}: cannot be listed: {error.strerror}")

    for folder, folders, files in os.walk(start, onerror=closed):
        name, real = _name(folder, root), os.path.realpath(folder)
        if real in seen:
            found.links.append(f"{name} to {seen[real]}")
            folders.clear()
            continue
        seen[real] = name
        found.hidden.extend(_name(os.path.join(folder, f), root) for f in folders if HIDDEN.search(f))
        folders[:] = sorted(f for f in folders if not HIDDEN.search(f))  # not read, so that a link to it is followed
        links += [path for f in folders if os.path.islink(path := os.path.join(folder, f))]
        for file in files:
            path = os.path.join(folder, file)
            found.files.append(Item(_name(path, root), partial(open_file, path)))
    return links


def _name(path: str, root: Path) -> str:
    """The name of a file or folder from the root."""
    return os.fsencode(Path(os.path.relpath(path, root)).as_posix()).decode(errors="replace")


def _members(stack: ExitStack, path: Path, shard: str) -> Iterator[Item]:
    """All files of a zip."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise UserError(f"{path} is not a whole zip file: {error}; make or fetch it again") from error
    for info in archive.infolist():
        if not info.is_dir():
            yield Item(info.filename.replace("\\", "/"), partial(_member, archive, info), shard)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """The content of one member, checked."""
    check_length(info.file_size)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1 or os.name == "nt":
        return io.BytesIO(archive.read(info))
    assert archive.fp is not None
    file = archive.fp.fileno()
    start = info.header_offset + 30 + sum(struct.unpack("<HH", os.pread(file, 4, info.header_offset + 26)))
    content = os.pread(file, info.compress_size, start)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, info.file_size + 1)
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise ValueError("damaged in the archive: its checksum is wrong")
    return io.BytesIO(content)


def _add_tar(stack: ExitStack, path: Path, shard: str, found: Listing) -> None:
    """Add the files of a tar, up to where it breaks off; a compressed one is read into a temporary file first."""
    name = shard or str(path)
    try:
        file = stack.enter_context(open(path, "rb"))  # noqa: SIM115
        if opener := PACKED.get(file.read(2)):
            file = _unpacked(stack, path, opener, name, found)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            _add_members(_infos(archive, name, found), file, shard, found)
    except (tarfile.TarError, OSError) as error:
        found.skipped.append(BROKEN.format(name, error))


def _infos(archive: tarfile.TarFile, name: str, found: Listing) -> Iterator[tarfile.TarInfo]:
    """The members, up to where the archive breaks off."""
    try:
        yield from archive
    except (tarfile.TarError, OSError) as error:
        found.skipped.append(BROKEN.format(name, error))


def _add_members(infos: Iterable[tarfile.TarInfo], file: IO[bytes], shard: str, found: Listing) -> None:
    """Add the files of a tar; a hard link is the file of that name before it, a symbolic one may lead to a later."""
    opens: dict[str, Callable[[], IO[bytes]]] = {}  # the last file of each name
    links: dict[str, str] = {}
    for info in infos:
        name = info.name.replace("\\", "/")
        plain, to = posixpath.normpath(name), linked(info)
        open_ = opens.get(to) if info.islnk() else None
        if info.isreg() and not info.issparse():
            open_ = partial(_slice, file, info.offset_data, info.size)
        if to == plain and open_:  # tar writes so what it was given twice
            continue
        if open_:
            opens[plain] = open_
            found.files.append(Item(name, open_, shard))
        elif to:
            links[plain] = to
        elif not info.isdir():
            _skip(name, "neither a plain file nor a link", shard, found)
    _add_links(links, opens, shard, found)


def _add_links(links: dict[str, str], opens: dict[str, Callable[[], IO[bytes]]], shard: str, found: Listing) -> None:
    """Add the files that links lead to; a folder in the archive is read there, where it is not hidden."""
    folders = folders_of(opens) if links else set()
    for name, first in links.items():
        to = end(first, links)
        if to in opens:
            found.files.append(Item(name, opens[to], shard))
        elif to in folders and not HIDDEN.search(to) and not HIDDEN.search(name):
            found.links.append(f"{_in(shard, name)} to {to}")
        else:
            what = "a hidden folder" if to in folders else "no file of this archive"
            _skip(name, f"a link to {first}, which is {what}", shard, found)


def _skip(name: str, reason: str, shard: str, found: Listing) -> None:
    """Name what cannot be read, where it is not hidden."""
    if not HIDDEN.search(name):
        found.skipped.append(f"{_in(shard, name)}: {reason}")


def _in(shard: str, name: str) -> str:
    return f"{shard}:{name}" if shard else name


def _unpacked(stack: ExitStack, path: Path, opener: object, name: str, found: Listing) -> IO[bytes]:
    """The bytes of a compressed file in a temporary one, which goes when the stack ends."""
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    try:
        with opener(path) as packed:  # pyright: ignore
            while block := packed.read(BLOCK):
                if not room_for(Path(tempfile.gettempdir()), len(block)):
                    raise OSError(f"no room to unpack it in {tempfile.gettempdir()}")
                file.write(block)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        found.skipped.append(f"{name}: breaks off: {error}")
    file.flush()
    return file


def _slice(file: IO[bytes], first: int, length: int) -> IO[bytes]:
    """Some bytes of an open file."""
    check_length(length)
    if hasattr(os, "pread"):
        content = os.pread(file.fileno(), length, first)
    else:
        with _lock:
            file.seek(first)
            content = file.read(length)
    if len(content) < length:
        raise ValueError("cut short by the end of its archive")
    return io.BytesIO(content)
