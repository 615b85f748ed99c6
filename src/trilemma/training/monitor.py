"""Says in words when a training goes wrong in the way of its family, and what to do about it.

It asks what the model can do and what its log says, never what it is. Each rule returns a sentence or None; the trainer
warns of it once, with the step since when it holds, and again only after a long quiet. Rules of a critic are in
adversarial.py.

- Mode collapse: the samples show little of what the data shows. Measured as the recall of as many training images
  (Kynkaanniemi et al. 2019), on small copies of them, so that it needs no network and fits every data.
- Divergence: the samples are unlike the data. Measured as their coverage (Naeem et al. 2020, "Reliable fidelity and
  diversity metrics for generative models", section 3.2), the share of training images that have a sample as near as
  their k-th nearest other image, on the same copies; of two sets alike it is about 1 - 2^-k.
- Posterior collapse (Bowman et al. 2016): codes that say nothing about the image. A unit is active if the variance of
  its posterior mean over images is above 0.01 (Burda et al. 2016, section 5.2).
- Dead codes (van den Oord et al. 2017): entries of a codebook that no image chooses.
- Nothing learned: reconstructions no better than the mean training image, which is what a model that ignores its input
  gives at best: its error is the standard deviation of the data. Of a denoiser: no better than a linear estimate from
  the noisy image, which needs no network. For samples: all of them are the same image.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma.config import ModelConfig
from trilemma.healthy import IN_USE, NO_BETTER, linear_of
from trilemma.metrics.likelihood import is_collapsed
from trilemma.metrics.neighbours import coverage, distances, recall

SIDE = 8  # pixels of the copies that samples are compared by
NEIGHBOUR = 5  # the nearest neighbour that is still near
FEWEST = 16  # images below which nothing can be concluded
RECALLED, COVERED = 0.3, 0.2  # of 64 images: healthy trainings have twice that and more (benchmarks/health.py)
BETTER = 0.8  # of the distance between samples and data that there was
QUIET = 10  # checks without a warning, after which it is new again
SAME = 0.05  # of the data's variance: samples that vary less are one image
LEVEL = 1 / 255  # data that vary less than this are one image themselves
PIECE = 50  # images in float64 at a time


def small(images: Tensor) -> Tensor:
    """Copies whose sides are SIDE pixels at most, in rows on the CPU: (n, C, H, W) -> (n, D)."""
    height, width = images.shape[-2:]
    return F.adaptive_avg_pool2d(images.float(), (min(height, SIDE), min(width, SIDE))).flatten(1).cpu()


def collapse(*, real: Tensor, fake: Tensor) -> str | None:
    """Whether generated points (N, D) show little of what as many real ones show."""
    share = recall(real=real, fake=fake, k=NEIGHBOUR)
    if share >= RECALLED:
        return None
    return (
        f"the samples show little of the data's variety: {share:.0%} of the training images are like any of them "
        "(mode collapse). Lower the generator's lr=, raise batch=, or take another loss= or penalty="
    )


def divergence(*, real: Tensor, fake: Tensor) -> str | None:
    """Whether generated points (N, D) are unlike as many real ones."""
    share = coverage(real=real, fake=fake, k=NEIGHBOUR)
    if share >= COVERED:
        return None
    return (
        f"the samples are unlike the data: {share:.0%} of the training images have one near them (divergence). "
        "Lower lr= of both players, or take the recipe's"
    )


def energy_distance(*, real: Tensor, fake: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of points (N, D) and (M, D), unbiased (Szekely and Rizzo 2013, eq. 2.5); so
    that of two sets alike it is as often below 0 as above."""
    real, fake = real.double(), fake.double()

    def within(x: Tensor) -> Tensor:
        return distances(x, x).sum() / (len(x) * (len(x) - 1))

    return float(2 * distances(real, fake).mean() - within(real) - within(fake))


class SampleMonitor:
    """Checks the samples of players against each other, picture by picture.

    What is wrong but gets better is not reported, for a training is short of variety before it has it. It gets better
    if the samples are nearer the data than they were after half of the pictures so far; so of the first picture nothing
    is reported.
    """

    def __init__(self) -> None:
        self.distances: list[float] = []  # between samples and data, of each picture

    def check(self, *, real: Tensor, fake: Tensor) -> dict[str, str | None]:
        """By rule, what is wrong with samples (n, C, H, W), n that of `real`; nothing for fewer than FEWEST."""
        if len(real) < FEWEST:
            return {}
        real, fake = small(real), small(fake)
        faults = {"collapse": collapse(real=real, fake=fake), "divergence": divergence(real=real, fake=fake)}
        distance = energy_distance(real=real, fake=fake)
        if not math.isfinite(distance):
            return {}
        self.distances.append(max(0.0, distance))  # the last thing that can fail is behind us: a picture counts once
        half = len(self.distances) // 2
        return faults if half and self.distances[-1] >= BETTER * self.distances[half - 1] else {}


def posterior_collapse(active: float, units: int, config: ModelConfig | None) -> str | None:
    """What to say if too few units of a variational code are in use."""
    if not is_collapsed(active, units):
        return None
    advice = "Lower beta=, or raise it slowly from 0" if _has_beta(config) else "Raise warmup= or free_nats="
    return f"{active} of {units} units of the code are active (posterior collapse). {advice}"


def _has_beta(config: ModelConfig | None) -> bool:
    return config is not None and config.get("beta") is not None


def mean_image_rmse(train: Iterable[Tensor], held_out: Iterable[Tensor]) -> float:
    """RMSE of the mean of the training images on held-out ones, each given in batches (B, C, H, W)."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for piece in _pieces(train):
        total, count = total + piece.sum(0), count + len(piece)
    errors = [(piece - total / count).square().flatten(1).mean(1) for piece in _pieces(held_out)]
    return float(torch.cat(errors).mean().sqrt())


def _pieces(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Images on the CPU in float64, PIECE at a time: whole batches of large ones would take hundreds of megabytes."""
    return (piece.double() for batch in batches for piece in batch.cpu().split(PIECE))


def no_better_than_mean(rmse: float, baseline: float, config: ModelConfig | None = None) -> str | None:
    """Whether reconstructions are no better than the mean training image, by the error of either on held-out images."""
    if rmse < NO_BETTER * baseline or baseline <= LEVEL:
        return None
    return (
        f"learned nothing yet: its reconstructions are no better than the mean image (RMSE {rmse:.3f} against "
        f"{baseline:.3f}). Train longer{', lower beta=' if _has_beta(config) else ''} or change lr="
    )


def no_better_than_linear(values: Mapping[str, Any]) -> str | None:
    """Whether a denoiser is no better than a linear estimate, by the errors of both on held-out images."""
    for name, error in values.items():
        linear = values.get(linear_of(name), 0.0) if name.endswith("_rmse") else 0.0
        if linear > 0 and error >= NO_BETTER * linear:
            return (
                f"learned nothing yet: its denoising is no better than a linear estimate ({error:.3f} against "
                f"{linear:.3f}). Train longer, or change lr="
            )
    return None


def all_the_same(*, real: Tensor, fake: Tensor) -> str | None:
    """Whether generated points (N, D) are one image, where as many real ones are not."""
    varies, needed = (float(points.double().var(0).mean()) for points in (fake, real))
    if varies >= SAME * needed or needed <= LEVEL**2:
        return None
    return (
        f"all samples are the same image: they vary by {(varies / needed) ** 0.5:.1%} of what the training images do. "
        "Train longer, lower lr=, or choose another model"
    )


def few_distinct_codes(distinct: float | None) -> str | None:
    """Whether the images have fewer codes than the density over codes has components; None where there are enough."""
    if distinct is None:
        return None
    return (
        f"the training images have only {distinct:.0f} distinct {'code' if distinct == 1 else 'codes'}, so the samples "
        "can show no more than that. Train longer, lower lr=, or give a larger latent="
    )


def dead_codes(row: dict[str, Any]) -> str | None:
    """Whether fewer than half of the codes of a codebook are in use, from a row of the log."""
    used = min((value for name, value in row.items() if name.endswith("/used_codes")), default=1.0)
    if used >= IN_USE:
        return None
    return (
        f"only {used:.0%} of the codes are in use (dead codes). Give restart=true, raise batch=, lower lr=, or take "
        "fewer codes="
    )


class Warnings:
    """Remembers what was warned of: a rule warns again only after QUIET checks without a warning.

    `current` holds, by rule, the text that was true at the last check, and `since` the step since when one holds.
    """

    def __init__(self) -> None:
        self.quiet: dict[str, int] = {}  # of the rules that warned: checks since then without a warning
        self.current: dict[str, str] = {}
        self.since: dict[str, int] = {}

    def new(self, rule: str, text: str | None, step: int, *, settled: bool = True) -> str | None:
        """The text, with the step since when it holds, if it is new.

        Args:
            settled: whether it is time to warn.
        """
        text = self._with_start(rule, text, step)
        text = text if settled else None
        is_new = rule not in self.quiet
        self.current.pop(rule, None)
        if text is not None:
            self.quiet[rule], self.current[rule] = 0, text
        elif not is_new:
            self.quiet[rule] += 1
            if self.quiet[rule] == QUIET:
                del self.quiet[rule]
        return text if is_new else None

    def _with_start(self, rule: str, text: str | None, step: int) -> str | None:
        """What holds since an earlier step says so."""
        if text is None:
            self.since.pop(rule, None)
            return None
        since = self.since.setdefault(rule, step)
        return text if since == step else f"{text} (since step {since:,})"
