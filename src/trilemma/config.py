"""Frozen settings that go to JSON and back; an unknown key is an error that names the nearest one."""

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, create_model, model_validator

from trilemma.arguments import word
from trilemma.errors import UserError
from trilemma.values import annotations_of, plain, problems

C = TypeVar("C", bound="Config")
LARGEST_IMAGE = 2**24  # numbers in an image: 4096 x 4096 of grey
LARGEST_INT = 2**31 - 1
VARIANCE = 0.5  # of the Gaussian whose -log p is |x_hat - x|**2, up to a constant: behind a mean squared error
SHOWN_ERRORS = 3  # of a message about values that do not fit


class Config(BaseModel):
    """Base of every settings object. Fields carry their default; `help` texts live in Field(description=...)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked like a new one.

        Raises:
            UserError: if a key is unknown or a value does not fit.
        """
        return make(type(self), {**self.model_dump(), **changes})

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a field, or the default if the field does not exist."""
        return dict(self).get(key, default)

    def given(self) -> dict[str, Any]:
        """The fields that were given, by name."""
        return {key: value for key, value in self if key in self.model_fields_set}

    def to_json(self) -> dict[str, Any]:
        """Plain values only: what `make` takes back."""
        return self.model_dump(mode="json")


class ModelConfig(Config):
    """What every model needs to be rebuilt: the images it is made for. Families add their own fields."""

    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 28, 28)  # channels, height, width

    @property
    def without_effect(self) -> dict[str, str]:
        """Settings that have no effect with another one, and that one, as "density=uniform". A preset may have them, so
        that they are not refused, as `only_for` does."""
        return {}

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


def only_for(config: Config, key: str, used: bool, where: str) -> None:
    """Refuse a value that has no effect with the other settings; for the validators of a Config.

    Args:
        used: whether the key has an effect; if not, only its default is allowed.
        where: settings with which it has one, as "reconstruction=gaussian, not bce".
    Raises:
        ValueError: see above.
    """
    value = getattr(config, key)
    if not used and value != type(config).model_fields[key].default:
        raise ValueError(f"{key}={word(value)} is for {where}")


def make(kind: type[C], values: Mapping[str, Any]) -> C:
    """Build settings from plain values, as `trilemma.values` takes them: "5" is not a number.

    Raises:
        UserError: a sentence for each problem: an unknown key with the nearest one, or a value that does not fit.
    """
    fields = kind.model_fields
    converted = {key: plain(value, fields[key].annotation) if key in fields else value for key, value in values.items()}
    try:
        return kind.model_validate(converted, strict=True)
    except ValidationError as error:
        raise UserError(explained(kind, values, error)) from None


def explained(kind: type[Config], values: Mapping[str, Any], error: ValidationError) -> str:
    """The first problems that pydantic found with values, each in our words."""
    texts = list(dict.fromkeys(problems(kind.model_fields, values, error)))
    more = len(texts) - SHOWN_ERRORS
    return "; ".join([*texts[:SHOWN_ERRORS], *([f"and {more:,} more"] if more > 0 else [])])


def keywords_of(function: Callable[..., Any], without: Collection[str] = ()) -> type[Config]:
    """A function's keywords as settings, with their types and defaults.

    Args:
        without: those that are not settings.
    """
    types = annotations_of(function)
    fields: dict[str, Any] = {}
    for key, p in inspect.signature(function).parameters.items():
        named = p.kind is p.KEYWORD_ONLY or (p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty)
        if named and key not in without:
            fields[key] = types.get(key, Any), ... if p.default is p.empty else p.default
    return create_model("Keywords", __base__=Config, **fields)
