"""The members of a tar file, header by header and within bounds: ustar and pax (POSIX.1-2001), GNU's long names.

tarfile reads a long name or a pax header as a whole, whatever its length, and one inside another by recursion; some of
its versions need a time that is quadratic in it. Here it decodes one block of 512 bytes at a time (`TarInfo.frombuf`).
"""

import os
import tarfile
from collections.abc import Iterator
from tarfile import GNUTYPE_LONGLINK, GNUTYPE_LONGNAME, GNUTYPE_SPARSE, SOLARIS_XHDTYPE, XGLTYPE, XHDTYPE, TarInfo
from typing import IO

BLOCK = tarfile.BLOCKSIZE
HEADER_LIMIT = 2**20  # bytes of a long name or a pax header
IN_A_ROW = 16  # of these before one member
DIGITS = 7  # of the length of a record in a pax header
LONG = {GNUTYPE_LONGNAME: "path", GNUTYPE_LONGLINK: "linkpath"}
PAX = (XHDTYPE, SOLARIS_XHDTYPE, XGLTYPE)
SPARSE = "GNU.sparse."  # begins the keys of a file with holes
WANTED = ("path", "linkpath", "size", f"{SPARSE}name", f"{SPARSE}major", f"{SPARSE}map", f"{SPARSE}numblocks")
MAP_GOES_ON, BLOCK_GOES_ON = 482, 504  # where the header of a file with holes, and a block of its map, say so


def members(file: IO[bytes]) -> Iterator[TarInfo]:
    """The members in order, with names, links, lengths and offsets as the headers before them say.

    Raises:
        tarfile.TarError: the archive breaks off, or a header is broken or beyond the bounds.
    """
    end, at = file.seek(0, os.SEEK_END), 0
    shared: dict[str, str] = {}  # by a pax header for all that follow
    while True:
        own: dict[str, str] = {}  # for the next member
        for _ in range(IN_A_ROW + 1):
            info = _header(file, at, end)
            if info is None:
                return
            info.offset, at = at, at + BLOCK
            if info.type not in (*LONG, *PAX):
                break
            content = _content(file, info, at)
            at += _blocks(info.size)
            if info.type in LONG:
                own.setdefault(LONG[info.type], content.partition(b"\0")[0].decode("utf-8", "surrogateescape"))
            elif info.type == XGLTYPE:
                shared |= _records(content)
            else:
                own = _records(content) | own
        else:
            raise tarfile.ReadError(f"more than {IN_A_ROW} headers before one member, at byte {at:,}")
        if info.type == GNUTYPE_SPARSE:
            at = _after_map(file, info, at)
        info.offset_data = at
        _apply(shared | own, info)
        if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES:
            at += _blocks(info.size)
        yield info


def _header(file: IO[bytes], at: int, end: int) -> TarInfo | None:
    """The header at a place; None at the end of the archive."""
    if at > end:
        raise tarfile.ReadError("the archive ends early")
    file.seek(at)
    block = file.read(BLOCK)
    if (not block and at) or block.count(b"\0") == BLOCK:
        return None
    info = TarInfo.frombuf(block, "utf-8", "surrogateescape")
    if info.size < 0:
        raise tarfile.ReadError(f"a length below zero at byte {at:,}")
    return info


def _content(file: IO[bytes], info: TarInfo, at: int) -> bytes:
    """What stands in a header that says more of the next member."""
    if info.size > HEADER_LIMIT:
        raise tarfile.ReadError(f"a header of {info.size:,} bytes at byte {at:,}; at most {HEADER_LIMIT:,} are read")
    file.seek(at)
    content = file.read(info.size)
    if len(content) < info.size:
        raise tarfile.ReadError("the archive ends early")
    return content


def _records(content: bytes) -> dict[str, str]:
    """The WANTED among the records of a pax header, each "LENGTH KEY=VALUE" and a line break, its length included.

    >>> _records(b"15 path=a/b.png" + chr(10).encode())
    Traceback (most recent call last):
    tarfile.ReadError: a broken pax header
    >>> _records(b"16 path=a/b.png" + chr(10).encode())
    {'path': 'a/b.png'}
    """
    records, at = {}, 0
    while at < len(content) and content[at]:
        space = content.find(b" ", at, at + DIGITS + 1)
        length = content[at : max(space, at)]
        stop = at + int(length) if length.isdigit() else at
        key, equals, value = content[space + 1 : stop - 1].partition(b"=")
        if not at < space < stop <= len(content) or not equals or content[stop - 1] != ord("\n"):
            raise tarfile.ReadError("a broken pax header")
        if (name := key.decode("utf-8", "replace")) in WANTED:
            records[name] = value.decode("utf-8", "surrogateescape")
        at = stop
    return records


def _apply(records: dict[str, str], info: TarInfo) -> None:
    """Change a member as the headers before it say."""
    info.name = records.get(f"{SPARSE}name", records.get("path", info.name)).rstrip("/")
    info.linkname = records.get("linkpath", info.linkname)
    if size := records.get("size"):
        if not (size.isdecimal() and len(size) < 20):
            raise tarfile.ReadError("a broken length in a pax header")
        info.size = int(size)
    if info.type == GNUTYPE_SPARSE or any(key.startswith(SPARSE) for key in records):
        info.sparse = b""  # what makes it `issparse()`


def _after_map(file: IO[bytes], info: TarInfo, at: int) -> int:
    """Where the content of a file with holes begins, after the blocks of its map."""
    file.seek(info.offset + MAP_GOES_ON)
    while file.read(1) not in (b"", b"\0"):
        file.seek(at + BLOCK_GOES_ON)
        at += BLOCK
    return at


def _blocks(size: int) -> int:
    """A length in whole blocks."""
    return -(-size // BLOCK) * BLOCK
