"""Run folders: their names, which of them a command continues, and the lock that keeps two writers apart."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path
from typing import IO, Any

from trilemma.errors import UserError
from trilemma.files import disk_errors, remove_leftovers, sync_folder, write_json

RUNS = Path("runs")
CONFIG, LOCK = "config.json", "lock"
NEW_KEYS = {"frames": "first", "split_seed": 0}  # that earlier versions did not write, with what they did
LENGTH_KEYS = {"steps", "epochs", "images", "minutes", "save_every", "sample_every", "device"}
LENGTH_KEYS |= {"split_rule"}  # what it decides, the fingerprint tells


class RunFolder:
    """A run folder held by this process until `close`."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path, self._lock = path, lock

    def close(self) -> None:
        """Let others have it."""
        self._lock.close()


def open_run_folder(name: str, config: dict[str, Any], out: str | Path | None) -> RunFolder:
    """The folder that this training continues, or a new one: runs/NAME, runs/NAME-2, ... or `out`.

    A folder is continued if its config says the same training, whatever its length.
    Raises:
        UserError: if `out` holds another training or something else, or another process is writing to it.
    """
    if out is not None:
        path = Path(out)
        if not is_free(path) and not same_training(path, config):
            raise UserError(f"{path} holds {_content(path)}; choose another out=, or remove it first")
        return _claim(path, config)
    number = 1
    while True:
        path = RUNS / (name if number == 1 else f"{name}-{number}")
        number += 1
        if not is_free(path) and not same_training(path, config):
            continue
        try:
            folder = _claim(path, config)
        except Busy:
            continue
        if same_training(path, config):
            return folder
        folder.close()  # another process took the name between our look and our lock


class Busy(UserError):
    """Another process is training in the folder."""


def same_training(path: Path, config: dict[str, Any]) -> bool:
    """Whether the folder's config says the same training as `config`, apart from its length."""
    try:
        found = json.loads((path / CONFIG).read_text("utf-8"))
        return _identity(found) == _identity(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def earlier_fingerprints(name: str, out: str | Path | None) -> set[str]:
    """Of the images of the runs that a training may continue and that were divided by the rule of earlier versions."""
    paths = [Path(out)] if out is not None else takewhile(Path.exists, map(RUNS.joinpath, _names(name)))
    marks = set()
    for path in paths:
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            config = json.loads((path / CONFIG).read_text("utf-8"))
            if config["training"].get("split_rule", "tenth") == "tenth":
                marks.add(config["fingerprint"])
    return marks


def _names(name: str) -> Iterator[str]:
    return (name if number == 1 else f"{name}-{number}" for number in count(1))


def is_free(path: Path) -> bool:
    """Whether nothing is there, or only what a start leaves that was killed before it could write its config."""
    if not path.is_dir():
        return not path.exists()
    return all(entry.name == LOCK or entry.name.startswith(".tmp-") for entry in path.iterdir())


def _claim(path: Path, config: dict[str, Any]) -> RunFolder:
    """Make the folder if need be, lock it, tidy it, and write its config where there is none."""
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = hold(path / LOCK)
        for part in (path, path / "samples"):
            remove_leftovers(part)
        if not (path / CONFIG).exists():
            write_json(path / CONFIG, config)
            sync_folder(path)
            sync_folder(path.parent)
    return RunFolder(path, lock)


def hold(path: Path) -> IO[str]:
    """An exclusive lock that the system drops when the process ends, however it ends."""
    file = path.open("a+", encoding="utf-8")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise Busy(
            f"{path.parent} is being trained by {holder}; wait for it, stop it, or choose another out="
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _identity(config: dict[str, Any]) -> dict[str, Any]:
    written = {**NEW_KEYS, "channels": config["model_config"].get("shape", [None])[0], **config["training"]}
    training = {key: value for key, value in written.items() if key not in LENGTH_KEYS}
    parts = {key: config[key] for key in ("format", "model", "data", "fingerprint")}
    model = {key: value for key, value in config["model_config"].items() if value is not None}  # new keys are None
    return {**parts, "model_config": model, "training": training}


def _content(path: Path) -> str:
    return "another training" if (path / CONFIG).exists() else "files that are no run"
