"""Run folders: their names, which of them a command continues, and the lock that keeps two writers apart."""

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path
from typing import IO, Any

from trilemma.arguments import word
from trilemma.errors import UserError
from trilemma.files import (
    NO_LINK,
    disk_errors,
    is_leftover,
    is_locked,
    json_text,
    lock,
    read_json,
    read_plain,
    refuse_foreign,
    refuse_links,
    remove_leftovers,
    remove_scratch,
    sync_folder,
    user_path,
    write_json,
)
from trilemma.registry import get_recipe, list_models
from trilemma.run.command import FROM_DATA
from trilemma.run.locate import CONFIG, EARLIER, RUNS, WEIGHTS
from trilemma.run.migration import migrated
from trilemma.run.parts import identity, with_earlier_parts
from trilemma.run.record import changed_data

LOCK = "lock"
WRITTEN = (CONFIG, LOCK, WEIGHTS, "environment.json", "log.jsonl", "summary.json", "README.md", "batch.png")
WRITTEN += (
    "curves.png",
    "samples",
    "checkpoints",
    "parts",
    EARLIER,
)  # by a training: in a run folder, these names are ours
HOLDER = re.compile(r"process [0-9]*( [^\x00-\x1f]*)?")  # the content of a lock, which may have been cut short
LONGEST_LOCK = 1000  # bytes
LOCK_S = 2.0  # seconds in which a lock that is held may become free
LENGTH_KEYS = {"steps", "epochs", "images", "minutes", "save_every", "sample_every", "keep_weights", "device", "shard"}
LENGTH_KEYS |= {"split_rule"}  # what it decides, the fingerprint tells


class RunFolder:
    """A run folder held by this process until `close`."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path, self._lock = path, lock

    def close(self) -> None:
        """Let others have it."""
        self._lock.close()


def open_run_folder(
    name: str,
    config: dict[str, Any],
    out: str | Path | None,
    say: Callable[[str], None] = lambda text: None,
    *,
    new: bool = False,
) -> RunFolder:
    """The folder that this training continues, or a new one: runs/NAME, runs/NAME-2, ... or `out`.

    A folder is continued if its config says the same training, whatever its length and wherever its images lie.

    Args:
        say: called with the reason if a new folder is begun beside another.
        new: whether the same training is not continued, unless `out` names it.
    Raises:
        UserError: if `out` already holds a different training or something else, or another process is writing to it.
    """
    assert not differences(config, config)  # or no folder would ever be the one of this training
    if out is not None:
        path = user_path(out)
        if reasons := _obstacles(path, config):
            raise UserError(f"{path} {'; '.join(reasons)}; choose another out=, or remove it first")
        return _claim(path, config)
    others: list[tuple[Path, list[str]]] = []  # folders of this name that hold something else, and what
    for path in map(RUNS.joinpath, _names(name)):
        if reasons := _obstacles(path, config):
            others.append((path, reasons))
            continue
        free = is_free(path)
        if new and not free:
            continue
        try:
            folder = _claim(path, config)
        except Busy:
            others.append((path, ["is being trained by another process"]))
            continue
        if same_training(path, config):
            if free and others:
                nearest, reasons = min(others, key=lambda other: len(other[1]))
                say(f"{path} is a new training, because {nearest} {'; '.join(reasons)}")
            return folder
        folder.close()  # another process took the name between our look and our lock
    raise AssertionError  # the names do not end


class Busy(UserError):
    """Another process is training in the folder."""


def same_training(path: Path, config: dict[str, Any]) -> bool:
    """Whether the folder's config says the same training as `config`, apart from its length."""
    return not is_free(path) and not _obstacles(path, config)


def _obstacles(path: Path, config: dict[str, Any]) -> list[str]:
    """Why `config` cannot be trained in a folder, in words that follow its name; [] if it can."""
    if is_free(path):
        return []
    if not path.is_dir():
        return ["is not a folder"]
    if not (path / CONFIG).exists():
        return ["holds files that are not a run"]
    try:
        reasons = differences(migrated(read_json(path / CONFIG)), config)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ["already holds a different training, whose config.json cannot be read"]
    return [f"already holds a different training: {reasons[0]}", *reasons[1:]] if reasons else []


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what two configs are other trainings, in words, the data first; [] if one continues the other.

    Lengths do not count, nor does the place of the data: these are told apart by their fingerprints. A
    key that is None is as one that an earlier version did not write.
    """
    one, other = _identity(_with_new_settings(then, now)), _identity(with_earlier_parts(now, then))
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    texts = [f"{key[1]} {word(one.get(key))} then, {word(other.get(key))} now" for key in keys]
    if (changed := changed_data(then, now)) is None:
        return texts
    return [_other_images(then, now) if changed == "images" else "its captions differ", *texts]


def _with_new_settings(then: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A config with the settings of its model that its version did not have: those that the images decide as `now`, the
    others as their defaults, with which a model does what it did before it had them."""
    missing = now["model_config"].keys() - then["model_config"].keys()
    if then["model"] != now["model"] or then["model"] not in list_models():
        return then
    fields = type(get_recipe(then["model"]).config).model_fields
    defaults = {key: fields[key].get_default() for key in missing & fields.keys()}
    new = {key: now["model_config"][key] if key in FROM_DATA else value for key, value in defaults.items()}
    return {**then, "model_config": {**then["model_config"], **json.loads(json_text(new))}}


def _other_images(then: dict[str, Any], now: dict[str, Any]) -> str:
    counts = [f"{config['n_images']:,}" if "n_images" in config else "" for config in (then, now)]
    places = [f"{config['data']}" if then["data"] != now["data"] else "" for config in (then, now)]
    texts = [" of ".join(filter(None, pair)) for pair in zip(counts, places, strict=True)]
    sizes = [f"{text} {when}" for text, when in zip(texts, ("then", "now"), strict=True) if text]
    return ": ".join(filter(None, ["its images differ", ", ".join(sizes)]))


def earlier_fingerprints(name: str, out: str | Path | None) -> set[str]:
    """Of the images of the runs that a training may continue and that were divided by the rule of earlier versions."""
    paths = [user_path(out)] if out is not None else takewhile(Path.exists, map(RUNS.joinpath, _names(name)))
    marks = set()
    for path in paths:
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            config = migrated(read_json(path / CONFIG))
            if config["data_config"]["split_rule"] == "tenth":
                marks.add(config["fingerprint"])
    return marks


def _names(name: str) -> Iterator[str]:
    return (name if number == 1 else f"{name}-{number}" for number in count(1))


def is_free(path: Path) -> bool:
    """Whether nothing is there, or only what a start leaves that was killed before it could write its config."""
    if not path.is_dir():
        return not os.path.lexists(path)
    return all(is_leftover(entry) or (entry.name == LOCK and _is_lock(entry)) for entry in path.iterdir())


def _is_lock(path: Path) -> bool:
    """Whether a file is a lock as `hold` leaves it."""
    try:
        text = read_plain(path, LONGEST_LOCK).decode()
    except PermissionError:  # on Windows, while a process holds it
        return True
    except (OSError, UserError, UnicodeDecodeError):
        return False
    return "process ".startswith(text) or HOLDER.fullmatch(text) is not None


def _claim(path: Path, config: dict[str, Any]) -> RunFolder:
    """Make the folder if need be, lock it, tidy it, and write its config where there is none."""
    refuse_links(*map(path.joinpath, WRITTEN))
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        lock_file = hold(path / LOCK)
        for part in (path, path / "samples"):
            remove_leftovers(part)
        remove_scratch(path, re.escape(WEIGHTS))
        remove_scratch(path / EARLIER, r"[0-9]+\.safetensors")
        if not (path / CONFIG).exists():
            write_json(path / CONFIG, config)
            sync_folder(path)
            sync_folder(path.parent)
    return RunFolder(path, lock_file)


def hold(path: Path) -> IO[str]:
    """An exclusive lock that the system drops when the process ends, however it ends.

    It is asked for again, LOCK_S long, where it may become free: a process that was killed may take a moment to end,
    and one that only looks whether a training runs (the studio) has a shared lock for as long as that takes.

    Raises:
        Busy: another process has it, and keeps it.
        UserError: there is something else of that name.
    """
    refuse_foreign(path, _is_lock)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_LINK, 0o666), "a+", encoding="utf-8")
    try:
        _lock_soon(file, path)
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


def _lock_soon(file: IO[str], path: Path) -> None:
    """Lock a file, now or within LOCK_S if it may become free; raises OSError as `lock`."""
    end = time.monotonic() + LOCK_S
    while True:
        try:
            return lock(file)
        except OSError:
            if time.monotonic() >= end or not _may_become_free(file, path):
                raise
        time.sleep(LOCK_S / 40)


def _may_become_free(file: IO[str], path: Path) -> bool:
    """Whether nobody trains with a lock: it is only looked at, or the process that wrote into it has ended."""
    if not is_locked(path):
        return True
    file.seek(0)
    holder = re.fullmatch(r"process ([0-9]+) on (.*)", file.read())
    if holder is None or holder[2] != socket.gethostname() or os.name == "nt":  # where `kill` is no question
        return False
    try:
        os.kill(int(holder[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


NO_PART = ("check",)  # settings of a model that change nothing of what is trained


def _identity(config: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """What makes a training this one, by part of the config and key."""
    parts = {
        "": {key: config[key] for key in ("format", "model")},
        "model_config": {key: value for key, value in config["model_config"].items() if key not in NO_PART},
        **{part: _without_length(config[part]) for part in ("data_config", "training")},
        "parts": identity(config),
    }
    return {(part, key): value for part, values in parts.items() for key, value in values.items()}


def _without_length(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key not in LENGTH_KEYS}
