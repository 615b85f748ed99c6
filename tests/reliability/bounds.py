"""A command line in a process of its own, watched: it must end soon, within 1 GB, and with one sentence."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trilemma

CPU_S, WALL_S = 10, 60  # a busy machine stretches the second, a pipe that nobody writes to shows in it
MEMORY = 10**9  # bytes, of which Python and torch take a third
OWN = {"PYTHONPATH": str(Path(trilemma.__file__).parents[1]), "OMP_NUM_THREADS": "1"}  # the code that is tested


@dataclass(frozen=True)
class Outcome:
    """code: the exit code, -9 where it was killed for its memory or time; peak: bytes of memory in use at the most."""

    code: int
    out: str
    err: str
    peak: int
    wall_s: float


def run_within(folder: Path, *words: object, memory: int = MEMORY, env: dict[str, str] | None = None) -> Outcome:
    """Run `trilemma WORDS` in a folder; a process beyond the bounds is killed."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "trilemma", *map(str, words)],
        cwd=folder,
        env={**os.environ, **OWN, "TRILEMMA_CACHE": str(folder / "cache"), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        preexec_fn=_limit_cpu,
    )
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process, memory, peak))
    watcher.start()
    try:
        out, err = process.communicate(timeout=WALL_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    watcher.join()
    return Outcome(process.returncode, out, err, peak[0], time.monotonic() - start)


def refused(folder: Path, *words: object, env: dict[str, str] | None = None) -> str:
    """The one sentence with which a command line is refused, within the bounds."""
    process = run_within(folder, *words, env=env)
    assert process.code == 2, process
    lines = [line for line in process.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, process.err
    assert "defect" not in process.err and "Traceback" not in process.err, process.err
    assert process.peak < MEMORY, f"{process.peak:,} bytes"
    return lines[0].removeprefix("error: ")


def _limit_cpu() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))


def _watch(process: subprocess.Popen, memory: int, peak: list[int]) -> None:
    """Note the memory of a process until it ends, and kill it where that is too much."""
    while process.poll() is None:
        with suppress(OSError):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak[0] = max(peak[0], *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
        if peak[0] > memory:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
