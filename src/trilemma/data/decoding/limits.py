"""How much a source may have: bytes of decoded images in memory, and files."""

import os
from pathlib import Path

from trilemma.errors import UserError
from trilemma.hardware import available_bytes, memory_bytes

PER_ITEM = 2**11  # bytes of memory that an image takes beside its pixels: its name, place, class and caption
FEWEST = 2**17  # images that a source may have in any case


def memory_limit() -> int:
    """Bytes of decoded images that this process keeps in memory: $TRILEMMA_MEMORY, else half of what is free, divided
    by the processes that torchrun has started on the machine, each of which has them all."""
    own = os.environ.get("TRILEMMA_MEMORY")
    if own is not None:
        if not own.isdecimal():
            raise UserError(f"TRILEMMA_MEMORY={own}: give a number of bytes, for instance 1000000000")
        return int(own)
    available = available_bytes() or memory_bytes() or 2**32
    return min(available, _group_limit()) // (2 * _processes_here())


def most_items() -> int:
    """How many images, or files, a source may have."""
    return max(FEWEST, memory_limit() // PER_ITEM)


def check_count(count: int, most: int | None = None) -> None:
    """Raises UserError where a source has more images, or files, than it may."""
    if count > (most := most_items() if most is None else most):
        raise UserError(
            f"the source has more than {most:,} images or files, the most that memory allows; give a part of it, "
            "or set TRILEMMA_MEMORY to more bytes"
        )


def _processes_here() -> int:
    """The processes of a training on this machine."""
    count = os.environ.get("LOCAL_WORLD_SIZE", "1")  # of torchrun
    return max(1, int(count)) if count.isdecimal() else 1


def _group_limit() -> int:
    """Bytes that a container's limit leaves; no bound without one."""
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{word}").read_text().strip() for word in ("max", "current"))
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return 2**63
