"""Data larger than memory in several processes: each reads the images of its own positions, and keeps none."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from data.memory import WATCH
from processes import start_all

from trilemma.data.decoding import limits

SIDE = 64
STREAM = int(os.environ.get("TRILEMMA_STREAM_MB", "1200")) * 10**6  # bytes of decoded images; 4000 for the figure
MOST = 10**9  # bytes of anonymous memory of a process
TRAIN = (
    WATCH
    + """
import json, torch, trilemma
torch.set_num_threads(1)
trilemma.Run  # what a process has before it trains counts, too
watch()
keys = {"steps": 20, "batch": 16, "width": 4, "sample_every": 10**9, "valid": 0.0005, "device": "cpu"}
run = trilemma.train("ae-conv", sys.argv[1], out=sys.argv[2], quiet=True, **keys)
print(json.dumps([before(), peak()]))
"""
)


def write_images(path: Path, count: int) -> None:
    """Images of noise (count, SIDE, SIDE, 3) as a file of numpy."""
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, SIDE, SIDE, 3))
    generator = np.random.default_rng(0)
    for first in range(0, count, 1000):
        images[first : first + 1000] = generator.integers(0, 256, images[first : first + 1000].shape, np.uint8)
    images.flush()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_of_data_larger_than_memory_a_process_keeps_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak of anonymous memory of each process is below a gigabyte, which the images alone are above."""
    assert STREAM > MOST
    write_images(tmp_path / "images.npy", STREAM // (3 * SIDE * SIDE))
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRILEMMA_MEMORY", str(STREAM // 5))
    processes = start_all(2, "-c", TRAIN, str(tmp_path / "images.npy"), str(tmp_path / "run"))
    outputs = [process.communicate(timeout=500) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [text[-2500:] for _, text in outputs]
    for rank, (out, _) in enumerate(outputs):
        before, peak = json.loads(out)
        print(f"process {rank}: {before / 1e6:.0f} MB before, {peak / 1e6:.0f} MB at the most")
        assert before < peak < MOST, (before, peak)


@pytest.mark.parametrize(("count", "share"), [(None, 1), ("1", 1), ("4", 4), ("four", 1)])
def test_memory_is_divided_by_the_processes_of_a_machine(
    count: str | None, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "available_bytes", lambda: 8_000)
    monkeypatch.setattr(limits, "_group_limit", lambda: 2**63)
    monkeypatch.delenv("TRILEMMA_MEMORY", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if count is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", count)
    assert limits.memory_limit() == 4_000 // share
