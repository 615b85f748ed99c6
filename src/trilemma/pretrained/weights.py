"""The weights of a pipeline before they are loaded: how many parameters, in which precision, and whether they fit."""

import math
from pathlib import Path
from typing import Any

import torch

from trilemma.errors import UserError
from trilemma.hardware import available_bytes, memory_bytes, supports_fast_bf16
from trilemma.pretrained.fetch import HALF
from trilemma.pretrained.safety import WEIGHTS
from trilemma.text import note
from trilemma.words import size_in_words

ROOM = 1.3  # of a GPU's memory, for each byte of weights: what is computed needs some, too


def precision_for(device: torch.device) -> torch.dtype:
    """Half precision on a CUDA device, bfloat16 where it has that, which does not overflow; float32 elsewhere, for mps
    too, where half precision was not tried."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if supports_fast_bf16(device) else torch.float16


def weight_files(folder: Path, parts: dict[str, Any]) -> list[Path]:
    """The files of weights that parts are loaded from: in full precision where there are such."""
    files: list[Path] = []
    for part in parts:
        own = sorted((folder / part).glob(f"*{WEIGHTS}"))
        full = [path for path in own if "." not in path.stem]
        files += full or [path for path in own if HALF in path.name]
    return files


def parameters_in(files: list[Path]) -> int:
    """How many parameters files of weights hold, by their headers."""
    from safetensors import safe_open

    total = 0
    for path in files:
        with safe_open(path, framework="pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def check_memory(name: str, needed: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Say what the weights need, before they are loaded.

    Returns:
        Whether parts have to be moved to the device one after another.
    Raises:
        UserError: the machine has not so much memory free.
    """
    memory = available_bytes() or memory_bytes()
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory
    precision = str(dtype).removeprefix("torch.")
    note(f"{name}: {size_in_words(needed)} of weights in {precision} on {device}, with {size_in_words(free)} free")
    if memory and needed > memory:
        raise UserError(
            f"{name} needs {size_in_words(needed)} of memory, and this machine has {size_in_words(memory)} free; "
            "close other programs, or choose a smaller model="
        )
    offloads = device.type == "cuda" and needed * ROOM > free
    if offloads:
        note(f"{name}: its parts are moved to {device} one after another, as they do not fit together")
    return offloads
