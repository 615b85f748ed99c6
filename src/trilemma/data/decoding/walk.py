"""Links: those of the disk are walked once each, those of a tar lead where the names of its members say."""

import os
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

STEPS = 40  # links that are followed from one to the next, as many as Linux does


class Folder(NamedTuple):
    """name: from the root, "." for the root; path; files: all that are not folders; passed: names of the folders in
    it that are not read."""

    name: str
    path: str
    files: list[os.DirEntry[str]]
    passed: list[str]


def walk(
    root: str | Path, closed: Callable[[str, str], object], links: list[str], hidden: Callable[[str], bool]
) -> Iterator[Folder]:
    """The folder and all below, each once. Links to folders are followed after all else, so that of a folder and links
    to it the folder is read; never to one in which the root lies, which would be the whole disk.

    Args:
        closed: is given the name of each folder that cannot be listed, and why.
        links: each link that is not followed is added, "name to folder".
        hidden: whether folders of that name are passed.
    """
    above = {_identity(str(parent)) for parent in Path(root).resolve().parents}
    seen: dict[tuple[int, int] | str, str] = {}
    waiting = [(".", os.fspath(root))]
    while waiting:
        later = []
        while waiting:
            name, path = waiting.pop()
            try:
                identity = _identity(path)
                if identity in seen or identity in above:
                    links.append(f"{name} to {seen.get(identity, 'a folder around the source')}")
                    continue
                seen[identity] = name
                with os.scandir(path) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                closed(name, error.strerror or str(error))
                continue
            folders = [entry for entry in entries if _is_folder(entry)]
            passed = [below(name, entry.name) for entry in folders if hidden(entry.name)]
            yield Folder(name, path, [entry for entry in entries if not _is_folder(entry)], passed)
            inside = [(below(name, entry.name), entry) for entry in folders if not hidden(entry.name)]
            later += [(name, entry.path) for name, entry in inside if entry.is_symlink()]
            waiting += [(name, entry.path) for name, entry in reversed(inside) if not entry.is_symlink()]
        waiting = later[::-1]


def _identity(path: str) -> tuple[int, int] | str:
    """What tells a folder from all others, by whatever name."""
    status = os.stat(path)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere
        return False


def below(folder: str, name: str) -> str:
    """The name of a file or folder in a folder, by `Folder.name`; bytes that are not text are replaced."""
    name = os.fsencode(name).decode(errors="replace")
    return name if folder == "." else f"{folder}/{name}"


def linked(info: tarfile.TarInfo) -> str:
    """The name that a link leads to, which in a symbolic one is written from its own folder; "" if it is not a link."""
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
    folders = {"."}
    for name in names:
        folder = posixpath.dirname(name)
        while folder and folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
    return folders
