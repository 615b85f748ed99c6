"""A run as a repository of the hub: the files of public.py in one commit, from which hf:OWNER/NAME opens it again.

A list of these files is uploaded with them. An update deletes what the list of the upload before names and the new one
does not; any other file of the repository is its owner's, and stays.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from trilemma.errors import UserError
from trilemma.files import json_text, read_json
from trilemma.pretrained.hub import endpoint, fetch_file, load_hub, page_of, resolve, siblings_of
from trilemma.pretrained.libraries import brief, silent_logs
from trilemma.pretrained.table import REPOSITORY
from trilemma.run.locate import HUB
from trilemma.run.run import RunLike, as_run
from trilemma.sharing.public import Content, public_files
from trilemma.text import note
from trilemma.values import checked_call
from trilemma.words import size_in_words

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo  # pyright: ignore[reportMissingImports]

MANIFEST = "upload.json"  # the names of the files that an upload wrote
LARGEST_MANIFEST = 1 << 16  # bytes
FORMAT = 1
LOGIN = "make a token that may write at https://huggingface.co/settings/tokens, then type: hf auth login"


@dataclass(frozen=True)
class Pushed:
    """Where a run is now, its commit there, the files that were uploaded, and those of an earlier upload that were
    deleted."""

    run: str
    page: str
    commit: str
    files: tuple[str, ...]
    deleted: tuple[str, ...] = ()


@checked_call
def push(
    run: RunLike,
    name: Annotated[str, Field(description="repository, OWNER/NAME")],
    *,
    private: Annotated[bool, Field(description="only you can see the repository")] = False,
    update: Annotated[
        bool, Field(description="replace what an earlier upload wrote to a repository of that name")
    ] = False,
) -> Pushed:
    """Upload a finished run to the hub: weights, settings, summary and the model card with samples and scores.

    No images of the training are uploaded, and nothing that says where on this machine they or the run lie. Words of
    captions and names of classes are part of a model. Anyone opens it by hf:OWNER/NAME in place of a run.

    Args:
        name: OWNER/NAME, with you or an organisation of yours as owner.
        update: otherwise an existing repository is refused; its earlier commits stay. What an earlier upload wrote and
            this one does not is deleted; files of others stay.
    Raises:
        UserError: the name has another form or is taken, there is no token or it may not write there, the run is not
            finished, or a file would hold something of this machine.
    """
    run = as_run(run)
    repository = name.removeprefix(HUB)
    if not REPOSITORY.fullmatch(repository):
        raise UserError(
            f'"{name}" is not the name of a repository; write OWNER/NAME, with letters, digits and any of . _ -'
        )
    hub = load_hub()
    if hub.get_token() is None:
        raise UserError(f"to upload a run, a token of the hub is needed: {LOGIN}")
    files = public_files(run, repository)
    files[MANIFEST] = json_text({"format": FORMAT, "files": [*files, MANIFEST]}).encode()
    size = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in files.values())
    note(f"uploading {size_in_words(size)} to {page_of(repository)}: {', '.join(files)}")
    with _errors(repository), silent_logs():
        api = hub.HfApi(endpoint=endpoint())
        api.create_repo(repository, private=private, exist_ok=update)
        info = resolve(repository)
        if private and not info.private:  # one that existed keeps its visibility
            raise UserError(
                f"{repository} is public; choose another name, make it private on its page, or leave out private=true"
            )
        deleted = [name for name in _uploaded_before(info) if name not in files]
        operations = [*_additions(hub, files), *(hub.CommitOperationDelete(name, is_folder=False) for name in deleted)]
        commit = api.create_commit(repository, operations, commit_message=f"{run.recipe.name} of trilemma")
    return Pushed(f"{HUB}{repository}", page_of(repository), commit.oid, tuple(files), tuple(deleted))


def _uploaded_before(info: "ModelInfo") -> list[str]:
    """The files of a repository that an earlier upload wrote; none where no list of them can be read."""
    siblings = siblings_of(info)
    if (manifest := siblings.get(MANIFEST)) is None:
        return []
    names = None
    if (manifest.size or 0) <= LARGEST_MANIFEST:
        with TemporaryDirectory() as folder:  # the cache of the hub would keep it
            names = _names_in(fetch_file(info, manifest, Path(folder)))
    if names is None:
        note(f"{MANIFEST} of {info.id} is not a list of uploaded files; no file of an earlier upload is deleted")
        return []
    return [name for name in siblings if name in names]


def _names_in(manifest: Path) -> list[Any] | None:
    """The names that a list of uploaded files has; None if it is not such a list."""
    try:
        record = read_json(manifest)
        names = record["files"] if record["format"] == FORMAT else None
    except (UserError, LookupError, TypeError):
        return None
    return names if isinstance(names, list) else None


def _additions(hub: Any, files: dict[str, Content]) -> list[Any]:
    return [
        hub.CommitOperationAdd(path, str(content) if isinstance(content, Path) else content)
        for path, content in files.items()
    ]


@contextmanager
def _errors(repository: str) -> Iterator[None]:
    """Inside, an error of the hub or on the way to it is one sentence."""
    from huggingface_hub.errors import HfHubHTTPError  # pyright: ignore[reportMissingImports]

    try:
        yield
    except UserError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        owner = repository.partition("/")[0]
        texts = {
            401: f"the hub does not accept your token: {LOGIN}",
            403: f"your token may not write to {repository}: choose an owner other than {owner}, or {LOGIN}",
            409: f"{repository} exists; choose another name, or update=true to replace what it holds",
        }
        raise UserError(
            texts.get(status, f"cannot upload {repository}: {brief(error)}; repeat the command later")
        ) from None
    except Exception as error:  # the library has many kinds
        raise UserError(
            f"cannot upload {repository}: {brief(error)}; check the connection and repeat the command"
        ) from error
