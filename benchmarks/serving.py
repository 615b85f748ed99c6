"""A studio of a folder as a process, for the scripts that use one over HTTP."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A studio of a folder, which is ended however the block ends: its process, and the address that lets in."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    words = [sys.executable, "-m", "trilemma", "studio", str(folder), f"port={port}", "open=false"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "http" not in line:
                raise RuntimeError(f"the studio does not start: {' '.join(words)}")
            yield process, line.rsplit(" ", 1)[1].strip()
        finally:
            process.terminate()
