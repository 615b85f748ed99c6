"""What archives unpack to, within bounds: the bytes that come out are counted, whatever a header says of them.

A packed file may become RATIO times as long, or SMALL bytes where that is more. Pictures are packed already, so that
honest archives of them stay far below; arrays of black and white drawings reach 115. A compressed tar tells what it
holds only as it is unpacked, so that it may become STREAM_RATIO times as long.
"""

import bz2
import gzip
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from trilemma.errors import UserError

RATIO, STREAM_RATIO, SMALL = 200, 50, 2**28
DICTIONARY = 2**27  # bytes of memory for LZMA's dictionary: twice what 7-Zip and xz take at their highest levels
BLOCK = 2**20  # bytes handled at a time

UNPACKERS: dict[bytes, Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]] = {  # by the first two bytes
    b"BZ": bz2.BZ2Decompressor,
    b"\xfd7": partial(lzma.LZMADecompressor, memlimit=DICTIONARY),
}
GZIP = b"\x1f\x8b"
ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)  # of broken archives


def check_unpacked(path: Path, count: int, *, stream: bool = False) -> None:
    """Raises UserError where a file unpacks to more bytes than it may."""
    packed = os.stat(path).st_size
    if count > (most := max(SMALL, (STREAM_RATIO if stream else RATIO) * packed)):
        raise UserError(
            f"{path} has {packed:,} bytes and unpacks to {count:,} or more, of which {most:,} would be read; if you "
            "trust it, unpack it yourself and give the folder"
        )


def is_packed(file: IO[bytes]) -> bool:
    """Whether a file is of a kind that `unpacked` reads; it is left at its beginning."""
    head = file.read(2)
    file.seek(0)
    return head == GZIP or head in UNPACKERS


def unpacked(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a .gz, .bz2 or .xz file, at most BLOCK bytes at a time.

    Raises:
        Any of ERRORS: it is broken.
    """
    head = file.read(2)
    file.seek(0)
    if head == GZIP:
        with gzip.GzipFile(fileobj=file) as whole:
            yield from iter(lambda: whole.read(BLOCK), b"")
        return
    packed = file.read(BLOCK)
    while packed:  # one stream after the other
        unpacker = UNPACKERS[head]()
        while not unpacker.eof:
            if unpacker.needs_input and not (packed := packed or file.read(BLOCK)):
                raise EOFError("the compressed file ends early")
            yield unpacker.decompress(packed, BLOCK)
            packed = b""
        packed = unpacker.unused_data.lstrip(b"\0") or file.read(BLOCK).lstrip(b"\0")


def inflate(content: bytes, info: zipfile.ZipInfo) -> bytes:
    """The content of a member of a zip, at most a byte more than its length there.

    Raises:
        ValueError: it is packed by a method that is not read.
        Any of ERRORS: it is broken.
    """
    if info.flag_bits & 1:
        raise ValueError("encrypted; unpack the archive yourself")
    most = info.file_size + 1
    if info.compress_type == zipfile.ZIP_STORED:
        return content
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, most)
    if info.compress_type == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor().decompress(content, most)
    if info.compress_type == zipfile.ZIP_LZMA:  # APPNOTE 5.8.8: version, length of the settings (5 bytes), settings
        alone = content[4:9] + b"\xff" * 8 + content[9:]  # as a file of its own whose length is not given
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE, DICTIONARY).decompress(alone, most)
    raise ValueError(f"packed by method {info.compress_type}, which is not read; pack it again as a plain zip")
