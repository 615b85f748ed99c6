"""Whether captions of combinations that no training image has are obeyed, read back by a checker:

    python benchmarks/captions.py RUN [--images 2000] [--seed 0] [--guidance 1] [--checker runs/scenes-checker]

RUN is a run of diffusion-text on `scenes`. The checker is a small network with an output for each factor of a group
(count, colour, size, kind, place), trained on drawn scenes of one group with all combinations; its accuracy on others
is printed first. Then images are drawn for captions of one group with the combinations of the test split, and each
factor is read back: the share that is right, that of images with all of them right, and the product of the shares. The
same follows for combinations of the training.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import trilemma
from trilemma.data.sources.scenes import FACTORS, captions_of, combinations, render
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import to_float
from trilemma.pictures.png import save_png

STEPS, BATCH, WIDTH, HELD_OUT = 1000, 96, 32, 5000


class Checker(nn.Module):
    """Image (B, 3, H, W) in [0, 1] -> logits of each factor."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, WIDTH, WIDTH, 2 * WIDTH, 2 * WIDTH]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.GroupNorm(8, c_out), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * WIDTH * 4, 256), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(256, n) for n in FACTORS.values())

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, K) for each factor."""
        h = self.body(2 * image - 1)
        return [head(h) for head in self.heads]


def single(rows: Tensor) -> dict[str, Tensor]:
    """The factors of scenes of one group, of rows (N, 5)."""
    first = dict(zip(FACTORS, rows.unbind(1), strict=True))
    none = torch.full_like(rows[:, 0], -1)
    return first | {"groups": torch.ones_like(none)} | {f"{name}2": none for name in FACTORS}


def drawn(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 32, 32) in [0, 1] of random combinations, and their factors (n, 5)."""
    every = torch.cat([combinations(True), combinations(False)])
    rows = every[torch.randint(len(every), (n,), generator=torch.Generator().manual_seed(seed))]
    return to_float(render(single(rows), (32, 32), torch.arange(n), seed)), rows


@torch.no_grad()
def read(checker: Checker, images: Tensor) -> Tensor:
    """The factors that the checker sees, (N, 5)."""
    parts = [torch.stack([logits.argmax(1) for logits in checker(part)], dim=1) for part in images.split(500)]
    return torch.cat(parts)


def the_checker(folder: Path) -> Checker:
    """Trained, or from its file."""
    checker, file = Checker(), folder / "checker.safetensors"
    if file.exists():
        checker.load_state_dict(load_file(file))
        return checker.eval()
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(checker.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, STEPS)
    for step in range(STEPS):
        images, rows = drawn(BATCH, 10 + step)
        images = (images + 0.05 * torch.randn_like(images)).clamp(0, 1)  # drawn images are not as clean
        loss = torch.stack([F.cross_entropy(logits, rows[:, k]) for k, logits in enumerate(checker(images))]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(checker.state_dict(), file)
    return checker.eval()


def line(what: str, right: Tensor) -> None:
    """The shares of what is right, bool (N, 5)."""
    shares = right.double().mean(0)
    each = "  ".join(f"{name} {share:.2%}" for name, share in zip(FACTORS, shares.tolist(), strict=True))
    together = right.all(1).double().mean().item()
    print(
        f"{what:24} {each}  all {together:.2%}  product {shares.prod().item():.2%}  ({len(right)} images)", flush=True
    )


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--checker", type=Path, default=Path("runs/scenes-checker"))
    given = parser.parse_args()
    checker = the_checker(given.checker)
    images, rows = drawn(HELD_OUT, 1)
    line("checker, real images", read(checker, images) == rows)
    run = trilemma.load(given.run)
    for what, held_out in (("unseen combinations", True), ("combinations of training", False)):
        allowed = combinations(held_out)
        rows = allowed[
            torch.randint(len(allowed), (given.images,), generator=torch.Generator().manual_seed(given.seed))
        ]
        captions = list(captions_of(single(rows)))
        images = run.sample(given.images, seed=given.seed, caption=captions, guidance=given.guidance)
        line(what, read(checker, images) == rows)
        sheet = grid(images[:32], columns=8, scale=3, texts=captions[:32])
        save_png(sheet, run.path / f"captions-{what.split()[0]}.png", {"verb": "benchmark"}, replace=True)


if __name__ == "__main__":
    main()
