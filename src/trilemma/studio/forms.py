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
from trilemma.errors import UserError, unknown_key
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
MOST_OF_MODEL: Mapping[str, float] = {  # widths, lengths and depths of networks
    "width": 2_048, "widths": 2_048, "critic_width": 2_048, "text_width": 4_096, "prior_width": 4_096, "styles": 4_096,
    "embedding": 4_096, "dim": 4_096, "hidden": 16_384, "latent": 16_384, "levels": 16_384, "codes": 65_536,
    "categories": 4_096, "variables": 4_096, "components": 4_096, "multipliers": 16, "depth": 64, "text_depth": 64,
    "prior_depth": 64, "mapping_layers": 64, "blocks": 64, "heads": 1_024, "n_classes": 65_536, "T": 1e5,
}  # fmt: skip
MOST_PIXELS_AT_ONCE = 2**28  # of all images that are drawn or measured at once, or of those of a step
MOST_PIXEL_STEPS = 10**11  # these times the steps of the sampler
NOT_OFFERED = {"out", "quiet", "pattern", "model"}
NOT_OFFERED |= {"run", "runs", "what", "data", "against", "source", "image"}  # chosen by ids
LONGEST_VALUE = 300  # letters
MOST_WORDS = 60
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}(\.[A-Za-z0-9_]{1,40})?")
PLACED = re.compile(r"(seed:)?-?[0-9.]+(,-?[0-9.e-]+)*")  # of keys that also take a path: a number, a code, a seed
CAPTIONS = {"caption"}
IMAGE_KEYS: Mapping[str, Sequence[str]] = {  # keys of a verb that take images: brought ones, by ids, or held-out ones
    "edit": ("image",), "upscale": ("image",), "traverse": ("image",), "interpolate": ("a", "b"), "invert": ("images",),
}  # fmt: skip
WITH_CODES = {"traverse", "interpolate"}  # verbs that take codes and seeds in their place, too
AXES = ("x", "y")  # keys whose value names another one, KEY:VALUE,VALUE
VARIED = ("seed", "label", "caption")  # keys that sample varies besides those of the sampler
MASK = re.compile(r"(outside:)?(-?[0-9]+, *){3}-?[0-9]+")  # a rectangle; an image is painted, and not named
RUN = "run:"  # before the id of a run, as the value of a key of RUN_KEYS
RUN_KEYS = ("guide", "init", "autoencoder")  # keys of models that take a run, chosen from a list
RUN_KIND = "run"  # of their fields


@dataclass(frozen=True)
class Field:
    """A key of a form.

    value: what is filled in; default: as it is typed, "" where the description explains it; options: values and texts
    of a list in which a run is chosen.
    """

    name: str
    about: str
    kind: str
    default: str = ""
    value: str = ""
    choices: Sequence[str] = ()
    basic: bool = False
    required: bool = False
    options: Sequence[tuple[str, str]] = ()

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
        Field(k, about, RUN_KIND if k in RUN_KEYS else "str", default, values.get(k, ""))
        for k, default, about in _of_model(verb, model)
        if k not in names
    ]
    order = {key: place for place, key in enumerate(basic)}
    return [*sorted(own, key=lambda field: order.get(field.name, len(order))), *more]


def is_offered(verb: Verb, key: str) -> bool:
    """Whether a key is typed into a form: words without a name, images, and what names a file, are not."""
    is_gathered = verb.gathers and key == verb.places[-1]
    return key not in NOT_OFFERED and key not in IMAGE_KEYS.get(verb.name, ()) and not is_gathered


def words_of(verb: Verb, filled: Mapping[str, str], model: str = "", sides: tuple[int, int] = (1, 1)) -> list[str]:
    """The words `key=value` of what was filled in; what is empty, or as by default, is left out.

    Args:
        sides: height and width of the images, px, where no key says them.

    Raises:
        UserError: a key is not one of the form, or its value does not fit.
    """
    known = {field.name: field for field in fields_of(verb, {}, model)}
    words = []
    for key, text in filled.items():
        text = text.strip()
        if key not in known or not KEY.fullmatch(key):
            raise _no_field(verb, key[:40], known)
        if text and text != known[key].default:
            if known[key].kind == RUN_KIND:
                raise UserError(f"{key}= takes no text here; choose from its list")
            check_text(key, text, verb.keys.get(key))
            if key in AXES:
                _check_varied(key, text, varied_keys(verb, model))
            words.append(f"{key}={text}")
    if len(words) > MOST_WORDS:
        raise UserError(f"{len(words)} keys are given, and {MOST_WORDS} are the most")
    _check_together(verb, words, model, sides)
    return words


def check_text(key: str, text: str, schema: Mapping[str, Any] | None) -> None:
    """Raises UserError for a text that a key does not take, or that asks too much."""
    if len(text) > LONGEST_VALUE or not text.isprintable():
        raise UserError(f"{key}= takes at most {LONGEST_VALUE} letters in one line")
    if key not in CAPTIONS and (re.search(r"[/\\~]|\.\.", text) or _may_be_path(key, text, schema or {})):
        raise UserError(f"{key}={text}: paths are not taken here; choose from what is listed")
    inner = text.partition(":")[0] if key in AXES else key
    name = inner.rpartition(".")[2]
    most = MOST.get(name, MOST_OF_MODEL.get(name, math.inf))
    if not all(number <= most for number in _numbers(text)):  # not a number is refused, too
        raise UserError(f"{key}={text} is more than {most:,.0f}, the most that the studio asks for")
    if schema is not None:
        check_value(key, text, schema)


def _check_together(verb: Verb, words: Iterable[str], model: str, sides: tuple[int, int]) -> None:
    """Raises UserError for numbers that are each within bounds and together ask too much: images times their pixels,
    and times the steps in which they are drawn; the arguments are those of `words_of`."""
    given = {key: text for key, _, text in (pair.partition("=") for pair in words)}
    height, *_, width = (_numbers(given.get("size", "")) or [*sides]) * 2
    cells = math.prod(1 + len(re.findall("[,|]", given[key])) for key in AXES if key in given)
    key = next((key for key in ("n", "batch") if key in verb.keys), "")
    counted = given.get(key) or (default_of(verb, key) if key else "")
    images = max(_numbers(counted), default=1) * cells
    pixels, steps = images * height * width, _steps(verb, given, model)
    what = f"{images:,} images of {height}x{width} pixels"
    if pixels > MOST_PIXELS_AT_ONCE:
        most = f"{MOST_PIXELS_AT_ONCE:,} pixels"
        raise UserError(f"{what} are more than {most}, the most that the studio asks for; take fewer")
    if pixels * steps > MOST_PIXEL_STEPS:
        most = f"{MOST_PIXEL_STEPS:,} pixels times steps"
        raise UserError(
            f"{what} in {steps:,} steps are more than {most}, the most that the studio asks for; take fewer"
        )


def _steps(verb: Verb, given: Mapping[str, str], model: str) -> float:
    """The most steps in which a sampler draws an image; 1 where the verb does not say them."""
    default = {name: default for name, default, _ in _of_model(verb, model)}.get("steps", "")
    if "steps" in verb.keys or not default:
        return 1
    varied = [text for key in AXES if (text := given.get(key, "")).startswith("steps:")]
    return max((number for text in [given.get("steps", default), *varied] for number in _numbers(text)), default=1)


def _no_field(verb: Verb, key: str, known: Iterable[str]) -> UserError:
    """The error for a key that a form does not have."""
    if key in verb.keys:
        return UserError(
            f"{key}= is not a field here, where runs, data and images are chosen from lists and results keep their "
            "places; give it in a terminal"
        )
    of = vocabulary.trained_with(key) if verb.name == "train" else vocabulary.sampled_with(key)
    return unknown_key(key, {verb.name: known}, of=of)


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
    own = [name for name, _, _ in _of_model(verb, model) if name not in RUN_KEYS]
    return [*VARIED, *own] if set(AXES) <= {*verb.keys} else []


def _check_varied(key: str, text: str, varied: Sequence[str]) -> None:
    """Raises UserError for a text of x= or y= that varies another key than these."""
    if (inner := text.partition(":")[0]) not in varied:
        raise UserError(f"{key}={text}: {inner} cannot vary here; give one of {', '.join(varied)}, as {key}=seed:1,2,3")


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
    if key == "mask":
        return MASK.fullmatch(text) is None
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
