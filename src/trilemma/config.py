"""Frozen settings that go to JSON and back; an unknown key is an error that names the nearest one."""

import math
from typing import Any, Self, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, model_validator

from trilemma.errors import UserError, with_hint

C = TypeVar("C", bound="Config")
LARGEST_IMAGE = 2**24  # numbers in an image: 4096 x 4096 of grey
LARGEST_INT = 2**31 - 1
SHOWN_ERRORS, SHOWN_LETTERS = 3, 60  # of a message about values that do not fit


class Config(BaseModel):
    """Base of every settings object. Fields carry their default; `help` texts live in Field(description=...)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked like a new one.

        Raises:
            UserError: if a key is unknown or a value does not fit.
        """
        return make(type(self), {**self.model_dump(), **changes})

    def to_json(self) -> dict[str, Any]:
        """Plain values only: what `make` takes back."""
        return self.model_dump(mode="json")


class ModelConfig(Config):
    """What every model needs to be rebuilt: the images it is made for. Families add their own fields."""

    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 28, 28)  # channels, height, width

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        """No number is larger than torch can count by, and no image than a network can be asked for."""
        if math.prod(self.shape) > LARGEST_IMAGE:
            raise ValueError(
                f"shape={self.shape}: images have at most {LARGEST_IMAGE:,} numbers; choose a smaller size="
            )
        for key in type(self).model_fields:
            value = getattr(self, key)
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, int) and abs(number) > LARGEST_INT for number in numbers):
                raise ValueError(f"{key}: numbers here are at most {LARGEST_INT:,}")
        return self


def make(kind: type[C], values: dict[str, Any]) -> C:
    """Build settings from plain values.

    Raises:
        UserError: in one line per problem: an unknown key with the nearest one, or a value that does not fit.
    """
    try:
        return kind(**{key: _as_tuple(kind, key, value) for key, value in values.items()})
    except ValidationError as error:
        raise UserError(explained(kind, error)) from None


def explained(kind: type[Config], error: ValidationError) -> str:
    """The first problems that pydantic found, each in our words."""
    problems = error.errors(include_url=False, include_context=False)
    more = len(problems) - SHOWN_ERRORS
    texts = [_explain(kind, problem) for problem in problems[:SHOWN_ERRORS]]
    return "; ".join([*texts, f"and {more:,} more"] if more > 0 else texts)


def _as_tuple(kind: type[Config], key: str, value: Any) -> Any:
    """A single value where several may stand: hidden=128 means hidden=(128,)."""
    field = kind.model_fields.get(key)
    several = field is not None and get_origin(field.annotation) is tuple
    return (value,) if several and isinstance(value, int | float | str) else value


def _explain(kind: type[Config], error: Any) -> str:
    key = _short(".".join(str(part) for part in error["loc"]))
    if not key:  # a rule about several keys
        return error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] != "extra_forbidden":
        return f"{key}={_short(repr(error['input']))}: {error['msg'].removeprefix('Value error, ').lower()}"
    text = f'unknown key "{key}"; the keys here are {", ".join(kind.model_fields)}'
    return with_hint(text, key, kind.model_fields)


def _short(text: str) -> str:
    """A text that may be anything, in a length for a message."""
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}..."
