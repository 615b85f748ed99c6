"""Whether captions of combinations that no training image has are obeyed, read back by a checker:

    python benchmarks/captions.py RUN [--images 2000] [--seed 0] [--guidance 1] [--checker runs/scenes-checker]
        [--checker-steps 1500]

RUN is a run of diffusion-text on `scenes`. The checker is a small network that says of each place (top, bottom, left,
right) how many objects are there, and their colour, size and kind. It is trained on drawn scenes of one and of two
groups with all combinations; its accuracy on others is printed first, and has to be 99.5% for each factor. Then images
are drawn for captions of one group with the combinations of the test split, for captions of two such groups, and for
one group of the training. Each factor is read back where the caption has its groups: the share of images with it right
in all groups, that of images with all factors right, and the product of the shares; for unseen combinations beside the
bars. `place` is right where there are groups at the places of the caption, and at no other. RUN gets pictures of the
first images and of the first failures (captions-unseen-failures.png).
"""

import argparse
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from bars import verdict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import trilemma
from trilemma.data.sources.scenes import FACTORS, PARTNER, PLACES, captions_of, combinations, render
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import to_float
from trilemma.pictures.png import save_png

STEPS, BATCH, WIDTH, HELD_OUT = 1500, 96, 32, 5000
LEAST_ACCURACY = 0.995  # of a factor on real images, below which a checker proves nothing
EACH, TOGETHER = 0.98, 0.9  # bars: of each factor, and of all together, for combinations never seen in training
READ = {"count": FACTORS["count"] + 1, **{name: FACTORS[name] for name in ("colour", "size", "kind")}}  # count 0: none


class Checker(nn.Module):
    """Image (B, 3, H, W) in [0, 1] -> for each of READ its logits at each place, (B, places, values)."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, WIDTH, WIDTH, 2 * WIDTH, 2 * WIDTH]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.GroupNorm(8, c_out), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * WIDTH * 4, 256), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(256, len(PLACES) * n) for n in READ.values())

    def forward(self, image: Tensor) -> list[Tensor]:
        """Logits of each factor."""
        h = self.body(2 * image - 1)
        return [head(h).unflatten(1, (len(PLACES), -1)) for head in self.heads]


def scenes(allowed: Tensor, n: int, groups: int, seed: int) -> dict[str, Tensor]:
    """The factors of n scenes of one or two groups, each group of the combinations `allowed` (N, 5)."""
    generator = torch.Generator().manual_seed(seed)

    def draw_rows(rows: Tensor) -> Tensor:
        return rows[torch.randint(len(rows), (n,), generator=generator)]

    place = list(FACTORS).index("place")  # the column
    first = draw_rows(allowed if groups == 1 else allowed[torch.isin(allowed[:, place], torch.tensor(list(PARTNER)))])
    second = torch.full_like(first, -1)
    if groups == 2:
        for one, partner in PARTNER.items():
            partners = draw_rows(allowed[allowed[:, place] == partner])
            second[first[:, place] == one] = partners[first[:, place] == one]
    columns = {f"{name}2": second[:, k] for k, name in enumerate(FACTORS)}
    return dict(zip(FACTORS, first.unbind(1), strict=True)) | {"groups": torch.full((n,), groups)} | columns


def as_read(factors: dict[str, Tensor]) -> Tensor:
    """What a checker without error reads at each place, int64 (n, places, factors of READ); -1 where nothing is."""
    n = len(factors["count"])
    result = torch.full((n, len(PLACES), len(READ)), -1)
    result[:, :, 0] = 0
    for suffix in ("", "2"):
        rows = (factors[f"count{suffix}"] >= 0).nonzero().squeeze(1)
        values = torch.stack([factors[f"{name}{suffix}"] + (name == "count") for name in READ], dim=1)
        result[rows, factors[f"place{suffix}"][rows]] = values[rows]
    return result


def draw_scenes(n: int, groups: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 32, 32) in [0, 1] of random combinations, and what is to be read in them."""
    factors = scenes(torch.cat([combinations(True), combinations(False)]), n, groups, seed)
    return to_float(render(factors, (32, 32), torch.arange(n), seed)), as_read(factors)


@torch.no_grad()
def read_places(checker: Checker, images: Tensor) -> Tensor:
    """What the checker sees, (n, places, factors of READ)."""
    parts = [torch.stack([logits.argmax(2) for logits in checker(part)], dim=2) for part in images.split(500)]
    return torch.cat(parts)


def obeyed_factors(seen: Tensor, expected: Tensor) -> Tensor:
    """Which of the factors are obeyed, bool (n, 5), in the order count, colour, size, kind, place."""
    shown = expected[:, :, 0] > 0
    factors = ((seen == expected) | ~shown[:, :, None]).all(1)
    return torch.cat([factors, ((seen[:, :, 0] > 0) == shown).all(1)[:, None]], dim=1)


def loss_of(checker: Checker, images: Tensor, expected: Tensor) -> Tensor:
    """Cross-entropy of each factor, of colour, size and kind where something is."""
    logits = checker(images)
    return torch.stack(
        [
            F.cross_entropy(part.flatten(0, 1), expected[:, :, k].flatten(), ignore_index=-1)
            for k, part in enumerate(logits)
        ]
    ).sum()


def load_checker(folder: Path, steps: int) -> Checker:
    """Trained, or from its file."""
    checker, file = Checker(), folder / "checker.safetensors"
    if file.exists():
        checker.load_state_dict(load_file(file))
        return checker.eval()
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(checker.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for step in range(steps):
        images, expected = (
            torch.cat(pair) for pair in zip(*(draw_scenes(BATCH // 2, k, 10 + step) for k in (1, 2)), strict=True)
        )
        images = (images + 0.05 * torch.randn_like(images)).clamp(0, 1)  # drawn images are not as clean
        loss = loss_of(checker, images, expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(checker.state_dict(), file)
    return checker.eval()


def check_checker(obeyed: Tensor, folder: Path) -> None:
    """Stop where a checker does not read real images, bool (n, 5), as well as it has to."""
    for name, share in zip([*READ, "place"], obeyed.double().mean(0).tolist(), strict=True):
        if share < LEAST_ACCURACY:
            raise SystemExit(
                f"the checker reads {name} right in {share:.2%} of real images, and {LEAST_ACCURACY:.1%} is the least: "
                f"what it says of drawn ones would not count. Remove {folder} and train it longer (--checker-steps)"
            )


def print_shares(what: str, obeyed: Tensor) -> None:
    """The shares of what is right, bool (n, 5)."""
    shares = obeyed.double().mean(0)
    names = [*READ, "place"]
    each = "  ".join(f"{name} {share:.2%}" for name, share in zip(names, shares.tolist(), strict=True))
    together = obeyed.all(1).double().mean().item()
    print(
        f"{what:26} {each}  all {together:.2%}  product {shares.prod().item():.2%}  ({len(obeyed)} images)", flush=True
    )


def beside_bars(obeyed: Tensor) -> str:
    """The shares of what is right, bool (n, 5), beside their bars: of the factor that is obeyed least, and of all."""
    least, together = obeyed.double().mean(0).min().item(), obeyed.all(1).double().mean().item()
    each = f"each factor {least:.2%} at least, {verdict(least, EACH, '.0%', least=True)}"
    return f"{each}; all {together:.2%}, {verdict(together, TOGETHER, '.0%', least=True)}"


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--checker", type=Path, default=Path("runs/scenes-checker"))
    parser.add_argument("--checker-steps", type=int, default=STEPS)
    given = parser.parse_args()
    checker = load_checker(given.checker, given.checker_steps)
    for groups in (1, 2):
        images, expected = draw_scenes(HELD_OUT, groups, 1)
        obeyed = obeyed_factors(read_places(checker, images), expected)
        print_shares(f"checker, {groups} real group{'s' * (groups > 1)}", obeyed)
        check_checker(obeyed, given.checker)
    run = trilemma.load(given.run)
    for what, held_out, groups in (("unseen", True, 1), ("unseen, two groups", True, 2), ("of training", False, 1)):
        factors = scenes(combinations(held_out), given.images, groups, given.seed)
        captions = list(captions_of(factors))
        images = run.sample(given.images, seed=given.seed, caption=captions, guidance=given.guidance)
        obeyed = obeyed_factors(read_places(checker, images), as_read(factors))
        print_shares(f"combinations {what}", obeyed)
        if held_out:
            print(f"  {beside_bars(obeyed)}", flush=True)
        wrong = (~obeyed.all(1)).nonzero().squeeze(1).tolist()
        for name, rows in (("drawn", range(32)), ("failures", wrong[:32])):
            if len(rows):
                sheet = grid(images[list(rows)], columns=8, scale=3, texts=[captions[row] for row in rows])
                file = f"captions-{what.replace(', ', '-').replace(' ', '-')}-{name}.png"
                save_png(sheet, run.path / file, {"verb": "benchmark"}, replace=True)


if __name__ == "__main__":
    main()
