"""The process of a job: python -m trilemma.studio.child FOLDER, with the words of the job in JSON as its input.

It takes the lock of the job's folder, and leaves if somebody has it, or had it before, or if the job was cancelled.
Then it is the command line. The words are those that the queue has checked: what lies in the folder is not read.
"""

import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from trilemma.files import lock, write_json
from trilemma.studio.jobs import CANCEL, END, INTERRUPTED, OUTPUT, START, open_lock

WAIT_S = 5.0  # seconds for a lock that somebody who looks at the job holds for a moment


def main(place: Path, words: Sequence[str]) -> None:
    """Run the job of a folder, once."""
    if (held := claim(place)) is None:
        return
    with held:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the server may have been started without one
        write_json(place / START, {"time": time.time(), "process": os.getpid()})
        code = run(words, place / OUTPUT)
        write_json(place / END, {"time": time.time(), "code": code})


def claim(place: Path) -> IO[bytes] | None:
    """The lock of a job that is still to be run, held; None if it is not to be run."""
    held, until = open_lock(place), time.monotonic() + WAIT_S
    while True:
        try:
            lock(held)
            break
        except OSError:
            if time.monotonic() > until:
                return held.close()
            time.sleep(0.05)
    if any((place / name).exists() for name in (START, END, CANCEL)):
        return held.close()
    return held


def run(words: Sequence[str], output: Path) -> int:
    """The exit code of the command line with these words; what it says goes to a file."""
    with output.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = ["trilemma", *words]
    try:
        runpy.run_module("trilemma", run_name="__main__", alter_sys=True)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.load(sys.stdin.buffer))
