"""Draw images from a run into PNG files that carry how they were made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilemma import __version__
from trilemma.pictures import grid, save_png
from trilemma.run import Run, as_run


@dataclass(frozen=True)
class SampleFiles:
    """Where the pictures lie: all of them in one grid, and one file each."""

    grid: Path
    images: list[Path]


def sample(
    run: Run | str | Path,
    *,
    n: int = 64,
    seed: int = 0,
    first: int = 0,
    label: str | int | None = None,
    batch: int = 256,
    out: str | Path | None = None,
    singles: bool = True,
    **settings: Any,
) -> SampleFiles:
    """Draw `n` images and write `grid.png` and, with `singles`, one PNG each.

    Args:
        run: a run or its folder.
        first: number of the first image; image k of a seed is the same whatever n, first and batch are.
        out: the folder to write to; RUN/samples/seed-SEED where None.
        settings: of the model's sampler, see `Run.sample`.
    Raises:
        UserError: as `Run.sample`, or if the disk refuses.
    """
    run = as_run(run)
    images = run.sample(n, seed=seed, first=first, label=label, batch=batch, **settings)
    folder = Path(out) if out is not None else run.path / "samples" / f"seed-{seed}"
    receipt = {
        "trilemma": __version__,
        "model": run.recipe.name,
        "run": str(run.path.resolve()),
        "weights": run.weights_id,
        "seed": seed,
        "label": label,
        "settings": settings,
    }
    paths = []
    if singles:
        for k, image in enumerate(images, start=first):
            paths.append(folder / f"{k:05d}.png")
            save_png(grid(image[None], scale=1, pad=0), paths[-1], {**receipt, "first": k, "n": 1})
    save_png(grid(images), folder / "grid.png", {**receipt, "first": first, "n": n})
    return SampleFiles(folder / "grid.png", paths)
