"""How the studio starts processes of its own: the same code as the server's, in the folder, apart from its terminal."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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


@contextmanager
def answers() -> Iterator[IO[bytes]]:
    """Inside such a process, where its answers go; what libraries print is none, and goes where errors go."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(own, "wb") as file:
        yield file
