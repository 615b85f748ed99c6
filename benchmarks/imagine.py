"""An image of `imagine` beside the bare call of its pipeline, in turns: python benchmarks/imagine.py FOLDER

FOLDER: a pipeline as diffusers saves one. Medians over ROUNDS images of each, in seconds; the bar is 1.05.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from trilemma import rng
from trilemma.explore.prompted import Inputs, Request, draw_cells
from trilemma.pretrained.fetch import locate
from trilemma.pretrained.libraries import silence
from trilemma.pretrained.pipeline import load_pipeline

ROUNDS, STEPS, PROMPT = 9, 10, "a red fox in snow"


def seconds(action: Callable[[int], torch.Tensor], k: int) -> tuple[float, torch.Tensor]:
    """The time of image k, and the image."""
    start = time.perf_counter()
    image = action(k)
    return time.perf_counter() - start, image


def main(folder: str) -> None:
    """Draw in turns, and compare both the times and the images."""
    pipeline = load_pipeline(locate(folder))

    def bare(k: int) -> torch.Tensor:
        noise = rng.generator(0, "imagine", k)
        with torch.no_grad():
            images = pipeline.base(PROMPT, num_inference_steps=STEPS, generator=noise, output_type="pt").images
        return images[0].float().cpu()

    def ours(k: int) -> torch.Tensor:
        ((image, _),) = draw_cells(pipeline, Request(prompts=(PROMPT,), steps=STEPS, first=k), [Inputs()])
        return image

    with silence():
        bare(0), ours(0)
    times: dict[str, list[float]] = {"bare": [], "imagine": []}
    for k in range(ROUNDS):
        (bare_s, one), (ours_s, other) = seconds(bare, k), seconds(ours, k)
        assert torch.equal(one, other)
        times["bare"].append(bare_s)
        times["imagine"].append(ours_s)
    for name, values in times.items():
        print(f"{name:10}{median(values):8.3f}")
    print(f"ratio     {median(times['imagine']) / median(times['bare']):8.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
