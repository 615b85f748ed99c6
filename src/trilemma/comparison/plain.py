"""Values as JSON and a UTF-8 page can hold them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trilemma.text import printable


def clean(value: Any) -> Any:
    """Values that JSON and a UTF-8 page can hold: no nan, no infinity, no tuples, nothing that a terminal obeys."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return printable(value.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), lines=True)
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    return clean(str(value)) if isinstance(value, Path) or not hasattr(value, "item") else clean(value.item())


def finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
