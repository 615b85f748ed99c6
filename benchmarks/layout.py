"""Which precision and layout a network trains fastest in: python benchmarks/layout.py [MODEL ...] [--blocks]

Images per second of the bare step of each recipe in float32 and bfloat16 (autocast), with plain and channels-last
tensors, in turns in this process; best of ROUNDS. Bfloat16 is left out where its products are more than ten times
slower. A star marks what the recipe chooses here. Before that, what the machine can do at most: the rate of large
matrix products in both precisions and that of copying memory; behind each model, the share of the matrix rate of its
fastest column that its own products reach.

With --blocks, the same for parts of networks instead, forward and backward without an optimiser, in batches of --batch:
a U-Net of one level by width and side, attention over maps of 8 and 16 px, the transformer by patch, single layers by
kind, which tell for what bfloat16 pays, and the transposed convolutions of gan-dcgan-28 beside their equal form, an
ordinary convolution and a shuffle of the pixels. --device cuda measures on a GPU, --seconds how long each turn takes.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from bare import BareStep
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from trilemma.data import load_data
from trilemma.hardware import describe, supports_fast_bf16, to_channels_last, tune_allocator
from trilemma.nets.attention import SpatialAttention
from trilemma.nets.dit import DiT
from trilemma.nets.unet import UNet
from trilemma.registry import get_recipe

SECONDS, ROUNDS, SIDE = 2.0, 3, 4096
MODELS = (
    "ae-stacked", "vae", "ae-conv", "ae-recurrent", "gan", "gan-dcgan-28", "gan-dcgan",
    "diffusion-small", "diffusion", "diffusion-dit",
)  # fmt: skip
BLOCK_BATCH = 32
WIDTHS = {32: (32, 48, 64), 16: (64, 96, 128), 8: (96, 128, 256)}  # of the U-Net's blocks by their side, px
TRANSPOSED = ((128, 64, 7), (64, 1, 14))  # channels in and out, and side, px, of the layers of gan-dcgan-28
COLUMNS = tuple(itertools.product((False, True), (False, True)))  # bf16, channels last
MOST_SLOWDOWN = 10  # bfloat16 is not tried where its products are so many times slower


def matrix_rate(dtype: torch.dtype, device: str) -> float:
    """Floating-point operations per second of large matrix products; of smaller ones where those take seconds."""
    best = 0.0
    for side in (*[SIDE // 8] * 8, *[SIDE] * 4):  # the first one is slow: it starts the threads
        if side == SIDE and 2 * side**3 / best > SECONDS:
            break
        a = torch.randn(side, side, device=device).to(dtype)
        _wait(device)
        start = time.perf_counter()
        a @ a
        _wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def memory_rate(device: str) -> float:
    """Bytes read and written per second by a copy of 512 MB."""
    source = torch.ones(2**27, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(6):
        _wait(device)
        start = time.perf_counter()
        target.copy_(source)
        _wait(device)
        best = max(best, 2 * source.nbytes / (time.perf_counter() - start))
    return best


def operations(step: BareStep) -> float:
    """Floating-point operations of the matrix products and convolutions of a step, per image; NaN where a penalty takes
    a second derivative, of which torch's counter has no way to count."""
    with FlopCounterMode(display=False) as counter:
        try:
            step(0)
        except RuntimeError as error:
            if "leaf node" not in str(error):
                raise
            return math.nan
    return counter.get_total_flops() / step.config.batch


class BlockStep:
    """Forward and backward of a module on maps (batch, C, H, W) that lie ready.

    Args:
        levels: whether it is told the noise level, too.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        shape: tuple[int, int, int],
        levels: bool,
        *,
        batch: int,
        bf16: bool,
        last: bool,
        device: str,
    ) -> None:
        self.module, self.batch, self.bf16, self.device = build().to(device), batch, bf16, device
        layout = torch.channels_last if last else torch.contiguous_format
        if last:
            to_channels_last(self.module)
        x = torch.randn(batch, *shape, device=device).contiguous(memory_format=layout).requires_grad_()
        self.inputs = (x, torch.zeros(batch, device=device)) if levels else (x,)

    def __call__(self) -> None:
        """One step."""
        self.module.zero_grad()
        self.inputs[0].grad = None
        with torch.autocast(self.device, torch.bfloat16) if self.bf16 else nullcontext():
            y: Tensor = self.module(*self.inputs)
        y.sum().backward()

    def speed(self, seconds: float) -> float:
        """Images per second."""
        self()
        _wait(self.device)
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self()
            steps += 1
        _wait(self.device)
        return steps * self.batch / (time.perf_counter() - start)


class ByPlace(nn.Module):
    """A layer over channels, at each place of a map."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H W, C')."""
        return self.layer(x.flatten(2).transpose(1, 2))


class Shuffled(nn.Module):
    """A transposed convolution (k3 s2 p1 op1) as a convolution of 2x2 with four times the outputs, whose pixels are
    shuffled.

    In each direction, output 2 i is w_1 x_i, and output 2 i + 1 is w_2 x_i + w_0 x_i+1.
    """

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        c_in, c_out = layer.in_channels, layer.out_channels
        self.layer = nn.Conv2d(c_in, 4 * c_out, 2)
        taps = torch.tensor([[[0.0, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 0, 0]]])  # of output, input, weight
        with torch.no_grad():
            weight = torch.einsum("ayk,bxl,iokl->oabiyx", taps, taps, layer.weight)
            self.layer.weight.copy_(weight.reshape(4 * c_out, c_in, 2, 2))
            self.layer.bias.copy_(layer.bias.repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', 2 H, 2 W)."""
        return F.pixel_shuffle(self.layer(F.pad(x, (0, 1, 0, 1))), 2)


def transposed(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    """A layer of the generator of gan-dcgan-28."""
    return nn.ConvTranspose2d(c_in, c_out, 3, 2, 1, output_padding=1)


def shuffled(c_in: int, c_out: int) -> Shuffled:
    """Its equal form."""
    return Shuffled(transposed(c_in, c_out))


def blocks() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], bool]]:
    """Title -> how it is built, the shape of its maps, whether it is told the noise level."""
    rows = {}
    for side, width in ((side, width) for side, widths in WIDTHS.items() for width in widths):
        shape = (width, side, side)
        rows[f"U-Net, {width} ch. {side} px"] = (partial(UNet, shape, width, (1,), 1, 0), shape, True)
    for side, width in itertools.product((8, 16), (96, 128)):
        rows[f"attention, {width} ch. {side} px"] = (partial(SpatialAttention, width), (width, side, side), False)
    for patch in (4, 2):
        rows[f"DiT, patch {patch}"] = (partial(DiT, (1, 28, 28), patch, 192, 2, 6), (1, 28, 28), True)
    shape = (96, 16, 16)
    layers: dict[str, Callable[[], nn.Module]] = {
        "conv 3x3": lambda: nn.Conv2d(96, 96, 3, padding=1),
        "conv 1x1": lambda: nn.Conv2d(96, 96, 1),
        "group norm, SiLU": lambda: nn.Sequential(nn.GroupNorm(6, 96), nn.SiLU()),
        "linear": lambda: ByPlace(nn.Linear(96, 384)),
        "layer norm, GELU": lambda: ByPlace(nn.Sequential(nn.LayerNorm(96), nn.GELU(approximate="tanh"))),
    }
    rows |= {title: (build, shape, False) for title, build in layers.items()}
    for c_in, c_out, side in TRANSPOSED:
        shape, channels = (c_in, side, side), f"{c_in} to {c_out}"
        rows[f"transposed, {channels}"] = (partial(transposed, c_in, c_out), shape, False)
        rows[f"shuffled, {channels}"] = (partial(shuffled, c_in, c_out), shape, False)
    return rows


def measure_blocks(columns: list[tuple[bool, bool]], given: argparse.Namespace) -> None:
    """Print a line per block."""
    for title, (build, shape, levels) in blocks().items():
        options = {"batch": given.batch, "device": given.device}
        steps = {(b, c): BlockStep(build, shape, levels, bf16=b, last=c, **options) for b, c in columns}
        best = fastest(steps, given.seconds)
        cells = [f"{best[c]:,.0f} " if c in best else "- " for c in COLUMNS]
        print(f"{title:24}{given.batch:6}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


def fastest(steps: dict[tuple[bool, bool], BareStep | BlockStep], seconds: float) -> dict[tuple[bool, bool], float]:
    """Images per second in each column, the best of ROUNDS turns."""
    best = dict.fromkeys(steps, 0.0)
    for _ in range(ROUNDS):
        for column, step in steps.items():
            best[column] = max(best[column], step.speed(seconds))
    return best


def measure_models(
    names: list[str], columns: list[tuple[bool, bool]], rates: dict[bool, float], given: argparse.Namespace
) -> None:
    """Print a line per model."""
    data = load_data("fashion-mnist")
    for name in names:
        steps = {(b, c): BareStep(name, data, bf16=b, channels_last=c, device=given.device) for b, c in columns}
        best = fastest(steps, given.seconds)
        training = get_recipe(name).training
        chosen = (supports_fast_bf16(given.device), training.get("channels_last", False))
        cells = [f"{best[c]:,.0f}{'*' if c == chosen else ' '}" if c in best else "- " for c in COLUMNS]
        top = max(columns, key=lambda column: best[column])
        share = best[top] * operations(steps[top]) / rates[top[0]]
        last = "not counted" if math.isnan(share) else f"{share:.0%}"
        print(f"{name:24}{training['batch']:6}" + "".join(f"{cell:>12}" for cell in cells) + f"{last:>12}", flush=True)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print the machine's limits and a line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--blocks", action="store_true", help="parts of networks")
    parser.add_argument("--batch", type=int, default=BLOCK_BATCH, help="images of a block")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a turn")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_intermixed_args()
    tune_allocator()
    rates = {False: matrix_rate(torch.float32, given.device), True: matrix_rate(torch.bfloat16, given.device)}
    print(
        f"{describe()['device_name']}, {torch.get_num_threads()} threads: matrix products {rates[False] / 1e9:,.0f} ",
        end="",
    )
    print(
        f"(float32) and {rates[True] / 1e9:,.0f} (bfloat16) GFLOP/s; copy {memory_rate(given.device) / 1e9:,.0f} GB/s"
    )
    titles = ("float32", "+ ch. last", "bfloat16", "+ ch. last")
    heading = "block" if given.blocks else "model"
    print(
        f"{heading:24}{'batch':>6}"
        + "".join(f"{title:>12}" for title in titles)
        + f"{'of rate':>10}" * (not given.blocks)
    )
    columns = [column for column in COLUMNS if not column[0] or rates[True] * MOST_SLOWDOWN > rates[False]]
    if given.blocks:
        measure_blocks(columns, given)
    else:
        measure_models(given.models or list(MODELS), columns, rates, given)


if __name__ == "__main__":
    main()
