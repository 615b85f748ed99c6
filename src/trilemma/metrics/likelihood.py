"""Bounds on log p(x) by importance weights (Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders").

    log w_i = log p(x, z_i) - log q(z_i|x),  z_i ~ q(z|x)
    L_k = E log (1/k) sum_{i=1}^{k} w_i,     ELBO = L_1 <= L_2 <= ... <= log p(x)

Bits per dimension are -L_k / (D ln 2) for pixels that are black or white, plus log2(255) for a density over images in
[0, 1]: the 256 levels k / 255 lie 1 / 255 apart, so a level has the probability p(x) / 255. (Plus 8 belongs to pixels
made continuous, (k + u) / 256; no noise is added here.) A Bernoulli of grey pixels is not a likelihood, so it has nats
and no bits.

A unit of a code is active if the variance of its posterior mean over images is above 0.01 (the same, section 5.2); few
active units are what is called posterior collapse. Codes that are choices out of finite sets have no means, and so no
such figure.

A diffusion model has no codes to weigh: its bound, or its density along the probability-flow path, is estimated at
`samples` noise levels of each of at most PATH_IMAGES images, and is the logarithm of a probability of 256 levels.
"""

import math
from typing import TypeGuard

import torch
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.data import Data
from trilemma.data.selection import Selection, part_named
from trilemma.errors import UserError, check_finite
from trilemma.healthy import least_active
from trilemma.metrics.catalogue import CATALOGUE
from trilemma.metrics.intervals import Estimate, mean_estimate
from trilemma.metrics.receipt import Score, protocol_name, score_of
from trilemma.pictures.levels import to_float
from trilemma.run.compute import MOST_NUMBERS, in_batches
from trilemma.types import (
    UNCONDITIONAL,
    BoundsByPath,
    BoundsLikelihood,
    Condition,
    Conditional,
    Encodes,
    WeighsCodes,
    flags,
    needs_caption,
)

ROW_VALUES = 2**20  # pixel values that go through a model at a time
INTERVAL_IS = "95% of the mean over the images (Student's t); says nothing of another training"
LEVEL_BITS = math.log2(255)  # a level of an image in [0, 1] is 1 / 255 wide
IMAGES, PATH_IMAGES = 1000, 200  # that are measured at most: of a model with codes, of a diffusion model
PATH_ROWS = 64  # images of a diffusion model in a pass
ACTIVE = 0.01  # variance of the posterior mean above which a unit is active
COUNT_IS = "counted, not estimated"
NO_LIKELIHOOD = "a Bernoulli of grey pixels is not a likelihood; measure on black and white images (mnist-binary)"


def has_posterior(model: object) -> TypeGuard[Encodes]:
    """Whether a model's code is variational and has means: no choices out of finite sets."""
    return isinstance(model, Encodes) and isinstance(model, BoundsLikelihood) and flags(model).code_bits is None


def active_units(codes: Tensor) -> int:
    """Units of a code whose posterior mean moves with the image: (N, Z) -> count."""
    return int((codes.float().var(0) > ACTIVE).sum())


def is_collapsed(active: float, units: int) -> bool:
    """Whether fewer than one in ten units of a code are active, and fewer than ACTIVE_ENOUGH."""
    return active < least_active(units)


@torch.no_grad()
def bounds(
    model: WeighsCodes,
    image: Tensor,
    k: int,
    rng: torch.Generator,
    *,
    condition: Condition = UNCONDITIONAL,
    rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The ELBO and the importance-weighted bound of each image, from the same k weights.

    Args:
        image: (B, C, H, W) in [0, 1].
        k: weights per image, at least 1.
        condition: the label of each image, for a conditional model.
        rows: images in a pass, which bounds the memory (default: ROW_VALUES pixel values).
    Returns:
        Nats per image, float64 (B,) each; equal for k = 1.
    """
    if k < 1:
        raise UserError(f"k={k}: a bound needs at least 1 sample")
    rows = max(1, rows or ROW_VALUES // image[0].numel())
    size = max(1, rows // k)  # images in a pass, each at_once times
    at_once = max(1, rows // size)
    parts = [
        _bounds(model, image[at : at + size], k, at_once, rng, condition.rows(slice(at, at + size)))
        for at in range(0, len(image), size)
    ]
    return torch.cat([elbo for elbo, _ in parts]), torch.cat([bound for _, bound in parts])


def importance_weighted_bound(
    model: WeighsCodes,
    image: Tensor,
    k: int,
    rng: torch.Generator,
    *,
    condition: Condition = UNCONDITIONAL,
    rows: int | None = None,
) -> Tensor:
    """log (1/k) sum_i w_i of each image, nats, float64 (B,); see `bounds`."""
    return bounds(model, image, k, rng, condition=condition, rows=rows)[1]


def _bounds(
    model: WeighsCodes, image: Tensor, k: int, at_once: int, rng: torch.Generator, condition: Condition
) -> tuple[Tensor, Tensor]:
    """As `bounds`, `at_once` weights of every image at a time."""
    total = torch.zeros(len(image), dtype=torch.float64, device=image.device)
    log_total = torch.full_like(total, -math.inf)
    for first in range(0, k, at_once):
        n = min(at_once, k - first)
        repeated = condition.rows(torch.arange(len(image)).repeat(n))
        log_w = model.log_weight(image.repeat(n, 1, 1, 1), rng, repeated).double().view(n, len(image))
        total += log_w.sum(0)
        log_total = torch.logaddexp(log_total, log_w.logsumexp(0))
    return total / k, log_total - math.log(k)


def likelihood_scores(
    model: nn.Module,
    data: Data,
    split: str,
    *,
    split_label: str,
    own: bool,
    samples: int,
    n: int | None,
    seed: int,
    by: str = "bound",
) -> tuple[list[Score], list[str]]:
    """What a model says of real images: ELBO, importance-weighted bound, bits per dimension, active units; and notes.

    Args:
        model: nothing is measured where it bounds no likelihood.
        split_label: the split's name in a protocol; own: whether the model was trained on this data.
        samples: k of the bound, 0 for no scores; n: images at most (default: IMAGES, or PATH_IMAGES).
        by: of a diffusion model, "bound" or "flow".
        seed: of the codes that are drawn and of which images are taken.
    Raises:
        UserError: if the numbers do not fit.
    """
    n = n if n is not None else PATH_IMAGES if isinstance(model, BoundsByPath) else IMAGES
    if samples < 0 or n < 2:
        raise UserError(f"bound_samples={samples}, bound_images={n}: give 0 samples or more, and at least 2 images")
    if not isinstance(model, BoundsByPath | WeighsCodes) or samples == 0:
        return [], []
    if refused := refusal(model, data, split, own=own):
        return [], [f"no bound on the likelihood: {refused}"]
    image, condition = some_images(model, part_named(data, split), n, seed)
    generator = random.generator(seed, "likelihood", device=image.device)
    if isinstance(model, BoundsByPath):
        rows, notes, interval_is = _by_path(model, image, samples, generator, condition, by), [], INTERVAL_IS
    else:
        rows, notes, interval_is = _by_codes(model, image, samples, generator, condition)
    scores = [
        score_of(
            name,
            protocol_name(f"{CATALOGUE[name].word}{count}", what, len(image), split_label),
            value,
            interval_is=COUNT_IS if name == "active_units" else interval_is,
            n_real=len(image),
            split=split,
            seed=seed,
            data=data.name,
            data_fingerprint=data.fingerprint,
        )
        for name, (count, what), value in rows
    ]
    return scores, notes


Row = tuple[str, tuple[str | int, str | int], Estimate | str]  # metric, what its protocol says, value


def _by_codes(
    model: nn.Module, image: Tensor, samples: int, generator: torch.Generator, condition: Condition
) -> tuple[list[Row], list[str], str]:
    """The scores of a model with codes, notes, and what the interval is."""
    assert isinstance(model, WeighsCodes)
    name, density = _likelihood_of(model)
    binary = bool(((image == 0) | (image == 1)).all())
    kind, is_likelihood = f"{name}-{'binary' if binary else 'continuous'}", density or binary
    elbo, bound = bounds(model, image, samples, generator, condition=condition)
    check_finite(bound, "bounds", "bound_samples=0 leaves them out")
    bits = -bound / (image[0].numel() * math.log(2)) + (LEVEL_BITS if density else 0)
    rows: list[Row] = [
        ("elbo_nats", ("", kind), mean_estimate(elbo.tolist())),
        ("bound_nats", (samples, kind), mean_estimate(bound.tolist())),
        ("bits_per_dim", (samples, kind), mean_estimate(bits.tolist()) if is_likelihood else NO_LIKELIHOOD),
    ]
    notes = [] if is_likelihood else [f"ELBO and bound: {NO_LIKELIHOOD}"]
    if has_posterior(model):
        active, units = _active_units(model, image, condition)
        rows.append(("active_units", ("", units), Estimate(active, (active, active))))
        notes.append(f"{active} of the {units} units of the code are active: their mean moves with the image")
    interval_is = INTERVAL_IS if is_likelihood else f"{INTERVAL_IS}; {NO_LIKELIHOOD}"
    return rows, notes, interval_is


def _by_path(
    model: BoundsByPath, image: Tensor, calls: int, generator: torch.Generator, condition: Condition, by: str
) -> list[Row]:
    """The scores of a diffusion model."""
    measure, name, kind = (
        (model.flow_bound, "bound_nats", "flow-256-levels")
        if by == "flow"
        else (model.bound, "elbo_nats", "256-levels")
    )

    def compute(start: int, count: int) -> Tensor:
        part = slice(start, start + count)
        return measure(image[part], generator, condition.rows(part), calls=calls).double()

    rows = max(1, min(PATH_ROWS, MOST_NUMBERS // image[0].numel()))
    nats = torch.cat([part for _, part in in_batches(compute, 0, len(image), rows)])
    check_finite(nats, "bounds", "bound_samples=0 leaves them out")
    bits = -nats / (image[0].numel() * math.log(2))
    return [
        (name, (calls, kind), mean_estimate(nats.tolist())),
        ("bits_per_dim", (calls, kind), mean_estimate(bits.tolist())),
    ]


def refusal(model: object, data: Data, split: str, *, own: bool) -> str | None:
    """Why a model cannot be asked for what these images show, by their labels and no captions; None if it can."""
    if needs_caption(model):
        return "the model reads captions, and was trained with label_dropout=0"
    if not isinstance(model, Conditional):
        return None
    if not own:
        return f"the model takes labels, and the labels of {data.name} are not its own"
    without = part_named(data, split).labels is None
    return f"the model takes labels, and the {split} images have no class" if without else None


def some_images(model: nn.Module, part: Selection, n: int, seed: int) -> tuple[Tensor, Condition]:
    """At most n images, (n, C, H, W) in [0, 1] on the model's device, and the labels the model takes."""
    chosen = random.permutation(len(part), seed, "likelihood")[:n].sort().values
    device = next(model.parameters()).device
    images = part.take(chosen)
    condition = Condition(images.labels) if isinstance(model, Conditional) else UNCONDITIONAL
    return to_float(images.images.to(device)), condition.to(device)


def _likelihood_of(model: nn.Module) -> tuple[str, bool]:
    """The name of p(x|z), and whether it is a density over images in [0, 1]."""
    likelihood = flags(model).pixel_likelihood
    return ("density", True) if likelihood is None else (likelihood.name, likelihood.density)


@torch.no_grad()
def _active_units(model: Encodes, image: Tensor, condition: Condition) -> tuple[int, int]:
    """Active units, and units, of the codes of some images."""
    size = max(1, ROW_VALUES // image[0].numel())
    parts = [slice(at, at + size) for at in range(0, len(image), size)]
    codes = torch.cat([model.encode(image[part], condition.rows(part)) for part in parts])
    return active_units(codes), codes.shape[1]
