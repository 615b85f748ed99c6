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
BATCH = 512
HELD_OUT = 0.0005  # share of the images
TRAIN = (
    WATCH
    + """
import json, torch, trilemma
from trilemma.data.loader import Loader

torch.set_num_threads(1)
trilemma.Run  # what a process has before it trains counts, too
steps, batch = map(int, sys.argv[3:5])
rows, others, batch_at = [], [], Loader.batch_at

def noted(loader, *place):
    result = batch_at(loader, *place)
    (rows if loader.batch == batch else others).extend(result.index.tolist())
    return result

Loader.batch_at = noted
watch()
keys = {"steps": steps, "batch": batch, "width": 4, "sample_every": 10**9, "device": "cpu", "valid": float(sys.argv[5])}
run = trilemma.train("ae-conv", sys.argv[1], out=sys.argv[2], quiet=True, **keys)
print(json.dumps([before(), peak(), rows, len(others)]))
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
def test_of_data_larger_than_memory_a_process_reads_its_part_and_keeps_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pass over all images each of two processes reads half of them, none that the other reads; the peak of its
    anonymous memory is below a gigabyte, which the images alone are above."""
    assert STREAM > MOST
    count = STREAM // (3 * SIDE * SIDE)
    steps = int((1 - 2 * HELD_OUT) * count) // BATCH
    write_images(tmp_path / "images.npy", count)
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRILEMMA_MEMORY", str(STREAM // 10))
    words = [str(tmp_path / "images.npy"), str(tmp_path / "run"), str(steps), str(BATCH), str(HELD_OUT)]
    processes = start_all(2, "-c", TRAIN, *words)
    outputs = [process.communicate(timeout=570) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [text[-2500:] for _, text in outputs]
    read: list[int] = []
    for rank, (out, _) in enumerate(outputs):
        before, peak, rows, others = json.loads(out)
        print(f"process {rank}: {before / 1e6:.0f} MB before, {peak / 1e6:.0f} MB at the most")
        assert before < peak < MOST, (before, peak)
        assert len(rows) == steps * BATCH // 2 and others < count / 100
        read += rows
    assert len(set(read)) == len(read) > 0.99 * count


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
