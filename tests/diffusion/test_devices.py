"""Samplers, guidance, codes and likelihoods on any device: `--device cuda` compares them with the CPU, where the noise
is drawn for all."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.denoiser import Diffusion, DiffusionConfig
from trilemma.diffusion.model import PixelDiffusion
from trilemma.diffusion.samplers import SAMPLERS
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.types import NO_GUIDES, Condition, Guides

TOLERANCE = 2e-3  # float32 on a GPU, TF32 in its convolutions
KEYS: list[dict[str, Any]] = [
    *({"sampler": name} for name in SAMPLERS),
    {"sampler": "dpm++2m", "eta": 1.0},
    {"guidance": 2.0, "guidance_rescale": 0.5, "guidance_interval": (-1.0, 3.0)},
    {"guidance": 2.0, "guide": "weak"},
    {"classifier": "auto"},
]


class Bright(nn.Module):
    """Logits by the brightness of an image."""

    n_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(3.0))

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1).mean(1)[:, None] * self.weight


def model(device: torch.device | str) -> PixelDiffusion:
    torch.manual_seed(0)
    sizes = {"width": 4, "multipliers": (1, 1), "depth": 1, "attention_px": 4}
    made = PixelDiffusion(PixelDiffusionConfig(shape=(1, 8, 8), classes=True, n_classes=3, **sizes)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return made.to(device)


def guides(keys: dict[str, Any], device: torch.device | str) -> Guides:
    if "guide" in keys:
        torch.manual_seed(1)
        return Guides(Diffusion(DiffusionConfig(shape=(1, 8, 8), widths=(4, 8), T=50)).to(device).eval())
    return Guides(classifier=Bright().to(device)) if "classifier" in keys else NO_GUIDES


def images() -> Tensor:
    return torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(3)).mul(255).round().div(255)


LABEL = Condition(torch.tensor([0, 2]))


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: ",".join(f"{key}={value}" for key, value in keys.items()))
def test_images_are_those_of_the_cpu(device: torch.device, keys: dict[str, Any]) -> None:
    settings, drawn = DiffusionSampling(steps=4, **keys), []
    for place in ("cpu", device):
        asked = {"condition": LABEL.to(place), "keys": settings, "guides": guides(keys, place)}
        drawn.append(model(place).sample(2, seed=0, **asked).cpu())
    torch.testing.assert_close(drawn[1], drawn[0], atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_codes_and_bounds_are_those_of_the_cpu(device: torch.device) -> None:
    values: list[list[Tensor]] = []
    for place in ("cpu", device):
        network, x, condition = model(place), images().to(place), LABEL.to(place)
        codes = network.invert(x, condition, steps=6)
        bounds = [
            bound(x, torch.Generator().manual_seed(0), condition, calls=4)
            for bound in (network.bound, network.flow_bound)
        ]
        times = network.optimised_times(x, condition, DiffusionSampling(steps=3), 0)
        values.append([codes.cpu(), network.generate(codes, condition).cpu(), *(b.cpu() for b in bounds), times.cpu()])
    for here, there in zip(*values, strict=True):
        torch.testing.assert_close(there, here, atol=TOLERANCE, rtol=TOLERANCE)
