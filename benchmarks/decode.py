"""Opening a zip of JPEG files: python benchmarks/decode.py [N]

Against one image at a time through PIL in one thread, into the same tensor; in turns, medians of ROUNDS. Then a second
opening, which finds the decoded cache, and the peak of memory as a multiple of the tensor.
"""

import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROUNDS, SIDE = 3, 64


def make_zip(path: Path, n: int) -> None:
    """n JPEG files in ten class folders: smooth noise, so that they have the size of small photographs."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(n):
            buffer = io.BytesIO()
            Image.fromarray(coarse[k]).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=90)
            archive.writestr(f"{k % 10}/{k:06d}.jpg", buffer.getvalue())


def plain(path: Path) -> float:
    """Seconds of one image after the other."""
    start = time.perf_counter()
    with zipfile.ZipFile(path) as archive:
        images = [np.array(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in archive.namelist()]
    torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return time.perf_counter() - start


def opened(path: Path, cache: Path) -> tuple[float, float]:
    """Seconds and peak of memory, bytes, of `load_data`, in a process of its own; its start is counted off.

    The peak is that of the largest process: what forked decoders hold is shared with the first one for the most part.
    """
    code = (
        "import resource, sys, time, trilemma, torch, PIL.Image\n"
        "from trilemma.data import load_data\n"
        "status = lambda: dict(line.split(':') for line in open('/proc/self/status'))\n"
        "mine = lambda: 1024 * int(status()['VmHWM'].split()[0])\n"  # ru_maxrss has that of the parent in it
        "children = lambda: 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "before, start = mine(), time.perf_counter()\n"
        "load_data(sys.argv[1])\n"
        "print(time.perf_counter() - start, max(mine(), children()) - before)"
    )
    env = os.environ | {"TRILEMMA_CACHE": str(cache)}
    process = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, env=env
    )
    seconds, peak = map(float, process.stdout.split())
    return seconds, peak


def main(n: int) -> None:
    """Print the ratio, the second opening and the memory."""
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "images.zip", Path(folder) / "cache"
        make_zip(path, n)
        slow, quick, peak, again = [], [], 0.0, []
        for _ in range(ROUNDS):
            slow.append(plain(path))
            shutil.rmtree(cache, ignore_errors=True)
            seconds, peak = opened(path, cache)
            quick.append(seconds)
            again.append(opened(path, cache)[0])
    tensor = n * 3 * SIDE * SIDE
    one, ours = statistics.median(slow), statistics.median(quick)
    print(
        f"{n:,} JPEG of {SIDE}x{SIDE}: one by one {one:.1f} s, trilemma {ours:.1f} s: {one / ours:.2f} x; second ",
        end="",
    )
    print(f"opening {statistics.median(again):.2f} s; peak memory {peak / tensor:.2f} x the tensor")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
