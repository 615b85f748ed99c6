"""What several processes cost and gain, and how the cost of a training grows.

    python benchmarks/scaling.py [MODEL ...] [--data NAME] [--steps N] [--rounds N]
    python benchmarks/scaling.py --growth [MODEL ...] [--steps N] [--rounds N]

Trainings of the same command in processes of one thread each, in turns: alone; as one process under torchrun; as two
under torchrun. Printed are the medians over the rounds of the wall time of a step, from its start to that of the next,
with the exchange of gradients and of decisions, and the reports; a validation, a picture or a checkpoint would count,
too, so that there should be fewer steps than in an epoch. Then the overhead of torchrun over plain (the bar is 2%), and
the efficiency of two processes, t(1) / (2 t(2)) (the bar is 85%). The machine must have nothing else to do.

With --growth one process trains on grey noise, and one thing changes at a time: images in a step, pixels, parameters
(by width=), images of the data set. Printed are the wall time of a step and, over the data set, the seconds of reading
it from PNG files, each with the exponent p of t = c x^p, fitted by least squares of the logarithms.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Cost:
    """Wall seconds of a step, seconds of reading the images, and the parameters of the model."""

    step_s: float
    reading_s: float
    parameters: int


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


def measure(words: Sequence[str], way: str = "plain", *, new_cache: bool = False) -> Cost:
    """What a training costs, in processes of one thread each: the mean of the steps after its warm-up.

    Args:
        new_cache: whether it reads the images anew, and finds none that are decoded.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, file = Path(folder) / "run", Path(folder) / "times.json"
        keys = ["device=cpu", f"out={out}", "sample_every=1000000000", "save_every=1000000000", "quiet=true"]
        env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        env |= {"TRILEMMA_CACHE": str(Path(folder) / "cache")} if new_cache else {}
        script = [str(Path(__file__).resolve()), "--child", str(file)]
        done = subprocess.run(
            [sys.executable, *WAYS[way], *script, "train", *words, *keys],
            env=env,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{' '.join(words)}: {done.stderr[-2000:]}")
        reading_s, starts = json.loads(file.read_text())
        parameters = json.loads((out / "summary.json").read_text())["parameters"]
    starts = starts[int(WARM_UP * len(starts)) :]
    return Cost((starts[-1] - starts[0]) / (len(starts) - 1), reading_s, parameters)


def compare_ways(model: str, data: str, steps: int, rounds: int) -> None:
    """Print what a step costs alone, in one process under torchrun, and in two."""
    words = [model, data, f"steps={steps}"]
    costs = [{way: measure(words, way).step_s for way in WAYS} for _ in range(rounds)]
    plain, one, two = (statistics.median(cost[way] for cost in costs) for way in WAYS)
    times = "".join(f"{1e3 * seconds:16.2f}" for seconds in (plain, one, two))
    print(f"{model:14}{times}{one / plain - 1:10.1%}{plain / (2 * two):12.1%}", flush=True)


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
    return Cost(step_s, reading_s, costs[0].parameters)


def _line(name: str, seconds: Sequence[float], x: Sequence[float]) -> str:
    """A line of a table: times, and the exponent of their growth."""
    exponent = np.polyfit(np.log(x), np.log(seconds), 1)[0]
    return f"{'':14}{name:16}" + "".join(f"{value:14,.2f}" for value in seconds) + f"   exponent {exponent:.2f}"


def main() -> None:
    """Print a line per model, or with --growth a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--growth", action="store_true", help="how the cost grows with images, pixels and parameters")
    parser.add_argument("--steps", type=int, help=f"of a training (default: {STEPS}; with --growth {GROWTH_STEPS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    models = given.models or MODELS
    if not given.growth:
        print(f"{'model':14}" + "".join(f"{way + ', ms':>16}" for way in WAYS) + f"{'overhead':>10}{'efficiency':>12}")
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
    main()
