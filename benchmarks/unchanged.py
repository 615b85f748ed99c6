"""Whether what is to change nothing gives an image back: the ends of `interpolate`, and `edit strength=0`.

    python benchmarks/unchanged.py RUN [--images 100] [--seed 0]

RUN is a run whose model has codes, such as one of diffusion-latent. Held-out images are walked between in pairs, and
each is edited with strength=0 where the model draws images again. Printed: the root mean squared error of the ends of
the walks and of the edits, beside that of `reconstruct`, which is the bar for both, compared as printed, and how many
edits are the image itself, bit for bit.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from bars import verdict
from torch import Tensor

import trilemma
from trilemma.pictures.levels import to_float
from trilemma.types import Redraws

DIGITS = 4  # after the point of an error, which batches of other sizes change by rounding


def rmse(image: Tensor, original: Tensor) -> float:
    """Over all pixels, in [0, 1]."""
    return float((image.double() - original.double()).square().mean().sqrt())


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    run = trilemma.load(given.run)
    held_out = run.data.held_out[1]
    n = min(given.images, len(held_out)) // 2 * 2
    batch = held_out.take(torch.arange(n))
    originals = to_float(batch.images)
    own = rmse(run.reconstruct(originals, batch.labels if run.model.n_classes else None), originals)
    print(f"{run.path}: {n} held-out images\n  reconstruct         RMSE {own:.{DIGITS}f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "picture.png"
        ends = []
        for k in range(0, n, 2):
            walk = trilemma.interpolate(run, k, k + 1, frames=2, how="linear", animate=False, out=out)
            ends.append(walk.frames["linear"])
        say("interpolate, ends", rmse(torch.cat(ends), originals), own)
        if not isinstance(run.model, Redraws):
            return
        edits = [trilemma.edit(run, k, strength=0.0, n=1, seed=given.seed, out=out).images for k in range(n)]
    same = sum(bool(torch.equal(one[0], original)) for one, original in zip(edits, originals, strict=True))
    say("edit strength=0", rmse(torch.cat(edits), originals), own, f"; {same} of {n} bit-identical")


def say(what: str, error: float, bar: float, more: str = "") -> None:
    """An error beside its bar."""
    reached = verdict(round(error, DIGITS), round(bar, DIGITS), f".{DIGITS}f")
    print(f"  {what:18}  RMSE {error:.{DIGITS}f}, {reached}, that of reconstruct{more}", flush=True)


if __name__ == "__main__":
    main()
