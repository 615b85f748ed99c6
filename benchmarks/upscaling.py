"""Enlarged images against bicubic interpolation:

    python benchmarks/upscaling.py RUN [--images 500] [--seed 0]

RUN is a run of diffusion-upscale. Held-out images are shrunk by means over squares and enlarged again, by the model and
by bicubic interpolation (that of torch, a = -0.75). Printed for both: the distance of their features from those of the
originals, over that of two different images, and the PSNR, each with its 95% interval; then both of the model against
those of bicubic, beside their bars. RUN gets two pictures (the small image, bicubic, drawn, original): of the first
images, upscaling.png, and of those that are farthest from their originals in features, upscaling-failures.png.
"""

import argparse

import torch
import torch.nn.functional as F
from bars import verdict

import trilemma
from trilemma.metrics.features import extract, feature_network
from trilemma.metrics.intervals import mean_estimate
from trilemma.metrics.reconstruction import feature_distance, psnr_db
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import to_float
from trilemma.pictures.png import save_png

ROWS, SHOWN = 100, 12
CLOSER, LOST_DB = 0.5, 1.0  # bars: distance in features over bicubic's, and PSNR below bicubic's


def beside_bars(distances: dict[str, float], psnrs: dict[str, float]) -> str:
    """What was measured of `drawn` against `bicubic`, beside the bars."""
    ratio, lost = distances["drawn"] / distances["bicubic"], psnrs["bicubic"] - psnrs["drawn"]
    closer = f"features at {ratio:.2f} times bicubic's distance, {verdict(ratio, CLOSER)}"
    return f"{closer}; PSNR {lost:.2f} dB below bicubic's, {verdict(lost, LOST_DB)}"


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    run = trilemma.load(given.run)
    model = run.model
    original = to_float(run.data.held_out[1].images[: given.images])
    small = F.avg_pool2d(original, model.factor)
    with torch.no_grad():
        drawn = torch.cat(
            [
                model.upscale(part, seed=given.seed, first=ROWS * k).cpu()
                for k, part in enumerate(small.to(run.device).split(ROWS))
            ]
        )
    bicubic = F.interpolate(small, scale_factor=model.factor, mode="bicubic").clamp(0, 1)
    network = feature_network("auto", run.shape, run.data.name)
    real = extract(network, original)
    distances, psnrs = {}, {}
    for name, images in (("drawn", drawn), ("bicubic", bicubic)):
        fake = extract(network, images)
        distance = feature_distance(real=real, fake=fake)
        psnr = mean_estimate(psnr_db((images.double() - original.double()).square().flatten(1).mean(1)).tolist())
        low, high = psnr.interval
        distances[name], psnrs[name] = distance.value, psnr.value
        line = f"{name:8} features {distance.value:.4f} {distance.interval}"
        print(f"{line}  PSNR {psnr.value:.2f} ({low:.2f} to {high:.2f}) dB", flush=True)
        if name == "drawn":
            worst = (fake - real).square().sum(1).argsort(descending=True)[:SHOWN]
    print(beside_bars(distances, psnrs), flush=True)
    rows = torch.stack([F.interpolate(small, scale_factor=model.factor), bicubic, drawn, original], dim=1)
    for name, index in (("upscaling", torch.arange(min(SHOWN, len(rows)))), ("upscaling-failures", worst)):
        sheet = grid(rows[index].flatten(0, 1), columns=8)
        save_png(sheet, run.path / f"{name}.png", {"verb": "benchmark"}, replace=True)


if __name__ == "__main__":
    main()
