"""Energy and memory, where the machine tells them.

Energy: the counters of the processors (Linux powercap, "RAPL"), J; they count all that runs on the machine, and most
systems let only the administrator read them. Memory: the most that tensors take at a time beside what was there
before, bytes. Except on CUDA, only tensors that operations return are counted, not the scratch memory within them.
"""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

POWERCAP = Path("/sys/class/powercap")
PACKAGE = "intel-rapl:[0-9]*"  # a processor; AMD's have that name, too. Its parts have a second colon


class EnergyMeter:
    """Counts the energy of the processors from its creation on."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self.folder, self.start = folder, _counters(folder)

    def joules(self) -> float | None:
        """Since the creation; None where the machine does not tell. A counter that passed its largest value once is
        allowed for."""
        now = _counters(self.folder)
        if not self.start or now.keys() != self.start.keys():
            return None
        total = 0
        for package, (value, largest) in now.items():
            moved = value - self.start[package][0]
            total += moved if moved >= 0 else moved + largest
        return total / 1e6


def _counters(folder: Path) -> dict[str, tuple[int, int]]:
    """Of each processor its counter and the largest value of that, microjoules; {} where one cannot be read."""
    values = {}
    try:
        for path in folder.glob(PACKAGE):
            if path.name.count(":") == 1:
                files = (path / "energy_uj", path / "max_energy_range_uj")
                energy, largest = (int(file.read_text()) for file in files)
                values[path.name] = (energy, largest)
    except (OSError, ValueError):
        return {}
    return values


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most that the tensors of some work take at a time, beside those that were there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with Allocations() as allocations:
        work()
    return allocations.most


class Allocations(TorchDispatchMode):
    """Counts the bytes of the tensors that operations return while they exist; `most` is the largest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.most = 0
        self.alive: dict[int, weakref.finalize[..., Any]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, and count what it returns."""
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), given)
        return result

    def _count(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        """A storage that is new."""
        key = id(storage)
        if key in self.alive or key in given:
            return
        size = storage.nbytes()
        self.total += size
        self.most = max(self.most, self.total)
        self.alive[key] = weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.total -= size
        del self.alive[key]
