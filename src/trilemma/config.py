"""Frozen settings that go to JSON and back; an unknown key is an error that names the nearest one."""

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from trilemma.errors import UserError
from trilemma.values import plain, problems

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


def make(kind: type[C], values: Mapping[str, Any]) -> C:
    """Build settings from plain values, as `trilemma.values` takes them: "5" is no number.

    Raises:
        UserError: a sentence for each problem: an unknown key with the nearest one, or a value that does not fit.
    """
    fields = kind.model_fields
    given = {key: plain(value, fields[key].annotation) if key in fields else value for key, value in values.items()}
    try:
        return kind.model_validate(given, strict=True)
    except ValidationError as error:
        raise UserError("; ".join(dict.fromkeys(problems(fields, values, error)))) from None


def config_of(model: object) -> ModelConfig | None:
    """A model's settings; None for a module without any."""
    config = getattr(model, "config", None)
    return config if isinstance(config, ModelConfig) else None
