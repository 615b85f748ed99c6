"""Processes of torch.distributed, as torchrun starts them."""

import os
import socket
import subprocess
import sys


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(rank: int, size: int, port: int, *words: str) -> subprocess.Popen:
    """A process as torchrun starts it; TRILEMMA_TIMEOUT_S is 60 unless it is set."""
    env = {"TRILEMMA_TIMEOUT_S": "60"} | os.environ
    env |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    env |= {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *words], env=env, text=True, **pipes)  # type: ignore[call-overload]


def start_all(size: int, *words: str) -> list[subprocess.Popen]:
    port = free_port()
    return [start(rank, size, port, *words) for rank in range(size)]


def torchrun(*words: str) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trilemma"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *launcher, *words], env=env, capture_output=True, text=True, check=False)
