"""Where the links of a tar file lead, by the names of its members alone; nothing is looked up on the disk."""

import posixpath
import tarfile
from collections.abc import Iterable
from pathlib import PurePosixPath

STEPS = 40  # links that are followed from one to the next, as many as Linux does


def linked(info: tarfile.TarInfo) -> str:
    """The name that a link leads to, which in a symbolic one is written from its own folder; "" for what is no link."""
    if not (info.issym() or info.islnk()):
        return ""
    folder = posixpath.dirname(info.name) if info.issym() else ""
    return posixpath.normpath(posixpath.join(folder, info.linkname).replace("\\", "/"))


def end(path: str, links: dict[str, str]) -> str:
    """Where a path ends when links to files and folders are followed.

    >>> end("a/1.png", {"a": "b", "b": "c"}), end("d", {"d": "e", "e": "d"})
    ('c/1.png', 'd')
    """
    for _ in range(STEPS):
        heads = (path, *map(str, PurePosixPath(path).parents))
        head = next((head for head in heads if head in links), None)
        if head is None:
            break
        path = posixpath.normpath(links[head] + path[len(head) :])
    return path


def folders_of(names: Iterable[str]) -> set[str]:
    """All folders that the files lie in."""
    found = {"."}
    for name in names:
        folder = posixpath.dirname(name)
        while folder and folder not in found:
            found.add(folder)
            folder = posixpath.dirname(folder)
    return found
