"""Where a pipeline is: a short name, a repository of the hub, or a folder.

A repository is resolved to a commit before a file of it is touched; that commit's files are downloaded and checked
against the sums that the hub states. What was downloaded is recorded in CACHE/pretrained/, so that the next use makes
no call to any machine.
"""

import hashlib
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma.data.places import cache_dir
from trilemma.errors import UserError, unknown
from trilemma.files import read_json, sha256_of, write_json
from trilemma.pretrained.libraries import brief, check_installed
from trilemma.pretrained.safety import CODE, INDEX, WEIGHTS, components
from trilemma.pretrained.table import CHECKPOINTS
from trilemma.text import note
from trilemma.words import size_in_words

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling  # pyright: ignore[reportMissingImports]

REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")
COMMIT = re.compile("[0-9a-f]{40}")
SETTINGS = (".json", ".txt", ".model")  # beside the weights: settings and vocabularies
HALF = ".fp16"  # in the name of weights in half precision
SPARE = 1.05  # of the disk, for each byte that is downloaded


@dataclass(frozen=True)
class Place:
    """A pipeline on this disk.

    name: as it was asked for; folder: where it is; within: where its links may lead;
    repository, commit, licence: where it was downloaded from; None for a folder.
    """

    name: str
    folder: Path
    within: Path
    repository: str | None = None
    commit: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Record:
    """A download: what was resolved, the bytes of each file, and where they are."""

    repository: str
    commit: str
    licence: str | None
    files: dict[str, int]
    folder: str


def locate(name: str, *, download: bool = True) -> Place:
    """The pipeline of a name, downloaded if it is not here.

    Args:
        download: whether it may be.
    Raises:
        UserError: there is none of that name, or it is not here and cannot or may not be downloaded.
    """
    path = Path(name).expanduser()
    if name and name not in CHECKPOINTS and path.is_dir():
        return Place(name, path.resolve(), path.resolve())
    repository = CHECKPOINTS[name].repository if name in CHECKPOINTS else name
    if not REPOSITORY.fullmatch(repository):
        raise unknown("model", name, [*CHECKPOINTS, "OWNER/NAME of the hub", "a folder"])
    record = _record_of(repository)
    if record is None and not download:
        raise UserError(
            f"{repository} was not downloaded here; draw an image with it first: trilemma imagine model={name}"
        )
    record = record or _download(repository)
    folder = Path(record.folder)
    return Place(name, folder, folder.parents[2], repository, record.commit, record.licence)


def _record_file(repository: str) -> Path:
    return cache_dir() / "pretrained" / f"{repository.replace('/', '--')}.json"


def _record_of(repository: str) -> Record | None:
    """What was downloaded before, if every file of it is still here."""
    try:
        record = Record(**read_json(_record_file(repository)))
        folder = Path(record.folder)
        complete = all((folder / name).stat().st_size == size for name, size in record.files.items())
    except (OSError, UserError, TypeError, AttributeError):
        return None
    return record if complete and record.files else None


def _download(repository: str) -> Record:
    """Resolve, choose, check the disk, fetch, and check what was fetched."""
    check_installed()
    from huggingface_hub import HfApi  # pyright: ignore[reportMissingImports]
    from huggingface_hub.errors import (  # pyright: ignore[reportMissingImports]
        GatedRepoError,
        RepositoryNotFoundError,
    )

    page = f"{_endpoint()}/{repository}"
    try:
        info = HfApi(endpoint=_endpoint()).model_info(repository, files_metadata=True)
        return _fetch(repository, info, page)
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


def _endpoint() -> str:
    """The address of the hub."""
    from huggingface_hub import constants  # pyright: ignore[reportMissingImports]

    return os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def _fetch(repository: str, info: "ModelInfo", page: str) -> Record:
    """The files of a repository that are needed, at its commit."""
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    check_names(repository, list(siblings))
    if not COMMIT.fullmatch(info.sha or ""):
        raise UserError(f"{repository}: the hub states no commit; repeat the command later")
    index = _fetch_file(info, siblings[INDEX])
    names = needed_files(repository, list(siblings), set(components(read_json(index), f"{repository}/{INDEX}")))
    sizes = {name: siblings[name].size or 0 for name in names}
    _check_disk(sum(sizes.values()))
    licence = _licence(info)
    note(f"{repository}: licence {licence or 'not stated'}; terms: {page}")
    note(f"downloading {size_in_words(sum(sizes.values()))}, commit {str(info.sha)[:12]}")
    for name in names:
        _fetch_file(info, siblings[name])
    record = Record(repository, str(info.sha), licence, sizes, str(index.parent))
    write_json(_record_file(repository), asdict(record))
    return record


def _fetch_file(info: "ModelInfo", sibling: "RepoSibling") -> Path:
    """A file, with the content that the hub states; an interrupted download is resumed."""
    from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]

    path = Path(hf_hub_download(info.id, sibling.rfilename, revision=info.sha, endpoint=_endpoint()))
    if not _matches(path, sibling):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise UserError(
            f"{info.id}: {sibling.rfilename} arrived with other content than the hub states; repeat the command"
        )
    return path


def _matches(path: Path, sibling: "RepoSibling") -> bool:
    """Whether a file has the SHA-256 that is stated of a large file, or git's blob id of a small one."""
    if sibling.lfs is not None:
        return sha256_of(path) == sibling.lfs.sha256
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # git's own name of a content
    return sibling.blob_id in (None, blob)


def check_names(repository: str, names: list[str]) -> None:
    """Refuse a repository by the names of its files, before any of them is fetched.

    Raises:
        UserError: it is not a pipeline, or holds code.
    """
    if INDEX not in names:
        raise UserError(f"{repository} is not a pipeline of diffusers: it has no {INDEX}; choose another")
    if code := [name for name in names if Path(name).suffix.lower() in CODE]:
        raise UserError(f"{repository} holds code ({code[0]:.80}); nothing is loaded from such a repository")


def needed_files(repository: str, names: list[str], parts: set[str]) -> list[str]:
    """The files of a repository that its parts are loaded from: settings, and weights in full precision, or in half
    where a part has no others.

    Raises:
        UserError: a part has pickles only.
    """
    needed = [INDEX]
    for part in sorted(parts):
        own = [name for name in names if name.startswith(f"{part}/") and name.count("/") == 1]
        weights = [name for name in own if name.endswith(WEIGHTS)]
        full = [name for name in weights if "." not in Path(name).stem]
        chosen = full or [name for name in weights if HALF in name]
        if not chosen and any(name.endswith((".bin", ".ckpt", ".pt", ".pth")) for name in own):
            raise UserError(
                f"{repository}: {part} has no weights as safetensors; pickles may hold code and are not loaded"
            )
        needed += [*(name for name in own if name.endswith(SETTINGS)), *chosen]
    return sorted(needed)


def _licence(info: "ModelInfo") -> str | None:
    """As the card of a repository states it."""
    card: Any = info.card_data or {}
    licence, name = card.get("license"), card.get("license_name")
    text = name if licence == "other" and name else licence
    return None if text is None else str(text)[:80]


def _check_disk(needed: int) -> None:
    """Raises UserError where a download does not fit."""
    from huggingface_hub import constants  # pyright: ignore[reportMissingImports]

    place = Path(constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < SPARE * needed:
        raise UserError(
            f"the download needs {size_in_words(SPARE * needed)}, and {size_in_words(free)} are free in {place}; "
            "make room, or set HF_HOME to a folder on a larger disk"
        )
