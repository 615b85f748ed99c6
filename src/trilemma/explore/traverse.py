"""What each number of a code means: one is moved over the range it has on real images, the others are held.

    z_u(s) = m_u + s * std_u, within [min_u, max_u],   s from -span to span,   z_v as in the start for v != u

with mean m_u, standard deviation std_u, smallest and largest value of unit u over the codes of real images. None of
them has a value outside: that of a ReLU is never negative, though m_u - 3 std_u may be. Units with a larger std carry
more of the image; in a VAE, a unit that is not used has the mean of the prior for every image (Burda et al. 2016,
"Importance weighted autoencoders", section 5.2: activity A_u = Var_x(E[z_u | x])).

The plane walk moves two units at once, by default through equal shares of the codes: its lines are the quantiles
(k + 1/2) / steps of each unit, as those of the prior in Kingma & Welling (2014), appendix A.

A model that draws its codes (a GAN) has no codes of real images, and its units mean nothing by themselves. There the
same is done with directions in place of units (directions.py): z_u is how far a code lies along direction u, and the
codes that are drawn give mean, deviation and range.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from trilemma.data.load import Images, Source
from trilemma.errors import UserError
from trilemma.explore.codes import code_width, condition_for, decode_alike
from trilemma.explore.directions import Directions, directions_of
from trilemma.explore.images import name_of, pick_images, run_receipt
from trilemma.explore.naming import Named, find_code
from trilemma.keys import Label, Picture
from trilemma.pictures.grid import TEXT, font
from trilemma.pictures.png import save_png
from trilemma.pictures.table import GAP, table
from trilemma.results import claim, place, with_keys
from trilemma.run.run import Run, RunLike, as_run
from trilemma.types import Condition, Conditional, Decodes, DrawsCodes, Encodes
from trilemma.values import checked_call, shown

if TYPE_CHECKING:
    from PIL import Image

MEASURED = 2000  # real images whose codes give the mean, the standard deviation and the range
MOST = 10  # units shown where none are asked for
STEPS, PLANE_STEPS = 7, 15
DEFAULTS = {"span": 3.0, "spacing": "quantiles"}  # of the keys that are not None
Spacing = Literal["quantiles", "even"]


@dataclass(frozen=True)
class Traversal:
    """The picture, the units that were moved, and the values each took: (len(units), steps).

    images: (len(units), steps, C, H, W); of a plane (steps, steps, C, H, W), the second unit falling from row to row.
    shares: of the variance, for each of the units where they are directions.
    """

    picture: Path
    units: tuple[int, ...]
    values: Tensor
    images: Tensor
    shares: tuple[float, ...] | None = None


@checked_call
def traverse(
    run: RunLike,
    *,
    image: Annotated[
        Named | None, Field(description="where to start, given as for interpolate (default: the mean code)")
    ] = None,
    units: Annotated[
        int | Sequence[int] | None,
        Field(description="latent dimensions, or directions of a GAN: 0,4,7 (default: the ten that vary most)"),
    ] = None,
    span: Annotated[float, Field(gt=0, description="how far to both sides, in standard deviations")] = 3.0,
    steps: Annotated[
        int | None, Field(ge=2, description="images in a row (default: 7, or 15 along a side of a plane)")
    ] = None,
    plane: Annotated[
        bool | Sequence[int] | None,
        Field(description="two latent dimensions to vary together: 0,1; false: no plane (default: if codes have two)"),
    ] = None,
    spacing: Annotated[
        Spacing, Field(description="lines of a plane: at equal shares of real images, or at equal steps")
    ] = "quantiles",
    data: Images = None,
    label: Label = None,
    out: Picture = None,
) -> Traversal:
    """Move one number of a code at a time and decode: a row of images for each; or two of them over a plane.

    Args:
        image: where to start, as for `interpolate` (default: the mean code of real images).
        span: how far to go to both sides of the mean; a unit stops at the smallest and the largest value that it has on
            real images.
        plane: default: a plane if the codes have just two numbers and `units` is not given.
        spacing: "quantiles" for equal shares of real images between the lines, or "even", within `span`.
        units: of a GAN, directions of its codes, numbered by how much of the variance they explain.
        data: the images that give mean, deviation and range, and that numbers count in; default: the run's own. Of a
            GAN, only what numbers count in.
        label: the class to decode, for a conditional model; default: the image's, or class 0.
        out: default: RUN/traversal.png or RUN/plane.png, with the given keys in its name.
    Raises:
        UserError: the model does not encode and decode, a unit does not exist, the start does not fit, or `data` would
            have no effect.
    """
    run = as_run(run)
    if not isinstance(run.model, DrawsCodes):
        run.require("traverse codes", Encodes, Decodes)
    elif data is not None and image is None:
        raise UserError(f"data has no effect without image: {run.recipe.name} draws its codes; leave data out")
    width = code_width(run)
    pair = _pair(plane, units, width)
    named = None if units is None else _numbers(units, width)
    how = {"image": None if image is None else str(image), "label": label, "span": span}
    keys = {**how, "units": units, "steps": steps, "plane": None if isinstance(plane, bool) else plane}
    keys |= {"spacing": spacing, "data": name_of(data)}
    stem = "traversal" if pair is None else "plane"
    picture, within = place(out, run.path, f"{with_keys(stem, keys, DEFAULTS)}.png")
    claim([picture], within)
    start, condition = start_of(run, image, data, label)
    codes, directions = measured_codes(run, data, condition)
    start = codes.mean(0) if start is None else start if directions is None else directions.parts(start)
    chosen = (most_active(codes, directions) if named is None else named) if pair is None else pair
    if pair is not None:
        values = _lines(codes[:, list(pair)], steps or PLANE_STEPS, spacing, span)
        images = _decoded(run, on_plane(start, pair, values), condition, directions)
        page = _plane_page(images, pair, values, "unit" if directions is None else "direction")
        receipt = run_receipt(run, "traverse", **how, plane=pair, spacing=spacing, steps=values.shape[1])
    else:
        values = _steps(codes[:, list(chosen)], steps or STEPS, span)
        images = _decoded(run, one_at_a_time(start, chosen, values), condition, directions)
        first = None if image is None else _decoded(run, start[None], condition, directions)
        page = _rows_page(images, _names(chosen, codes, directions), values.shape[1], span, first)
        receipt = run_receipt(run, "traverse", **how, units=chosen, steps=values.shape[1])
    shares = None if directions is None else tuple(directions.shares[list(chosen)].tolist())
    images = images.unflatten(0, (-1, values.shape[1]))
    return Traversal(save_png(page, picture, receipt), chosen, values, images, shares)


def one_at_a_time(start: Tensor, units: Sequence[int], values: Tensor) -> Tensor:
    """Codes that differ from `start` (Z,) in one unit: values (len(units), steps) -> (len(units) * steps, Z)."""
    codes = start.repeat(*values.shape, 1)  # (units, steps, Z)
    for row, unit in enumerate(units):
        codes[row, :, unit] = values[row]
    return codes.flatten(0, 1)


def on_plane(start: Tensor, units: Sequence[int], values: Tensor) -> Tensor:
    """Codes that differ from `start` (Z,) in two units, values (2, n): the first rises from column to column, the
    second falls from row to row, as on the axes of a plot. (n * n, Z)."""
    n = values.shape[1]
    codes = start.repeat(n, n, 1)
    codes[:, :, units[0]] = values[0]
    codes[:, :, units[1]] = values[1].flip(0)[:, None]
    return codes.flatten(0, 1)


def measured_codes(run: Run, data: Source | None, condition: Condition) -> tuple[Tensor, Directions | None]:
    """Codes of real images, (N, Z); or of drawn ones, by their parts along directions."""
    if isinstance(run.model, DrawsCodes):
        directions, codes = directions_of(run, run.model, condition)
        return directions.parts(codes), directions
    batch = pick_images(run, data, MEASURED, seed=0)
    return run.encode(batch.image, condition=condition_for(run, batch)), None


def _decoded(run: Run, codes: Tensor, condition: Condition, directions: Directions | None) -> Tensor:
    """Images of codes, or of parts of codes along directions, all under the condition of one image."""
    return decode_alike(run, codes if directions is None else directions.codes(codes), condition)


def start_of(
    run: Run, image: Named | None, data: Source | None, label: str | int | None
) -> tuple[Tensor | None, Condition]:
    """The code (Z,) to start from, None for the mean, and the condition to decode it under."""
    if image is not None:
        code, condition, _ = find_code(run, image, data, label)
        return code[0], condition
    first = run.config["classes"][0] if isinstance(run.model, Conditional) else None
    return None, run.condition(first if label is None else label, 1)


def _pair(plane: bool | Sequence[int] | None, units: object, width: int) -> tuple[int, int] | None:
    """The two units of a plane; None for rows."""
    if plane is False or (plane is None and (units is not None or width != 2)):
        return None
    if plane is None or plane is True:
        plane = (0, 1)
    numbers = _numbers(plane, width)
    if len(numbers) != 2:
        raise UserError(f"plane={shown(plane)}: give two units, for instance 0,1")
    return numbers[0], numbers[1]


def _numbers(units: int | Sequence[int], width: int) -> tuple[int, ...]:
    """Units as numbers, each there and named once."""
    numbers = (units,) if isinstance(units, int) else tuple(units)
    if not numbers or len({*numbers}) < len(numbers) or not all(0 <= unit < width for unit in numbers):
        raise UserError(f"unknown units {shown(units)}: give different numbers from 0 to {width - 1}, for instance 0,1")
    return numbers


def most_active(codes: Tensor, directions: Directions | None) -> tuple[int, ...]:
    """The units with the largest standard deviation, or the directions with the largest shares of the variance, the
    largest first; none that changes nothing, if any does."""
    std = codes.std(0, correction=0) if directions is None else directions.shares
    order = std.argsort(descending=True, stable=True)[:MOST]
    return tuple(unit for unit in order.tolist() if std[unit] > 0) or (0,)


def _steps(codes: Tensor, n: int, span: float) -> Tensor:
    """Even steps from -span to span standard deviations around the mean of each column of codes, within its range:
    (Z, n)."""
    s = torch.linspace(-span, span, n, dtype=codes.dtype)
    values = codes.mean(0)[:, None] + s * codes.std(0, correction=0)[:, None]
    return values.clamp(codes.amin(0)[:, None], codes.amax(0)[:, None])


def _lines(codes: Tensor, n: int, spacing: str, span: float) -> Tensor:
    """The values that the units of a plane take, (2, n)."""
    if spacing == "even":
        return _steps(codes, n, span)
    return codes.quantile((torch.arange(n, dtype=codes.dtype) + 0.5) / n, dim=0).T


def _names(units: Sequence[int], codes: Tensor, directions: Directions | None) -> list[str]:
    """What stands beside the row of each unit or direction."""
    if directions is not None:
        return [f"direction {unit} ({directions.shares[unit]:.1%} of variance)" for unit in units]
    std = codes.std(0, correction=0)
    return [f"unit {unit} (std {std[unit]:.2g})" for unit in units]


def _rows_page(images: Tensor, names: Sequence[str], n: int, span: float, first: Tensor | None) -> "Image.Image":
    """A row for each unit, behind the image of the start where that is not the mean."""
    heads = [f"{s:+.3g} std" if s else "mean" for s in torch.linspace(-span, span, n).tolist()]
    if first is None:
        return table(images, names, heads)
    rows = images.unflatten(0, (len(names), n))
    rows = torch.cat([first.expand(len(names), 1, -1, -1, -1), rows], dim=1)
    return table(rows.flatten(0, 1), names, ["start", *heads])


def _plane_page(images: Tensor, units: tuple[int, int], values: Tensor, what: str) -> "Image.Image":
    """The plane with the values of its lines and the names of its axes."""
    from PIL import Image, ImageDraw

    across, down = values[0].tolist(), values[1].flip(0).tolist()
    plane = table(images, [f"{v:.2f}" for v in down], [f"{v:.2f}" for v in across])
    strip = GAP + TEXT + GAP
    page = Image.new(plane.mode, (strip + plane.width, strip + plane.height), "white")
    page.paste(plane, (strip, strip))
    for unit, length, turned in ((units[0], plane.width, False), (units[1], plane.height, True)):
        name = Image.new(plane.mode, (length, strip), "white")
        ImageDraw.Draw(name).text((length / 2, strip / 2), f"{what} {unit}", fill="black", font=font(), anchor="mm")
        page.paste(name.rotate(90, expand=True) if turned else name, (0, strip) if turned else (strip, 0))
    return page
