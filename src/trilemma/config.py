"""Frozen settings that go to JSON and back; an unknown key is an error that names the nearest one."""

from typing import Any, Self, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from trilemma.errors import UserError, with_hint

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every settings object. Fields carry their default; `help` texts live in Field(description=...)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    shape: tuple[int, int, int] = (1, 28, 28)  # channels, height, width


def make(kind: type[C], values: dict[str, Any]) -> C:
    """Build settings from plain values.

    Raises:
        UserError: in one line per problem: an unknown key with the nearest one, or a value that does not fit.
    """
    try:
        return kind(**{key: _as_tuple(kind, key, value) for key, value in values.items()})
    except ValidationError as error:
        raise UserError("; ".join(_explain(kind, e) for e in error.errors())) from None


def _as_tuple(kind: type[Config], key: str, value: Any) -> Any:
    """A single value where several may stand: hidden=128 means hidden=(128,)."""
    field = kind.model_fields.get(key)
    several = field is not None and get_origin(field.annotation) is tuple
    return (value,) if several and isinstance(value, int | float | str) else value


def _explain(kind: type[Config], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if not key:  # a rule about several keys
        return error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] != "extra_forbidden":
        return f"{key}={error['input']!r}: {error['msg'].removeprefix('Value error, ').lower()}"
    text = f'unknown key "{key}"; the keys here are {", ".join(kind.model_fields)}'
    return with_hint(text, key, kind.model_fields)
