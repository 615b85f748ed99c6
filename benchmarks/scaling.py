"""What several processes cost and gain: python benchmarks/scaling.py [MODEL ...] [--data NAME] [--steps N] [--rounds N]

Trainings of the same command in processes of one thread each, in turns: alone; as one process under torchrun; as two
under torchrun. Of each the seconds of a step, which the log has, without the validations, pictures and checkpoints.
Printed are the medians over the rounds: the overhead of torchrun over plain (the bar is 2%), and the efficiency of two
processes, t(1) / (2 t(2)) (the bar is 85%). The machine must have nothing else to do.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = ("ae-residual", "diffusion")
DATA = "fashion-mnist"
STEPS, ROUNDS = 200, 3
WARM_UP = 0.2  # share of the steps that is not counted
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
WAYS = {"plain": (), "torchrun 1": (*TORCHRUN, "1"), "torchrun 2": (*TORCHRUN, "2")}


def seconds_per_step(model: str, data: str, way: str, steps: int) -> float:
    """Of a training, after its warm-up: from the rows of its log."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["-m", "trilemma", "train", model, data, f"steps={steps}", "device=cpu", f"out={out}"]
        words += ["sample_every=1000000000", "save_every=1000000000", "quiet=true"]
        subprocess.run(
            [sys.executable, *WAYS[way], *words],
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
        rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    timed = [(row["step"], row["seconds"]) for row in rows if "seconds" in row and "step" in row]
    first = next((entry for entry in timed if entry[0] >= WARM_UP * steps), timed[0])
    last = timed[-1]
    return (last[1] - first[1]) / max(last[0] - first[0], 1)


def main() -> None:
    """Print a line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    print(f"{'model':14}" + "".join(f"{way + ', ms':>16}" for way in WAYS) + f"{'overhead':>10}{'efficiency':>12}")
    for model in given.models or MODELS:
        rounds = [
            {way: seconds_per_step(model, given.data, way, given.steps) for way in WAYS} for _ in range(given.rounds)
        ]
        plain, one, two = (statistics.median(seconds[way] for seconds in rounds) for way in WAYS)
        times = "".join(f"{1e3 * seconds:16.2f}" for seconds in (plain, one, two))
        print(f"{model:14}{times}{one / plain - 1:10.1%}{plain / (2 * two):12.1%}", flush=True)


if __name__ == "__main__":
    main()
