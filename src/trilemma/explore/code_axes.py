"""What codes are moved along, which `traverse` and the sliders of the studio share:

units       single numbers of a code
directions  of codes: the principal components of those of real images, or of what a GAN draws its images from
            (directions.py)
noise       of a diffusion model: ways from one noise to others (turns.py)

Each has the mean, the deviation and the range that the codes of real (or drawn) images have along it.
"""

from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from trilemma.data.load import Source
from trilemma.errors import UserError
from trilemma.explore.codes import by_noise, check_one_caption, code_width, condition_for
from trilemma.explore.directions import Directions, directions_of, drawn_codes, of_spread
from trilemma.explore.images import pick_images
from trilemma.explore.naming import Named, find_code
from trilemma.explore.turns import Turns, turns_from, turns_of
from trilemma.run.run import Run
from trilemma.types import Condition, Conditional, Decodes, Denoises, DrawsCodes, Encodes, Inverts

AxisKind = Literal["units", "directions", "noise"]
MEASURED = 2000  # real images whose codes give the mean, the standard deviation and the range
MOST = 10  # axes shown where none are asked for


class MeasuredCodes(NamedTuple):
    """values: of codes along the axes, (N, A); start: those of the code that is moved, (A,); ways: what makes codes of
    values, None where the values are the code."""

    values: Tensor
    start: Tensor
    ways: Directions | Turns | None

    def codes(self, values: Tensor) -> Tensor:
        """The codes (N, Z) with these values (N, A)."""
        return values if self.ways is None else self.ways.codes(values)

    @property
    def shares(self) -> Tensor | None:
        """Of the variance along each axis, (A,); None where it is not known."""
        return self.ways.shares if isinstance(self.ways, Directions) else None


def kinds_of(model: object) -> list[AxisKind]:
    """The kinds of axes that a model has, its usual one first."""
    if isinstance(model, DrawsCodes):
        return ["directions", "units"]
    has_codes = isinstance(model, Encodes) and isinstance(model, Decodes)
    of_codes: list[AxisKind] = ["units", "directions"] if has_codes else []
    of_noise: list[AxisKind] = ["noise"] if isinstance(model, Denoises) and isinstance(model, Inverts) else []
    return of_codes + of_noise


def along(run: Run, kind: str | None, steps: int | None = None) -> tuple[Run, AxisKind]:
    """A run whose codes are those that a kind of axes moves, and the kind; default: the model's usual one.

    Args:
        steps: network calls for an image of noise; default: the model's own number.
    Raises:
        UserError: its model has no codes, or no such axes.
    """
    kinds = kinds_of(run.model)
    if not kinds:
        run.require("traverse codes", Encodes, Decodes)
    if kind and kind not in kinds:
        raise UserError(
            f"axes={kind:.40}: codes of {run.recipe.name} are moved along {' or '.join(kinds)}; choose one of these, "
            "or leave axes out"
        )
    chosen = cast(AxisKind, kind or kinds[0])
    return (by_noise(run, steps) if chosen == "noise" else run), chosen


def count_axes(run: Run, kind: AxisKind) -> int:
    """How many axes of a kind there are."""
    width = code_width(run)
    return turns_of(width) if kind == "noise" else width


def start_of(
    run: Run, kind: AxisKind, image: Named | None, data: Source | None, label: str | int | None, caption: str | None
) -> tuple[Tensor | None, Condition]:
    """The code (Z,) to start from, None for the mean, and the condition to decode it under.

    Args:
        image: default: the mean, of noise that of image 0 of seed 0.
    Raises:
        UserError: several captions are given, or as `find_code`.
    """
    check_one_caption(caption)
    if kind == "noise" and image is None:
        image = "seed:0"
    if label is None and caption is None and (image is None or str(image).startswith("seed:")):
        label = _first_class(run)
    if image is None:
        return None, run.condition(label, 1, caption=caption)
    code, condition, _ = find_code(run, image, data, label, caption)
    if label is not None and isinstance(run.model, DrawsCodes):  # styles hold the class, and truncation asks for it
        condition = run.condition(label, 1)
    return code[0], condition


def measured_codes(
    run: Run, kind: AxisKind, data: Source | None, condition: Condition, start: Tensor | None
) -> MeasuredCodes:
    """Values of real images along the axes, or of drawn ones under a condition, and those of a start (Z,); default:
    their mean."""
    if kind == "noise":
        assert start is not None
        turns = turns_from(start)
        return MeasuredCodes(turns.angles(), torch.zeros(len(turns.towards)), turns)
    directions = None
    if isinstance(run.model, DrawsCodes) and kind == "directions":
        directions, codes = directions_of(run, run.model, condition)
    elif isinstance(run.model, DrawsCodes):
        codes = drawn_codes(run, run.model, condition)
    else:
        batch = pick_images(run, data, MEASURED, seed=0)
        codes = run.encode(batch.image, condition=condition_for(run, batch))
        directions = of_spread(codes) if kind == "directions" else None
    values = codes if directions is None else directions.parts(codes)
    if start is None:
        return MeasuredCodes(values, values.mean(0), directions)
    return MeasuredCodes(values, start if directions is None else directions.parts(start), directions)


def most_active(measured: MeasuredCodes) -> tuple[int, ...]:
    """The axes with the largest share of the variance, or where that is not known with the largest standard deviation,
    the largest first; none that changes nothing, if any does."""
    std = measured.values.std(0, correction=0) if measured.shares is None else measured.shares
    order = std.argsort(descending=True, stable=True)[:MOST]
    return tuple(unit for unit in order.tolist() if std[unit] > 0) or (0,)


def _first_class(run: Run) -> str | None:
    """The class that is shown where none is asked for."""
    return run.config["classes"][0] if isinstance(run.model, Conditional) else None
