"""Forms made from the keys of a verb, and the words of a command line made from what was filled in.

What a page sends is checked before a job is made of it: only known keys, numbers within the bounds of their schema and
of MOST, texts that are not paths. Runs, data and images are chosen by ids, which the service turns into words.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trilemma import vocabulary
from trilemma.arguments import TRUE, parse_settings, parse_value, word
from trilemma.errors import UserError
from trilemma.verbs import Verb, check_value, default_of, kind_of, kinds, parse

BASIC: Mapping[str, Sequence[str]] = {  # keys that a form shows first
    "train": ("minutes", "epochs", "size", "batch", "lr", "seed", "augment"),
    "sample": ("n", "seed", "label", "caption", "x", "y"),
    "compare": ("models", "minutes", "seeds", "want", "size", "seed", "lang"),
    "detect": ("false_alarms", "normal", "score"),
    "edit": ("mask", "strength", "towards", "noise", "n", "seed"),
    "interpolate": ("frames", "how"),
    "traverse": ("axes", "units", "plane", "label"),
}
MOST: Mapping[str, float] = {  # on top of the bounds of the verb: what one page may ask of the machine
    "n": 10_000, "steps": 1e7, "epochs": 1e5, "images": 1e10, "minutes": 7 * 24 * 60, "size": 512, "batch": 65_536,
    "frames": 200, "seeds": 20, "bound_images": 1e5, "bound_samples": 1e4, "inverted": 1e4, "neighbours": 50,
    "parameters": 1e9, "rounds": 100, "real": 1e5,
}  # fmt: skip
NOT_OFFERED = {"out", "quiet", "pattern", "model"}
NOT_OFFERED |= {"run", "runs", "what", "data", "against", "source", "image"}  # chosen by ids
LONGEST_VALUE = 300  # letters
MOST_WORDS = 60
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}(\.[A-Za-z0-9_]{1,40})?")
PLACED = re.compile(r"(seed:)?-?[0-9.]+(,-?[0-9.e-]+)*")  # of keys that also take a path: a number, a code, a seed
CAPTIONS = {"caption"}
IMAGES: Mapping[str, Sequence[str]] = {  # keys of a verb that take images: brought ones, by ids, or held-out ones
    "edit": ("image",), "upscale": ("image",), "traverse": ("image",), "interpolate": ("a", "b"), "invert": ("images",),
}  # fmt: skip
WITH_CODES = {"traverse", "interpolate"}  # verbs that take codes and seeds in their place, too
AXES = ("x", "y")  # keys whose value names another one, KEY:VALUE,VALUE
VARIED = ("seed", "label", "caption")  # keys that sample varies besides those of the sampler


@dataclass(frozen=True)
class Field:
    """A key of a form. value: what is filled in; default: as it is typed, "" where the description explains it."""

    name: str
    about: str
    kind: str
    default: str = ""
    value: str = ""
    choices: Sequence[str] = ()
    basic: bool = False
    required: bool = False

    @property
    def is_flag(self) -> bool:
        """Whether it is yes or no."""
        return self.kind == "bool"

    @property
    def is_number(self) -> bool:
        """Whether a phone shows its keys for numbers."""
        return self.kind in ("int", "float")


def fields_of(verb: Verb, values: Mapping[str, str], model: str = "") -> list[Field]:
    """The keys of a verb as fields, the basic ones first; with a model, also its own.

    Args:
        values: what is filled in, by key.
    """
    basic = BASIC.get(verb.name, ())
    own = [
        Field(key, schema.get("description", ""), kind_of(schema), default_of(verb, key), values.get(key, ""),
              _choices(schema), key in basic, key in verb.required)
        for key, schema in verb.keys.items() if is_offered(verb, key)
    ]  # fmt: skip
    names = {field.name for field in own}
    more = [
        Field(k, about, "str", default, values.get(k, ""))
        for k, default, about in _of_model(verb, model)
        if k not in names
    ]
    order = {key: place for place, key in enumerate(basic)}
    return [*sorted(own, key=lambda field: order.get(field.name, len(order))), *more]


def is_offered(verb: Verb, key: str) -> bool:
    """Whether a key is typed into a form: words without a name, images, and what names a file, are not."""
    is_gathered = verb.gathers and key == verb.places[-1]
    return key not in NOT_OFFERED and key not in IMAGES.get(verb.name, ()) and not is_gathered


def words_of(verb: Verb, filled: Mapping[str, str], model: str = "") -> list[str]:
    """The words `key=value` of what was filled in; what is empty, or as by default, is left out.

    Raises:
        UserError: a key is not one of the form, or its value does not fit.
    """
    known = {field.name: field for field in fields_of(verb, {}, model)}
    words = []
    for key, text in filled.items():
        text = text.strip()
        if key not in known or not KEY.fullmatch(key):
            raise UserError(f'"{key[:40]}" is not a key of {verb.name}')
        if text and text != known[key].default:
            check_text(key, text, verb.keys.get(key))
            words.append(f"{key}={text}")
    if len(words) > MOST_WORDS:
        raise UserError(f"{len(words)} keys are given, and {MOST_WORDS} are the most")
    return words


def check_text(key: str, text: str, schema: Mapping[str, Any] | None) -> None:
    """Raises UserError for a text that a key does not take, or that asks too much."""
    if len(text) > LONGEST_VALUE or not text.isprintable():
        raise UserError(f"{key}= takes at most {LONGEST_VALUE} letters in one line")
    if key not in CAPTIONS and (re.search(r"[/\\~]|\.\.", text) or _may_be_path(key, text, schema or {})):
        raise UserError(f"{key}={text}: paths are not taken here; choose from what is listed")
    inner = text.partition(":")[0] if key in AXES else key
    most = MOST.get(inner.rpartition(".")[2], math.inf)
    if not all(number <= most for number in _numbers(text)):  # not a number is refused, too
        raise UserError(f"{key}={text} is more than {most:,.0f}, the most that the studio asks for")
    if schema is not None:
        check_value(key, text, schema)


def python_line(verb: Verb, places: Iterable[str], words: Iterable[str]) -> str:
    """The call in Python that does the same as a command line.

    >>> from trilemma.verbs import find
    >>> python_line(find("train"), ["vae", "digits"], ["minutes=2", "lr=0.01"])
    'trilemma.train("vae", "digits", minutes=2.0, lr=0.01)'
    """
    texts = [_python(text) for text in places]
    for key, _, text in (pair.partition("=") for pair in words):
        schema = verb.keys.get(key)
        value = parse_value(text) if schema is None else _parsed(text, schema)
        texts.append(f"{key}={_python(value)}" if key.isidentifier() else f'**{{"{key}": {_python(value)}}}')
    return f"trilemma.{verb.function}({', '.join(texts)})"


def values_of(verb: Verb, words: Iterable[str]) -> dict[str, Any]:
    """The values of words `key=value`, by key.

    >>> from trilemma.verbs import find
    >>> values_of(find("train"), ["minutes=2", "augment=flip", "hidden=64,32"])
    {'minutes': 2.0, 'augment': 'flip', 'hidden': (64, 32)}
    """
    pairs = [pair.partition("=") for pair in words]
    known = {key: _parsed(text, verb.keys[key]) for key, _, text in pairs if key in verb.keys}
    return known | parse_settings([f"{key}={text}" for key, _, text in pairs if key not in verb.keys])


def varied_keys(verb: Verb, model: str) -> list[str]:
    """The keys that x= and y= may vary, for a verb that has them and a model of ours; else none."""
    own = [name for name, _, _ in _of_model(verb, model) if name != "guide"]
    return [*VARIED, *own] if set(AXES) <= {*verb.keys} else []


def is_data_word(text: str) -> bool:
    """Whether a text names data that need no path: a word of `trilemma data list`, with a number where it has one."""
    name, _, number = text.partition(":")
    return name in vocabulary.data_words() and (not number or (number.isdigit() and int(number) <= 1_000_000))


def _of_model(verb: Verb, model: str) -> list[tuple[str, str, str]]:
    """Name, default and meaning of the keys that a model has for a verb."""
    if model not in vocabulary.models() or not verb.open:
        return []
    entry, tables = vocabulary.model_entry(model), ("keys", "training") if verb.name == "train" else ("sampling",)
    return [tuple(row) for table in tables for row in entry[table]]


def _choices(schema: Mapping[str, Any]) -> list[str]:
    if kinds(schema) == {"boolean"}:
        return []
    return [word(choice) for choice in schema.get("enum", ()) if choice is not None]


def _may_be_path(key: str, text: str, schema: Mapping[str, Any]) -> bool:
    """Whether a key would take a text for a path: it takes paths, and this is not one of the other things it takes."""
    parts = [schema, *schema.get("anyOf", ())]
    return any(part.get("format") == "path" for part in parts) and not PLACED.fullmatch(text)


def _numbers(text: str) -> list[float]:
    """The numbers in a text: one, several, behind names, or the sides of a size.

    >>> _numbers("48x64"), _numbers("g:1E9,1_000"), _numbers("auto")
    ([48, 64], [1000000000.0, 1000], [])
    """
    values = [parse_value(part.strip()) for part in re.split("[,:x]", text)]
    return [value for value in values if isinstance(value, int | float)]


def _parsed(text: str, schema: Mapping[str, Any]) -> Any:
    return text in TRUE if kinds(schema) == {"boolean"} else parse(text, schema)


def _python(value: object) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else repr(value)
