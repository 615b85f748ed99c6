"""A run of the hub, hf:OWNER/NAME: fetched once, then used as any other run folder, without a call to any machine.

The repository is resolved to a commit. Of its files those of a run are fetched and no others, each is checked against
the checksum that the hub states, and they are put into CACHE/runs/OWNER--NAME/COMMIT/. What they hold is a
stranger's, and is checked where every run folder is: weights are safetensors of the shapes that the settings describe,
settings are JSON within bounds, nothing is run or imported because a file names it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from trilemma.errors import UserError
from trilemma.files import LARGEST_JSON, cache_dir
from trilemma.pretrained.hub import (
    Record,
    download,
    hub_errors,
    read_record,
    refuse_code,
    resolve,
    siblings_of,
    sizes_of,
)
from trilemma.pretrained.table import REPOSITORY
from trilemma.run.locate import CONFIG, HUB, WEIGHTS, is_of_hub, run_folder
from trilemma.run.record import SUMMARY

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo  # pyright: ignore[reportMissingImports]

KIND = "runs"  # of downloads, in the cache
NEEDED = (WEIGHTS, SUMMARY, CONFIG)
GRID = "samples/last.png"
SHARED = (WEIGHTS, SUMMARY, "environment.json", "README.md", GRID, CONFIG)  # of a run, in the order they are fetched


def place_of(run: str | Path) -> Path:
    """The folder of a run, by its path or as hf:OWNER/NAME; errors as `run_folder` and `hub_run`."""
    return hub_run(Path(run).as_posix()) if is_of_hub(run) else run_folder(run)


def hub_run(word: str) -> Path:
    """The folder of a run of the hub, fetched if it is not here.

    Args:
        word: hf:OWNER/NAME.
    Raises:
        UserError: the name has another form, there is no such repository, it does not hold a run, or it cannot be
            fetched.
    """
    repository = word.removeprefix(HUB)
    if not REPOSITORY.fullmatch(repository):
        raise UserError(f'"{word}" is not a run of the hub; write hf:OWNER/NAME')
    record = read_record(KIND, repository) or _download(repository)
    return Path(record.folder)


def _download(repository: str) -> Record:
    with hub_errors(repository):
        return _fetch(repository, resolve(repository))


def _fetch(repository: str, info: "ModelInfo") -> Record:
    """The files of a run, at the commit of the repository."""
    siblings = siblings_of(info)
    if missing := [name for name in NEEDED if name not in siblings]:
        raise UserError(f"{repository} does not hold a run of trilemma: it has no {missing[0]}; choose another")
    refuse_code(repository, list(siblings))
    sizes = sizes_of(info, (name for name in SHARED if name in siblings))
    for name, size in sizes.items():
        if name != WEIGHTS and size > LARGEST_JSON:
            raise UserError(
                f"{repository}: {name} has {size:,} bytes, more than a run's ({LARGEST_JSON:,}); choose another"
            )
    folder = cache_dir() / KIND / repository.replace("/", "--") / str(info.sha)
    return download(KIND, repository, info, sizes, folder)
