"""What a function's signature says of its arguments: as a Config, and as a JSON schema of those that can be typed."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticOmit

from trilemma.config import Config
from trilemma.verbs import Verb, function_of

Schema = dict[str, Any]


class Keys(Config):
    """The arguments of a function."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


def arguments_of(function: Callable[..., Any], fields: Mapping[str, FieldInfo] | None = None) -> type[Keys]:
    """The arguments of a function as settings: types, defaults, bounds and descriptions.

    Args:
        fields: describe keys of the same names that the signature does not.
    """
    keys, descriptions = {}, fields or {}
    for name, parameter, annotation in _parameters(function):
        default = ... if parameter.default is parameter.empty else parameter.default
        if parameter.kind is parameter.VAR_POSITIONAL:
            annotation, default = _gathered(annotation), ()
        elif name in descriptions and not hasattr(annotation, "__metadata__"):
            annotation = _described(descriptions[name], default)
        keys[name] = (annotation, default)
    return create_model("Keys", __base__=Keys, **keys)


def schema_of(verb: Verb) -> Schema:
    """A verb's keys as a JSON schema; `positional` names those that need no name, `variadic` says if the last takes
    several words."""
    function, kinds = function_of(verb.function), inspect.Parameter
    module, _, name = verb.fields.partition(":")
    fields = getattr(import_module(module), name) if module else None
    schema = arguments_of(function, fields).model_json_schema(schema_generator=_Typed)
    parameters = inspect.signature(function).parameters.values()
    places = [p for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.VAR_POSITIONAL)]
    return {
        "type": "object",
        "properties": {name: part for name, value in schema["properties"].items() if (part := plainer(value))},
        "required": schema.get("required", []),
        "positional": [p.name for p in places],
        "variadic": any(p.kind is kinds.VAR_POSITIONAL for p in places),
        "additionalProperties": any(p.kind is kinds.VAR_KEYWORD for p in parameters),
    }


def plainer(schema: Schema) -> Schema:
    """A schema without what nobody can type, with one `type` where it allows a single kind of value, or none; empty
    where nothing can be typed.

    >>> plainer({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None})
    {'type': ['integer', 'null'], 'minimum': 1, 'default': None}
    """
    parts = list(_parts(schema))
    paths = any(part.get("format") == "path" for part in parts)
    parts = [part for part in parts if not (paths and part == {"type": "string"})]
    kinds = [part for part in parts if part != {"type": "null"}]
    own = {key: value for key, value in schema.items() if key not in ("anyOf", "title")}
    if "anyOf" not in schema:
        return own | ({"items": plainer(schema["items"])} if "items" in schema else {})
    if not kinds:
        return {}
    if len(kinds) > 1:
        return {"anyOf": parts, **own}
    (kind,) = kinds
    if len(parts) > 1:
        kind = {**kind, "type": [kind["type"], "null"]} | ({"enum": [*kind["enum"], None]} if "enum" in kind else {})
    return {**kind, **own}


def _parts(schema: Schema) -> Iterator[Schema]:
    """The alternatives of a schema that can be typed; objects of the code, and pairs of arrays, cannot."""
    for part in schema.get("anyOf", []):
        if "anyOf" in part:
            yield from _parts(part)
        elif "$ref" not in part and {} not in part.get("prefixItems", ()):
            yield plainer(part)


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[str, inspect.Parameter, Any]]:
    """Name, parameter and type of each argument but `**settings`."""
    names = _Names(inspect.unwrap(function).__globals__)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            one = SimpleNamespace(__annotations__={name: parameter.annotation})
            yield name, parameter, get_type_hints(one, {}, names, include_extras=True)[name]


class _Names(dict[str, Any]):
    """The names of a module; one that it imports for type checkers alone stands for a class that nobody can type."""

    def __missing__(self, name: str) -> Any:
        import builtins

        return getattr(builtins, name, type(name, (), {}))


def _gathered(annotation: Any) -> Any:
    """The type of all words of `*args`, with the description of one."""
    metadata = getattr(annotation, "__metadata__", ())
    return Annotated[(Sequence[getattr(annotation, "__origin__", annotation)], *metadata)]


def _described(field: FieldInfo, default: Any) -> Any:
    """The type of a field with its bounds and its description; None is allowed where it is the default."""
    kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return Annotated[kind | None if default is None else kind, Field(description=field.description)]


class _Typed(GenerateJsonSchema):
    """Leaves out what JSON does not hold, such as a run or images in memory, and titles made of names."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Any:
        raise PydanticOmit

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
