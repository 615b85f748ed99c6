"""Drawing 10,000 images from every family: python benchmarks/sampling.py [N] [MODEL ...]

Untrained networks at 28x28, by their default sampler, in batches of 256. Printed are images per second and the memory
that drawing twice as many adds at the peak: the images themselves are counted off, so that about 0 means that `batch`
bounds it. Each model has a process of its own.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS = ("ae-stacked", "vae", "gan-dcgan", "diffusion-small")


def measure(name: str, n: int) -> str:
    """A line about one model, in this process."""
    import trilemma
    from trilemma.hardware import tune_allocator

    tune_allocator()
    with tempfile.TemporaryDirectory() as folder:
        run = trilemma.train(name, "mnist", steps=1, out=Path(folder) / "run", quiet=True)
        for _ in run.draw(512):
            pass
        peaks, spent = [], 0.0
        for count in (n // 2, n):
            start = time.perf_counter()
            for _ in run.draw(count):
                pass
            spent = time.perf_counter() - start
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return f"{name:18}{n / spent:12,.0f}{peaks[1] - peaks[0]:12.1f}"


def main(words: list[str]) -> None:
    """Print a line per model."""
    if words[:1] == ["--measure"]:
        return print(measure(words[1], int(words[2])))
    n = int(words[0]) if words and words[0].isdigit() else 10_000
    print(f"{'model':18}{'images/s':>12}{'more MB':>12}   ({n:,} images)")
    for name in [word for word in words if not word.isdigit()] or MODELS:
        command = [sys.executable, __file__, "--measure", name, str(n)]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
