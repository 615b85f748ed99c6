"""The machine: which device to use, what it does fast, and how the C library hands out memory."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma.errors import UserError

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc, malloc.h
FAST_BF16 = ("amx_bf16", "avx512_bf16")  # processor flags with which bfloat16 products beat float32 ones


def tune_allocator() -> bool:
    """Make glibc keep large blocks instead of handing them back to the system and faulting them in again each step.

    A training step on the CPU allocates the same few large tensors over and over; this makes convolutions up to twice
    as fast and costs memory that is not returned until the process ends. Call it before torch allocates.

    Returns:
        Whether it was done (Linux with glibc only).
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    try:
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
        return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**31 - 1), mallopt(M_TOP_PAD, 256 << 20)])
    except (OSError, AttributeError):
        return False


def pick_device(word: str = "auto") -> torch.device:
    """The device a word names; "auto" takes the first of cuda, mps and cpu that exists. Of several processes that
    torchrun has started on a machine, each has a GPU of its own, and none has mps.

    Raises:
        UserError: with what this machine has.
    """
    import torch

    devices = _devices()
    if word in ("auto", "cuda") and devices[0] == "cuda" and (is_one_of_several() or "LOCAL_RANK" in os.environ):
        return torch.device("cuda", _required_gpu())
    if word == "auto":
        return torch.device(devices[0])
    if word == "mps" and is_one_of_several():
        raise UserError("device=mps: several processes cannot exchange what lies there; give device=cpu")
    if word not in devices:
        raise UserError(f'this machine has no device "{word}"; choose one of auto, {", ".join(devices)}')
    if word.startswith("cuda:") and is_one_of_several() and word != f"cuda:{_required_gpu()}":
        raise UserError(f"device={word}: each of several processes has a GPU of its own; give device=cuda")
    return torch.device(word)


def own_gpu() -> int | None:
    """The number of this process's GPU, among those that it sees; None where there are too few for all on its machine,
    or it is not known which process of its machine it is. A batch system may show each process a GPU of its own alone
    (SLURM with --gpus-per-task=1), torchrun does not.
    """
    import torch

    count, rank = torch.cuda.device_count() if torch.cuda.is_available() else 0, _number_of("LOCAL_RANK", 0)
    if count == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0
    is_known = "LOCAL_RANK" in os.environ or not is_one_of_several()
    return rank if is_known and rank < count else None


def _required_gpu() -> int:
    """`own_gpu`, where one is asked for."""
    import torch

    if (own := own_gpu()) is not None:
        return own
    rank, count = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    if rank is None:
        raise UserError(
            "LOCAL_RANK is not set: it is the number of a process on its machine, whose GPU it takes; set it in every "
            "process, or give device=cpu"
        )
    raise UserError(
        f"process {rank} of this machine has no GPU of its own, for there are {count}; start {count} processes "
        f"(--nproc-per-node {count}), or give device=cpu"
    )


def is_first_process() -> bool:
    """Whether this process prints and writes, of those that torchrun has started, on one machine or many; also one that
    cannot tell."""
    try:
        return not is_one_of_several() or os.environ["RANK"] == "0"
    except UserError:
        return True


def is_one_of_several() -> bool:
    """Whether torchrun, or a batch system, has started this process with others that are to work together.

    Raises:
        UserError: $WORLD_SIZE is not a number.
    """
    return "RANK" in os.environ and _number_of("WORLD_SIZE", 1) > 1


def _number_of(variable: str, default: int) -> int:
    """A whole number from the environment, where torchrun or a batch system has put it.

    Raises:
        UserError: it is not one.
    """
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise UserError(
            f"{variable}={text} in the environment is not a whole number; start the processes with torchrun, which "
            f"sets it, or unset {variable}"
        )
    return int(text)


def supports_fast_bf16(device: torch.device | str) -> bool:
    """Whether matrix products and convolutions gain from bfloat16 on this device."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and any(flag in FAST_BF16 for flag in _processor("flags").split())


def describe(device: torch.device | None = None) -> dict[str, str | int | float]:
    """Versions and hardware, as plain values: what a run writes down about where it was made. Memory in GiB.

    Args:
        device: the one that is used (default: that of `pick_device`).
    """
    import torch

    device = device or pick_device()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "device_name": _device_name(device),
        "cores": cores(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "fast_bf16": supports_fast_bf16(device),
    }


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Main memory of the machine; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def available_bytes() -> int:
    """Main memory that a new process can have, with what the system would give up for it; 0 where it does not tell."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, LookupError, ValueError):
        return 0


def _devices() -> list[str]:
    """The words `pick_device` takes, best first."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *[f"cuda:{i}" for i in range(count)]] if count else []
    has_mps = torch.backends.mps.is_available() and not is_one_of_several()
    return cuda + (["mps"] if has_mps else []) + ["cpu"]


def _device_name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor("model name") or platform.processor() or platform.machine()


@cache
def _processor(key: str) -> str:
    """A line of Linux's /proc/cpuinfo; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def to_channels_last(model: torch.nn.Module) -> None:
    """Lay out a model's weights with the channels last, which some processors convolve faster."""
    import torch

    lay_out: Any = model.to  # whose stubs lack the layout
    lay_out(memory_format=torch.channels_last)
