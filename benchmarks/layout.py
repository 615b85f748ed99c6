"""Which precision and layout a network trains fastest in: python benchmarks/layout.py [MODEL ...] [--device cuda]

Images per second of the bare step of each recipe in float32 and bfloat16 (autocast), with plain and channels-last
tensors, in turns in this process; best of ROUNDS. Bfloat16 is left out where its products are more than ten times
slower. A star marks what the recipe chooses here. Before that, what the machine can do at most: the rate of large
matrix products in both precisions and that of copying memory; behind each model, the share of the matrix rate of its
fastest column that its own products reach.
"""

import argparse
import itertools
import time

import torch
from bare import BareStep
from torch.utils.flop_counter import FlopCounterMode

from trilemma.data import load_data
from trilemma.hardware import describe, supports_fast_bf16, tune_allocator
from trilemma.registry import get_recipe

SECONDS, ROUNDS, SIDE = 2.0, 3, 4096
MODELS = ("ae-stacked", "vae", "ae-conv", "ae-recurrent", "gan", "gan-dcgan-28", "gan-dcgan", "diffusion-small")
COLUMNS = tuple(itertools.product((False, True), (False, True)))  # bf16, channels last
HOPELESS = 10  # bfloat16 is not tried where its products are so many times slower


def matrix_rate(dtype: torch.dtype, device: str) -> float:
    """Floating-point operations per second of large matrix products; of smaller ones where those take seconds."""
    best = 0.0
    for side in (*[SIDE // 8] * 8, *[SIDE] * 4):  # the first one is slow: it starts the threads
        if side == SIDE and 2 * side**3 / best > SECONDS:
            break
        a = torch.randn(side, side, device=device).to(dtype)
        _wait(device)
        start = time.perf_counter()
        a @ a
        _wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def memory_rate(device: str) -> float:
    """Bytes read and written per second by a copy of 512 MB."""
    source = torch.ones(2**27, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(6):
        _wait(device)
        start = time.perf_counter()
        target.copy_(source)
        _wait(device)
        best = max(best, 2 * source.nbytes / (time.perf_counter() - start))
    return best


def operations(step: BareStep) -> float:
    """Floating-point operations of the matrix products and convolutions of a step, per image."""
    with FlopCounterMode(display=False) as counter:
        step(0)
    return counter.get_total_flops() / step.config.batch


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print the machine's limits and a line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    tune_allocator()
    rates = {False: matrix_rate(torch.float32, given.device), True: matrix_rate(torch.bfloat16, given.device)}
    print(
        f"{describe()['device_name']}, {torch.get_num_threads()} threads: matrix products {rates[False] / 1e9:,.0f} ",
        end="",
    )
    print(
        f"(float32) and {rates[True] / 1e9:,.0f} (bfloat16) GFLOP/s; copy {memory_rate(given.device) / 1e9:,.0f} GB/s"
    )
    titles = ("float32", "+ ch. last", "bfloat16", "+ ch. last")
    print(f"{'model':18}{'batch':>6}" + "".join(f"{title:>12}" for title in titles) + f"{'of rate':>10}")
    columns = [column for column in COLUMNS if not column[0] or rates[True] * HOPELESS > rates[False]]
    data = load_data("fashion-mnist")
    for name in given.models or MODELS:
        steps = {(b, c): BareStep(name, data, bf16=b, channels_last=c, device=given.device) for b, c in columns}
        best = dict.fromkeys(columns, 0.0)
        for _ in range(ROUNDS):
            for column, step in steps.items():
                best[column] = max(best[column], step.speed(SECONDS))
        training = get_recipe(name).training
        chosen = (supports_fast_bf16(given.device), training.get("channels_last", False))
        cells = [f"{best[c]:,.0f}{'*' if c == chosen else ' '}" if c in best else "- " for c in COLUMNS]
        top = max(columns, key=lambda column: best[column])
        share = best[top] * operations(steps[top]) / rates[top[0]]
        print(
            f"{name:18}{training['batch']:6}" + "".join(f"{cell:>12}" for cell in cells) + f"{share:10.0%}", flush=True
        )


if __name__ == "__main__":
    main()
