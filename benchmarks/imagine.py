"""An image of `imagine` beside the bare call of its pipeline, in turns: python benchmarks/imagine.py FOLDER | --random

FOLDER: a pipeline as diffusers saves one. --random: a Stable Diffusion with random weights, its U-Net of some 10
million numbers, made for this. Medians over ROUNDS images of each, in seconds; the bar is 1.05.

Timed are checks, noise, the call with its progress, and the receipt of an image. Not in it, as a user of the bare call
has them, too, or once: the file of an image, loading, and the hash of a folder, by which its pictures name it. What the
file and the hash take is printed below.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from trilemma import rng
from trilemma.explore.prompted import Inputs, Request, draw_cells
from trilemma.pictures.png import save_png
from trilemma.pretrained.content import content_id
from trilemma.pretrained.fetch import locate
from trilemma.pretrained.libraries import load_diffusers, silence
from trilemma.pretrained.pipeline import load_pipeline

ROUNDS, STEPS, PROMPT = 9, 10, "a red fox in snow"
WIDTHS = (64, 128, 256)  # of the U-Net with random weights
TEXT = 64  # numbers of a token


def seconds(action: Callable[[int], Any], k: int) -> tuple[float, Any]:
    """The time of image k, and the image."""
    start = time.perf_counter()
    image = action(k)
    return time.perf_counter() - start, image


def random_pipeline(folder: Path) -> Path:
    """The folder of a pipeline with random weights."""
    diffusers = load_diffusers()
    torch.manual_seed(0)
    with silence():
        unet = diffusers.UNet2DConditionModel(
            sample_size=32,
            block_out_channels=WIDTHS,
            layers_per_block=1,
            cross_attention_dim=TEXT,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(16, 32),
            norm_num_groups=8,
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
        )
        diffusers.StableDiffusionPipeline(
            unet=unet,
            vae=vae,
            scheduler=diffusers.DDIMScheduler(clip_sample=False),
            **random_text_encoder(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
    print(f"U-Net of {sum(p.numel() for p in unet.parameters()):,} parameters")
    return folder


def random_text_encoder() -> dict[str, Any]:
    """A text encoder with random weights, and its tokeniser, whose tokens are letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # pyright: ignore[reportMissingImports]

    letters = [chr(k) for k in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    config = CLIPTextConfig(
        hidden_size=TEXT,
        intermediate_size=2 * TEXT,
        num_attention_heads=2,
        num_hidden_layers=2,
        vocab_size=len(words),
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    tokeniser = CLIPTokenizer(vocab={word: k for k, word in enumerate(words)}, merges=[], model_max_length=32)
    return {"text_encoder": CLIPTextModel(config), "tokenizer": tokeniser}


def measure(folder: Path) -> None:
    """Draw in turns, and compare both the times and the images."""
    hash_s, _ = seconds(lambda _: content_id(folder), 0)
    pipeline = load_pipeline(locate(str(folder)))

    def bare(k: int) -> torch.Tensor:
        noise = rng.generator(0, "imagine", k)
        with torch.no_grad():
            images = pipeline.base(PROMPT, num_inference_steps=STEPS, generator=noise, output_type="pt").images
        return images[0].float().cpu()

    def ours(k: int) -> tuple[torch.Tensor, dict[str, Any]]:
        ((image, receipt),) = draw_cells(pipeline, Request(prompts=(PROMPT,), steps=STEPS, first=k), [Inputs()])
        return image, receipt

    with silence():
        bare(0)
        ours(0)
    times: dict[str, list[float]] = {"bare": [], "imagine": [], "file": []}
    with TemporaryDirectory() as place:
        for k in range(ROUNDS):
            (bare_s, one), (ours_s, (other, receipt)) = seconds(bare, k), seconds(ours, k)
            assert torch.equal(one, other)
            file_s = file_seconds(other, receipt, Path(place) / f"{k}.png")
            for name, value in (("bare", bare_s), ("imagine", ours_s), ("file", file_s)):
                times[name].append(value)
    for name in ("bare", "imagine"):
        print(f"{name:10}{median(times[name]):8.3f}")
    print(f"ratio     {median(times['imagine']) / median(times['bare']):8.3f}")
    print(
        f"not in it: {median(times['file']):.3f} for the file of an image, {hash_s:.3f} once for the hash of the folder"
    )


def file_seconds(image: torch.Tensor, receipt: dict[str, Any], path: Path) -> float:
    """The time to write an image with its receipt."""
    return seconds(lambda _: save_png(image, path, receipt), 0)[0]


def main() -> None:
    """Measure the pipeline that the command line names, or one with random weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--random", action="store_true", help="make a pipeline with random weights")
    given = parser.parse_args()
    if given.random == (given.folder is not None):
        parser.error("give a FOLDER, or --random")
    with TemporaryDirectory() as place, TemporaryDirectory() as cache:
        os.environ["TRILEMMA_CACHE"] = cache  # in which no hash is known yet
        measure(given.folder or random_pipeline(Path(place)))


if __name__ == "__main__":
    main()
