"""Repositories of the hub: resolved to a commit, fetched file by file, checked against its checksums.

What was fetched is recorded in CACHE/KIND/, so that the next use makes no call to any machine.
"""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma.errors import UserError
from trilemma.extras import install_line
from trilemma.files import cache_dir, read_json, sha256_of, write_json
from trilemma.pretrained.libraries import brief, silent_logs
from trilemma.pretrained.safety import CODE
from trilemma.progress import Display
from trilemma.text import note
from trilemma.words import size_in_words

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling  # pyright: ignore[reportMissingImports]

    from trilemma.data.sources.download import Progress

COMMIT = re.compile("[0-9a-f]{40}")
CHECKSUM = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")  # git's name of a content, or its SHA-256
SPARE = 1.05  # of the disk, for each byte that is downloaded
NOTED_S = 3.0  # of waiting for another command


@dataclass(frozen=True)
class Record:
    """A download: what was resolved, the bytes of each file, and where they are."""

    repository: str
    commit: str
    licence: str | None
    files: dict[str, int]
    folder: str


def load_hub() -> Any:
    """The module huggingface_hub.

    Raises:
        UserError: it is not installed, with the line that installs it.
    """
    try:
        with silent_logs():
            import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(f"the hub needs the library huggingface_hub: {install_line('hub')}") from None
    return huggingface_hub


def endpoint() -> str:
    """The address of the hub."""
    return os.environ.get("HF_ENDPOINT") or load_hub().constants.ENDPOINT


def page_of(repository: str) -> str:
    """The address of a repository."""
    return f"{endpoint()}/{repository}"


def read_record(kind: str, repository: str) -> Record | None:
    """What was downloaded before, if every file of it is still here.

    Args:
        kind: of what the repository holds, a folder of the cache.
    """
    try:
        record = Record(**read_json(_record_file(kind, repository)))
        folder = Path(record.folder)
        complete = all((folder / name).stat().st_size == size for name, size in record.files.items())
    except (OSError, UserError, TypeError, AttributeError):
        return None
    return record if complete and record.files else None


def _write_record(kind: str, record: Record) -> None:
    """Remember a download."""
    write_json(_record_file(kind, record.repository), asdict(record))


def _record_file(kind: str, repository: str) -> Path:
    return cache_dir() / kind / f"{repository.replace('/', '--')}.json"


@contextmanager
def hub_errors(repository: str) -> Iterator[None]:
    """Inside, an error of the hub or on the way to it is one sentence."""
    load_hub()
    from huggingface_hub.errors import (  # pyright: ignore[reportMissingImports]
        GatedRepoError,
        RepositoryNotFoundError,
    )

    page = page_of(repository)
    try:
        yield
    except UserError:
        raise
    except GatedRepoError:
        raise UserError(
            f"{repository} asks you to accept its terms: do so at {page}, then type: hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{repository} not found at {page}; check the name, or type `hf auth login` if it is private"
        ) from None
    except Exception as error:  # the library has many kinds
        raise UserError(
            f"cannot download {repository}: {brief(error)}; check the connection and repeat the command"
        ) from error


def resolve(repository: str) -> "ModelInfo":
    """The commit of a repository, and its files; call it inside `hub_errors`.

    Raises:
        UserError: no commit is stated.
    """
    info = load_hub().HfApi(endpoint=endpoint()).model_info(repository, files_metadata=True)
    if not COMMIT.fullmatch(info.sha or ""):
        raise UserError(f"{repository}: the hub states no commit; repeat the command later")
    return info


def siblings_of(info: "ModelInfo") -> "dict[str, RepoSibling]":
    """The files of a repository, by name."""
    return {sibling.rfilename: sibling for sibling in info.siblings or []}


def refuse_code(repository: str, names: list[str]) -> None:
    """Raises UserError for a repository with code."""
    if code := [name for name in names if Path(name).suffix.lower() in CODE]:
        raise UserError(
            f"{repository} holds code ({code[0]:.80}); nothing is loaded from such a repository: choose another"
        )


def _unseen(received: int, total: int | None) -> None:
    """Progress that nobody is shown."""


def fetch_file(
    info: "ModelInfo",
    sibling: "RepoSibling",
    folder: Path | None = None,
    progress: "Progress" = _unseen,
) -> Path:
    """A file, with the content that the hub states; what an earlier command left unfinished is resumed.

    hf_hub_download begins a file again in every command, so it is fetched by `download`, to where hf_hub_download
    finds it.

    Args:
        folder: where to put it; default: the cache of the hub.
        progress: is given the bytes so far and in all.
    Raises:
        UserError: the hub states no checksum of it, or sends another content; it cannot be fetched.
    """
    from huggingface_hub.utils import build_hf_headers  # pyright: ignore[reportMissingImports]

    from trilemma.data.sources.download import download as fetch

    hub, name = load_hub(), sibling.rfilename
    if (here := _path_here(info, name, folder)) is not None:
        if _matches(here, sibling):
            return here
        here.unlink()
    url = hub.hf_hub_url(info.id, name, revision=info.sha, endpoint=endpoint())
    hub.get_hf_file_metadata(url, endpoint=endpoint())  # says why the file is refused, if it is
    target = _target(info, sibling, folder)
    with _locked(info, sibling):
        if target.exists() and not _matches(target, sibling):
            target.unlink()
        keys: dict[str, Any] = {"headers": build_hf_headers(), "limit_s": math.inf, "progress": progress}
        fetch(url, target, check=lambda path: _check_content(path, sibling), **keys)
    if folder is not None:
        return target
    return Path(hub.hf_hub_download(info.id, name, revision=info.sha, endpoint=endpoint()))


def _path_here(info: "ModelInfo", name: str, folder: Path | None) -> Path | None:
    """Where a file of a repository lies that was fetched before; None: nowhere."""
    path = load_hub().try_to_load_from_cache(info.id, name, revision=info.sha) if folder is None else folder / name
    return Path(path) if isinstance(path, str | Path) and Path(path).is_file() else None


def _target(info: "ModelInfo", sibling: "RepoSibling", folder: Path | None) -> Path:
    """Where a file is fetched to: in the cache of the hub, contents have their checksums as names."""
    if folder is not None:
        return folder / sibling.rfilename
    return Path(load_hub().constants.HF_HUB_CACHE) / _stored_as(info) / "blobs" / _checksum_of(info, sibling)


def _stored_as(info: "ModelInfo") -> str:
    """The name of a repository in the cache of the hub."""
    return f"models--{info.id.replace('/', '--')}"


def _checksum_of(info: "ModelInfo", sibling: "RepoSibling") -> str:
    """The SHA-256 that the hub states of a large file, or git's blob id of a small one.

    Raises:
        UserError: it states none.
    """
    stated = sibling.blob_id if sibling.lfs is None else sibling.lfs.sha256
    if not CHECKSUM.fullmatch(stated or ""):
        raise UserError(f"{info.id}: the hub states no checksum of {sibling.rfilename:.80}; choose another repository")
    return str(stated)


@contextmanager
def _locked(info: "ModelInfo", sibling: "RepoSibling") -> Iterator[None]:
    """Inside, no other process of ours fetches the same content; the lock is that of the hub's own library."""
    from filelock import Timeout  # pyright: ignore[reportMissingImports]
    from huggingface_hub.utils import WeakFileLock  # pyright: ignore[reportMissingImports]

    lock = Path(load_hub().constants.HF_HUB_CACHE) / ".locks" / _stored_as(info) / f"{_checksum_of(info, sibling)}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(WeakFileLock(lock, timeout=NOTED_S))
        except Timeout:
            note(f"{info.id}: another command fetches {sibling.rfilename:.80}; waiting for it")
            held.enter_context(WeakFileLock(lock))
        yield


def _check_content(path: Path, sibling: "RepoSibling") -> None:
    """Raises UserError for a file whose content is not the one that the hub states."""
    if not _matches(path, sibling):
        raise UserError("it has other content than the hub states")


def _matches(path: Path, sibling: "RepoSibling") -> bool:
    """Whether a file has the SHA-256 that is stated of a large file, or git's blob id of a small one."""
    if sibling.lfs is not None:
        return sha256_of(path) == sibling.lfs.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == sibling.blob_id


def licence_of(info: "ModelInfo") -> str | None:
    """As the card of a repository states it."""
    card: Any = info.card_data or {}
    licence, name = card.get("license"), card.get("license_name")
    text = name if licence == "other" and name else licence
    return None if text is None else str(text)[:80]


def sizes_of(info: "ModelInfo", names: Iterable[str]) -> dict[str, int]:
    """Bytes of files of a repository, by name."""
    siblings = siblings_of(info)
    return {name: siblings[name].size or 0 for name in names}


def download(kind: str, repository: str, info: "ModelInfo", names: Iterable[str], folder: Path | None = None) -> Record:
    """Fetch files of a repository at its commit, if they fit the disk, and record them.

    Args:
        kind: of download, in the cache.
        folder: where to put them, as for `fetch_file`.
    """
    siblings, sizes = siblings_of(info), sizes_of(info, names)
    licence, commit = licence_of(info), str(info.sha)
    size = sum(_missing(info, siblings[name], folder) for name in sizes)
    _check_disk(size, folder)
    note(f"{repository}: licence {licence or 'not stated'}; terms: {page_of(repository)}")
    note(f"{f'downloading {size_in_words(size)}' if size else 'nothing to download'}, commit {commit[:12]}")
    with _download_progress(sizes) as progress_of:
        paths = {name: fetch_file(info, siblings[name], folder, progress_of(name)) for name in sizes}
    name, path = next(iter(paths.items()))
    record = Record(repository, commit, licence, sizes, str(path.parents[name.count("/")]))
    _write_record(kind, record)
    return record


@contextmanager
def _download_progress(sizes: Mapping[str, int]) -> Iterator[Callable[[str], "Progress"]]:
    """Inside, show how much of some files is here, which are fetched one after another.

    Args:
        sizes: bytes of each file, by name.
    Yields:
        Called with the name of a file, it gives what is to be told of its bytes.
    """
    display, total = Display("downloading", at_once=False), sum(sizes.values())
    before = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))

    def progress_of(name: str) -> "Progress":
        def progress(received: int, _: int | None) -> None:
            done = min(before[name] + received, total)
            display.update(done / max(1, total), f"{size_in_words(done)} of {size_in_words(total)}, {name}")

        return progress

    try:
        yield progress_of
    finally:
        display.close()


def _missing(info: "ModelInfo", sibling: "RepoSibling", folder: Path | None) -> int:
    """The bytes of a file that are still to be fetched."""
    from trilemma.data.sources.download import part_of

    size, target = sibling.size or 0, _target(info, sibling, folder)
    if size in (_bytes_of(_path_here(info, sibling.rfilename, folder)), _bytes_of(target)):
        return 0
    return max(0, size - _bytes_of(part_of(target)))


def _bytes_of(path: Path | None) -> int:
    """The size of a file, 0 where there is none."""
    return path.stat().st_size if path is not None and path.is_file() else 0


def _check_disk(needed: int, folder: Path | None) -> None:
    """Raises UserError where a download does not fit: into a folder of ours, or, for None, the cache of the hub."""
    place = Path(load_hub().constants.HF_HUB_CACHE) if folder is None else folder
    variable = "HF_HOME" if folder is None else "TRILEMMA_CACHE"
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < SPARE * needed:
        raise UserError(
            f"the download needs {size_in_words(SPARE * needed)}, and {size_in_words(free)} are free in {place}; "
            f"make room, or set {variable} to a folder on a larger disk"
        )
