"""Codes moved by hand: an axis for each unit, or direction, that varies most, and the image of any point along them.

The axes are those of `traverse`: the mean, and the range that the codes of real (or drawn) images have.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.explore.codes import decode_alike
from trilemma.explore.directions import Directions
from trilemma.explore.traverse import measured_codes, most_active, start_of
from trilemma.run.run import Run, RunLike, as_run
from trilemma.types import Condition, Decodes, DrawsCodes, Encodes


@dataclass(frozen=True)
class CodeAxis:
    """A unit of a code, or a direction. low, mean, high: of the values that codes have; std: their deviation."""

    unit: int
    low: float
    mean: float
    high: float
    std: float


@dataclass(frozen=True)
class Sliders:
    """A run's axes, the most active first. mean: of all units, (Z,); directions: None where units mean something."""

    run: Run
    axes: tuple[CodeAxis, ...]
    mean: Tensor
    directions: Directions | None
    condition: Condition

    def image(self, values: Mapping[int, float]) -> Tensor:
        """The image (C, H, W) of the code with these values, of other units the mean; a value outside of what codes
        have is brought back to its end."""
        code = self.mean.clone()
        for axis in self.axes:
            if axis.unit in values:
                code[axis.unit] = min(max(values[axis.unit], axis.low), axis.high)
        codes = code[None] if self.directions is None else self.directions.codes(code[None])
        return decode_alike(self.run, codes, self.condition)[0]


def sliders_of(run: RunLike, label: str | int | None = None) -> Sliders:
    """The axes of a run.

    Args:
        label: the class to decode, for a conditional model; default: class 0.
    Raises:
        UserError: the model does not encode and decode, nor draws codes.
    """
    run = as_run(run)
    if not isinstance(run.model, DrawsCodes):
        run.require("traverse codes", Encodes, Decodes)
    _, condition = start_of(run, None, None, label)
    codes, directions = measured_codes(run, None, condition)
    units = most_active(codes, directions)
    columns = [codes[:, unit] for unit in units]
    axes = [
        CodeAxis(unit, float(c.amin()), float(c.mean()), float(c.amax()), float(c.std(correction=0)))
        for unit, c in zip(units, columns, strict=True)
    ]
    return Sliders(run, tuple(axes), torch.as_tensor(codes.mean(0)), directions, condition)
