"""Whether a value is of the type that is asked for; if not, a sentence that says what was given and what is allowed.

pydantic does the checks, strictly: a text is not a number, true is not 1. Forms that say the same are brought into one
before (a list for a tuple, 16.0 for 16, a number of NumPy). What is allowed is said from the types and bounds.
"""

import inspect
import math
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from trilemma.arguments import FALSE, TRUE, parse_value, word
from trilemma.errors import UserError, with_hint

P = ParamSpec("P")
R = TypeVar("R")

SHOWN = 60  # letters of a value in a message
EXACT = 2**53  # a float below it that looks like a whole number is one
NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "none",
    "Path": "a path",
    "Run": "a run",
    "Data": "loaded data",
    "Tensor": "a tensor",
    "ndarray": "an array",
}
ENDS = {"ge": "of at least", "gt": "above", "le": "up to", "lt": "below", "multiple_of": "that is a multiple of"}
UNIONS = (Union, types.UnionType)
SEVERAL = (tuple, Sequence)


def checked_call(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which refuses arguments of a wrong type before it does anything.

    Raises:
        UserError: of the call: an argument is missing, unknown, or does not fit its annotation.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **keys: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **keys)
        except TypeError as error:
            raise UserError(_call_mistake(function.__name__, signature, error, keys)) from None
        for name, annotation in _annotations(function).items():
            if name in bound.arguments:
                bound.arguments[name] = _checked_argument(name, annotation, bound.arguments[name])
        return function(*bound.args, **bound.kwargs)

    return call


def check_value(key: str, annotation: Any, value: Any) -> Any:
    """A value as one of a type.

    Raises:
        UserError: if it does not fit.
    """
    try:
        return _adapter(annotation).validate_python(plain(value, annotation))
    except ValidationError:
        raise refusal(key, value, annotation) from None


def refusal(key: str, value: Any, annotation: Any, bounds: Sequence[Any] = ()) -> UserError:
    """The sentence for a value that does not fit a type with bounds.

    >>> str(refusal("steps", "5", int)), str(refusal("code", "rely", Literal["none", "relu"]))
    ("steps='5': give a whole number, not a text", 'code=rely: give one of none, relu (did you mean "relu"?)')
    """
    wanted = allowed(annotation, bounds)
    if isinstance(value, str) and not value:
        return UserError(f"{key}= has no value; give {wanted}")
    if isinstance(value, float) and not math.isfinite(value):
        wanted = wanted.replace("a number", "a finite number")
    if isinstance(value, str) and not isinstance(parse_value(value), str):
        return UserError(f"{key}={shown(value)!r}: give {wanted}, not a text")
    text = f"{key}={shown(value)}: give {wanted}"
    return UserError(with_hint(text, value, _choices(annotation)) if isinstance(value, str) else text)


def shown(value: Any) -> str:
    """A value in a message: as it is typed, or what kind of object it is.

    >>> shown((1, 2.5)), shown({1, 2}), shown("a" * 100)[-5:]
    ('1,2.5', '(a set)', 'aa...')
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"({type(value).__name__} of shape {tuple(value.shape)})"
    if hasattr(value, "__fspath__"):
        value = str(value)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else [value]
    if not all(part is None or isinstance(part, str | int | float) for part in parts):
        return f"(a {type(value).__name__})"
    text = word(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def allowed(annotation: Any, bounds: Sequence[Any] = ()) -> str:
    """What a value of a type with bounds may be, in words.

    >>> allowed(int | None), allowed(Literal["a", "b"] | bool), allowed(tuple[float, float])
    ('a whole number or none', 'one of a, b or true or false', '2 values with a comma between, each a number')
    """
    origin, inner = get_origin(annotation), list(get_args(annotation))
    if origin is Annotated:
        title = next((part.title for part in inner[1:] if isinstance(part, FieldInfo) and part.title), None)
        return title or allowed(inner[0], [*bounds, *inner[1:]])
    if origin in UNIONS:
        texts = list(dict.fromkeys(allowed(part, bounds) for part in inner if part is not type(None)))
        text = " or ".join(text for text in texts if text != NAMES[str] or NAMES["Path"] not in texts)
        return text if type(None) not in inner else f"{text}{', or' if ',' in text else ' or'} none"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else str(inner[0])
    if origin is not None:
        return _several(origin, *inner, least=_stated(bounds, "min_length").get("min_length", 1))
    name = getattr(annotation, "__name__", str(annotation))
    return NAMES.get(annotation, NAMES.get(name, f"a {name}")) + _within(annotation, bounds)


def _several(origin: type, first: Any = Any, *more: Any, least: int) -> str:
    """What a collection of at least so many values may be, in words."""
    if origin is tuple:
        several = f"{'one' if least < 2 else least} or more values with commas"
        count = several if more == (...,) else f"{1 + len(more)} values with a comma"
        return f"{count} between, each {allowed(first)}"
    if origin is dict:
        return f"NAME:VALUE with commas between, each value {allowed(more[0])}"
    return f"a list, each {allowed(first)}" if issubclass(origin, Sequence) else f"a {origin.__name__}"


def plain(value: Any, annotation: Any) -> Any:
    """A value in the one form that a strict check of that type takes; itself where it has no such form.

    >>> plain(128, tuple[int, ...]), plain([1.0, 2], tuple[int, ...]), plain("yes", bool), plain("5", int)
    ((128,), (1, 2), True, '5')
    >>> plain("flip,shift", Sequence[str]), plain("0,4", int | Sequence[int]), plain(Path("runs/a"), str | None)
    (('flip', 'shift'), (0, 4), 'runs/a')
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, range):
        value = list(value)
    if annotation is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return plain(value, inner[0])
    if origin in UNIONS:
        kinds = [part for part in inner if part is not type(None)]
        return _plain_of_union(value, kinds)
    if origin is tuple or (origin is Sequence and isinstance(value, str)):
        return _plain_tuple(value, inner if origin is tuple else (*inner, ...))
    if annotation is bool and not isinstance(value, bool):
        words = dict.fromkeys(TRUE, True) | dict.fromkeys(FALSE, False) | {1: True, 0: False}
        return words.get(value.lower() if isinstance(value, str) else value, value) if _hashable(value) else value
    whole = annotation is int and isinstance(value, float) and value.is_integer() and abs(value) < EXACT
    return int(value) if whole else value


def _plain_of_union(value: Any, kinds: Sequence[Any]) -> Any:
    """In the form of the only kind, or of a tuple among several where a list is given, or a text that is none else."""
    if len(kinds) == 1:
        return plain(value, kinds[0])
    if isinstance(value, list) or (isinstance(value, str) and not {str, Path} & {*kinds}):
        return plain(value, next((kind for kind in kinds if get_origin(kind) in SEVERAL), None))
    whole = any(kind is int for kind in kinds) and not any(kind is float for kind in kinds)
    return plain(value, int) if whole else value


def _plain_tuple(value: Any, inner: Sequence[Any]) -> Any:
    """A single value where several may stand: hidden=128 means hidden=(128,), "a,b" ("a", "b"), and "" none at all."""
    if isinstance(value, str):
        words = [part.strip() for part in value.split(",") if part.strip()]
        value = tuple(words if inner[0] is str else map(parse_value, words))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = (value,)
    if not isinstance(value, list | tuple):
        return value
    kinds = [*inner[:1]] * len(value) if inner[1:] == (...,) else [*inner, *[None] * len(value)]
    return tuple(plain(part, kind) for part, kind in zip(value, kinds, strict=False))


def _hashable(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _within(annotation: Any, bounds: Sequence[Any]) -> str:
    """The bounds of a number, in words, with a space before."""
    if annotation not in (int, float):
        return ""
    ends = _stated(bounds, *ENDS)
    if annotation is int and "gt" in ends:
        ends["ge"] = ends.pop("gt") + 1
    texts = [f"{words} {word(ends[name])}" for name, words in ENDS.items() if name in ends]
    return f" {' and '.join(texts)}" if texts else ""


def _stated(bounds: Sequence[Any], *names: str) -> dict[str, Any]:
    """The bounds of these names that are stated."""
    parts = [part for bound in bounds for part in (bound.metadata if isinstance(bound, FieldInfo) else [bound])]
    return {name: getattr(part, name) for part in parts for name in names if getattr(part, name, None) is not None}


def _choices(annotation: Any) -> list[str]:
    """The texts that a type allows by name."""
    if get_origin(annotation) is Literal:
        return [choice for choice in get_args(annotation) if isinstance(choice, str)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _checked_argument(name: str, annotation: Any, value: Any) -> Any:
    """The value, in its plain form."""
    check_value(name, annotation, value)
    return plain(value, annotation)


def _call_mistake(name: str, signature: inspect.Signature, error: TypeError, keys: Mapping[str, Any]) -> str:
    """A call that does not fit the signature, in a sentence."""
    own = [key for key, p in signature.parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    strange = next((key for key in keys if key not in own), None)
    if strange is not None and "unexpected" in str(error):
        return with_hint(f'unknown key "{strange}"; {name} takes {", ".join(own)}', strange, own)
    if "too many positional" in str(error):
        places = [key for key, p in signature.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
        return f"{name} takes {', '.join(places)} without a name, and other values by name, as {own[-1]}=..."
    return f"{name}: {error}"


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False))


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's arguments; not those that are imported for type checkers alone."""
    plain_function, hints = inspect.unwrap(function), {}
    gathers = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in gathers or parameter.annotation is parameter.empty:
            continue
        one = types.SimpleNamespace(__annotations__={name: parameter.annotation})
        try:
            hint = get_type_hints(one, plain_function.__globals__, include_extras=True)[name]
            _adapter(hint)
        except (NameError, TypeError, PydanticUserError):
            continue
        hints[name] = hint
    return hints


_annotations = cache(annotations_of)


def problems(fields: Mapping[str, FieldInfo], values: Mapping[str, Any], error: ValidationError) -> Iterator[str]:
    """A sentence for each thing that pydantic found wrong with values for fields."""
    for mistake in error.errors():
        own = mistake["msg"].removeprefix("Value error, ")
        if not mistake["loc"]:  # a rule about several keys
            yield own
            continue
        key = str(mistake["loc"][0])
        if mistake["type"] == "extra_forbidden":
            yield with_hint(f'unknown key "{key}"; the keys here are {", ".join(fields)}', key, fields)
        elif key not in values:
            yield f"{key} is missing"
        elif mistake["type"] == "value_error":  # a rule about one key
            yield f"{key}={shown(values[key])}: {own}"
        else:
            yield str(refusal(key, values[key], fields[key].annotation, fields[key].metadata))
