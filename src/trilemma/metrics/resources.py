"""Energy and memory, where the machine tells them.

Energy, J: the counters of the processors (Linux powercap, "RAPL"), which count all that runs on the machine, and most
systems let only the administrator read them; or the counter of an NVIDIA GPU (NVML, from Volta on), which counts all
that runs on it, is renewed about ten times a second, and is read by the package nvidia-ml-py. Memory: the most that
tensors take at a time beside what was there before, bytes. Except on CUDA, only tensors that operations return are
counted, not the scratch memory within them.
"""

import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

POWERCAP = Path("/sys/class/powercap")
ZONE = "intel-rapl:[0-9]*"  # a processor, AMD's too, or the whole platform ("psys"); parts have a second colon
LEAST_S = 1.0  # seconds of which the counter of a GPU gives the energy: ten times as long as between two readings
UNREADABLE = (
    "the counters of the processors (/sys/class/powercap) cannot be read; most systems let only the administrator do it"
)
NO_PACKAGE = (
    "the counter of the GPU is read by the package nvidia-ml-py, which is not installed: pip install nvidia-ml-py"
)
Counters = dict[str, tuple[int, int]]  # by name, a counter and its largest value, microjoules


class EnergyMeter:
    """Counts the energy of a device from its creation on: of all processors, or of one GPU."""

    def __init__(self, device: torch.device, folder: Path = POWERCAP) -> None:
        self.least_s = 0.0 if device.type == "cpu" else LEAST_S
        self.read = partial(_of_processors, folder) if device.type == "cpu" else partial(_of_gpu, device)
        self.begin, self.start = time.perf_counter(), self.read()

    def joules(self) -> float | str:
        """Since the creation, or the reason why that is not known. A counter that passed its largest value once is
        allowed for."""
        now, seconds = self.read(), time.perf_counter() - self.begin
        if isinstance(now, str) or isinstance(self.start, str):
            return now if isinstance(now, str) else str(self.start)
        if seconds < self.least_s:
            return f"{seconds:.2g} s of drawing are too short for the counter of the GPU; draw more images (n=)"
        total = 0
        for name, (value, largest) in now.items():
            moved = value - self.start[name][0]
            total += moved if moved >= 0 else moved + largest
        return total / 1e6

    def joules_per(self, images: int) -> float | str:
        """Of so many images since the creation, each; or the reason why that is not known."""
        joules = self.joules()
        return joules if isinstance(joules, str) else joules / images


def _of_gpu(device: torch.device) -> Counters | str:
    """The counter of an NVIDIA GPU, 64 bits wide; the reason where it cannot be read."""
    if device.type != "cuda":
        return f"the energy of {device.type} is not measured"
    try:
        import pynvml  # pyright: ignore[reportMissingImports]
    except ImportError:
        return NO_PACKAGE
    try:
        pynvml.nvmlInit()
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        millijoules = pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(name))
    except (pynvml.NVMLError, AttributeError, RuntimeError) as error:
        return f"the counter of the GPU cannot be read: {error}"
    return {name: (1000 * millijoules, 2**64)}


def _of_processors(folder: Path) -> Counters | str:
    """The counter of each processor; the reason where one cannot be read. The platform counts its processors again."""
    values = {}
    try:
        for path in folder.glob(ZONE):
            if path.name.count(":") == 1 and (path / "name").read_text().startswith("package"):
                files = (path / "energy_uj", path / "max_energy_range_uj")
                energy, largest = (int(file.read_text()) for file in files)
                values[path.name] = (energy, largest)
    except (OSError, ValueError):
        return UNREADABLE
    return values or UNREADABLE


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
