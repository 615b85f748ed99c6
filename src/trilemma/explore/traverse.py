"""What each number of a code means: one is moved over the range it has on real images, the others are held.

    z_u(s) = m_u + s * std_u, within [min_u, max_u],   s from -span to span,   z_v as in the start for v != u

with mean m_u, standard deviation std_u, smallest and largest value of unit u over the codes of real images. None of
them has a value outside: that of a ReLU is never negative, though m_u - 3 std_u may be. Units with a larger std carry
more of the image; in a VAE, a unit that is not used has the mean of the prior for every image (Burda et al. 2016,
"Importance weighted autoencoders", section 5.2: activity A_u = Var_x(E[z_u | x])).

The plane walk moves two units at once, by default through equal shares of the codes: its lines are the quantiles
(k + 1/2) / steps of each unit, as those of the prior in Kingma & Welling (2014), appendix A.

With directions in place of units (directions.py), z_u is how far a code lies along direction u. A model that draws its
codes (a GAN) has no codes of real images, and its units mean nothing by themselves: there directions are the default,
and the codes that are drawn give mean, deviation and range. A diffusion model goes from one noise towards others
(turns.py); z_u is an angle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from trilemma.data.load import Images
from trilemma.errors import UserError
from trilemma.explore.code_axes import AxisKind, MeasuredCodes, along, count_axes, measured_codes, most_active, start_of
from trilemma.explore.codes import decode_alike
from trilemma.explore.images import name_of, run_receipt
from trilemma.explore.naming import Named
from trilemma.keys import Caption, Label, Picture
from trilemma.pictures.grid import TEXT, font
from trilemma.pictures.png import save_png
from trilemma.pictures.table import GAP, table
from trilemma.results import claim, place, with_keys
from trilemma.run.run import Run, RunLike, as_run
from trilemma.types import Condition, DrawsCodes
from trilemma.values import checked_call, shown

if TYPE_CHECKING:
    from PIL import Image

STEPS, PLANE_STEPS = 7, 15
DEFAULTS = {"span": 3.0, "spacing": "quantiles"}  # of the keys that are not None
Spacing = Literal["quantiles", "even"]
SINGLE = {"units": "unit", "directions": "direction", "noise": "noise"}  # what one is called


@dataclass(frozen=True)
class Traversal:
    """The picture, the units that were moved, and the values each took: (len(units), steps).

    images: (len(units), steps, C, H, W); of a plane (steps, steps, C, H, W), the second unit falling from row to row.
    axes: what the units are; shares: of the variance, for each of them where they are directions.
    """

    picture: Path
    axes: AxisKind
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
        Field(description="numbers of latent dimensions, or of other axes: 0,4,7 (default: the ten that vary most)"),
    ] = None,
    axes: Annotated[
        AxisKind | None,
        Field(
            description="what is moved: units of the code, directions in which codes differ, or the noise of a "
            "diffusion model (default: units; directions of a GAN; noise without an encoder)"
        ),
    ] = None,
    span: Annotated[float, Field(gt=0, description="how far to both sides, in standard deviations")] = 3.0,
    steps: Annotated[
        int | None, Field(ge=2, description="images in a row (default: 7, or 15 along a side of a plane)")
    ] = None,
    plane: Annotated[
        bool | Sequence[int] | None,
        Field(description="two of them to vary together: 0,1; false: no plane (default: if codes have two)"),
    ] = None,
    spacing: Annotated[
        Spacing, Field(description="lines of a plane: at equal shares of real images, or at equal steps")
    ] = "quantiles",
    data: Images = None,
    label: Label = None,
    caption: Caption = None,
    out: Picture = None,
) -> Traversal:
    """Move one number of a code at a time and decode: a row of images for each; or two of them over a plane.

    Args:
        image: where to start, as for `interpolate` (default: the mean code of real images; of noise, seed:0).
        span: how far to go to both sides of the mean; a unit stops at the smallest and the largest value that it has on
            real images. Of noise a standard deviation is 30 degrees, and the ends are a quarter turn away.
        plane: default: a plane if the codes have just two numbers and `units` is not given.
        spacing: "quantiles" for equal shares of real images between the lines, or "even", within `span`.
        axes: directions are numbered by how much of the variance they explain; of noise there are six.
        data: the images that give mean, deviation and range, and that numbers count in; default: the run's own. Of a
            GAN and of noise, only what numbers count in.
        label: the class to decode, for a conditional model; default: the image's, or class 0.
        caption: what to draw out of noise, for a model that reads captions; default: the image's, of one that was never
            without, else none.
        out: default: RUN/traversal.png or RUN/plane.png, with the given keys in its name.
    Raises:
        UserError: the model does not encode and decode, or has no such axes, a unit does not exist, the start does not
            fit, or `data` would have no effect.
    """
    run, kind = along(as_run(run), axes)
    if data is not None and image is None and (kind == "noise" or isinstance(run.model, DrawsCodes)):
        raise UserError(f"data has no effect without image: {run.recipe.name} draws its codes; leave data out")
    width = count_axes(run, kind)
    pair = _pair(plane, units, width)
    named = None if units is None else _numbers(units, width)
    how = {"image": None if image is None else str(image), "label": label, "caption": caption, "span": span}
    keys = {**how, "units": units, "axes": axes, "steps": steps, "plane": None if isinstance(plane, bool) else plane}
    keys |= {"spacing": spacing, "data": name_of(data)}
    stem = "traversal" if pair is None else "plane"
    picture, within = place(out, run.path, f"{with_keys(stem, keys, DEFAULTS)}.png")
    claim([picture], within)
    start, condition = start_of(run, kind, image, data, label, caption)
    measured = measured_codes(run, kind, data, condition, start)
    chosen = (most_active(measured) if named is None else named) if pair is None else pair
    receipt = run_receipt(run, "traverse", **how, axes=kind, data=name_of(data))
    if pair is not None:
        values = _lines(measured.values[:, list(pair)], steps or PLANE_STEPS, spacing, span)
        images = _decoded(run, on_plane(measured.start, pair, values), condition, measured)
        page = _plane_page(images, pair, values, SINGLE[kind])
        receipt |= {"plane": pair, "spacing": spacing, "steps": values.shape[1]}
    else:
        values = _steps(measured.values[:, list(chosen)], steps or STEPS, span)
        images = _decoded(run, one_at_a_time(measured.start, chosen, values), condition, measured)
        first = None if image is None else _decoded(run, measured.start[None], condition, measured)
        page = _rows_page(images, _names(chosen, kind, measured), _heads(values, kind, span), first)
        receipt |= {"units": chosen, "steps": values.shape[1]}
    shares = None if measured.shares is None else tuple(measured.shares[list(chosen)].tolist())
    images = images.unflatten(0, (-1, values.shape[1]))
    return Traversal(save_png(page, picture, receipt), kind, chosen, values, images, shares)


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


def _decoded(run: Run, values: Tensor, condition: Condition, measured: MeasuredCodes) -> Tensor:
    """Images of values (N, A) along the axes, all under the condition of one image."""
    return decode_alike(run, measured.codes(values), condition)


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


def _names(units: Sequence[int], kind: AxisKind, measured: MeasuredCodes) -> list[str]:
    """What stands beside the row of each axis."""
    if kind == "noise":
        return [f"noise {unit}" for unit in units]
    if measured.shares is not None:
        return [f"direction {unit} ({measured.shares[unit]:.1%} of variance)" for unit in units]
    std = measured.values.std(0, correction=0)
    return [f"unit {unit} (std {std[unit]:.2g})" for unit in units]


def _heads(values: Tensor, kind: AxisKind, span: float) -> list[str]:
    """What stands above the columns of values (Z, n)."""
    if kind == "noise":
        return [f"{round(value):+} degrees" for value in values[0].tolist()]
    return [f"{s:+.3g} std" if s else "mean" for s in torch.linspace(-span, span, values.shape[1]).tolist()]


def _rows_page(images: Tensor, names: Sequence[str], heads: Sequence[str], first: Tensor | None) -> "Image.Image":
    """A row for each axis, behind the image of the start where that is not the mean."""
    if first is None:
        return table(images, names, heads)
    rows = images.unflatten(0, (len(names), len(heads)))
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
