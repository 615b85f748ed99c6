"""The quality of images by what is spent on drawing them: python benchmarks/calls.py RUN [--guidance]

- Frechet distance by network calls: every sampler on every grid of times in 5 to 1,000 calls, with the same weights and
  noise. The cheapest come first; at the end, the best of each number of calls beside the best of all.
- With --guidance, for a run that draws classes: precision, recall and the share of images that a bundled classifier
  takes for the class asked for, over the guidance.

    python benchmarks/calls.py runs/diffusion-fashion --calls 5,10,50 --samplers unipc,dpm++2m --grids karras,log-snr
    python benchmarks/calls.py runs/diffusion-mnist --guidance 1,1.5,2,3,4 --steps 10

Images are measured by held-out images in the bundled features. Each row is printed and kept in --out as soon as it is
measured, and the same command resumes: rows that are there are not measured again.
"""

import argparse
import json
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import trilemma
from trilemma.diffusion.grids import GRIDS
from trilemma.diffusion.samplers import SAMPLERS, calls_of, steps_for
from trilemma.files import write_atomic
from trilemma.hardware import tune_allocator
from trilemma.metrics.classification import class_agreement, classifier_of
from trilemma.metrics.evaluate import reference_by
from trilemma.metrics.features import to_levels
from trilemma.metrics.reals import choose_reals, part_named
from trilemma.types import default_label, keys_of

CALLS = "5,8,10,15,20,50,100,1000"
SCALES = "1,1.25,1.5,2,2.5,3,4"
OPTIONS: dict[str, list[dict[str, Any]]] = {  # of a sampler that has more than one form
    "ddim": [{}, {"eta": 1.0}],
    "dpm++2m": [{}, {"eta": 1.0}],
    "unipc": [{"order": 2}, {"order": 3}],
}
FORM = "| {:6} | {:38} | {:>26} | {:>26} | {:>26} | {:>26} | {:>7} |"
SCORES = ("frechet_distance", "precision", "recall", "class_obeyed")
METHOD = 1  # of drawing and scoring, and of what `auto` stands for: rows of another are measured again


class Table:
    """Rows of a run, in a file."""

    def __init__(self, run: trilemma.Run, images: int, seed: int, path: Path) -> None:
        self.run, self.seed, self.path = run, seed, path
        self.split, _ = choose_reals(run.data)
        self.n = min(images, len(part_named(run.data, self.split)))
        self.rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @cached_property
    def reference(self) -> Any:
        """The real images, and the controls."""
        return reference_by(self.run.data, self.split, self.n, own=True, seed=self.seed)

    def row(self, calls: int, settings: dict[str, Any], *, classes: bool = False) -> dict[str, Any]:
        """The row of some settings: from the file, or measured."""
        key = {
            "weights": self.run.weights_id,
            "keys": self.run.sampling(settings, trilemma.Run.sample).to_json(),
            "images": self.n,
            "seed": self.seed,
            "method": METHOD,
        }
        for row in self.rows:
            if all(row.get(name) == value for name, value in key.items()) and ("class_obeyed" in row) >= classes:
                return {**row, "settings": settings}
        row = {**key, "settings": settings, "calls": calls, **self._measured(settings, classes)}
        self.rows.append(row)
        write_atomic(self.path, "".join(f"{json.dumps(row)}\n" for row in self.rows))
        return row

    def _measured(self, settings: dict[str, Any], classes: bool) -> dict[str, Any]:
        start = time.perf_counter()
        images = torch.cat([to_levels(part.images) for part in self.run.draw(self.n, seed=self.seed, **settings)])
        row: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 1)}
        result = trilemma.evaluate(images, reference=self.reference, n=self.n, split=self.split, seed=self.seed)
        for name in SCORES[:3]:
            row[name] = [result[name].value, *(result[name].interval or ())]
        if classes:
            row["class_obeyed"] = self._obeyed(images)
        return row

    def _obeyed(self, images: Tensor) -> list[float]:
        labels = default_label(torch.arange(len(images)), self.run.model.n_classes)
        share = class_agreement(classifier_of(self.run.data), images, labels)
        return [share.value, *(share.interval or ())]


def ways(run: trilemma.Run, samplers: list[str], grids: list[str]) -> Iterator[dict[str, Any]]:
    """Settings of the run's sampler, without the number of steps: all that it takes."""
    has_grid = "grid" in keys_of(run.model).model_fields
    for name in samplers:
        for options in OPTIONS.get(name, [{}]):
            for grid in grids if has_grid else [None]:
                settings = {"sampler": name, **options, **({} if grid is None else {"grid": grid})}
                try:
                    run.sampling(settings, trilemma.Run.sample)
                except trilemma.UserError:
                    continue
                yield settings


def shown(row: dict[str, Any]) -> str:
    """A row as text."""
    cells = []
    for name in SCORES:
        value, *interval = row.get(name) or [None]
        within = " [{:.3f}, {:.3f}]".format(*interval) if interval else ""
        cells.append("" if value is None else f"{value:.3f}{within}")
    settings = ", ".join(f"{value}" if key == "sampler" else f"{key}={value}" for key, value in row["settings"].items())
    return FORM.format(row["calls"], settings, *cells, f"{row['seconds']:.1f} s")


def head() -> None:
    """Print the first two lines of the table."""
    print(FORM.format("calls", "settings", "Frechet distance", "precision", "recall", "class as asked", "drawing"))
    print("| --- " * 7 + "|", flush=True)


def by_calls(table: Table, given: argparse.Namespace) -> None:
    """Print a row for each number of calls, sampler and grid, and the best of each number."""
    head()
    best: dict[int, dict[str, Any]] = {}
    for calls in numbers(given.calls, int):
        for settings in ways(table.run, given.samplers.split(","), given.grids.split(",")):
            steps = steps_for(settings["sampler"], calls)
            row = table.row(calls_of(settings["sampler"], steps), {**settings, "steps": steps})
            print(shown(row), flush=True)
            value = row["frechet_distance"][0]
            if value is not None and (calls not in best or value < best[calls]["frechet_distance"][0]):
                best[calls] = row
    if not best:
        raise SystemExit(f"{table.n} images are too few for the Frechet distance")
    least = min(row["frechet_distance"][0] for row in best.values())
    print("\nThe best of each number of calls, and its distance over the least of all:")
    for calls, row in best.items():
        print(f"{calls:6} {row['frechet_distance'][0] / least:8.3f} x   {row['settings']}", flush=True)


def by_guidance(table: Table, given: argparse.Namespace) -> None:
    """Print a row for each scale."""
    if not table.run.model.n_classes:
        raise SystemExit(f"{table.run.path} takes no class; train a model with classes=true")
    head()
    for scale in numbers(given.guidance, float):
        calls = given.steps if scale in (0, 1) else 2 * given.steps
        print(shown(table.row(calls, {"guidance": scale, "steps": given.steps}, classes=True)), flush=True)


def numbers(text: str, kind: type) -> list[Any]:
    """Numbers separated by commas."""
    return [kind(word) for word in text.split(",")]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--calls", default=CALLS)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--grids", default=",".join(GRIDS))
    parser.add_argument("--guidance", nargs="?", const=SCALES, help=f"scales (default: {SCALES})")
    parser.add_argument("--steps", type=int, default=10, help="with --guidance (default: 10)")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: runs/calls/RUN.jsonl")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    tune_allocator()
    run = trilemma.load(given.run, device=given.device)
    table = Table(run, given.images, given.seed, given.out or Path("runs/calls") / f"{run.name}.jsonl")
    (by_calls if given.guidance is None else by_guidance)(table, given)


if __name__ == "__main__":
    main()
