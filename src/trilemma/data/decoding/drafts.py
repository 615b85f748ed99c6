"""Files of the cache in the making and finished, so that processes that are killed, or work at once, do no harm.

What is being made lies in a draft, a folder .tmp-... whose file `lock` its process holds (flock): the system drops the
lock when the process ends, however it ends and wherever it runs, so that others may remove what is left. What is
finished is sealed: its time of change is set to SEAL, and any later change sets another.
"""

import os
import random
import shutil
import time
import uuid
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO

from trilemma.files import read_plain, write_atomic

PREFIX, LOCK = ".tmp-", "lock"
DAY_S = 86_400
SEAL = 10**18  # ns, in 2001
SAMPLED = 2**22  # bytes of a sealed file that are checked when it is opened
LONGEST = 2**32  # bytes of a text in the cache


class Draft:
    """A new folder for what is being made; it goes when it is closed, and no other process removes it before.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.path = parent / f"{PREFIX}{uuid.uuid4().hex}"
            self.path.mkdir()
            with suppress(FileNotFoundError):
                self._lock = open(self.path / LOCK, "ab")  # noqa: SIM115
                if _take_lock(self._lock) is not False and (self.path / LOCK).exists():
                    return
                self._lock.close()  # another process took it for left over before it was locked

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove it, with what still lies in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _take_lock(file: IO[bytes]) -> bool | None:
    """Whether this process holds the lock of a file from now until it is closed; None on a system without locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def remove_left_over(folder: Path) -> None:
    """Remove the drafts in a folder that no process works on any more; without locks, after a day."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError), open(path / LOCK, "ab") as file:
            ours = _take_lock(file)
            if ours or (ours is None and time.time() - path.stat().st_mtime > DAY_S):
                shutil.rmtree(path, ignore_errors=True)


def write_checked(path: Path, text: str) -> None:
    """Write a text after a line with its checksum, whole or not at all."""
    content = text.encode()
    with Draft(path.parent) as draft:
        write_atomic(draft.path / path.name, b"%08x\n" % zlib.crc32(content) + content)
        os.replace(draft.path / path.name, path)


def read_checked(path: Path) -> str:
    """What `write_checked` wrote.

    Raises:
        ValueError: it is damaged.
        OSError: it does not exist.
    """
    head, _, content = read_plain(path, LONGEST).partition(b"\n")
    if head != b"%08x" % zlib.crc32(content):
        raise ValueError(f"{path} is damaged")
    return content.decode()


def seal(path: Path) -> None:
    """Flush a finished file to the disk and set its time of change to SEAL."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())  # of what is mapped too: else a crash could leave a file of the right length
    os.utime(path, ns=(SEAL, SEAL))


def sampled(path: Path, count: int, row: int) -> list[int]:
    """Which rows of a file to check before it is used: some of a sealed one, else all.

    Args:
        count: of the rows; row: bytes of each.
    """
    few = max(1, SAMPLED // max(1, row))
    if path.stat().st_mtime_ns != SEAL or count <= few:
        return list(range(count))
    return sorted(random.Random().sample(range(count), few))  # others each time
