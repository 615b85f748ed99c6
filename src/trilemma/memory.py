"""Out of memory: recognise it, and do the same work in smaller pieces where that gives the same result."""

import gc
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
FULL = (  # how torch says so where it has no kind of error for it
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
    "could not create a primitive",  # oneDNN, on a CPU
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in FULL)


def halving(action: Callable[[int], T], size: int, notice: Callable[[str], None] = lambda text: None) -> T:
    """`action(size)`, again with half the size each time memory runs out, down to 1.

    For work whose result does not depend on the size of its batches: validation, sampling, encoding.
    """
    while True:
        try:
            return action(size)
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        size //= 2
        release()
        notice(f"out of memory: continuing with batches of {size}")


def with_room(action: Callable[[], T]) -> T:
    """`action()`; if memory runs out, once more after what nothing refers to was given back."""
    try:
        return action()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    release()
    return action()


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies by name; on the CPU where their own device has no room for them."""
    try:
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    release()
    return in_main_memory(tensors)


def in_main_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies by name, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def release() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
