"""Where a pipeline is: a short name, a repository of the hub, or a folder.

A repository is resolved to a commit before a file of it is touched; that commit's files are downloaded and checked
against the checksums that the hub states (hub.py). The next use makes no call to any machine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trilemma.errors import UserError
from trilemma.files import read_json, user_path
from trilemma.pretrained.hub import (
    Record,
    download,
    fetch_file,
    hub_errors,
    read_record,
    refuse_code,
    resolve,
    siblings_of,
)
from trilemma.pretrained.libraries import check_installed
from trilemma.pretrained.safety import CONFIG, INDEX, WEIGHTS, components
from trilemma.pretrained.table import REPOSITORY, check_name

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo  # pyright: ignore[reportMissingImports]

KIND, ADAPTERS = "pretrained", "adapters"  # of downloads, in the cache
SETTINGS = (".json", ".txt", ".model")  # beside the weights: settings and vocabularies
HALF = ".fp16"  # in the name of weights in half precision


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


def locate(name: str, *, download: bool = True) -> Place:
    """The pipeline of a name, downloaded if it is not here.

    Args:
        download: whether it may be.
    Raises:
        UserError: there is none of that name, or it is not here and cannot or may not be downloaded.
    """
    repository = check_name(name)
    if repository is None:
        path = user_path(name).resolve()
        return Place(name, path, path)
    record = read_record(KIND, repository)
    if record is None and not download:
        raise UserError(
            f"{repository} was not downloaded here; draw an image with it first: trilemma imagine model={name}"
        )
    return _downloaded(name, record or _download(repository))


def locate_adapter(name: str, *, download: bool = True) -> Place:
    """A motion adapter: a folder, or a repository of the hub, downloaded if it is not here.

    Args:
        download: whether it may be.
    Raises:
        UserError: it is neither, or it is not here and cannot or may not be downloaded.
    """
    path = user_path(name)
    if name and path.is_dir():
        return Place(name, path.resolve(), path.resolve())
    if not REPOSITORY.fullmatch(name):
        raise UserError(f"adapter={name}: folder not found; give one, or a motion adapter of the hub as OWNER/NAME")
    record = read_record(ADAPTERS, name)
    if record is None and not download:
        raise UserError(f"{name} was not downloaded here; draw a film with it first: trilemma imagine adapter={name}")
    return _downloaded(name, record or _download_adapter(name))


def _downloaded(name: str, record: Record) -> Place:
    """Where a download is. Its links may lead anywhere in the cache of the hub, and not in its own repository alone:
    huggingface_hub keeps contents that several repositories share in CACHE/blobs."""
    folder = Path(record.folder)
    return Place(name, folder, folder.parents[2], record.repository, record.commit, record.licence)


def _download_adapter(repository: str) -> Record:
    check_installed()
    with hub_errors(repository):
        info = resolve(repository)
        names = [name for name in siblings_of(info) if "/" not in name]
        refuse_code(repository, list(siblings_of(info)))
        weights = chosen_weights([name for name in names if name.endswith(WEIGHTS)])
        if CONFIG not in names or not weights:
            raise UserError(f"{repository} is not a motion adapter: it has no {CONFIG} beside weights as safetensors")
        return download(ADAPTERS, repository, info, [CONFIG, *weights])


def chosen_weights(names: list[str]) -> list[str]:
    """Of files of weights those in full precision, or those in half where there are no others."""
    return [name for name in names if "." not in Path(name).stem] or [name for name in names if HALF in name]


def _download(repository: str) -> Record:
    """Resolve, choose, check the disk, fetch, and check what was fetched."""
    check_installed()
    with hub_errors(repository):
        return _fetch(repository, resolve(repository))


def _fetch(repository: str, info: "ModelInfo") -> Record:
    """The files of a repository that are needed, at its commit."""
    siblings = siblings_of(info)
    check_names(repository, list(siblings))
    index = fetch_file(info, siblings[INDEX])
    names = needed_files(repository, list(siblings), set(components(read_json(index), f"{repository}/{INDEX}")))
    return download(KIND, repository, info, names)


def check_names(repository: str, names: list[str]) -> None:
    """Refuse a repository by the names of its files, before any of them is fetched.

    Raises:
        UserError: it is not a pipeline, or holds code.
    """
    if INDEX not in names:
        raise UserError(f"{repository} is not a pipeline of diffusers: it has no {INDEX}; choose another")
    refuse_code(repository, names)


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
        chosen = chosen_weights(weights)
        if not chosen and any(name.endswith((".bin", ".ckpt", ".pt", ".pth")) for name in own):
            raise UserError(
                f"{repository}: {part} has no weights as safetensors; pickles may hold code and are not loaded: "
                "choose another repository"
            )
        needed += [*(name for name in own if name.endswith(SETTINGS)), *chosen]
    return sorted(needed)
