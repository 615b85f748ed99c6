"""Our U-Net beside UNet2DModel of diffusers: python benchmarks/unet.py [DATA] [--seconds 3] [--rounds 5] [--steps 20]

Both have as many parameters as the preset `diffusion` has for the data (theirs as near as its width allows), as many
levels and blocks a level, and attention on maps of the same sizes; both stand in the same model: loss, batch,
optimiser, clipping and averages are the same. Where our preset sees patches, its maps are smaller than theirs; a row of
its own has ours without patches.

- Images per second of a training step, in plain and channels-last tensors, in turns in this process; the best of each.
- Images per second of drawing at equal calls: our sampler dpm++2m with our U-Net, and the same U-Net and layout driven
  by DPMSolverMultistepScheduler, in turns; medians.

Both ratios are printed beside their bars. It needs diffusers, which no part of trilemma does: PIP below.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from types import ModuleType
from typing import Any

import torch
from bare import BareStep
from bars import verdict
from torch import Tensor, nn

from trilemma.data import Data, load_data
from trilemma.diffusion.config import patch_of
from trilemma.hardware import to_channels_last, tune_allocator
from trilemma.registry import count_parameters, create
from trilemma.types import Model, Phase, Player

PRESET = "diffusion"
PIP = {"diffusers": "pip install -c constraints.txt diffusers"}
GRAIN = 4  # widths tried are its multiples, each with so many groups a norm
DRAWN_TOGETHER = 64  # images drawn together
BARS = {"training": 1.5, "drawing": 1.0}  # least images per second over those of diffusers


def imported(name: str, pip: str) -> ModuleType:
    """A library that is not among the requirements.

    Raises:
        SystemExit: it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(
            f"{name} cannot be imported ({error}); install it in an environment of its own: {pip}"
        ) from None


def equal_unet(shape: tuple[int, int, int]) -> nn.Module:
    """A UNet2DModel for images of a shape whose number of parameters is nearest to that of our preset. The width is
    chosen; levels, blocks a level and the sizes of maps with attention are those of the preset."""
    library = imported("diffusers", PIP["diffusers"])
    ours = create(PRESET, shape=shape)
    wanted = count_parameters(ours)
    build = partial(_unet, library, ours.config)

    def distance(width: int) -> int:
        with torch.device("meta"):
            return abs(count_parameters(build(width)) - wanted)

    return build(min(range(2 * GRAIN, 4 * ours.config.width, GRAIN), key=distance))


def _unet(library: ModuleType, config: Any, width: int) -> nn.Module:
    channels, *sides = config.shape
    places = ["Attn" if max(sides) / 2**k <= config.attention_px else "" for k in range(len(config.multipliers))]
    return library.UNet2DModel(
        sample_size=tuple(sides),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(width * m for m in config.multipliers),
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in places),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(places)),
        layers_per_block=config.depth,
        norm_num_groups=GRAIN,
        add_attention=config.attention_px > 0,
        dropout=config.dropout,
    )


class Theirs(nn.Module):
    """A UNet2DModel, called as our networks are."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, level: Tensor, inputs: object = None) -> Tensor:
        """x (B, C, H, W), level (B,) -> (B, C, H, W)."""
        return self.unet(x, level, return_dict=False)[0]


def with_network(shape: tuple[int, int, int], network: nn.Module) -> Model:
    """The preset, with another network."""
    model = create(PRESET, shape=shape)
    model.network = network
    model.phases = [Phase("denoiser", Player("denoiser", list(model.parameters())), model.loss)]
    return model


def models_of(data: Data) -> dict[str, Model]:
    """What is trained, ours first, theirs last."""
    models = {"trilemma": create(PRESET, shape=data.shape)}
    if patch_of(models["trilemma"].config) > 1:
        models["without patches"] = create(PRESET, shape=data.shape, patch=1)
    return models | {"UNet2DModel": with_network(data.shape, Theirs(equal_unet(data.shape)))}


def beside_bar(what: str, ours: float, theirs: float) -> str:
    """Images per second of training or drawing over those of diffusers, beside their bar."""
    ratio = ours / theirs
    return f"{what} at {ratio:.2f} times the speed of diffusers, {verdict(ratio, BARS[what], least=True)}"


def training(data: Data, given: argparse.Namespace) -> bool:
    """Print images per second of the training steps; whether ours are better in channels-last tensors."""
    models, layouts = models_of(data), (False, True)
    steps = {
        (title, last): BareStep(
            PRESET, data, bf16=False, channels_last=last, device=given.device, model=deepcopy(model)
        )
        for title, model in models.items()
        for last in layouts
    }
    best = dict.fromkeys(steps, 0.0)
    for _ in range(given.rounds):
        for key, step in steps.items():
            best[key] = max(best[key], step.speed(given.seconds))
    batch = next(iter(steps.values())).config.batch
    print(
        f"{'training step':16}{'parameters':>12}{'plain':>12}{'ch. last':>12}{'ratio':>8}   (images/s, batch {batch})"
    )
    theirs = max(best["UNet2DModel", last] for last in layouts)
    for title, model in models.items():
        plain, channels_last = (best[title, last] for last in layouts)
        ratio = max(plain, channels_last) / theirs
        print(f"{title:16}{count_parameters(model):12,}{plain:12,.1f}{channels_last:12,.1f}{ratio:8.2f}", flush=True)
    print(beside_bar("training", max(best["trilemma", last] for last in layouts), theirs), flush=True)
    return best["trilemma", True] > best["trilemma", False]


def by_scheduler(model: Model, n: int, steps: int) -> Tensor:
    """n images by the network of a model, driven by DPMSolverMultistepScheduler; its output is taken for the noise."""
    scheduler = imported("diffusers", PIP["diffusers"]).DPMSolverMultistepScheduler()
    scheduler.set_timesteps(steps)
    x = torch.randn(n, *model.config.shape, device=next(model.parameters()).device)
    with torch.no_grad():
        for t in scheduler.timesteps:
            eps = model.network(x, t.to(x).expand(n))
            x = scheduler.step(eps, t, x).prev_sample
    return (x + 1).div(2).clamp(0, 1)


def sampling(data: Data, given: argparse.Namespace, channels_last: bool) -> None:
    """Print images per second of drawing."""
    model = create(PRESET, shape=data.shape).to(given.device).eval()
    if channels_last:
        to_channels_last(model)
    keys = model.sampling_keys(steps=given.steps, sampler="dpm++2m")
    draws: dict[str, Callable[[], Tensor]] = {
        "trilemma": lambda: model.sample(DRAWN_TOGETHER, seed=0, keys=keys),
        "diffusers": lambda: by_scheduler(model, DRAWN_TOGETHER, given.steps),
    }
    speeds: dict[str, list[float]] = {title: [] for title in draws}
    for turn in range(given.rounds + 1):
        for title, draw in draws.items():
            start = time.perf_counter()
            draw().sum().item()
            if turn > 0:  # the first is a warm-up
                speeds[title].append(DRAWN_TOGETHER / (time.perf_counter() - start))
    ours, theirs = (statistics.median(values) for values in speeds.values())
    print(f"{'drawing':16}{'trilemma':>12}{'diffusers':>12}{'ratio':>8}   (images/s, {given.steps} calls, dpm++2m)")
    print(f"{'':16}{ours:12,.1f}{theirs:12,.1f}{ours / theirs:8.2f}", flush=True)
    print(beside_bar("drawing", ours, theirs), flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="fashion-mnist")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn of training steps")
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    parser.add_argument("--steps", type=int, default=20, help="of the samplers")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    tune_allocator()
    data = load_data(given.data)
    sampling(data, given, training(data, given))


if __name__ == "__main__":
    main()
