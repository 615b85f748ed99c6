"""Models of other libraries and of a notebook beside ours, each trained for the same time and scored by our scores:

    python benchmarks/peers.py NAME[,NAME...] DATA [--minutes 30] [--seed 0] [--images 10000] [--out runs/peers]

    a preset         diffusion, gan-r3, ...: as `trilemma train NAME DATA minutes=`, with its default sampler
    smalldiffusion   its example for Fashion-MNIST: a DiT (patch 2, 6 blocks, 6 heads of 32), eps over 1,000 levels of
                     DDPM, AdamW 0.001, batch 1024, flips, average of 0.99; drawn in 20 calls with its gam=1.6
    plain-dcgan      a notebook's loop: networks of gan-dcgan, cross-entropy, Adam 0.0002 (0.5, 0.999), batch 128, no
                     average of the weights
    diffusers        its example for images without a condition: eps over 1,000 levels, AdamW 0.0001 with 500 steps of
                     warm-up and a cosine over the time, batch 16, clip 1, EMAModel; a UNet2DModel with as many
                     parameters as `diffusion` has (unet.py); drawn in 50 calls by DPMSolverMultistepScheduler

Of a peer only device and length are changed: the training ends when the time is over, images come from memory, which is
quicker than the peer's own loader, and a batch of smalldiffusion is computed in pieces that fit into memory. --batch,
--lr, --steps (of the sampler) and --channels-last replace the peer's own settings.

Several names are trained one after the other, each in a process of its own; --threads sets the threads of all. Printed
is a line for each: images per second and images seen in training; Frechet distance in the bundled features, precision,
recall and coverage with 95% intervals, measured on the held-out images; calls and seconds of drawing. Where `diffusion`
is among them, with diffusion-small, smalldiffusion or diffusers, its scores are printed beside their bars. The folder
of each in --out keeps the weights and the images (images-SAMPLER-CALLS.npz, grid.png): the same line again draws or
scores without training. The peers are optional: where one is missing, the command that installs it is printed.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from unittest.mock import MagicMock

import numpy as np
import torch
from bars import verdict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from unet import PIP, equal_unet, imported

import trilemma
from trilemma.data import Data, Loader, load_data
from trilemma.hardware import to_channels_last, tune_allocator
from trilemma.metrics.features import to_levels
from trilemma.metrics.reals import choose_reals, part_named
from trilemma.nets import dcgan
from trilemma.pictures.grid import grid
from trilemma.pictures.png import save_png
from trilemma.registry import count_parameters

SCORES = ("frechet_distance", "precision", "recall", "coverage")
HEAD = f"{'model':16}{'parameters':>12}{'images/s':>10}{'images seen':>13}" + "".join(
    f"{name.replace('_distance', ''):>28}" for name in SCORES
)
PIP = PIP | {
    "smalldiffusion": "pip install --no-deps smalldiffusion && pip install -c constraints.txt accelerate einops"
}
PIECE = 128  # images computed together
DRAWN_TOGETHER = 256
OURS, FORMER, LIBRARIES = "diffusion", "diffusion-small", ("smalldiffusion", "diffusers")
LOWER, RECALL = 0.5, 0.6  # bars of OURS: most Frechet distance over that of FORMER, and least recall
Scores = dict[str, list[Any]]  # by name: the value, None where it is refused, and the ends of its interval


class Contender(Protocol):
    """What is trained and draws; `sampler` tells its ways of drawing apart in the names of files."""

    calls: int
    sampler: str

    def train(self, folder: Path) -> dict[str, float]:
        """Train, or take the training from the folder: parameters, images seen, seconds."""
        ...

    def draw(self, n: int) -> Iterator[Tensor]:
        """Images in [0, 1], (b, C, H, W), some at a time."""
        ...


class Ours:
    """A preset."""

    def __init__(self, name: str, given: argparse.Namespace) -> None:
        self.name, self.given = name, given
        self.keys = {} if given.steps is None else {"steps": given.steps}
        self.calls, self.sampler = 0, "own"

    def train(self, folder: Path) -> dict[str, float]:
        """By the recipe."""
        given, place = self.given, folder / "run"
        if not (place / "summary.json").exists():
            lengths = {"minutes": given.minutes, "seed": given.seed}
            trilemma.train(self.name, given.data, out=place, quiet=True, device=given.device, **lengths)
        self.run = trilemma.load(place, device=given.device)
        self.calls = self.run.sampling(self.keys, trilemma.Run.sample).get("steps") or 1
        return {name: self.run.summary[name] for name in ("parameters", "images", "seconds")}

    def draw(self, n: int) -> Iterator[Tensor]:
        """By the default sampler."""
        for part in self.run.draw(n, seed=self.given.seed, batch=DRAWN_TOGETHER, **self.keys):
            yield part.images


class Peer:
    """A network of another library in a plain loop."""

    batch, lr, calls, augment, sampler = 1, 0.0, 1, (), "own"

    def __init__(self, data: Data, given: argparse.Namespace) -> None:
        self.data, self.given, self.device = data, given, torch.device(given.device)
        self.batch, self.lr, self.calls = given.batch or self.batch, given.lr or self.lr, given.steps or self.calls
        torch.manual_seed(given.seed)
        self.network = self.build().to(self.device)
        if given.channels_last:
            to_channels_last(self.network)

    def build(self) -> nn.Module:
        """The network."""
        raise NotImplementedError

    def begin(self) -> None:
        """Make the optimiser and the average."""
        raise NotImplementedError

    def step(self, x0: Tensor, share: float) -> None:
        """Train on images in [-1, 1], when a share of the time is over."""
        raise NotImplementedError

    def finish(self) -> None:
        """Put the average into the network."""
        raise NotImplementedError

    def some(self, n: int) -> Tensor:
        """n images in [-1, 1]."""
        raise NotImplementedError

    def train(self, folder: Path) -> dict[str, float]:
        """Until the time is over."""
        weights, facts = folder / "weights.safetensors", folder / "training.json"
        if facts.exists():
            self.network.load_state_dict(load_file(weights))
            return json.loads(facts.read_text())
        self.begin()
        values = {"parameters": count_parameters(self.network), **self._trained()}
        self.finish()
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.network.state_dict().items()}, weights)
        facts.write_text(json.dumps(values))
        return values

    def _trained(self) -> dict[str, float]:
        loader = Loader(
            self.data.train, batch=self.batch, seed=self.given.seed, device=self.device, augment=self.augment
        )
        self.network.train()
        start, images, length = time.perf_counter(), 0, 60 * self.given.minutes
        while (spent := time.perf_counter() - start) < length:
            self.step(2 * loader.batch_at(images).image - 1, spent / length)
            images += self.batch
        self._wait()
        return {"images": images, "seconds": time.perf_counter() - start}

    @torch.no_grad()
    def draw(self, n: int) -> Iterator[Tensor]:
        """By the peer's sampler."""
        torch.manual_seed(self.given.seed)
        self.network.eval()
        for first in range(0, n, DRAWN_TOGETHER):
            yield (self.some(min(DRAWN_TOGETHER, n - first)) + 1).div(2).clamp(0, 1).cpu()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class SmallDiffusion(Peer):
    """The example for Fashion-MNIST of smalldiffusion."""

    batch, lr, calls, augment = 1024, 0.001, 20, ("flip",)

    def build(self) -> nn.Module:
        """Its DiT, for square images."""
        self.library = import_smalldiffusion()
        self.schedule = self.library.ScheduleDDPM(N=1000, beta_start=0.0001, beta_end=0.02)
        channels, side, _ = self.data.shape
        return self.library.DiT(in_dim=side, channels=channels, patch_size=2, depth=6, head_dim=32, num_heads=6)

    def begin(self) -> None:
        """The average begins at shorter memories, as torch_ema has it."""

        def update(averages: Any, values: Any, count: Any) -> None:
            decay = min(0.99, (1 + float(count)) / (10 + float(count)))
            torch._foreach_lerp_(averages, values, 1 - decay)

        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.lr)
        self.average = AveragedModel(self.network, multi_avg_fn=update)

    def step(self, x0: Tensor, share: float) -> None:
        """The mean loss of the batch, piece by piece."""
        self.optimizer.zero_grad()
        for piece in x0.split(PIECE):
            _, sigma, eps, _ = self.library.generate_train_sample(piece, self.schedule)
            (self.network.get_loss(piece, sigma, eps) * len(piece) / len(x0)).backward()
        self.optimizer.step()
        self.average.update_parameters(self.network)

    def finish(self) -> None:
        """Put the average into the network."""
        self.network.load_state_dict(self.average.module.state_dict())

    def some(self, n: int) -> Tensor:
        """Its sampler."""
        from accelerate import Accelerator

        sigmas, accelerator = self.schedule.sample_sigmas(self.calls), Accelerator(cpu=self.device.type == "cpu")
        *_, x0 = self.library.samples(self.network, sigmas, gam=1.6, batchsize=n, accelerator=accelerator)
        return x0


class Diffusers(Peer):
    """The example for images without a condition of diffusers."""

    batch, lr, calls, warm_up = 16, 0.0001, 50, 500

    def build(self) -> nn.Module:
        """Its U-Net, as large as ours."""
        self.library = imported("diffusers", PIP["diffusers"])
        self.noise, self.sampler = self.library.DDPMScheduler(num_train_timesteps=1000), self.given.scheduler
        return equal_unet(self.data.shape)

    def begin(self) -> None:
        """AdamW and EMAModel."""
        from diffusers.training_utils import EMAModel

        self.steps = 0
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.lr, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        self.average = EMAModel(self.network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1, power=0.75)

    def step(self, x0: Tensor, share: float) -> None:
        """Squared error of the noise."""
        self.steps += 1
        eps, t = torch.randn_like(x0), torch.randint(1000, (len(x0),), device=x0.device)
        F.mse_loss(self.network(self.noise.add_noise(x0, eps, t), t).sample, eps).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        rate = self.lr * min(1, self.steps / self.warm_up) * (1 + math.cos(math.pi * share)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.network.parameters())

    def finish(self) -> None:
        """Put the average into the network."""
        self.average.copy_to(self.network.parameters())

    def some(self, n: int) -> Tensor:
        """By the scheduler asked for."""
        scheduler = getattr(self.library, self.sampler).from_config(self.noise.config)
        scheduler.set_timesteps(self.calls)
        x = torch.randn(n, *self.data.shape, device=self.device) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = scheduler.step(self.network(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
        return x


class PlainDCGAN(Peer):
    """DCGAN as notebooks train it."""

    batch, lr, calls, latent, width = 128, 0.0002, 1, 100, 64

    def build(self) -> nn.Module:
        """Both networks."""
        generator = dcgan.Generator(self.data.shape, self.latent, self.width)
        return nn.ModuleDict({"generator": generator, "critic": dcgan.Critic(self.data.shape, self.width)})

    def begin(self) -> None:
        """An optimiser for each."""
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=self.lr, betas=(0.5, 0.999))
            for name, network in self.network.items()  # type: ignore[operator]
        }

    def step(self, x0: Tensor, share: float) -> None:
        """The critic, then the generator, which is to be taken for real."""
        critic, fake = self.network["critic"], self.some(len(x0))  # type: ignore[index]
        self._take("critic", _cross_entropy(critic, x0, 1.0) + _cross_entropy(critic, fake.detach(), 0.0))
        self._take("generator", _cross_entropy(critic, fake, 1.0))

    def _take(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()

    def finish(self) -> None:
        """There is no average."""

    def some(self, n: int) -> Tensor:
        """One call for an image."""
        z = torch.randn(n, self.latent, device=self.device)
        return 2 * self.network["generator"](z) - 1  # type: ignore[index]


def _cross_entropy(critic: nn.Module, images: Tensor, label: float) -> Tensor:
    """Of images in [-1, 1], which are called real or generated."""
    logits = critic((images + 1) / 2)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


PEERS: dict[str, type[Peer]] = {
    "smalldiffusion": SmallDiffusion,
    "diffusers": Diffusers,
    "plain-dcgan": PlainDCGAN,
}


def import_smalldiffusion() -> ModuleType:
    """smalldiffusion. Its transforms of torchvision have a stand-in meanwhile: none of them is used here."""
    imported("accelerate", PIP["smalldiffusion"])  # looks for torchvision itself, so before the stand-in
    sys.modules["torchvision"] = MagicMock()
    try:
        return imported("smalldiffusion", PIP["smalldiffusion"])
    finally:
        del sys.modules["torchvision"]


def images_of(contender: Contender, folder: Path, n: int) -> tuple[Tensor, float]:
    """Images, uint8 (n, C, H, W), and the seconds that drawing took; those of the folder if it has as many."""
    path = folder / f"images-{contender.sampler}-{contender.calls}.npz"
    if path.exists():
        with np.load(path) as file:
            images, seconds = torch.from_numpy(file["images"]).permute(0, 3, 1, 2), float(file["seconds"])
        if len(images) == n:
            return images, seconds
    start = time.perf_counter()
    images = torch.cat([to_levels(part) for part in contender.draw(n)])
    seconds = time.perf_counter() - start
    np.savez_compressed(path, images=images.permute(0, 2, 3, 1).numpy(), seconds=seconds)
    save_png(grid(images[:64]), folder / "grid.png", replace=True)
    return images, seconds


def scores_of(images: Tensor, data: Data, seed: int) -> Scores:
    """The scores of images, measured on the data's held-out ones."""
    split, _ = choose_reals(data)
    n = min(len(images), len(part_named(data, split)))
    result = trilemma.evaluate(images, against=data, split=split, n=n, seed=seed)
    return {name: [result[name].value, *(result[name].interval or ())] for name in SCORES}


def cells_of(scores: Scores) -> str:
    """Scores as text."""
    cells = []
    for value, *interval in scores.values():
        within = " [{:.3f}, {:.3f}]".format(*interval) if interval else ""
        cells.append("refused" if value is None else f"{value:.3f}{within}")
    return "".join(f"{cell:>28}" for cell in cells)


def beside_bars(scores: dict[str, Scores]) -> Iterator[str]:
    """The scores of OURS beside their bars, as far as those of the other models are there."""
    scores = {name: own for name, own in scores.items() if own["frechet_distance"][0] is not None}
    if OURS not in scores:
        return
    (distance, _, high), recall = scores[OURS]["frechet_distance"], scores[OURS]["recall"][0]
    if FORMER in scores:
        ratio = distance / scores[FORMER]["frechet_distance"][0]
        yield f"{OURS}: {ratio:.2f} times the distance of {FORMER}, {verdict(ratio, LOWER)}"
        yield f"{OURS}: recall {recall:.3f}, {verdict(recall, RECALL, least=True)}"
    for name in LIBRARIES:
        if name in scores:
            low = scores[name]["frechet_distance"][1]
            ends = f"the interval of its distance ends at {high:.3f}"
            yield f"{OURS}: {ends}, {verdict(high, low, '.3f')}, where that of {name} begins"


def measure(name: str, given: argparse.Namespace) -> tuple[str, Scores]:
    """Train, draw and score one model: its line, and the scores in it."""
    data = load_data(given.data)
    contender = PEERS[name](data, given) if name in PEERS else Ours(name, given)
    changes = [f"-{key}{value}" for key in ("batch", "lr") if (value := getattr(given, key)) and name in PEERS]
    folder = given.out / f"{name}-{data.name}-{given.minutes:g}min-seed{given.seed}{''.join(changes)}"
    facts = contender.train(folder)
    images, seconds = images_of(contender, folder, given.images)
    speed, scores = facts["images"] / facts["seconds"], scores_of(images, data, given.seed)
    return (
        f"{name:16}{facts['parameters']:12,}{speed:10,.1f}{facts['images']:13,}{cells_of(scores)}"
        f"{contender.calls:7}{seconds:8.0f} s"
    ), scores


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", help="a preset, smalldiffusion, diffusers or plain-dcgan; several are separated by commas"
    )
    parser.add_argument("data")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    parser.add_argument("--batch", type=int, help="of a peer (default: its own)")
    parser.add_argument("--lr", type=float, help="of a peer (default: its own)")
    parser.add_argument("--steps", type=int, help="of the sampler (default: its own)")
    parser.add_argument("--scheduler", default="DPMSolverMultistepScheduler", help="of diffusers, or DDIMScheduler")
    parser.add_argument("--channels-last", action="store_true", help="layout of a peer")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="default: those of torch")
    parser.add_argument("--line", type=Path, help=argparse.SUPPRESS)  # of one model, whose scores go to that file
    return parser.parse_args(words)


def main(words: list[str]) -> None:
    """Print a line for each model, and what is beside a bar."""
    given = parse(words)
    if given.line:
        tune_allocator()
        torch.set_num_threads(given.threads or torch.get_num_threads())
        line, scores = measure(given.names, given)
        given.line.write_text(json.dumps(scores))
        return print(line, flush=True)
    print(f"{HEAD}{'calls':>7}{'drawing':>10}", flush=True)
    codes, scores = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.names.split(","):
            rest, file = [word if word != given.names else name for word in words], Path(folder) / "scores.json"
            codes.append(subprocess.run([sys.executable, __file__, "--line", str(file), *rest]).returncode)
            if codes[-1] == 0:
                scores[name] = json.loads(file.read_text())
    for line in beside_bars(scores):
        print(line, flush=True)
    sys.exit(max(codes))


if __name__ == "__main__":
    main(sys.argv[1:])
