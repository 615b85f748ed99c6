"""The quality of images by what is spent on drawing them: python benchmarks/calls.py RUN [--guidance]

- Frechet distance by network calls: every sampler on every grid of times in 5 to 1,000 calls, with the same weights and
  noise. The cheapest come first; at the end, over the least distance of all, that of the best of each number of calls,
  which is the best by chance, too, and that of what sampler=auto takes, beside the bar.
- With --guidance, for a run that draws classes: precision, recall and the share of images that a bundled classifier
  takes for the class asked for, over the guidance; at the end, these shares beside their bar.

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
from bars import verdict
from torch import Tensor

import trilemma
from trilemma.diffusion.grids import GRIDS
from trilemma.diffusion.samplers import SAMPLERS, calls_of, steps_for
from trilemma.diffusion.sampling import AUTO_SAMPLER
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
AUTO = {"sampler": AUTO_SAMPLER, "order": 2, "grid": "auto"}  # what sampler=auto takes, as one of `ways`
BARS = {5: 1.3, 10: 1.05}  # by calls: distance over the least of any number of calls
OBEYED = 0.98  # bar of the share of images that are of the class asked for, at a guidance of 1 to 4
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
    """Print a row for each number of calls, sampler and grid, and a line for each number."""
    head()
    rows: dict[int, list[dict[str, Any]]] = {}
    for calls in numbers(given.calls, int):
        for settings in ways(table.run, given.samplers.split(","), given.grids.split(",")):
            steps = steps_for(settings["sampler"], calls)
            row = table.row(calls_of(settings["sampler"], steps), {**settings, "steps": steps})
            print(shown(row), flush=True)
            if distance_of(row) is not None:
                rows.setdefault(calls, []).append(row)
    if not rows:
        raise SystemExit(f"{table.n} images are too few for the Frechet distance")
    print("\nDistance over the least of all these, by the number of calls:")
    for line in beside_bars(rows):
        print(line, flush=True)


def distance_of(row: dict[str, Any]) -> Any:
    """The Frechet distance of a row; None of too few images."""
    return row["frechet_distance"][0]


def beside_bars(rows: dict[int, list[dict[str, Any]]]) -> Iterator[str]:
    """Of each number of calls the distance of the best row over the least of all, and that of AUTO; beside the bar, if
    more calls were measured, that of AUTO, or of the best where AUTO was not."""
    least = min(distance_of(row) for group in rows.values() for row in group)
    for calls, group in rows.items():
        best = min(group, key=distance_of)
        automatic = [row for row in group if AUTO.items() <= row["settings"].items()]
        ratios = [distance_of(row) / least for row in (best, *automatic)]
        parts = [f"{name} {ratio:.3f} x" for name, ratio in zip(("best", "sampler=auto"), ratios, strict=False)]
        if calls in BARS and calls < max(rows):
            parts[-1] += f", {verdict(ratios[-1], BARS[calls])}"
        yield f"{calls:6}  {'  '.join(parts)}  (best: {best['settings']})"


def by_guidance(table: Table, given: argparse.Namespace) -> None:
    """Print a row for each scale, and the shares of images as asked."""
    if not table.run.model.n_classes:
        raise SystemExit(f"{table.run.path} takes no class; train a model with classes=true")
    head()
    shares = {}
    for scale in numbers(given.guidance, float):
        calls = given.steps if scale in (0, 1) else 2 * given.steps
        row = table.row(calls, {"guidance": scale, "steps": given.steps}, classes=True)
        print(shown(row), flush=True)
        shares[scale] = row["class_obeyed"][0]
    print()
    for scale, share in shares.items():
        print(obeyed_in_words(scale, share), flush=True)


def obeyed_in_words(scale: float, share: float) -> str:
    """The share of images that are of the class asked for, beside its bar where the guidance has one."""
    bar = f", {verdict(share, OBEYED, '.0%', least=True)}" if 1 <= scale <= 4 else ""
    return f"guidance {scale:g}: {share:.1%} as asked{bar}"


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
