"""Waiting before anything happens: python benchmarks/startup.py

Best of ROUNDS, in seconds, each in a fresh interpreter; the first line is the interpreter alone.
"""

import subprocess
import sys
import time

ROUNDS = 9
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import trilemma": ["-c", "import trilemma"],
    "trilemma --help": ["-m", "trilemma", "--help"],
    "trilemma list": ["-m", "trilemma", "list"],
}


def seconds(words: list[str]) -> float:
    """One start."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    for name, words in COMMANDS.items():
        print(f"{name:18}{min(seconds(words) for _ in range(ROUNDS)):8.3f}", flush=True)
