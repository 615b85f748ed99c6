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
    torchrun has started on a machine, each has a GPU of its own.

    Raises:
        UserError: with what this machine has.
    """
    import torch

    devices = _devices()
    if word in ("auto", "cuda") and devices[0] == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device(_own_gpu(int(os.environ["LOCAL_RANK"]), devices))
    if word == "auto":
        return torch.device(devices[0])
    if word not in devices:
        raise UserError(f'this machine has no device "{word}"; choose one of auto, {", ".join(devices)}')
    return torch.device(word)


def _own_gpu(rank: int, devices: list[str]) -> str:
    """The GPU of a process among those of its machine."""
    if (own := f"cuda:{rank}") in devices:
        return own
    count = sum(device.startswith("cuda:") for device in devices)
    raise UserError(
        f"process {rank} of this machine has no GPU of its own, for there are {count}; start {count} processes "
        f"(--nproc-per-node {count}), or give device=cpu"
    )


def is_first_process() -> bool:
    """Whether this process prints and writes, of those that torchrun has started, on one machine or many."""
    return os.environ.get("RANK", "0") == "0"


def is_one_of_several() -> bool:
    """Whether torchrun, or a batch system, has started this process with others that are to work together."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def supports_fast_bf16(device: torch.device | str) -> bool:
    """Whether matrix products and convolutions gain from bfloat16 on this device."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and any(flag in FAST_BF16 for flag in _processor("flags").split())


def describe() -> dict[str, str | int | float]:
    """Versions and hardware, as plain values: what a run writes down about where it was made. Memory in GiB."""
    import torch

    device = pick_device()
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
    return cuda + (["mps"] if torch.backends.mps.is_available() else []) + ["cpu"]


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
