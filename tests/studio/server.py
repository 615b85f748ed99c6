"""A studio of a folder as a process, for the tests that use one over HTTP."""

import os
import subprocess
import sys
from contextlib import contextmanager

from processes import free_port


@contextmanager
def serving(folder, *words, opens=False, stderr=subprocess.DEVNULL, **environment):
    """Its address, with the token, and the process, which is ended however the block ends.

    Args:
        words: further ones of the command line; opens: whether it asks for a browser; environment: on top of the own.
    """
    line = [sys.executable, "-m", "trilemma", "studio", str(folder), f"port={free_port()}", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": stderr}
    own = {**os.environ, **environment}
    with subprocess.Popen(line if opens else [*line, "open=false"], env=own, text=True, **pipes) as process:
        try:
            yield process.stdout.readline().rsplit(" ", 1)[1].strip(), process
        finally:
            process.terminate()
