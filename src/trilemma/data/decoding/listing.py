"""The files of a folder, a zip or tar files, each with a way to read it; nothing is ever extracted to its name.

How many files a source may have follows from the memory that is given: each takes some, whatever its length.
"""

import math
import posixpath
import re
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

from trilemma.data.decoding.archives import open_zip, slice_of, zip_member
from trilemma.data.decoding.limits import check_count, most_items
from trilemma.data.decoding.pixels import SUFFIXES, Item, open_file
from trilemma.data.decoding.storage import room_for
from trilemma.data.decoding.tar import members
from trilemma.data.decoding.unpack import ERRORS, check_unpacked, is_packed, unpacked
from trilemma.data.decoding.walk import below, end, folders_of, linked, walk
from trilemma.errors import UserError
from trilemma.files import open_plain

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
BROKEN = "{}: not a whole tar file: {}"
TAR_BLOCK = 512  # bytes
CLOSED = "archives beside unpacked images, which are read instead; give an archive's path to read it"
TWIN = "archives beside a larger one of the same name, which is read instead"
LESS = "images beside larger archives or tables, which are read instead; put the images into a folder of their own"


@dataclass(frozen=True)
class Listing:
    """files: sorted by archive and name, without hidden ones; skipped: "name: reason" where an archive breaks off, a
    folder cannot be listed, or a member of a tar is not a file and leads to none; links: "name to folder" for each link
    to a folder that is read under another name; hidden: folders of systems and dotted ones; left_out: why, and which
    files, in a folder with both images and archives; most: files that there may be."""

    files: list[Item]
    skipped: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    most: int = field(default_factory=most_items)

    def add(self, item: Item) -> None:
        self.files.append(item)
        check_count(len(self.files), self.most)

    def skip(self, text: str) -> None:
        self.skipped.append(text)
        check_count(len(self.skipped), self.most)


@contextmanager
def listed(path: Path) -> Iterator[Listing]:
    """The files of a folder, a zip or a tar, while they may be read; of a folder of archives, what they hold.

    Raises:
        UserError: a zip or tar that cannot be opened at all.
    """
    with ExitStack() as stack:
        listing = Listing([])
        if path.is_dir():
            _walk(path, listing)
            _open_archives(stack, path, listing)
        elif path.name.lower().endswith(TARS):
            _add_tar(stack, path, "", listing)
            if not listing.files:
                raise UserError(f"{listing.skipped[0] if listing.skipped else path} and nothing in it can be read")
        else:
            _add_members(open_zip(stack, path), "", listing)
        hidden = {
            item.name[: match.end()].rstrip("/") for item in listing.files if (match := _hidden_folder(item.name))
        }
        files = [item for item in listing.files if not HIDDEN.search(item.name)]
        files.sort(key=lambda item: (item.shard, nfc(item.name), item.name))
        yield Listing(files, listing.skipped, listing.links, sorted({*listing.hidden, *hidden}), listing.left_out)


def _hidden_folder(name: str) -> re.Match[str] | None:
    match = HIDDEN.search(name)
    return match if match and match.end() < len(name) else None


def files_below(path: Path, suffixes: tuple[str, ...]) -> dict[str, int]:
    """Name and bytes of the files below a folder that end so, without hidden ones."""
    listing = Listing([])
    _walk(path, listing)
    return _sizes(path, [item.name for item in listing.files if item.name.lower().endswith(suffixes)])


def _sizes(root: Path, names: Iterable[str]) -> dict[str, int]:
    sizes = {}
    for name in sorted(name for name in names if not HIDDEN.search(name)):
        with suppress(OSError):  # a broken link
            status = (root / name).stat()
            if stat.S_ISREG(status.st_mode):
                sizes[name] = status.st_size
    return sizes


def outweighs(others: dict[str, int], images: dict[str, int]) -> bool:
    """Whether archives or tables hold more than the images beside them, by their bytes.

    Each image counts as much as in a plain tar: a header (of three blocks at most, in practice) and its bytes in whole
    blocks; a tar ends in a record. So an archive of these very images does not outweigh them.
    """
    packed = sum(TAR_BLOCK * (3 + math.ceil(size / TAR_BLOCK)) for size in images.values())
    tars = sum(name.lower().endswith(TARS) for name in others)
    return sum(others.values()) > (packed + tarfile.RECORDSIZE * tars if images else 0)


def _open_archives(stack: ExitStack, path: Path, listing: Listing) -> None:
    """Put the files of the archives in a folder in their place; or leave them closed, where images lie beside them."""
    archives = _sizes(path, [item.name for item in listing.files if item.name.lower().endswith(ARCHIVES)])
    images = (
        _sizes(path, [item.name for item in listing.files if item.name.lower().endswith(SUFFIXES)]) if archives else {}
    )
    listing.files[:] = [item for item in listing.files if item.name not in archives]
    largest = {STEM.sub("", name): name for name in sorted(archives, key=lambda name: archives[name])}
    if twins := sorted(set(archives) - set(largest.values())):
        listing.left_out[TWIN] = twins
        archives = {name: size for name, size in archives.items() if name not in twins}
    if images and not outweighs(archives, images):
        listing.left_out[CLOSED] = sorted(archives)
        return
    if images:
        listing.left_out[LESS] = sorted(images)
        listing.files[:] = [item for item in listing.files if item.name not in images]
    if len(archives) == 1:
        listing.files[:] = [_as_inside(item, *archives) for item in listing.files]
    for name in archives:
        if name.lower().endswith(TARS):
            _add_tar(stack, path / name, name, listing)
        else:
            _add_zip(stack, path / name, name, listing)


def _as_inside(item: Item, archive: str) -> Item:
    """A file beside the only archive as one in it, so that metadata meets its images."""
    folder, name = posixpath.split(item.name)
    return replace(item, name=name, shard=archive) if folder == posixpath.dirname(archive) else item


def _add_zip(stack: ExitStack, path: Path, shard: str, listing: Listing) -> None:
    """Add the files of one zip of several."""
    try:
        archive = open_zip(stack, path)
    except UserError as error:
        listing.skip(f"{shard}: {error}")
        return
    _add_members(archive, shard, listing)


def nfc(name: str) -> str:
    """One spelling for letters that can be composed in several ways."""
    return unicodedata.normalize("NFC", name)


def _walk(root: Path, listing: Listing) -> None:
    """Add all files below a folder; each folder once, hidden ones not at all."""

    def closed(name: str, why: str) -> None:
        listing.skip(f"{name}: cannot be listed: {why}")

    for folder in walk(root, closed, listing.links, lambda name: bool(HIDDEN.search(name))):
        listing.hidden.extend(folder.passed)
        for entry in folder.files:
            listing.add(Item(below(folder.name, entry.name), partial(open_file, entry.path)))


def _add_members(archive: zipfile.ZipFile, shard: str, listing: Listing) -> None:
    """Add all files of a zip."""
    for info in archive.infolist():
        if not info.is_dir():
            listing.add(Item(info.filename.replace("\\", "/"), partial(zip_member, archive, info), shard))


def _add_tar(stack: ExitStack, path: Path, shard: str, listing: Listing) -> None:
    """Add the files of a tar, up to where it breaks off; a compressed one is read into a temporary file first."""
    name = shard or str(path)
    try:
        file = stack.enter_context(open_plain(path))
        if is_packed(file):
            file = _unpacked(stack, path, file, name, listing)
    except (OSError, UserError) as error:
        if isinstance(error, UserError) and not shard:
            raise
        listing.skip(BROKEN.format(name, error) if isinstance(error, OSError) else f"{name}: {error}")
        return
    _add_infos(_infos(file, name, listing), file, shard, listing)


def _infos(file: IO[bytes], name: str, listing: Listing) -> Iterator[tarfile.TarInfo]:
    """The members, up to where the archive breaks off."""
    try:
        yield from members(file)
    except (tarfile.TarError, OSError) as error:
        listing.skip(BROKEN.format(name, error))


def _add_infos(infos: Iterable[tarfile.TarInfo], file: IO[bytes], shard: str, listing: Listing) -> None:
    """Add the files of a tar; a hard link is the file of that name before it, a symbolic one may lead to a later."""
    opens: dict[str, Callable[[], IO[bytes]]] = {}  # the last file of each name
    links: dict[str, str] = {}
    for info in infos:
        name = info.name.replace("\\", "/")
        plain, to = posixpath.normpath(name), linked(info)
        open_ = opens.get(to) if info.islnk() else None
        if info.isreg() and not info.issparse():
            open_ = partial(slice_of, file, info.offset_data, info.size)
        if to == plain and open_:  # tar writes so what it was given twice
            continue
        if open_:
            opens[plain] = open_
            listing.add(Item(name, open_, shard))
        elif to:
            links[plain] = to
        elif not info.isdir():
            _skip(name, "neither a plain file nor a link", shard, listing)
    _add_links(links, opens, shard, listing)


def _add_links(links: dict[str, str], opens: dict[str, Callable[[], IO[bytes]]], shard: str, listing: Listing) -> None:
    """Add the files that links lead to; a folder in the archive is read there, unless it is hidden."""
    folders = folders_of(opens) if links else set()
    for name, first in links.items():
        to = end(first, links)
        if to in opens:
            listing.add(Item(name, opens[to], shard))
        elif to in folders and not HIDDEN.search(to) and not HIDDEN.search(name):
            listing.links.append(f"{_in(shard, name)} to {to}")
        else:
            what = "a hidden folder" if to in folders else "not a file of this archive"
            _skip(name, f"a link to {first}, which is {what}", shard, listing)


def _skip(name: str, reason: str, shard: str, listing: Listing) -> None:
    """Name what cannot be read, unless it is hidden."""
    if not HIDDEN.search(name):
        listing.skip(f"{_in(shard, name)}: {reason}")


def _in(shard: str, name: str) -> str:
    return f"{shard}:{name}" if shard else name


def _unpacked(stack: ExitStack, path: Path, packed: IO[bytes], name: str, listing: Listing) -> IO[bytes]:
    """The bytes of a compressed file in a temporary one, which goes when the stack ends."""
    file, count = stack.enter_context(tempfile.TemporaryFile()), 0  # noqa: SIM115
    try:
        for block in unpacked(packed):
            count += len(block)
            check_unpacked(path, count, stream=True)
            if not room_for(Path(tempfile.gettempdir()), len(block)):
                raise OSError(f"too little room to unpack it in {tempfile.gettempdir()}")
            file.write(block)
    except UserError:
        raise
    except ERRORS as error:
        listing.skip(f"{name}: breaks off: {error}")
    file.flush()
    return file
