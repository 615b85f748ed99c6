"""The content of members of zip and tar files, read by offset, so that threads do not wait for one another.

A member of a zip (PKWARE APPNOTE, 4.3.7) has a header of 30 bytes, whose last four are the lengths of the name and the
extra field before its content.
"""

import io
import os
import struct
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import IO

from trilemma.data.decoding.pixels import check_length
from trilemma.data.decoding.unpack import ERRORS, check_unpacked, inflate
from trilemma.errors import UserError
from trilemma.files import open_plain

_lock = Lock()  # where bytes cannot be read by offset


def open_zip(stack: ExitStack, path: Path) -> zipfile.ZipFile:
    """A zip, open until the stack ends.

    Raises:
        UserError: it is broken, or unpacks to too much.
    """
    try:
        archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(open_plain(path))))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, *ERRORS) as error:
        raise UserError(f"{path} is not a whole zip file: {error}; make or fetch it again") from error
    check_unpacked(path, sum(info.file_size for info in archive.infolist()))
    return archive


def zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """The content of one member, checked."""
    check_length(max(info.file_size, info.compress_size))
    assert archive.fp is not None
    lengths = struct.unpack("<HH", _read_at(archive.fp, info.header_offset + 26, 4))
    content = inflate(_read_at(archive.fp, info.header_offset + 30 + sum(lengths), info.compress_size), info)
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise ValueError("damaged in the archive: its checksum is wrong")
    return io.BytesIO(content)


def slice_of(file: IO[bytes], first: int, length: int) -> IO[bytes]:
    """Some bytes of an open file, as a file."""
    check_length(length)
    return io.BytesIO(_read_at(file, first, length))


def _read_at(file: IO[bytes], first: int, length: int) -> bytes:
    """That many bytes of an open archive, which other threads may read too."""
    if hasattr(os, "pread"):
        content = os.pread(file.fileno(), length, first)
    else:
        with _lock:
            file.seek(first)
            content = file.read(length)
    if len(content) < length:
        raise ValueError("cut short by the end of its archive")
    return content
