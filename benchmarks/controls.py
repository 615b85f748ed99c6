"""What the scores say of images whose worth is known, and of runs beside them: which of them can be fooled.

Measured by the same held-out images: the controls of an evaluation (real and training images, the mean image, static,
one image repeated), flat grey and blurred training images.

    python benchmarks/controls.py digits
    python benchmarks/controls.py path/to/photos --size 64 --features efficientnet-lite0 --run runs/vae-photos
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma import evaluate, load
from trilemma.data import Data, load_data
from trilemma.metrics.controls import learned_nothing, reference_of, spreads_of
from trilemma.metrics.features import extract, feature_network
from trilemma.metrics.quality import Setup, quality
from trilemma.metrics.reals import choose_reals

NAMES = ("density", "coverage", "precision", "recall", "kernel_distance")


def bad(data: Data, n: int) -> dict[str, Tensor]:
    """Images that are no model's, uint8 (n, C, H, W) each."""
    train = data.train.images[:n]
    step = max(2, train.shape[-1] // 8)
    soft = F.interpolate(F.avg_pool2d(train.float(), step), size=train.shape[-2:], mode="bilinear")
    return {
        "flat grey": torch.full((n, *data.shape), 128, dtype=torch.uint8),
        "blurred images": soft.round().to(torch.uint8),
    }


def row(title: str, values: dict[str, float | None], note: str | None) -> str:
    shown = ("" if (v := values.get(name)) is None else f"{v:.3f}" for name in NAMES)
    return f"| {title} | {' | '.join(shown)} | {note or ''} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--size")
    parser.add_argument("--features", default="auto", help="a feature network, as of evaluate")
    parser.add_argument("--run", nargs="*", default=[])
    options = parser.parse_args()
    data = load_data(options.data, size=options.size)
    split, n = choose_reals(data)
    setup = Setup(data, split, True, feature_network(options.features, data.shape, data.name), n, 0)
    reference = reference_of(setup)
    print(f"{data.name}, {n} images of the {split} split, features {setup.network.name}\n")
    print(f"| images | {' | '.join(NAMES)} | verdict |\n|{' --- |' * (len(NAMES) + 2)}")
    for control in reference.controls:
        note = learned_nothing(control.spreads, reference.controls)
        print(row(control.title, {name: s.value for name, s in control.spreads.items()}, note), flush=True)
    for title, images in bad(data, n).items():
        spreads = spreads_of(quality(real=reference.real, fake=extract(setup.network, images)))
        note = learned_nothing(spreads, reference.controls)
        print(row(title, {name: s.value for name, s in spreads.items()}, note), flush=True)
    for path in options.run:
        run = load(path)
        result = evaluate(run, n=n, reference=reference)
        print(row(run.path.name, {s.name: s.value for s in result.scores}, result.learned_nothing), flush=True)


if __name__ == "__main__":
    main()
