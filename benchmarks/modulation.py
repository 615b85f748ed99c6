"""`gan-style` beside weights modulated in a loop over the images: python benchmarks/modulation.py [DATA] [--size 32]

The preset scales maps on both sides of a convolution that all images share. The other way scales and demodulates the
weights for each image, and convolves one image after another; networks, weights, batch, optimiser and averages are the
same. Both make images from equal styles first: the largest difference is printed. Then, in turns in this process, the
best of each in images per second: whole training steps (the critic's share, in which nothing is modulated, is the same
in both), and the generator alone, forward and backward. The bar is 3 x.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy

import torch
import torch.nn.functional as F
from bare import BareStep
from torch import Tensor

from trilemma.data import load_data
from trilemma.gans.style import StyleGAN
from trilemma.hardware import tune_allocator
from trilemma.nets.stylegan2 import EPS, GAIN, LEAK, StyledConv, enlarge_and_convolve
from trilemma.registry import create, get_recipe

PRESET = "gan-style"


def in_a_loop(self: StyledConv, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """`StyledConv.forward`, one image at a time."""
    styles, maps = self.affine(w), []
    for image, y in zip(x.split(1), styles, strict=True):
        weight = self.weight * y[:, None, None]
        weight = weight * torch.rsqrt(weight.square().sum((1, 2, 3), keepdim=True) + EPS)
        maps.append(enlarge_and_convolve(image, weight) if self.enlarges else F.conv2d(image, weight, padding=1))
    x = torch.cat(maps) + self.bias[:, None, None]
    x = x + self.noise_strength * noise.view(len(x), 1, *x.shape[2:])
    return GAIN * F.leaky_relu(x, LEAK)


@contextmanager
def looping() -> Iterator[None]:
    """Inside, styled convolutions are in a loop."""
    ours = StyledConv.forward
    try:
        StyledConv.forward = in_a_loop
        yield
    finally:
        StyledConv.forward = ours


@torch.no_grad()
def difference(gan: StyleGAN, n: int) -> float:
    """The largest difference between images (n, C, H, W) of the two ways."""
    styles, noise = torch.randn(n, gan.generator.n_layers, gan.config.styles), torch.randn(n, gan.generator.n_noise)
    ours = gan.generator(styles, noise)
    with looping():
        return float((gan.generator(styles, noise) - ours).abs().max())


def generator_speed(gan: StyleGAN, n: int, seconds: float) -> float:
    """Images per second of the generator, forward and backward."""
    styles, noise = torch.randn(n, gan.generator.n_layers, gan.config.styles), torch.randn(n, gan.generator.n_noise)
    gan.generator(styles, noise).sum().backward()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        gan.generator(styles, noise).square().sum().backward()
        steps += 1
    return n * steps / (time.perf_counter() - start)


def main() -> None:
    """Print the difference and the speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="mnist")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns")
    given = parser.parse_args()
    tune_allocator()
    data = load_data(given.data, size=str(given.size))
    gan = create(PRESET, shape=data.shape)
    assert isinstance(gan, StyleGAN)
    last = bool(get_recipe(PRESET).training.get("channels_last"))
    steps = [BareStep(PRESET, data, bf16=False, channels_last=last, model=deepcopy(gan)) for _ in range(2)]
    batch = steps[0].config.batch
    print(f"largest difference between images: {difference(gan, batch):.1e} (bar 1e-5)")
    best: dict[str, list[float]] = {"step": [0.0, 0.0], "generator": [0.0, 0.0]}
    for _ in range(given.rounds):
        for way, context in enumerate((nullcontext, looping)):
            with context():
                best["step"][way] = max(best["step"][way], steps[way].speed(given.seconds))
                best["generator"][way] = max(best["generator"][way], generator_speed(gan, batch, given.seconds))
    for title, (maps, loop) in best.items():
        print(f"{title:10} images/s: maps {maps:8.1f}, loop {loop:8.1f}, ratio {maps / loop:.2f} (bar 3)")


if __name__ == "__main__":
    main()
