"""How far what another program computes is from what the model does.

Both round each number to about 1e-7 of its size, and add in other orders, so that differences grow with the values.
Those of images, in [0, 1] or [-1, 1], are taken as they are; where values go beyond 1, as of codes and logits, the
difference is divided by the largest.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor

from trilemma.errors import UserError

TOLERANCE = 1e-4  # of the relative difference


class Parity(NamedTuple):
    """difference: the largest one; scale: the largest value of the model's, at least 1."""

    difference: float
    scale: float

    @property
    def relative(self) -> float:
        """The difference over the scale; NaN where one value is, or both are infinite."""
        return self.difference / self.scale

    @property
    def record(self) -> dict[str, Any]:
        """What the record of an export says of it."""
        return {"parity": self.relative, "difference": self.difference, "scale": self.scale}


def parity_of(result: Tensor, expected: Tensor) -> Parity:
    """Between what another program gives and what the model does, of one shape."""
    expected = expected.double()
    return Parity(float((result.double() - expected).abs().max()), float(expected.abs().max().clamp(min=1)))


def worst(parities: Iterable[Parity]) -> Parity:
    """The one of the largest relative difference, or one that is NaN."""
    return max(parities, key=lambda parity: (parity.relative != parity.relative, parity.relative))


def check_parity(parity: Parity, what: str, program: str) -> None:
    """Refuse to export what another program computes otherwise.

    Args:
        what: of the model, with a singular noun, and program: for the message.
    Raises:
        UserError: the relative difference is more than TOLERANCE.
    """
    if not parity.relative <= TOLERANCE:
        raise UserError(
            f"{what} differs by {parity.difference:.2g} in {program}, with values up to {parity.scale:.2g}: more than "
            f"{TOLERANCE:g} of that; it was not exported"
        )
