"""Values as JSON and a UTF-8 page can hold them."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from trilemma.text import printable

Json = dict[str, Any]  # plain values, as a JSON file holds them


def clean(value: Any) -> Any:
    """Values that JSON and a UTF-8 page can hold: no nan, no infinity, no tuples, nothing that a terminal obeys; a
    dataclass of such values stays one."""
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
    if hasattr(value, "item"):
        return clean(value.item())
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{key.name: clean(getattr(value, key.name)) for key in fields(value)})
    return clean(str(value))


def finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
