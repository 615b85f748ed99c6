"""How far images move in features for a step between two codes (Karras et al. 2019, "A style-based generator
architecture for generative adversarial networks", section 4.1):

    PPL = E |f(G(c(t + e))) - f(G(c(t)))|**2 / e**2,    t uniform in [0, 1 - e], c(t) the way from one code to another

over the same of two different real images, E |f(x) - f(x')|**2. A way along which every image changes evenly from one
end to an unrelated other has a length of about 1; a latent space with cliffs, where most of the way changes nothing
and a short part of it all, has a larger one. The paper's distance is that of a network with weights for perception;
here it is that of the features of the other scores.

Codes are drawn as images are, or where a model encodes, are those of real images. Latents under a normal prior lie near
a sphere and are joined along it; styles and the codes of images are joined by a straight line.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.data.selection import part_named
from trilemma.errors import UserError
from trilemma.interpolation import linear, spherical
from trilemma.metrics.feature_cache import cached_features
from trilemma.metrics.features import extract
from trilemma.metrics.intervals import Estimate, mean_estimate
from trilemma.metrics.likelihood import refusal, some_images
from trilemma.metrics.quality import Setup
from trilemma.metrics.reals import real_images
from trilemma.metrics.receipt import Score, protocol_name, score_of
from trilemma.modes import in_float32
from trilemma.run.compute import MOST_NUMBERS, in_batches
from trilemma.types import (
    UNCONDITIONAL,
    Condition,
    Decodes,
    DrawsCodes,
    Encodes,
    HasStyles,
    codes_need,
    default_label,
    flags,
    for_codes,
)

NAME = "path_length"
INTERVAL_IS = (
    "95% of the mean over pairs of codes (Student's t), the distance of two different images held fixed; too narrow "
    "where a few pairs cross cliffs"
)
PAIRS = 500  # of codes
REAL = 4  # times as many real images, whose distance is the unit
STEP = 1e-3  # of the way; in float32 a shorter one is lost in rounding (the paper: 1e-4)


class Ends(NamedTuple):
    """Pairs of codes (P, Z), what they need, and the way from one to the other."""

    one: Tensor
    other: Tensor
    condition: Condition
    way: Callable[[Tensor, Tensor, Tensor], Tensor]


def path_scores(model: nn.Module, setup: Setup, n: int = PAIRS) -> tuple[list[Score], list[str]]:
    """The score of a model with a continuous code that is made into images by one call, and notes; none of another."""
    if flags(model).code_bits is not None or _generator(model) is None:
        return [], []
    if "label" in codes_need(model) and (refused := refusal(model, setup.data, setup.split, own=setup.own)):
        return [], [f"no path length: {refused}"]
    n = min(n, len(part_named(setup.data, setup.split)) // 2)  # of every model as many: protocols of one kind compare
    if n < 2:
        return [], []
    ends = _drawn_ends(model, setup, n) if isinstance(model, DrawsCodes) else _encoded_ends(model, setup, n)
    return [_score(setup, path_length(model, setup, ends), len(ends.one))], []


def _generator(model: nn.Module) -> Callable[[Tensor, Condition], Tensor] | None:
    """What makes images of codes in one call; None of a model without continuous codes that it makes itself."""
    if isinstance(model, DrawsCodes):
        return model.generate
    return model.decode if isinstance(model, Encodes) and isinstance(model, Decodes) else None


def _drawn_ends(model: DrawsCodes, setup: Setup, n: int) -> Ends:
    """n pairs (n, Z) as images are drawn, both of one class where the model has classes."""
    n_classes = flags(model).n_classes
    label = default_label(torch.arange(n), n_classes) if n_classes else None
    asked = Condition(None if label is None else label.repeat(2))
    one, other = model.draw_codes(2 * n, seed=setup.seed, condition=asked).chunk(2)
    needed = Condition(label).to(one.device) if codes_need(model) else UNCONDITIONAL
    return Ends(one, other, needed, linear if isinstance(model, HasStyles) else spherical)


def _encoded_ends(model: nn.Module, setup: Setup, n: int) -> Ends:
    """n pairs (n, Z) of codes of real images, each decoded with what the first image has."""
    assert isinstance(model, Encodes)
    image, given = some_images(model, part_named(setup.data, setup.split), 2 * n, setup.seed)
    condition, half = for_codes(model, given), len(image) // 2

    def encode(start: int, count: int) -> Tensor:
        part = slice(start, start + count)
        return model.encode(image[part], condition.rows(part))

    with torch.no_grad():
        codes = torch.cat([part for _, part in in_batches(encode, 0, 2 * half, _rows(setup))])
    return Ends(codes[:half], codes[half:], condition.rows(slice(0, half)), linear)


def path_length(model: nn.Module, setup: Setup, ends: Ends) -> Estimate | str:
    """The mean over the pairs, with its interval; or why there is none."""
    one, other, generate = ends.one.cpu().double(), ends.other.cpu().double(), _generator(model)
    assert generate is not None
    t = (1 - STEP) * rng.uniform(torch.arange(len(one)), (), setup.seed, NAME).to(one)
    codes = torch.cat([ends.way(one, other, at).float() for at in (t, t + STEP)]).to(ends.one.device)
    condition = ends.condition.rows(torch.arange(len(one)).repeat(2))

    def compute(start: int, count: int) -> Tensor:
        part = slice(start, start + count)
        images = generate(codes[part], condition.rows(part))
        return extract(setup.network, images.float(), rounded=False)

    try:
        with torch.no_grad(), in_float32():
            before, after = torch.cat([part for _, part in in_batches(compute, 0, len(codes), _rows(setup))]).chunk(2)
    except UserError as error:  # images of some codes are not finite
        return str(error)
    return of_moves(before, after, real=cached_features(setup.network, _real(setup, len(one))))


def of_moves(before: Tensor, after: Tensor, *, real: Tensor) -> Estimate | str:
    """The length, from features (P, D) at t and t + STEP, and those of real images (N, D)."""
    between = 2 * real.var(0).sum().item()  # E|f - f'|**2
    if between == 0:
        return "all real images have the same features"
    moved = (after - before).square().sum(1) / STEP**2 / between
    value, (low, high) = mean_estimate(moved.tolist())
    return Estimate(value, (max(0.0, low), high))


def _real(setup: Setup, pairs: int) -> Tensor:
    """Real images whose distance is the unit."""
    return real_images(setup.data, setup.split, _n_real(setup, pairs), setup.seed)


def _n_real(setup: Setup, pairs: int) -> int:
    return min(len(part_named(setup.data, setup.split)), REAL * pairs)


def _rows(setup: Setup) -> int:
    """Images computed together."""
    channels, height, width = setup.data.shape
    return max(1, MOST_NUMBERS // (channels * height * width))


def _score(setup: Setup, value: Estimate | str, pairs: int) -> Score:
    return score_of(
        NAME,
        protocol_name("path-length", setup.network.name, pairs, setup.split_label),
        value,
        interval_is=INTERVAL_IS,
        features=setup.network.name,
        resize=setup.network.resize_rule(setup.data.shape),
        used=setup.network.receipt,
        n_real=_n_real(setup, pairs),
        n_fake=2 * pairs,
        split=setup.split,
        seed=setup.seed,
        data=setup.data.name,
        data_fingerprint=setup.data.fingerprint,
    )
