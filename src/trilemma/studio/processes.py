"""How the studio starts processes of its own: the same code as the server's, in the folder, apart from its terminal."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trilemma.errors import UserError

ROOT = Path(__file__).parents[2]  # of this package, from which a process imports it wherever it works


def start(module: str, *words: str, folder: Path, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
    """Start a module of the studio as a process. With -P no module is imported from the folder that it works in."""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    paths = [str(ROOT), *(os.path.abspath(path) for path in given)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"trilemma.studio.{module}", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        stdin=stdin,
        stdout=stdout,
    )


class OneProcess:
    """Runs a module of the studio as a process for one answer after the other; once it is closed, no more.

    Args:
        module: of the studio; folder: in which it works.
    """

    def __init__(self, module: str, folder: Path) -> None:
        self.module, self.folder = module, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._closed, self._guard = False, threading.Lock()

    def close(self) -> None:
        """End the process, and start no other one."""
        with self._guard:
            self._closed, process = True, self._process
        if process is not None:
            process.kill()

    def output(self, *words: str, limit_s: float) -> bytes:
        """What the process prints.

        Raises:
            UserError: the studio is being closed.
            subprocess.TimeoutExpired: it took longer than `limit_s`.
        """
        with self._guard:
            if self._closed:
                raise UserError("the studio is being closed")
            process = start(self.module, *words, folder=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            self._process = process
        try:
            return process.communicate(timeout=limit_s)[0]
        finally:
            process.kill()
            process.wait()
            self._process = None


@contextmanager
def answers() -> Iterator[IO[bytes]]:
    """Inside such a process, where its answers go; what libraries print is none, and goes where errors go."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(own, "wb") as file:
        yield file
