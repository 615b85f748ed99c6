"""What styles do: the crossing of two sets of images, and images drawn towards the average one (Karras, Laine & Aila
2019, "A style-based generator architecture for generative adversarial networks", figure 3 and section B).

In a crossing the first layers have the styles of a row's image (pose, shape) and the layers from `mix_from` on those of
a column's (detail, colour). Truncation moves each style to the mean one, w = mean + truncation (w - mean)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from trilemma.errors import UserError
from trilemma.keys import OneOrMore
from trilemma.pictures.page import below
from trilemma.pictures.table import table
from trilemma.registry import get_recipe, list_models, sampling_keys
from trilemma.run.run import Run
from trilemma.types import Samples, keys_of

if TYPE_CHECKING:
    from PIL import Image

MIX = "mix"  # the sampler's key by which a model with styles is known


def styles(
    run: Run,
    *,
    rows: PositiveInt = 3,
    columns: PositiveInt = 5,
    mix_from: NonNegativeInt | None = None,
    truncations: OneOrMore[NonNegativeFloat] = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0),
    seed: int = 0,
) -> "Image.Image":
    """Images of row seeds crossed with those of column seeds, then the rows' images at several truncations.

    Args:
        rows, columns: their seeds are seed, seed + 1, ..., the rows' first.
        mix_from: the first layer with the styles of the columns; default: the sampler's.
        truncations: 1 is off, 0 the average image.
    Raises:
        UserError: for a run of a model without styles.
    """
    if MIX not in keys_of(run.require("draw samples", Samples)).model_fields:
        raise UserError(f"{run.path}: {run.recipe.name} has no styles; take a run of {', '.join(with_styles())}")
    given: dict[str, Any] = {} if mix_from is None else {"mix_from": mix_from}
    across, down = range(seed + rows, seed + rows + columns), range(seed, seed + rows)
    truncated = torch.cat([image_of(run, a, truncation=value) for a in down for value in truncations])
    return below(
        [
            table(crossing(run, down, across, **given), ["columns", *_named(down)], ["rows", *_named(across)]),
            table(truncated, [f"seed {a}, truncated to" for a in down], [f"{value:g}" for value in truncations]),
        ]
    )


def with_styles() -> list[str]:
    """The presets whose samplers mix styles."""
    return [name for name in list_models() if MIX in sampling_keys(get_recipe(name)).model_fields]


def crossing(run: Run, down: Sequence[int], across: Sequence[int], **given: Any) -> Tensor:
    """Rows of images ((1 + rows) * (1 + columns), C, H, W): white and the columns' own, then each row's own and its
    mixtures."""
    own = [torch.ones(1, *run.shape), *(image_of(run, b) for b in across)]
    mixed = [[image_of(run, a), *(image_of(run, a, **{MIX: b}, **given) for b in across)] for a in down]
    return torch.cat([image for row in (own, *mixed) for image in row])


def image_of(run: Run, seed: int, **settings: Any) -> Tensor:
    """The first image of a seed, (1, C, H, W)."""
    return run.sample(1, seed=seed, **settings)


def _named(seeds: Sequence[int]) -> list[str]:
    return [f"seed {seed}" for seed in seeds]
