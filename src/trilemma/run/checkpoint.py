"""The full state of a training, as a directory that is either whole or not there.

It is written beside its final name, every file is flushed to the disk, `manifest.json` with the size and SHA-256 of
each is written last, and then the directory is renamed. Loading takes the newest directory whose manifest holds and
whose tensors have the names, shapes and types of the training, all finite; a broken one is set aside as NAME.corrupt
where an older one is taken in its place, and where there is none the training stops. A checkpoint of an earlier version
is brought up to date by `_migrated`. Tensors are safetensors, everything else JSON: nothing is executed on loading.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trilemma.errors import UserError
from trilemma.files import disk_errors, read_json, remove_scratch, scratch_of, sha256_of, sync_folder, write_json
from trilemma.run.state import Broken, Checkpoint, Tensors, check_state
from trilemma.run.tensor_files import removed_on_error, save_tensors, size_bytes
from trilemma.run.weights import LARGEST_HEADER, load_tensors

MANIFEST, STATE = "manifest.json", "state.json"
FORMAT = 6
KEEP = 2
LARGEST_STATE = 16 << 20  # bytes of a JSON file; those of a long training are 100 kB
NAMES = r"[0-9]{12,}(?:\.[0-9]+)?"  # of finished checkpoints, as a regular expression


def save_checkpoint(
    folder: Path, images: int, checkpoint: Checkpoint, notice: Callable[[str], None] = lambda text: None
) -> Path:
    """Write a checkpoint named by the images seen, then remove all but the newest KEEP.

    Where there is one of that name with another state (its report was interrupted), the new one is NAME.2. Where the
    new one cannot be read back, `notice` is called, and nothing is removed.

    Raises:
        UserError: if the disk is full or cannot be written; what was there before is untouched.
    """
    name, number = f"{images:012d}", 1
    while (final := folder / (name if number == 1 else f"{name}.{number}")).exists():
        if _holds(final, checkpoint):
            return final
        number += 1
    scratch = scratch_of(final)
    with disk_errors(final, sum(map(size_bytes, checkpoint.tensors.values()))), removed_on_error(scratch):
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        scratch.mkdir()
        for name, tensors in checkpoint.tensors.items():
            save_tensors(tensors, scratch / f"{name}.safetensors")
        write_json(scratch / STATE, checkpoint.values)
        write_json(scratch / MANIFEST, manifest_of(scratch))
        sync_folder(scratch)
        scratch.rename(final)
        sync_folder(folder)
    if (reason := why_broken(final)) is None:
        _remove_old(folder)
    else:
        notice(f"the checkpoint {final.name} cannot be read back as it was written ({reason}); older ones are kept")
    return final


def load_checkpoint(
    folder: Path, notice: Callable[[str], None], form: Callable[[], Checkpoint] | None = None
) -> Checkpoint | None:
    """The newest valid checkpoint; None where there is none at all. Leftovers are removed.

    Broken ones that are newer than it are renamed, each with a notice.

    Args:
        form: gives a state after one step of the same training, whose form a valid checkpoint must have; called
            where there is a checkpoint, for it takes a second.
    Raises:
        UserError: if there are checkpoints and none is valid; they stay as they are.
    """
    if not folder.is_dir():
        return None
    remove_scratch(folder, NAMES)
    broken: list[tuple[Path, Broken]] = []
    paths = list_checkpoints(folder)
    like = form() if form is not None and paths else None
    for path in reversed(paths):
        try:
            checkpoint = read_checkpoint(path, like)
        except Broken as reason:
            broken.append((path, reason))
            continue
        for newer, reason in broken:
            aside = _set_aside(newer)
            notice(f"the checkpoint {newer.name} is broken ({reason}); it is set aside as {aside.name}")
        _remove_old(folder)
        return checkpoint
    if broken:
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in broken)
        raise UserError(
            f"none of the {len(broken)} checkpoints in {folder} can be used ({reasons}). To begin anew choose another "
            f"out= or remove {folder}; to resume, use the version of trilemma that made them, or restore their files"
        )
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoint directories, oldest first."""
    paths = (path for path in folder.iterdir() if re.fullmatch(NAMES, path.name))
    return sorted(paths, key=lambda path: (images_of(path), int(path.suffix[1:] or 1)))


def images_of(path: Path) -> int:
    """How many images the training had seen, as a checkpoint's name says."""
    return int(path.stem)


def read_checkpoint(path: Path, like: Checkpoint | None = None) -> Checkpoint:
    """A checkpoint whose files are those that were written, and whose state fits (see `load_checkpoint`).

    Raises:
        Broken: with the reason.
    """
    values, groups = read_values(path, None if like is None else sum(map(size_bytes, like.tensors.values())))
    with _broken():
        checkpoint = Checkpoint(values, {name: load_tensors(path / f"{name}.safetensors") for name in groups})
        if like is not None:
            _of_averaged(checkpoint.tensors, like.tensors)
            check_state(checkpoint, like, images=images_of(path))
    return checkpoint


def read_values(path: Path, expected: int | None = None) -> tuple[dict[str, Any], list[str]]:
    """The plain values of a checkpoint whose files are those that were written, and the names of its groups of tensors.

    Args:
        expected: bytes of all tensors of such a state; a file that is larger than it with a header is not looked into.
    Raises:
        Broken: with the reason.
    """
    with _broken():
        files, version = _checked_files(path, expected)
        values = _migrated(read_json(path / STATE, LARGEST_STATE), version)
    return values, [Path(name).stem for name in files if name != STATE]


@contextmanager
def _broken() -> Iterator[None]:
    """Inside, whatever a file that is not as it was written leads to is raised as Broken."""
    try:
        yield
    except PermissionError:  # it may be whole: nothing to set aside
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise Broken(f"{type(error).__name__}: {error}") from error


def why_broken(path: Path) -> str | None:
    """The first reason why the files of a checkpoint cannot be trusted, or None."""
    try:
        read_checkpoint(path)
    except (Broken, PermissionError) as reason:
        return str(reason)
    return None


def _holds(path: Path, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is whole and of this state; the plain values say which."""
    try:
        return read_checkpoint(path).values == checkpoint.values
    except Broken:
        return False


def _remove_old(folder: Path) -> None:
    """Remove all but the newest KEEP; each loses its name first, so that a half removed one is never met under it."""
    for path in list_checkpoints(folder)[:-KEEP]:
        with suppress(OSError):
            shutil.rmtree(path.rename(scratch_of(path)), ignore_errors=True)


def _set_aside(path: Path) -> Path:
    """Rename a broken checkpoint to NAME.corrupt, or NAME.2.corrupt, ... if that exists."""
    aside, number = path.with_name(f"{path.name}.corrupt"), 2
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.{number}.corrupt"), number + 1
    with disk_errors(aside):
        return path.rename(aside)


def manifest_of(folder: Path) -> dict[str, Any]:
    """Size and SHA-256 of every file of a checkpoint."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    entries = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in files}
    return {"format": FORMAT, "files": entries}


def _migrated(values: dict[str, Any], version: int) -> dict[str, Any]:
    """The plain values of a state of an earlier format, as this version writes them."""
    if version < 2:  # the place of the last report decides when the next sample picture is drawn, and nothing else
        values.setdefault("reported", values["progress"])
    if version < 3:  # both decide which warnings are said, and nothing else
        values["said"] = dict.fromkeys(values["said"], 0)
        values.setdefault("distances", [])
    if version < 4:  # nothing of this had happened: earlier versions did not lower the rate
        values.update(slowed=[], events={}, current={})
    if version < 5:  # no phase had a start
        values["started"] = []
    if version < 6:  # these decide which warnings are said, and nothing else
        norms = ("generator/gradient_norm", "critic/gradient_norm", "critic/penalty", "penalty/loss")
        values.update(since={}, overfits=0, earlier={name: [] for name in norms})
    return values


def _of_averaged(tensors: dict[str, Tensors], like: dict[str, Tensors]) -> None:
    """Leave out the averages of a critic's weights, which earlier versions kept."""
    if "ema" in tensors and "ema" in like:
        left_out = tensors["ema"].keys() - like["ema"].keys()
        for name in left_out & like["model"].keys():
            del tensors["ema"][name]


def _checked_files(path: Path, expected: int | None) -> tuple[list[str], int]:
    """The files of a checkpoint, each with the size and the content that its manifest says; and its format."""
    manifest = read_json(path / MANIFEST, LARGEST_STATE)
    if manifest["format"] not in range(1, FORMAT + 1):
        raise Broken(f"its format is {manifest['format']}, this version reads up to {FORMAT}")
    files, names = manifest["files"], {entry.name for entry in path.iterdir()} - {MANIFEST}
    if set(files) != names:
        raise Broken(f"the manifest and the folder disagree about {', '.join(sorted(set(files) ^ names))}")
    for name, entry in files.items():
        size = (path / name).stat().st_size
        if size != entry["bytes"]:
            raise Broken(f"{name} has {size} bytes, {entry['bytes']} were written")
        if expected is not None and name != STATE and size > expected + LARGEST_HEADER:
            raise Broken(f"{name} has {size:,} bytes, more than all weights of this training")
        if sha256_of(path / name) != entry["sha256"]:
            raise Broken(f"{name} does not have the content that was written")
    return list(files), manifest["format"]
