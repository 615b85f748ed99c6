"""What several processes cost and gain, and how the cost of a training grows.

    python benchmarks/scaling.py [MODEL ...] [--data NAME] [--steps N] [--rounds N]
    python benchmarks/scaling.py --growth [MODEL ...] [--steps N] [--rounds N]
    python benchmarks/scaling.py --shard

Trainings of the same command in processes of one thread each, in turns: alone; as one process under torchrun; as two
under torchrun; and two that are apart, each with half of the batch, at the same time. Printed are the medians over the
rounds of the wall time of a step, from its start to that of the next, with the exchange of gradients and of decisions,
and the reports; a validation, a picture or a checkpoint would count, too, so that there should be fewer steps than in
an epoch. Then the overhead of torchrun over plain (the bar is 2%), the efficiency of two processes, t(1) / (2 t(2))
(the bar is 85%), and that of two that exchange nothing: what the cores, which share caches and memory, leave of it. The
machine must have nothing else to do.

With --growth one process trains on grey noise, and one thing changes at a time: images in a step, pixels, parameters
(by width=), images of the data set. Printed are the wall time of a step and, over the data set, the seconds of reading
it from PNG files, each with the exponent p of t = c x^p, fitted by least squares of the logarithms.

With --shard two processes divide the weights of a deep transformer. Printed is how much more memory is resident in a
loss than between losses, in the first of them, where weights are gathered by blocks and where all are at once (Linux;
glibc is asked to give blocks above 1 MB back to the system when they are freed: what it keeps for later is not what a
loss needs).
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MODELS = ("ae-residual", "diffusion")
DATA = "fashion-mnist"
STEPS, GROWTH_STEPS, ROUNDS = 200, 20, 3
WARM_UP = 0.2  # share of the steps that is not counted
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
WAYS = {"plain": (), "torchrun 1": (*TORCHRUN, "1"), "torchrun 2": (*TORCHRUN, "2")}

BASE = {"batch": 16, "size": 32, "images": 1000}  # and the width of the preset, where something else changes
GROWTH = {"batch": (8, 16, 32, 64), "size": (32, 64, 128), "width": (16, 32, 64), "images": (1000, 4000, 16_000)}
FIXED = {"diffusion": ["patch=1"]}  # keys with which a network is the same at every size
OF = {"size": "pixels", "width": "parameters"}  # what an exponent is of, where not of the quantity itself
SIDE, VALID = 32, 100  # of the images of noise: px, and how many are held out

DEEP = {"shape": (1, 8, 8), "width": 384, "depth": 24, "heads": 6, "patch": 4}  # of a diffusion-dit
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}  # bytes
ONE_UNIT = 10**9  # numbers in a block, at least, where there is to be none


@dataclass(frozen=True)
class Cost:
    """Wall seconds of a step, seconds of reading the images, the parameters of the model, and images in a step."""

    step_s: float
    reading_s: float
    parameters: int
    batch: int


def train_here(words: list[str], file: Path) -> int:
    """The command line, with the seconds of reading the images and the time at which each step starts in a file."""
    from trilemma.cli.main import main
    from trilemma.training.loop import Trainer

    module: Any = import_module("trilemma.training.train")
    read, take_step = module.read_images, Trainer.take_step
    reading_s, starts = 0.0, list[float]()

    def timed(*args: Any, **keys: Any) -> Any:
        nonlocal reading_s
        start = time.perf_counter()
        result = read(*args, **keys)
        reading_s += time.perf_counter() - start
        return result

    def noted(trainer: Trainer) -> None:
        starts.append(time.perf_counter())
        take_step(trainer)

    module.read_images, Trainer.take_step = timed, noted
    code = main(words)
    if os.environ.get("RANK", "0") == "0":
        file.write_text(json.dumps([reading_s, starts]))
    return code


def weigh_here(file: Path, least: int) -> None:
    """Bytes of the weights of a deep transformer that is divided over the processes of torchrun, and how much more
    memory is resident in three losses than between losses, at the most.

    Args:
        least: numbers in a block whose weights are gathered by themselves.
    """
    import torch

    import trilemma
    from trilemma.progress import Display
    from trilemma.ranks import connected_ranks, current_team
    from trilemma.registry import create
    from trilemma.run.config import TrainConfig
    from trilemma.training import blocks
    from trilemma.training.loop import Trainer

    torch.set_num_threads(1)
    blocks.LEAST = least
    with connected_ranks(), tempfile.TemporaryDirectory() as folder:
        model, config = create("diffusion-dit", **DEEP), TrainConfig(batch=4, steps=1, shard=True, optimizer="adamw")
        weights, data = sum(parameter.nbytes for parameter in model.parameters()), trilemma.load_data("digits")
        display, team = Display("", quiet=True), current_team()
        trainer = Trainer(model, data, config, Path(folder), display, bf16=False, team=team)
        trainer.model.train()
        players, batch = trainer.players, trainer.batch_at(0)

        def differentiate() -> None:
            players.noise.manual_seed(0)
            players.differentiate(players.all[0], players.phases, batch)

        differentiate()
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
        before = _status("VmRSS")
        for _ in range(3):
            differentiate()
        if team.writes:
            file.write_text(json.dumps([weights, _status("VmHWM") - before]))


def _status(name: str) -> int:
    """Bytes, of a line of Linux's /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def start(way: str, words: Sequence[str], **env: str) -> None:
    """This file again, in a way of WAYS, with one thread in each process; its failure ends this process, too."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, *WAYS[way], str(Path(__file__).resolve()), *words]
    done = subprocess.run(command, env=os.environ | threads | env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr[-2000:]}")


def measure(words: Sequence[str], way: str = "plain", *, new_cache: bool = False) -> Cost:
    """What a training costs, in processes of one thread each: the mean of the steps after its warm-up.

    Args:
        new_cache: whether it reads the images anew, and finds none that are decoded.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, file = Path(folder) / "run", Path(folder) / "times.json"
        keys = ["device=cpu", f"out={out}", "sample_every=1000000000", "save_every=1000000000", "quiet=true"]
        env = {"TRILEMMA_CACHE": str(Path(folder) / "cache")} if new_cache else {}
        start(way, ["--child", str(file), "train", *words, *keys], **env)
        reading_s, starts = json.loads(file.read_text())
        summary = json.loads((out / "summary.json").read_text())
    starts = starts[int(WARM_UP * len(starts)) :]
    step_s = (starts[-1] - starts[0]) / (len(starts) - 1)
    return Cost(step_s, reading_s, summary["parameters"], summary["images"] // summary["steps"])


def measure_apart(words: Sequence[str], batch: int) -> float:
    """Seconds of a step of half a batch in two trainings at the same time that know nothing of each other."""
    half = [*words, f"batch={batch // 2}"]
    with ThreadPoolExecutor() as pool:
        return statistics.mean(cost.step_s for cost in pool.map(measure, [half, half]))


def compare_gathering() -> None:
    """Print the memory of a loss whose weights are gathered block by block, and all at once."""
    from trilemma.training.blocks import LEAST

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bytes.json"
        for name, least in (("by blocks", LEAST), ("as one unit", ONE_UNIT)):
            start("torchrun 2", ["--weigh", str(file), str(least)], **GIVEN_BACK)
            weights, more = json.loads(file.read_text())
            print(f"{name:14}{more / 2**20:8.0f} MB in a loss, of {weights / 2**20:.0f} MB of weights", flush=True)


def compare_ways(model: str, data: str, steps: int, rounds: int) -> None:
    """Print what a step costs alone, in one process under torchrun, in two, and in two that are apart."""
    words = [model, data, f"steps={steps}"]
    costs = list[list[float]]()
    for _ in range(rounds):
        by_way = [measure(words, way) for way in WAYS]
        costs.append([*(cost.step_s for cost in by_way), measure_apart(words, by_way[0].batch)])
    plain, one, two, apart = (statistics.median(own) for own in zip(*costs, strict=True))
    times = "".join(f"{1e3 * seconds:16.2f}" for seconds in (plain, one, two, apart))
    shares = f"{one / plain - 1:10.1%}{plain / (2 * two):12.1%}{plain / (2 * apart):8.1%}"
    print(f"{model:14}{times}{shares}", flush=True)


def write_images(folder: Path, count: int) -> None:
    """Images of noise as PNG files."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        levels = generator.integers(0, 256, (SIDE, SIDE), np.uint8)
        Image.fromarray(levels).save(folder / f"{number:06d}.png")


def growth(model: str, steps: int, rounds: int, folder: Path) -> None:
    """Print how the cost of a model grows, by one quantity after the other; the images lie in the folder."""
    for name, values in GROWTH.items():
        words = [_words(model, {**BASE, name: value}, steps, folder) for value in values]
        costs = [[measure(own, new_cache=True) for own in words] for _ in range(rounds)]  # in turns
        medians = [_median(own) for own in zip(*costs, strict=True)]
        print(f"\n{model:14}{name:16}" + "".join(f"{value:14,}" for value in values))
        x = values
        if name in OF:
            x = [side**2 for side in values] if name == "size" else [cost.parameters for cost in medians]
            print(f"{'':14}{OF[name]:16}" + "".join(f"{value:14,}" for value in x))
        print(_line("ms a step", [1e3 * cost.step_s for cost in medians], x), flush=True)
        if name == "images":
            print(_line("s of reading", [cost.reading_s for cost in medians], x), flush=True)


def _words(model: str, keys: Mapping[str, int], steps: int, folder: Path) -> list[str]:
    """The words of a training on some of the images of noise."""
    count = keys["images"]
    given = [f"{name}={value}" for name, value in keys.items() if name != "images"]
    return [model, str(folder / str(count)), *given, *FIXED.get(model, []), f"steps={steps}", f"valid={VALID / count}"]


def _median(costs: Sequence[Cost]) -> Cost:
    """The medians of the same training."""
    step_s, reading_s = (statistics.median(getattr(cost, name) for cost in costs) for name in ("step_s", "reading_s"))
    return Cost(step_s, reading_s, costs[0].parameters, costs[0].batch)


def _line(name: str, seconds: Sequence[float], x: Sequence[float]) -> str:
    """A line of a table: times, and the exponent of their growth."""
    exponent = np.polyfit(np.log(x), np.log(seconds), 1)[0]
    return f"{'':14}{name:16}" + "".join(f"{value:14,.2f}" for value in seconds) + f"   exponent {exponent:.2f}"


def main() -> None:
    """Print a line per model, or with --growth a table, or with --shard two lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--growth", action="store_true", help="how the cost grows with images, pixels and parameters")
    parser.add_argument("--shard", action="store_true", help="the memory of a loss where weights are divided")
    parser.add_argument("--steps", type=int, help=f"of a training (default: {STEPS}; with --growth {GROWTH_STEPS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_intermixed_args()
    if given.shard:
        compare_gathering()
        return
    models = given.models or MODELS
    if not given.growth:
        ways = "".join(f"{way + ', ms':>16}" for way in (*WAYS, "apart"))
        print(f"{'model':14}{ways}{'overhead':>10}{'efficiency':>12}{'apart':>8}")
        for model in models:
            compare_ways(model, given.data, given.steps or STEPS, given.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        for count in GROWTH["images"]:
            write_images(Path(folder) / str(count), count)
        for model in models:
            growth(model, given.steps or GROWTH_STEPS, given.rounds, Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(train_here(sys.argv[3:], Path(sys.argv[2])))
    if sys.argv[1:2] == ["--weigh"]:
        weigh_here(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
