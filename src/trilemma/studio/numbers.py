"""Numbers in files that may be anybody's."""

import math
from typing import Any


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number; true and false are none.

    >>> is_number(1), is_number(True), is_number(float("nan"))
    (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any) -> float | None:
    """The same as a float; None if it is no number.

    >>> number(2), number("2")
    (2.0, None)
    """
    return float(value) if is_number(value) else None
