"""Damage that decoders pass over: a PNG chunk whose checksum is wrong, a picture whose file ends early or goes on.

PNG (ISO/IEC 15948): an 8-byte signature, then chunks of length, type, content and CRC-32 of type and content, the last
of type IEND. JPEG (ITU-T T.81): the last marker is FF D9.
"""

import os
import zlib
from typing import IO

TRAILING = "something after the end of the picture, passed over"
NO_END = "the file ends early; all of the picture was there"
BLOCK = 2**20  # bytes read at a time
TAIL = 2**16  # bytes at the end in which a JPEG's end is looked for


def end_of_png(file: IO[bytes]) -> list[str]:
    """Words about the end of a PNG.

    Raises:
        ValueError: a chunk that holds the picture is cut, or its checksum is not that of its content.
    """
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IEND":
            file.seek(length + 4, os.SEEK_CUR)
            return [TRAILING] if file.read(1) else []
        if not kind[:1].isupper():  # not needed for the picture
            file.seek(length + 4, os.SEEK_CUR)
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


def end_of_jpeg(file: IO[bytes]) -> list[str]:
    """Words about the end of a JPEG."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - TAIL))
    tail = file.read()
    if tail.endswith(b"\xff\xd9"):
        return []
    return [TRAILING if b"\xff\xd9" in tail else NO_END]
