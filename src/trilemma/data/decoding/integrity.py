"""Damage that decoders pass over: a PNG chunk whose checksum is wrong, a picture whose file ends early or continues.

PNG (ISO/IEC 15948): an 8-byte signature, then chunks of length, type, content and CRC-32 of type and content, the last
of type IEND. JPEG (ITU-T T.81): the last marker is FF D9.
"""

import io
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import IO

TRAILING = "something after the end of the picture, skipped"
NO_END = "the file ends early; all of the picture was there"
BLOCK = 2**20  # bytes read at a time
SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"tRNS", b"acTL", b"fcTL", b"fdAT")  # besides those of capital letters: transparency and frames
USED = (b"eXIf", b"iCCP")  # for the orientation and the colours, where they can be read
PROFILE_LIMIT = 2**20  # bytes of a profile, unpacked
TAIL = 2**16  # bytes at the end that are searched for a JPEG's end


def end_of_png(file: IO[bytes]) -> list[str]:
    """Words about the end of a PNG.

    Raises:
        ValueError: a chunk that holds the picture is cut, or its checksum is wrong.
    """
    for kind, length in _chunks(file):
        if kind == b"IEND":
            file.seek(length + 4, os.SEEK_CUR)
            return [TRAILING] if file.read(1) else []
        if not kind[:1].isupper():  # not needed for the picture
            continue
        crc = zlib.crc32(kind)
        while length and (block := file.read(min(length, BLOCK))):
            crc, length = zlib.crc32(block, crc), length - len(block)
        stored = file.read(4)
        if length or len(stored) < 4:
            raise ValueError("the file is cut short")
        if int.from_bytes(stored, "big") != crc:
            raise ValueError(f"damaged: the checksum of its chunk {kind.decode('latin-1')} is wrong")
    return [NO_END]


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Type and length of each chunk of a PNG, with the file at its content."""
    at = len(SIGNATURE)
    file.seek(at)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        yield head[4:], length
        at += length + 12
        file.seek(at)


def needed(file: IO[bytes]) -> list[tuple[int, int]] | None:
    """The ranges of a PNG or JPEG, from one byte up to another, without the parts that the picture does not need and
    that may be broken or too long; None if there are none, or the file is neither."""
    file.seek(0)
    head = file.read(len(SIGNATURE))
    parts = _parts_of_png(file) if head == SIGNATURE else _parts_of_jpeg(file) if head.startswith(b"\xff\xd8") else ()
    ranges, left_out = [(0, 0)], False
    for start, stop, wanted in parts:
        if wanted:
            ranges[-1:] = [(ranges[-1][0], stop)] if ranges[-1][1] == start else [ranges[-1], (start, stop)]
        left_out = left_out or not wanted
    return ranges if left_out else None


def _parts_of_png(file: IO[bytes]) -> Iterator[tuple[int, int, bool]]:
    """Where each part begins and ends, and whether it is needed."""
    stop = len(SIGNATURE)
    yield 0, stop, True
    for kind, length in _chunks(file):
        start, stop = stop, stop + length + 12
        yield start, stop, kind[:1].isupper() or kind in NEEDED or (kind in USED and _is_whole(kind, file, length))


def _parts_of_jpeg(file: IO[bytes]) -> Iterator[tuple[int, int, bool]]:
    """As of a PNG, up to the scan: of the segments for applications, EXIF and Adobe's kind of colour are needed."""
    start, end = 2, file.seek(0, os.SEEK_END)
    yield 0, start, True
    while start < end:
        file.seek(start)
        head = file.read(10)
        if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA:  # start of scan, or not as a JPEG is
            yield start, end, True
            return
        stop = start + 2 + int.from_bytes(head[2:4], "big")
        extra = 0xE0 <= head[1] <= 0xEF or head[1] == 0xFE  # APP0 to APP15, comment
        yield start, stop, not extra or head[1] == 0xEE or head[4:] == b"Exif\0\0"
        start = stop


def _is_whole(kind: bytes, file: IO[bytes], length: int) -> bool:
    """Whether a chunk has the right checksum and, if it is a profile, can be unpacked within bounds."""
    content, stored = file.read(length), file.read(4)
    if zlib.crc32(kind + content).to_bytes(4, "big") != stored:
        return False
    unpack = zlib.decompressobj()
    try:
        return kind != b"iCCP" or not (
            unpack.decompress(content.partition(b"\0")[2][1:], PROFILE_LIMIT) and unpack.unconsumed_tail
        )
    except zlib.error:
        return False


class Ranges(io.RawIOBase):
    """Some ranges of a file, from one byte up to another, read as one file."""

    def __init__(self, file: IO[bytes], ranges: Sequence[tuple[int, int]]) -> None:
        self.file, self.ranges, self.at = file, ranges, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        length = sum(stop - start for start, stop in self.ranges)
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: length}[whence]
        return self.at

    def readinto(self, buffer) -> int:  # noqa: ANN001 (a memoryview)
        at = self.at
        for start, stop in self.ranges:
            if at < stop - start:
                self.file.seek(start + at)
                content = self.file.read(min(len(buffer), stop - start - at))
                buffer[: len(content)] = content
                self.at += len(content)
                return len(content)
            at -= stop - start
        return 0


def end_of_jpeg(file: IO[bytes]) -> list[str]:
    """Words about the end of a JPEG."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - TAIL))
    tail = file.read()
    if tail.endswith(b"\xff\xd9"):
        return []
    return [TRAILING if b"\xff\xd9" in tail else NO_END]
