"""Half of an image drawn again, the class asked for: whether it is obeyed, and whether the rest stays as it is.

    python benchmarks/inpainting.py RUN [--images 1000] [--seed 0] [KEY=VALUE ...]

RUN is a run that draws classes: of diffusion-inpaint, or of diffusion, both with classes=true. Of each held-out image
one half is drawn again by `trilemma edit`, left, right, top and bottom in turns. Printed: the share that a bundled
classifier takes for the class asked for, once where that is the image's own and once where it is the next class, each
with its 95% interval, and in how many every pixel outside the mask is that of the image, both beside their bars; the
seconds of an image. RUN gets pictures of the first images, and of the first that are taken for another class
(inpainting-next-failures.png). Extra KEY=VALUE go to `edit`.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from bars import verdict
from PIL import Image
from torch import Tensor

import trilemma
from trilemma.arguments import parse_settings
from trilemma.explore.redraw import Redrawing
from trilemma.metrics.classification import classes_seen, classifier_of
from trilemma.metrics.features import to_levels
from trilemma.metrics.intervals import wilson
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import hide
from trilemma.pictures.png import save_png

SHOWN = 20  # images in the picture
OBEYED = 0.95  # bar of the share that is drawn as asked; all pixels outside have to be the same


def halves(height: int, width: int) -> list[str]:
    """Left, right, top and bottom, as edit takes them."""
    y, x = height // 2, width // 2
    return [f"0,0,{x},{height}", f"{x},0,{width},{height}", f"0,0,{width},{y}", f"0,{y},{width},{height}"]


def same_outside(file: Path, image: Tensor, mask: Tensor) -> bool:
    """Whether an image file has the levels of an image, uint8 (C, H, W), wherever the mask (1, 1, H, W) is 0."""
    with Image.open(file) as opened:
        levels = torch.from_numpy(np.array(opened)).reshape(*image.shape[1:], -1).permute(2, 0, 1)
    return bool(((levels == image) | (mask[0] > 0)).all())


def write_sheet(file: Path, results: Sequence[Redrawing], columns: int, names: Sequence[str] = ()) -> None:
    """Source, what is hidden of it, and the image drawn, for each result; names: beneath them."""
    rows = torch.cat([torch.cat([r.source, hide(r.source, r.mask), r.images]) for r in results])
    texts = [text for name in names for text in ("", "", name)]
    save_png(grid(rows, columns=columns, texts=texts or None), file, {"verb": "benchmark"}, replace=True)


def beside_bars(obeyed: float, same: int, n: int) -> str:
    """The share of n images drawn as asked, and of those that are the same outside, beside their bars."""
    as_asked = f"drawn as asked: {verdict(obeyed, OBEYED, '.0%', least=True)}"
    return f"{as_asked}; the same outside: {verdict(same, n, 'd', least=True)}"


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("keys", nargs="*")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_intermixed_args()
    keys = parse_settings(given.keys)
    run = trilemma.load(given.run)
    if not run.model.n_classes:
        raise SystemExit(f"{run.path} takes no class; train a model with classes=true")
    held_out, masks = run.data.held_out[1], halves(*run.shape[1:])
    own, network = held_out.labels[: given.images], classifier_of(run.data)
    for what, asked in (("its own class", own), ("the next class", (own + 1) % run.model.n_classes)):
        start, results, unchanged = time.perf_counter(), [], []
        with tempfile.TemporaryDirectory() as folder:
            for k, label in enumerate(asked.tolist()):
                how = {"mask": masks[k % len(masks)], "label": label, "n": 1, "seed": given.seed, "first": k, **keys}
                results.append(trilemma.edit(run, k, out=Path(folder) / f"{k}.png", **how))
                unchanged.append(same_outside(results[-1].files[0], held_out.images[k], results[-1].mask))
        seconds = (time.perf_counter() - start) / len(results)
        images = torch.cat([result.images for result in results])
        same = sum(unchanged)
        taken = classes_seen(network, to_levels(images))
        share = wilson(int((taken == asked).sum()), len(asked))
        print(
            f"{what:16} drawn as asked {share.value:.2%} {share.interval}  the same outside {same} of {len(results)}  "
            f"{seconds:.2f} s an image",
            flush=True,
        )
        print(f"  {beside_bars(share.value, same, len(results))}", flush=True)
        word = what.split()[1]
        write_sheet(run.path / f"inpainting-{word}.png", results[:SHOWN], columns=12)
        failed = (taken != asked).nonzero()[:SHOWN, 0].tolist()  # the gallery of failures
        if failed:
            names = [f"{run.classes[asked[k]]} taken for {run.classes[taken[k]]}" for k in failed]
            write_sheet(run.path / f"inpainting-{word}-failures.png", [results[k] for k in failed], 6, names)


if __name__ == "__main__":
    main()
