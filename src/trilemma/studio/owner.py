"""Whose a job is: each is signed with a secret of this user on this machine, which lies outside of every folder.

So jobs that lie in a folder of somebody else are told from one's own, and do not start when the folder is opened.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from trilemma.files import NO_LINK, cache_dir, lock

SECRET, LENGTH = "studio-secret", 32  # the file in the user's cache, and its bytes


class Owner:
    """This user, as the one who makes the jobs of a folder.

    Args:
        folder: in full; a signature holds in no other one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def signature(self, name: str, words: Sequence[str]) -> str:
        """What only this user can write beside a job.

        Args:
            name: of the job's folder; words: of its command line.
        """
        signed = json.dumps([str(self.folder), name, [*words]]).encode()
        return hmac.new(self._secret, signed, hashlib.sha256).hexdigest()

    def made(self, name: str, words: Sequence[str], signature: str) -> bool:
        """Whether this user made a job, as its signature says; the arguments are those of `signature`."""
        return hmac.compare_digest(signature.encode("utf-8", "replace"), self.signature(name, words).encode())

    @cached_property
    def _secret(self) -> bytes:
        """The user's secret; where it cannot be kept, one that holds for as long as this process."""
        with suppress(OSError):
            return kept_secret(cache_dir() / SECRET)
        return secrets.token_bytes(LENGTH)


def kept_secret(path: Path) -> bytes:
    """The secret in a file, which is made where there is none.

    Raises:
        OSError: it cannot be read or written, or others can read or write it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o600), "r+b") as file:
        with suppress(OSError):  # the disk knows no locks
            lock(file, wait=True)  # two studios that start at once make one secret
        stat = os.fstat(file.fileno())
        if os.name != "nt" and (stat.st_uid != os.getuid() or stat.st_mode & 0o077):
            raise PermissionError(f"{path} is open to others")
        content = file.read(LENGTH + 1)
        if len(content) != LENGTH:
            content = secrets.token_bytes(LENGTH)
            file.seek(0)
            file.truncate()
            file.write(content)
        return content
