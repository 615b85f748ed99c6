"""Jobs: command lines that run as processes of their own, and what became of them, in plain files.

A job is a folder, whose files say all: `job.json` what is to be done, `start.json` that it began, `end.json` how it
ended, `cancel.json` that it is not wanted any more, `output.txt` what it said. Its process holds the lock of the folder
for as long as it runs, and the system drops it, however the process ends: so what runs is known without trust in a
process number, a server that was killed finds its jobs again, and no job is run twice. Each file is written whole or
not at all, by one process, once. `job.json` is signed by who made it (`owner.py`).
"""

import os
import re
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from trilemma.errors import UserError
from trilemma.files import NO_LINK, is_locked, read_json, write_json
from trilemma.studio.numbers import number
from trilemma.text import is_unicode, quoted

JOB, START, END, CANCEL, LOCK, OUTPUT = "job.json", "start.json", "end.json", "cancel.json", "lock", "output.txt"
NAME = re.compile(r"[0-9]{8}-[0-9a-f]{16}")  # of a job's folder: its number, and its id
INTERRUPTED = 130  # exit code of a command that Ctrl-C ended
HEAVY = ("train", "compare", "evaluate", "augment", "disentangle", "detect", "invert", "map")  # verbs that take long
SHOWN_OUTPUT = 20_000  # bytes at the end of what a job said


class State(StrEnum):
    """What a job is doing, or what became of it."""

    QUEUED = "queued"
    FOREIGN = "not yours"  # waits, and was not made by this user on this machine: it is not started
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"  # asked to end while it ran; what it had made is kept
    CANCELLED = "cancelled"  # before it began
    LOST = "interrupted"  # its process ended without a word: killed, or the machine went down


ENDED = (State.FINISHED, State.FAILED, State.STOPPED, State.CANCELLED, State.LOST)


@dataclass(frozen=True)
class Job:
    """A job as its files say.

    words: of the command line after `trilemma`; order: its place in the queue, the least first; signature: of who made
    it; times in seconds since 1970, None for what has not happened; code: the exit code; foreign: whether somebody else
    made it, as far as its signature says, whatever its state (`queue.py` looks).
    """

    id: str
    place: Path
    words: Sequence[str]
    order: float
    signature: str
    state: State
    created: float
    started: float | None = None
    ended: float | None = None
    code: int | None = None
    foreign: bool = False

    @property
    def command(self) -> str:
        """The line that does the same in a terminal."""
        return quoted(["trilemma", *self.words])

    @property
    def verb(self) -> str:
        """The first word."""
        return self.words[0]

    @property
    def is_heavy(self) -> bool:
        """Whether it may take the machine for long; one such job runs at a time, unless more are asked for."""
        return self.verb in HEAVY

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED


def new_job(jobs: Path, words: Sequence[str], sign: Callable[[str, Sequence[str]], str]) -> str:
    """Write a job down, behind all others, and give its id.

    Args:
        sign: gives the signature for the name of a job's folder and its words.
    """
    number = 1 + max((int(path.name[:8]) for path in folders(jobs)), default=0)
    ident = uuid.uuid4().hex[:16]
    name = f"{number:08}-{ident}"
    write_record(jobs / name, words, float(number), sign(name, words), time.time())
    return ident


def write_record(place: Path, words: Sequence[str], order: float, signature: str, created: float) -> None:
    """Write down what is to be done; the arguments are those of a `Job`."""
    record = {"words": [*words], "order": order, "signature": signature, "created": created}
    write_json(place / JOB, record)


def folders(jobs: Path) -> list[Path]:
    """The folders of all jobs, the oldest first; none is a link."""
    places = jobs.glob("*-*") if jobs.is_dir() else ()
    return sorted(path for path in places if NAME.fullmatch(path.name) and not path.is_symlink())


def read_job(place: Path) -> Job | None:
    """The job of a folder; None if it was never written down whole."""
    job = _read(place / JOB)
    if job is None or not _are_words(job.get("words")):
        return None
    state = _state(place)
    start, end = _read(place / START), _read(place / END)
    return Job(
        place.name.partition("-")[2],
        place,
        job["words"],
        number(job.get("order")) or 0.0,
        job["signature"] if isinstance(job.get("signature"), str) else "",
        state,
        number(job.get("created")) or 0.0,
        number(start.get("time")) if start else None,
        number(end.get("time")) if end else None,
        end.get("code") if end else None,
    )


def _state(place: Path) -> State:
    """What a job is doing, from its files: that it runs is what the held lock says, and nothing else does.

    The order matters, as the job goes on meanwhile: its process holds the lock from before `start.json` until after
    `end.json`, and begins nothing once it has seen `cancel.json` with the lock held.
    """
    cancelled = (place / CANCEL).exists()
    if not (place / START).exists():
        certain = cancelled and not is_held(place) and not (place / START).exists()
        return State.CANCELLED if certain else State.QUEUED
    holds, end = is_held(place), _read(place / END)
    if end is not None:
        stopped = cancelled or end.get("code") == INTERRUPTED
        return State.FINISHED if end.get("code") == 0 else State.STOPPED if stopped else State.FAILED
    return State.RUNNING if holds else State.STOPPED if cancelled else State.LOST


def is_held(place: Path) -> bool:
    """Whether the process of a job, or of a training in a run, lives: it holds the lock of the folder. Nothing is
    written to find out, so a full disk does not matter."""
    path = place / LOCK
    return not path.is_symlink() and path.is_file() and is_locked(path)


def process_of(place: Path) -> int | None:
    """The number of the process of a job, as it wrote it down; None where it did not. 0 and less stand for groups."""
    process = (_read(place / START) or {}).get("process")
    return process if type(process) is int and process > 1 else None


def open_lock(place: Path) -> IO[bytes]:
    """The file whose lock the process of a job holds."""
    return os.fdopen(os.open(place / LOCK, os.O_RDWR | os.O_CREAT | NO_LINK, 0o600), "r+b")


def output_of(place: Path, most: int = SHOWN_OUTPUT) -> str:
    """The end of what a job said; a bar that a terminal would overwrite is there once."""
    with suppress(OSError), (place / OUTPUT).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        lines = file.read(most).decode("utf-8", "replace").split("\n")
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return ""


def _read(path: Path) -> dict[str, Any] | None:
    """The object in a file of a job, which is no link; None where there is none."""
    try:
        value = None if path.is_symlink() else read_json(path)
    except (OSError, UserError):
        return None
    return value if isinstance(value, dict) else None


def _are_words(value: object) -> bool:
    """Whether a value can be the words of a command line: one text or more, which a page can show."""
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        return False
    return is_unicode("".join(value))
