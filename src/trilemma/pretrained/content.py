"""Which pipeline it is: a commit of a repository, or a folder and a hash of its content.

The hash of a folder is over the SHA-256 of each of its files. That of weights, which are large, is computed once and
kept in CACHE/sums/, for as long as the file has the same size and time of its last change.
"""

import hashlib
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import cache_dir, read_json, sha256_of, write_json
from trilemma.pretrained.fetch import SETTINGS, Place
from trilemma.pretrained.safety import WEIGHTS

SETTLED_S = 2.0  # since the last change of a file: a later one may have the same time, as disks count in steps


def origin(place: Place) -> dict[str, str]:
    """Which pipeline it is: a commit of a repository, or a folder and the hash of its content."""
    if place.repository is not None:
        return {"repository": place.repository, "commit": str(place.commit)}
    return {"folder": str(place.folder), "content": content_id(place.folder)}


def content_id(folder: Path) -> str:
    """A hash of what a pipeline in a folder is loaded from: its settings and weights, with their names."""
    total, known, now = hashlib.sha256(), _known_sums(folder), dict[str, list[Any]]()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (*SETTINGS, WEIGHTS)):
        name, state = path.relative_to(folder).as_posix(), _state(path)
        is_known = path.suffix == WEIGHTS and known.get(name, [])[:2] == state
        digest = known[name][2] if is_known else sha256_of(path)
        if path.suffix == WEIGHTS and time.time() - state[1] / 1e9 > SETTLED_S:
            now[name] = [*state, digest]
        total.update(f"{name} {digest}\n".encode())
    if now != known:
        with suppress(UserError):  # without room in the cache it is computed again
            write_json(_file(folder), now)
    return total.hexdigest()[:16]


def _state(path: Path) -> list[int]:
    """What changes with the content of a file: its size in bytes, and the time of its last change in ns."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _known_sums(folder: Path) -> dict[str, list[Any]]:
    """Size, time and SHA-256 of the weights in a folder, by name, as they were computed before."""
    try:
        known = read_json(_file(folder))
    except (OSError, UserError):
        return {}
    entries = known.items() if isinstance(known, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, list) and len(entry) == 3}


def _file(folder: Path) -> Path:
    return cache_dir() / "sums" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.json"
